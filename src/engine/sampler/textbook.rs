//! Every filter as its definition has it, over a sorted vocabulary and in quadratic time where that is plainer, and the test
//! that holds the sampler to it: random rows, parameters, histories and orders.

use super::oracle::{logits, naive};
use super::*;
use crate::engine::{
    fake::Rng,
    kernels::exp,
    request::{Dry, DynamicTemperature, Mirostat, MirostatVersion, Xtc},
};

/// Texts of so many tokens, by id.
struct Words(Vec<String>);

impl Texts for Words {
    fn bytes(&self, token: u32) -> &[u8] {
        self.0.get(token as usize).map_or(&[], |word| word.as_bytes())
    }
}

/// The tokens that are left, best first.
type Ranked = Vec<Candidate>;

fn rank(tokens: &mut Ranked) {
    tokens.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap().then(a.id.cmp(&b.id)));
}

/// Relative to the best one; exponentials are the definition, shared with the sampler.
fn weights(tokens: &Ranked) -> Vec<f64> {
    tokens.iter().map(|token| f64::from(exp(token.logit - tokens[0].logit))).collect()
}

fn edit(tokens: &mut Ranked, id: u32, change: impl Fn(f32) -> f32) {
    for token in tokens.iter_mut().filter(|token| token.id == id) {
        token.logit = change(token.logit).clamp(-1e30, 1e30);
    }
    rank(tokens);
}

fn penalties(tokens: &mut Ranked, ask: &Ask) {
    let params = ask.params;
    let start = params.penalty_tokens.map_or(0, |count| ask.tokens.len().saturating_sub(count));
    for id in 0..=tokens.iter().map(|token| token.id).max().unwrap_or(0) {
        if ask.tokens[start..].contains(&id) {
            let penalty = params.repetition_penalty;
            edit(tokens, id, |logit| if logit > 0.0 { logit / penalty } else { logit * penalty });
        }
        let count = ask.tokens[ask.prompt_tokens..].iter().filter(|&&token| token == id).count();
        if count > 0 {
            edit(tokens, id, |logit| logit - (params.presence_penalty + count as f32 * params.frequency_penalty));
        }
    }
}

/// Tokens after the last one in which a breaker ends.
fn unbroken(window: &[u32], breakers: &[String], texts: &dyn Texts) -> usize {
    let text: Vec<u8> = window.iter().flat_map(|&token| texts.bytes(token)).copied().collect();
    let whose: Vec<usize> =
        window.iter().enumerate().flat_map(|(i, &token)| vec![i; texts.bytes(token).len()]).collect();
    let ends = breakers.iter().flat_map(|breaker| {
        let found = text.windows(breaker.len()).enumerate().filter(|(_, part)| *part == breaker.as_bytes());
        found.map(|(at, _)| whose[at + breaker.len() - 1]).collect::<Vec<_>>()
    });
    ends.max().map_or(window.len(), |last| window.len() - 1 - last)
}

fn dry(tokens: &mut Ranked, dry: &Dry, ask: &Ask) {
    let start = dry.last_tokens.map_or(0, |count| ask.tokens.len().saturating_sub(count));
    let window = &ask.tokens[start..];
    let length_max = unbroken(window, &dry.breakers, ask.texts);
    let mut longest = std::collections::HashMap::new();
    for follower in 1..window.len() {
        let common = (1..=follower).take_while(|&l| window[follower - l] == window[window.len() - l]).count();
        let length = longest.entry(window[follower]).or_insert(0);
        *length = common.min(length_max).max(*length);
    }
    for (id, length) in longest {
        let text = String::from_utf8_lossy(ask.texts.bytes(id)).into_owned();
        let breaks = dry.breakers.iter().any(|breaker| text.contains(breaker));
        if length >= dry.allowed_length && length_max >= dry.allowed_length && !breaks {
            let penalty = dry.multiplier * dry.base.powf(length as f32 - dry.allowed_length as f32);
            edit(tokens, id, |logit| logit - penalty.min(f32::MAX));
        }
    }
}

/// The first ones, in an order, that have the share `kept` together.
fn until(order: &[usize], weights: &[f64], kept: f32) -> usize {
    let total: f64 = weights.iter().sum();
    let mut mass = 0.0;
    let last = order.iter().position(|&i| {
        mass += weights[i];
        mass >= f64::from(kept) * total
    });
    last.map_or(order.len(), |last| last + 1)
}

