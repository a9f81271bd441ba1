//! Sentences from patterns: `how [can|do] i stop [it|]` stands for four, `<how>` for a pattern of its own.

use crate::chance::Chance;

/// One topic: patterns of questions, and the answer to them all.
pub struct Topic {
    pub questions: Vec<String>,
    pub answer: String,
}

/// What each `<name>` stands for.
pub struct Grammar {
    rules: Vec<(String, String)>,
}

impl Grammar {
    /// From lines of `name: pattern`.
    pub fn parse(text: &str) -> Self {
        let rule = |line: String| line.split_once(": ").map(|(name, pattern)| (name.into(), pattern.into()));
        Self { rules: lines(text).into_iter().filter_map(rule).collect() }
    }

    /// One sentence of `pattern`, with single spaces.
    pub fn phrase(&self, pattern: &str, chance: &mut Chance) -> String {
        let mut out = String::new();
        self.expand(pattern, chance, &mut out);
        let words: Vec<_> = out.split(' ').filter(|word| !word.is_empty()).collect();
        words.join(" ")
    }

    fn expand(&self, pattern: &str, chance: &mut Chance, out: &mut String) {
        let mut rest = pattern;
        while let Some(at) = rest.find(['[', '<']) {
            out.push_str(&rest[..at]);
            if rest.as_bytes()[at] == b'<' {
                let end = at + rest[at..].find('>').expect("a closed <name>");
                let name = &rest[at + 1..end];
                let rule = self.rules.iter().find(|(rule, _)| rule == name);
                let (_, rule) = rule.unwrap_or_else(|| panic!("no rule {name:?}"));
                self.expand(rule, chance, out);
                rest = &rest[end + 1..];
            } else {
                let (choices, after) = alternatives(&rest[at + 1..]);
                self.expand(choices[chance.below(choices.len())], chance, out);
                rest = after;
            }
        }
        out.push_str(rest);
    }
}

/// Topics from text: lines of patterns, then a line `= answer`.
pub fn parse_topics(text: &str) -> Vec<Topic> {
    let (mut topics, mut questions) = (Vec::new(), Vec::new());
    for line in lines(text) {
        match line.strip_prefix("= ") {
            Some(answer) => topics.push(Topic { questions: std::mem::take(&mut questions), answer: answer.into() }),
            None => questions.push(line),
        }
    }
    topics
}

/// The lines of `text` that are neither empty nor comments; an indented line goes on where the one before it ended.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix("  "), lines.last_mut()) {
            (Some(rest), Some(last)) => last.push_str(rest),
            _ => lines.push(line.into()),
        }
    }
    lines
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, sentences: &[&str]) {
        let grammar = Grammar::parse("# colours\ncolour: [red|\n  green]\n");
        let mut chance = Chance::new(3);
        let seen: BTreeSet<_> = (0..200).map(|_| grammar.phrase(pattern, &mut chance)).collect();
        assert_eq!(seen, sentences.iter().map(|sentence| sentence.to_string()).collect(), "{pattern}");
    }

    #[test]
    fn patterns_stand_for_their_sentences() {
        check("plain", &["plain"]);
        check("[a|b] c", &["a c", "b c"]);
        check("a [|very] b", &["a b", "a very b"]);
        check("[a [b|c]|d]", &["a b", "a c", "d"]);
        check("a[, b|]", &["a, b", "a"]);
        check(
            "<colour> [lamp|<colour>]",
            &["green green", "green lamp", "green red", "red green", "red lamp", "red red"],
        );
    }

    #[test]
    fn topics_end_with_their_answer() {
        let topics = parse_topics("# comment\none\ntwo\n  more\n= yes\n\nthree\n= no\n");
        let parts: Vec<_> = topics.iter().map(|topic| (topic.questions.join("/"), topic.answer.as_str())).collect();
        assert_eq!(parts, [("one/twomore".to_string(), "yes"), ("three".to_string(), "no")]);
    }
}
