//! Time per sampled token at the largest usual vocabulary: `cargo bench --bench sampler`.
//!
//! Two rows: one as models give it, where a few dozen tokens stand out, and one as flat as rows come, where a fourteenth of
//! the vocabulary makes up 0.95 of the probability. The fastest of many times, for other programs only ever add to it.

use std::time::{Duration, Instant};

use sconce::engine::{request::SamplingParams, sampler::Sampler};

const VOCABULARY: usize = 151_936;
const TOKENS: u64 = 300;

fn main() {
    // Sums of uniform numbers: near enough to the bell that logits are.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let flat: Vec<f32> = (0..VOCABULARY).map(|_| 3.0 * (0..12).map(|_| uniform()).sum::<f32>()).collect();
    let mut peaked: Vec<f32> = flat.iter().map(|logit| 0.8 * logit).collect();
    for rank in 0..60 {
        peaked[(rank * 2_503) % VOCABULARY] = 22.0 - 1.5 * (1.0 + rank as f32).ln();
    }

    let mut sampler = Sampler::new(VOCABULARY);
    let free = SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, ..Default::default() };
    for (name, params) in [
        ("greedy", SamplingParams { temperature: 0.0, ..free.clone() }),
        ("top-k 40, top-p 0.95", SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, ..free.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..free.clone() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..free.clone() }),
        ("unfiltered", free),
    ] {
        let [peaked, flat] = [&peaked, &flat].map(|row| {
            let mut scratch = row.clone();
            let mut time = |seed| {
                let start = Instant::now();
                sampler.sample(&mut scratch, &params, &[1, 2, 3], seed).expect("the logits are numbers");
                start.elapsed()
            };
            (0..TOKENS).map(&mut time).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
        });
        println!("{name:<22} peaked {peaked:>5.0} µs   flat {flat:>5.0} µs");
    }
}