fn typical(tokens: &mut Ranked, kept: f32) {
    let weights = weights(tokens);
    let total: f64 = weights.iter().sum();
    let logarithm = |i: usize| f64::from(tokens[i].logit) - f64::from(tokens[0].logit) - total.ln();
    let entropy: f64 = (0..tokens.len()).map(|i| -weights[i] / total * logarithm(i)).sum();
    let distance = |i: usize| (-logarithm(i) - entropy).abs();
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by(|&a, &b| (distance(a) as f32).total_cmp(&(distance(b) as f32)).then(tokens[a].id.cmp(&tokens[b].id)));
    order.truncate(until(&order, &weights, kept));
    *tokens = order.into_iter().map(|i| tokens[i]).collect();
    rank(tokens);
}

fn top_n_sigma(tokens: &mut Ranked, n: f32) {
    let count = tokens.len() as f64;
    let mean = tokens.iter().map(|token| f64::from(token.logit)).sum::<f64>() / count;
    let variance = tokens.iter().map(|token| (f64::from(token.logit) - mean).powi(2)).sum::<f64>() / count;
    let least = (f64::from(tokens[0].logit) - f64::from(n) * variance.sqrt()) as f32;
    tokens.retain(|token| token.logit >= least);
}

fn xtc(tokens: &mut Ranked, xtc: Xtc, ask: &Ask) {
    if uniform(ask.seed ^ 0x5854_4321_9d1b_c3e7, ask.tokens.len() as u64) >= f64::from(xtc.probability) {
        return;
    }
    let weights = weights(tokens);
    let total: f64 = weights.iter().sum();
    let above = weights.iter().filter(|&&weight| weight >= f64::from(xtc.threshold) * total).count();
    tokens.drain(..above.saturating_sub(1));
}

fn temperature(tokens: &mut Ranked, params: &SamplingParams) {
    let mut temperature = params.temperature;
    if let Some(DynamicTemperature { range, exponent }) = params.dynamic_temperature {
        if tokens.len() <= 1 {
            return;
        }
        let weights = weights(tokens);
        let total: f64 = weights.iter().sum();
        let logarithm = |i: usize| f64::from(tokens[i].logit) - f64::from(tokens[0].logit) - total.ln();
        let entropy: f64 =
            (0..tokens.len()).map(|i| if weights[i] > 0.0 { -weights[i] / total * logarithm(i) } else { 0.0 }).sum();
        let share = (entropy / (tokens.len() as f64).ln()).clamp(0.0, 1.0).powf(f64::from(exponent));
        let low = (temperature - range).max(0.0);
        temperature = (f64::from(low) + f64::from(temperature + range - low) * share) as f32;
    }
    tokens.iter_mut().for_each(|token| token.logit *= temperature.max(1e-5).recip());
    rank(tokens);
}

/// A token, and its probability among those that are left.
fn draw(mut tokens: Ranked, chance: f64) -> (u32, f64) {
    let max = tokens[0].logit;
    tokens.sort_by_key(|token| token.id);
    let weight = |token: &Candidate| f64::from(exp(token.logit - max));
    let total: f64 = tokens.iter().map(weight).sum();
    let mut mass = 0.0;
    let drawn = tokens.iter().find(|token| {
        mass += weight(token);
        mass > chance * total
    });
    let drawn = drawn.unwrap();
    (drawn.id, weight(drawn) / total)
}

/// Also what the next token's surprise may be.
fn mirostat(mut tokens: Ranked, mirostat: Mirostat, vocabulary: usize, chance: f64, mu: f64) -> (u32, f64) {
    let logarithms: Vec<f64> = tokens.iter().map(|token| f64::from(token.logit)).collect();
    match mirostat.version {
        MirostatVersion::First => {
            let (mut above, mut below) = (0.0, 0.0);
            for i in 0..logarithms.len().min(100) - 1 {
                let t = ((i + 2) as f64 / (i + 1) as f64).ln();
                above += t * (logarithms[i] - logarithms[i + 1]);
                below += t * t;
            }
            let (s, n) = (above / below, vocabulary as f64);
            let share = if (s - 1.0).abs() < 1e-9 { 1.0 / n.ln() } else { (s - 1.0) / (1.0 - n.powf(1.0 - s)) };
            let k = (share * 2f64.powf(mu)).powf(1.0 / s);
            let k = if tokens.len() == 1 {
                1
            } else if k.is_nan() {
                vocabulary
            } else {
                k as usize
            };
            tokens.truncate(k.max(1));
        }
        MirostatVersion::Second => {
            let total: f64 = weights(&tokens).iter().sum();
            let least = (logarithms[0] + total.ln() - mu * std::f64::consts::LN_2) as f32;
            let kept = tokens.iter().filter(|token| token.logit >= least).count();
            tokens.truncate(kept.max(1));
        }
    }
    let (token, probability) = draw(tokens, chance);
    (token, mu - f64::from(mirostat.eta) * (-probability.log2() - f64::from(mirostat.tau)))
}

