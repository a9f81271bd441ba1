//! The sampler as the textbook has it, by sorting the whole vocabulary, and the tests that hold the fast one to it.

use super::{usual::inverse, *};
use crate::engine::fake::Rng;

/// Tokens without text.
pub struct NoTexts;

impl Texts for NoTexts {
    fn bytes(&self, _: u32) -> &[u8] {
        &[]
    }
}

fn sample(
    sampler: &mut Sampler,
    logits: &mut [f32],
    params: &SamplingParams,
    tokens: &[u32],
    seed: u64,
) -> Result<u32, BadLogits> {
    let ask = Ask { params, tokens, prompt_tokens: 0, seed, texts: &NoTexts };
    sampler.sample(logits, &ask, &mut Memory::default())
}

/// `max`, exponentials and the order of the draw are the definition, shared with the fast sampler; the filters are not.
pub fn naive(logits: &[f32], params: &SamplingParams, tokens: &[u32], seed: u64) -> u32 {
    let mut logits = logits.to_vec();
    for (id, logit) in logits.iter_mut().enumerate() {
        if tokens.contains(&(id as u32)) {
            *logit *= if *logit > 0.0 { 1.0 / params.repetition_penalty } else { params.repetition_penalty };
        }
    }
    let mut ranked: Vec<Candidate> =
        logits.iter().enumerate().map(|(id, &logit)| Candidate { logit, id: id as u32 }).collect();
    ranked.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap().then(a.id.cmp(&b.id)));
    if params.temperature == 0.0 {
        return ranked[0].id;
    }
    let max = ranked[0].logit;
    let weight = |c: &Candidate| f64::from(crate::engine::kernels::exp((c.logit - max) * inverse(params.temperature)));
    if params.top_k > 0 {
        ranked.truncate(params.top_k as usize);
    }
    if params.min_p > 0.0 {
        ranked.retain(|c| c.logit >= max + params.temperature * params.min_p.ln());
    }
    if params.top_p < 1.0 {
        let total: f64 = ranked.iter().map(weight).sum();
        let mut mass = 0.0;
        let kept = ranked.iter().position(|c| {
            mass += weight(c);
            mass >= f64::from(params.top_p) * total
        });
        ranked.truncate(kept.map_or(ranked.len(), |last| last + 1));
    }
    ranked.sort_by_key(|c| c.id);
    let point = uniform(seed, tokens.len() as u64) * ranked.iter().map(weight).sum::<f64>();
    let mut mass = 0.0;
    let drawn = ranked.iter().find(|c| {
        mass += weight(c);
        mass > point
    });
    drawn.unwrap().id
}

fn normal(rng: &mut Rng) -> f32 {
    (0..12).map(|_| rng.next() as f32 / u64::MAX as f32).sum::<f32>() - 6.0
}

/// Logits of many shapes: peaked, flat, with many equal values, with excluded tokens.
pub fn logits(rng: &mut Rng, vocabulary: usize) -> Vec<f32> {
    let spread = [0.01, 1.0, 4.0, 30.0][rng.within(0, 4)];
    let coarse = rng.one_in(3);
    let excluded = rng.one_in(4);
    let mut logits: Vec<f32> = (0..vocabulary)
        .map(|_| {
            let logit = spread * normal(rng);
            if coarse { logit.round() } else { logit }
        })
        .collect();
    if excluded {
        for _ in 0..vocabulary / 2 {
            logits[rng.within(0, vocabulary)] = f32::NEG_INFINITY;
        }
        logits[rng.within(0, vocabulary)] = 1.0;
    }
    logits
}

