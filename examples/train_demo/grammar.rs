//! Phrases from patterns: `how [can|do] i stop [it|]` stands for four sentences, `<how>` for a pattern of its own.
//!
//! Also the only source of chance in this example, so that one seed gives one corpus and one initialisation.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, seeded, the same on every machine.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Named patterns that others refer to as `<name>`.
pub type Rules = &'static [(&'static str, &'static str)];

/// One sentence of `pattern`, with single spaces.
pub fn phrase(pattern: &str, rules: Rules, chance: &mut Chance) -> String {
    let mut out = String::new();
    expand(pattern, rules, chance, &mut out);
    let words: Vec<_> = out.split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

fn expand(pattern: &str, rules: Rules, chance: &mut Chance, out: &mut String) {
    let mut rest = pattern;
    while let Some(at) = rest.find(['[', '<']) {
        out.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b'<' {
            let end = at + rest[at..].find('>').expect("a closed <name>");
            let name = &rest[at + 1..end];
            let (_, rule) = rules.iter().find(|(rule, _)| *rule == name).unwrap_or_else(|| panic!("no rule {name}"));
            expand(rule, rules, chance, out);
            rest = &rest[end + 1..];
        } else {
            let (choices, after) = alternatives(&rest[at + 1..]);
            let choice = choices[chance.below(choices.len())];
            expand(choice, rules, chance, out);
            rest = after;
        }
    }
    out.push_str(rest);
}

/// Splits what follows a `[` into its choices and what stands behind the matching `]`.
fn alternatives(pattern: &str) -> (Vec<&str>, &str) {
    let (mut choices, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 0 => {
                choices.push(&pattern[start..at]);
                return (choices, &pattern[at + 1..]);
            }
            b']' => depth -= 1,
            b'|' if depth == 0 => {
                choices.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    panic!("no closing bracket in {pattern:?}");
}