fn textbook(logits: &[f32], ask: &Ask, memory: &mut Memory) -> u32 {
    let params = ask.params;
    let mut tokens: Ranked = (0..).zip(logits).map(|(id, &logit)| Candidate { logit, id }).collect();
    tokens.retain(|token| token.logit > f32::NEG_INFINITY);
    for &(id, bias) in &params.logit_bias {
        edit(&mut tokens, id, |logit| logit + bias);
        tokens.retain(|token| token.id != id || bias > -100.0);
    }
    rank(&mut tokens);
    let filters: Vec<Filter> = params.filters().collect();
    let edits = |filter: &Filter| matches!(filter, Filter::Penalties | Filter::Dry);
    let apply_edit = |filter: Filter, tokens: &mut Ranked| match filter {
        Filter::Penalties => penalties(tokens, ask),
        _ => dry(tokens, params.dry.as_ref().unwrap(), ask),
    };
    let first = filters.iter().position(|filter| !edits(filter)).unwrap_or(filters.len());
    let usual = [Filter::Temperature, Filter::TopK, Filter::MinP, Filter::TopP];
    let places: Option<Vec<usize>> = filters[first..].iter().map(|f| usual.iter().position(|u| u == f)).collect();
    let is_usual = params.dynamic_temperature.is_none() && places.is_some_and(|places| places.is_sorted());
    let greedy = params.temperature == 0.0 || (params.top_k == 1 && is_usual && params.mirostat.is_none());
    if greedy || params.mirostat.is_some() {
        filters.iter().filter(|filter| edits(filter)).for_each(|filter| apply_edit(*filter, &mut tokens));
    } else {
        filters[..first].iter().for_each(|filter| apply_edit(*filter, &mut tokens));
    }
    let chance = uniform(ask.seed, ask.tokens.len() as u64);
    if greedy {
        return tokens[0].id;
    }
    if let Some(parameters) = params.mirostat {
        temperature(&mut tokens, params);
        let mu = memory.surprise_max.unwrap_or(2.0 * f64::from(parameters.tau));
        let (token, mu) = mirostat(tokens, parameters, logits.len(), chance, mu);
        memory.surprise_max = Some(mu);
        return token;
    }
    if is_usual {
        let has = |filter| filters.contains(&filter);
        let params = SamplingParams {
            temperature: if has(Filter::Temperature) { params.temperature } else { 1.0 },
            top_k: if has(Filter::TopK) { params.top_k } else { 0 },
            min_p: if has(Filter::MinP) { params.min_p } else { 0.0 },
            top_p: if has(Filter::TopP) { params.top_p } else { 1.0 },
            ..Default::default()
        };
        let mut row = vec![f32::NEG_INFINITY; logits.len()];
        tokens.iter().for_each(|token| row[token.id as usize] = token.logit);
        return naive(&row, &params, ask.tokens, ask.seed);
    }
    for filter in &filters[first..] {
        match filter {
            Filter::Penalties | Filter::Dry => apply_edit(*filter, &mut tokens),
            Filter::TopNSigma => top_n_sigma(&mut tokens, params.top_n_sigma),
            Filter::TopK => tokens.truncate(params.top_k as usize),
            Filter::Typical => typical(&mut tokens, params.typical_p),
            Filter::TopP => {
                let order: Vec<usize> = (0..tokens.len()).collect();
                tokens.truncate(until(&order, &weights(&tokens), params.top_p));
            }
            Filter::MinP => {
                let least = (tokens[0].logit + params.min_p.ln()).min(tokens[0].logit);
                tokens.retain(|token| token.logit >= least);
            }
            Filter::Xtc => xtc(&mut tokens, params.xtc.unwrap(), ask),
            Filter::Temperature => temperature(&mut tokens, params),
        }
    }
    draw(tokens, chance).0
}

