//! Time per sampled token at the largest usual vocabulary: `cargo bench --bench sampler`.

use std::time::Instant;

use sconce::engine::{request::SamplingParams, sampler::Sampler};

const VOCABULARY: usize = 151_936;
const TOKENS: u64 = 200;

fn main() {
    // Sums of uniform numbers: near enough to the bell that logits are.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let row: Vec<f32> = (0..VOCABULARY).map(|_| 3.0 * (0..12).map(|_| uniform()).sum::<f32>()).collect();

    let mut sampler = Sampler::new(VOCABULARY);
    let free = SamplingParams { temperature: 1.0, top_p: 1.0, top_k: 0, ..Default::default() };
    for (name, params) in [
        ("greedy", SamplingParams { temperature: 0.0, ..free.clone() }),
        ("top-k 40, top-p 0.95", SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, ..free.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..free.clone() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..free.clone() }),
        ("unfiltered", free),
    ] {
        let mut scratch = row.clone();
        let start = Instant::now();
        for seed in 0..TOKENS {
            sampler.sample(&mut scratch, &params, &[1, 2, 3], seed).expect("the logits are numbers");
        }
        println!("{name:<22} {:>7.0} µs", start.elapsed().as_secs_f64() * 1e6 / TOKENS as f64);
    }
}