fn params(rng: &mut Rng, vocabulary: usize) -> SamplingParams {
    SamplingParams {
        temperature: [0.0, 0.1, 0.7, 1.0, 2.0, 50.0][rng.within(0, 6)],
        top_k: [0, 1, 2, 40, vocabulary as u32 - 1, vocabulary as u32 + 5][rng.within(0, 6)],
        top_p: [0.0, 0.3, 0.9, 0.95, 0.999, 1.0][rng.within(0, 6)],
        min_p: [0.0, 0.0, 0.05, 0.5, 1.0][rng.within(0, 5)],
        repetition_penalty: [1.0, 0.5, 2.0][rng.within(0, 3)],
        ..SamplingParams::default()
    }
}

#[test]
fn chooses_what_sorting_everything_would_choose() {
    let mut sampler = Sampler::new(20_000);
    for seed in 0..20_000 {
        let mut rng = Rng::new(seed);
        let vocabulary = if rng.one_in(50) { rng.within(2_000, 20_000) } else { rng.within(2, 300) };
        let mut logits = logits(&mut rng, vocabulary);
        let params = params(&mut rng, vocabulary);
        let tokens: Vec<u32> = (0..rng.within(0, 50)).map(|_| rng.within(0, vocabulary) as u32).collect();
        let expected = naive(&logits, &params, &tokens, seed);
        let chosen = sample(&mut sampler, &mut logits, &params, &tokens, seed);
        assert_eq!(chosen, Ok(expected), "seed {seed}: {params:?}, vocabulary {vocabulary}");
        assert!(sampler.tally.is_clear(), "seed {seed}");
    }
}

#[test]
fn draws_as_often_as_the_probabilities_say() {
    // Over positions, as one sequence draws. 3 degrees of freedom: p = 0.999 at 16.3.
    let probabilities: [f64; 4] = [0.5, 0.3, 0.15, 0.05];
    let logits: Vec<f32> = probabilities.iter().map(|p| p.ln() as f32).collect();
    let params =
        SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, repetition_penalty: 1.0, ..Default::default() };
    for seed in 0..20 {
        let mut counts = [0.0; 4];
        let mut sampler = Sampler::new(4);
        for position in 0..10_000 {
            let tokens = vec![0; position % 5_000];
            let seed = seed + 100 * (position as u64 / 5_000);
            counts[sample(&mut sampler, &mut logits.clone(), &params, &tokens, seed).unwrap() as usize] += 1.0;
        }
        let chi_square: f64 = counts.iter().zip(probabilities).map(|(n, p)| (n - 1e4 * p).powi(2) / (1e4 * p)).sum();
        assert!(chi_square < 16.3, "seed {seed}: {counts:?}");
    }
}

#[test]
fn broken_rows_are_refused() {
    const N: f32 = f32::NEG_INFINITY;
    let rows: [(&[f32], Result<u32, BadLogits>); 6] = [
        (&[1.0, f32::NAN, 0.0], Err(BadLogits)),
        (&[1.0, f32::INFINITY, 0.0], Err(BadLogits)),
        (&[N, N, N], Err(BadLogits)),
        (&[], Err(BadLogits)),
        (&[N, 3.0, N], Ok(1)),
        // Beyond the vocabulary of 3: neither chosen nor looked at.
        (&[0.0, 1.0, 0.5, 9.0, f32::NAN], Ok(1)),
    ];
    for temperature in [0.0, 1e-30, 1e-3] {
        let params = SamplingParams { temperature, ..Default::default() };
        for (row, expected) in rows {
            assert_eq!(sample(&mut Sampler::new(3), &mut row.to_vec(), &params, &[], 1), expected, "{row:?}");
        }
    }
}

#[test]
fn the_penalty_counts_a_token_once_and_ignores_unknown_ones() {
    let params = SamplingParams { temperature: 0.0, repetition_penalty: 2.0, ..Default::default() };
    let mut logits = vec![4.0, 3.0, -1.0];
    assert_eq!(sample(&mut Sampler::new(3), &mut logits, &params, &[0, 0, 2, 2, 900], 0), Ok(1));
    assert_eq!(logits, [2.0, 3.0, -2.0]);
}