fn params(rng: &mut Rng, vocabulary: usize) -> SamplingParams {
    fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
        of[rng.within(0, of.len())]
    }
    let maybe = |rng: &mut Rng| rng.one_in(3);
    let mut order = Filter::WIDE.to_vec();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.within(0, i + 1));
    }
    order.truncate(rng.within(0, 20).min(order.len()));
    let breakers = [&[][..], &["\n"], &["\n", ":", "\"", "*"], &["b a", "ab"]][rng.within(0, 4)];
    let bias = |rng: &mut Rng| (rng.within(0, vocabulary) as u32, one(rng, &[-100.0, -3.0, 2.5, 100.0]));
    SamplingParams {
        temperature: one(rng, &[0.0, 0.1, 0.7, 1.0, 1.0, 2.0, 50.0]),
        top_k: one(rng, &[0, 0, 1, 2, 40, vocabulary as u32 - 1, vocabulary as u32 + 5]),
        top_p: one(rng, &[0.0, 0.3, 0.9, 0.95, 0.999, 1.0, 1.0]),
        min_p: one(rng, &[0.0, 0.0, 0.05, 0.5, 1.0]),
        typical_p: one(rng, &[1.0, 1.0, 0.0, 0.2, 0.5, 0.95]),
        top_n_sigma: one(rng, &[0.0, 0.0, 0.3, 1.1, 2.7]),
        repetition_penalty: one(rng, &[1.0, 0.5, 2.0]),
        penalty_tokens: one(rng, &[None, Some(0), Some(3), Some(1000)]),
        presence_penalty: one(rng, &[0.0, 0.0, 1.5, -0.7]),
        frequency_penalty: one(rng, &[0.0, 0.0, 0.4, -1.3]),
        logit_bias: if maybe(rng) { (0..rng.within(0, 3)).map(|_| bias(rng)).collect() } else { vec![] },
        dynamic_temperature: maybe(rng)
            .then(|| DynamicTemperature { range: one(rng, &[0.3, 1.0, 5.0]), exponent: one(rng, &[0.5, 1.0, 2.0]) }),
        dry: maybe(rng).then(|| Dry {
            multiplier: one(rng, &[0.8, 5.0]),
            base: one(rng, &[1.0, 1.75, 1e9]),
            allowed_length: rng.within(0, 4),
            breakers: breakers.iter().map(|breaker| breaker.to_string()).collect(),
            last_tokens: one(rng, &[None, Some(0), Some(5), Some(20)]),
        }),
        xtc: maybe(rng)
            .then(|| Xtc { probability: one(rng, &[0.0, 0.5, 1.0]), threshold: one(rng, &[0.0, 1e-4, 0.1, 0.3, 0.6]) }),
        mirostat: rng.one_in(6).then(|| Mirostat {
            version: one(rng, &[MirostatVersion::First, MirostatVersion::Second]),
            // No power of two of these is a share that tokens of equal logits have.
            tau: one(rng, &[0.53, 3.07, 4.91]),
            eta: one(rng, &[0.0, 0.1, 1.0]),
        }),
        order: maybe(rng).then_some(order),
        seed: None,
    }
}

#[test]
fn every_filter_in_any_order_does_what_its_definition_says() {
    let mut sampler = Sampler::new(20_000);
    for seed in 0..5_000 {
        let mut rng = Rng::new(seed);
        let vocabulary = if rng.one_in(200) { rng.within(2_000, 10_000) } else { rng.within(2, 300) };
        let row = logits(&mut rng, vocabulary);
        let params = params(&mut rng, vocabulary);
        let banned = |id: &u32| params.logit_bias.iter().any(|(token, bias)| token == id && *bias <= -100.0);
        if (0..vocabulary as u32).all(|id| banned(&id) || row[id as usize] == f32::NEG_INFINITY) {
            continue;
        }
        let letters = ["a", "b", " ", "\n", "a b", ":", "", "b\na", "é"];
        let words = Words((0..vocabulary).map(|_| letters[rng.within(0, letters.len())].to_owned()).collect());
        // Few different ones, so that they repeat.
        let different = rng.within(1, vocabulary.min(5) + 1);
        let mut tokens: Vec<u32> = (0..rng.within(0, 50)).map(|_| rng.within(0, different) as u32).collect();
        let prompt_tokens = rng.within(0, tokens.len() + 1);
        let (mut memory, mut expected_memory) = (Memory::default(), Memory::default());
        for position in 0..3 {
            let ask = Ask { params: &params, tokens: &tokens, prompt_tokens, seed, texts: &words };
            let expected = textbook(&row, &ask, &mut expected_memory);
            let chosen = sampler.sample(&mut row.clone(), &ask, &mut memory);
            let context = format!("seed {seed}, position {position}, vocabulary {vocabulary}: {params:?}");
            assert_eq!(chosen, Ok(expected), "{context}");
            match (memory.surprise_max, expected_memory.surprise_max) {
                (Some(a), Some(b)) => assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{context}: {a} {b}"),
                (a, b) => assert_eq!(a, b, "{context}"),
            }
            assert!(sampler.tally.is_clear(), "{context}");
            tokens.push(expected);
        }
    }
}
