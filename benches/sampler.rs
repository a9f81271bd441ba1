//! Time per sampled token at the largest usual vocabulary: `cargo bench --bench sampler`.
//!
//! Two rows: one as models give it, where a few dozen tokens stand out, and one as flat as rows come, where a fourteenth of
//! the vocabulary makes up 0.95 of the probability. The fastest of many times, for other programs only ever add to it.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use sconce::engine::{
    request::{Dry, DynamicTemperature, Mirostat, MirostatVersion, SamplingParams, Xtc},
    sampler::{Ask, Memory, Sampler, Texts},
    team::{Team, available_threads},
};

const VOCABULARY: usize = 151_936;
const TOKENS: u64 = 300;
const HISTORY: usize = 8_192;
const ROWS: usize = 64;

/// Every token is a word.
struct Words;

impl Texts for Words {
    fn bytes(&self, _: u32) -> &[u8] {
        b" word"
    }
}

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
    let narrow = SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, ..free.clone() };
    let mirostat = |version| Mirostat { version, tau: 5.0, eta: 0.1 };
    let dry = Dry {
        multiplier: 0.8,
        base: 1.75,
        allowed_length: 2,
        breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
        last_tokens: None,
    };
    let storyteller = SamplingParams {
        top_n_sigma: 1.5,
        xtc: Some(Xtc { probability: 0.5, threshold: 0.1 }),
        dry: Some(dry.clone()),
        ..free.clone()
    };
    // A history that repeats itself, as DRY and penalties look for.
    let tokens: Vec<u32> = (0..HISTORY).map(|i| (i * i % 509) as u32).collect();
    println!("a row of {VOCABULARY} after {HISTORY} tokens");
    for (name, params) in [
        ("greedy", SamplingParams { temperature: 0.0, ..free.clone() }),
        ("top-k 40, top-p 0.95", SamplingParams { temperature: 0.8, top_k: 40, top_p: 0.95, ..free.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..free.clone() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..free.clone() }),
        ("unfiltered", free.clone()),
        ("typical 0.95", SamplingParams { typical_p: 0.95, ..free.clone() }),
        ("top-n-sigma 1", SamplingParams { top_n_sigma: 1.0, ..free.clone() }),
        ("XTC", SamplingParams { xtc: Some(Xtc { probability: 1.0, threshold: 0.05 }), ..free.clone() }),
        (
            "dynamic temperature",
            SamplingParams {
                dynamic_temperature: Some(DynamicTemperature { range: 0.5, exponent: 1.0 }),
                ..free.clone()
            },
        ),
        ("mirostat 1", SamplingParams { mirostat: Some(mirostat(MirostatVersion::First)), ..free.clone() }),
        ("mirostat 2", SamplingParams { mirostat: Some(mirostat(MirostatVersion::Second)), ..free.clone() }),
        (
            "penalties",
            SamplingParams { repetition_penalty: 1.1, presence_penalty: 0.5, frequency_penalty: 0.1, ..narrow.clone() },
        ),
        ("DRY", SamplingParams { dry: Some(dry), ..narrow.clone() }),
        ("DRY, sigma, min-p, XTC", SamplingParams { min_p: 0.02, temperature: 0.8, ..storyteller.clone() }),
    ] {
        let [peaked, flat] = [&peaked, &flat].map(|row| {
            let mut scratch = row.clone();
            let mut memory = Memory::default();
            let mut time = |seed| {
                scratch.copy_from_slice(row);
                let ask = Ask { params: &params, tokens: &tokens, prompt_tokens: 0, seed, texts: &Words };
                let start = Instant::now();
                sampler.sample(&mut scratch, &ask, &mut memory).expect("the logits are numbers");
                start.elapsed()
            };
            (0..TOKENS).map(&mut time).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
        });
        println!("{name:<22} peaked {peaked:>5.0} µs   flat {flat:>5.0} µs");
    }
    let [on_peaked, on_flat] = [&peaked, &flat].map(|row| {
        let mut time = || {
            let start = Instant::now();
            sampler.look(row, 20).expect("the logits are numbers");
            let _ = sampler.logprobs(7);
            start.elapsed()
        };
        (0..TOKENS).map(|_| time()).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e6
    });
    println!("{:<22} peaked {on_peaked:>5.0} µs   flat {on_flat:>5.0} µs", "20 log-probabilities");
    side_by_side(&flat, &storyteller, &tokens);
}

/// A step of 64 rows with many filters, on one thread and on a team.
fn side_by_side(row: &[f32], params: &SamplingParams, tokens: &[u32]) {
    let mut rows: Vec<Mutex<Vec<f32>>> = (0..ROWS).map(|_| Mutex::new(row.to_vec())).collect();
    for threads in [std::num::NonZeroUsize::MIN, available_threads()] {
        let team = Team::new(threads).expect("threads can be started");
        let samplers: Vec<_> = (0..threads.get()).map(|_| Mutex::new(Sampler::new(VOCABULARY))).collect();
        let mut time = || {
            for scratch in &mut rows {
                scratch.get_mut().expect("nobody panics").copy_from_slice(row);
            }
            let start = Instant::now();
            team.for_each_chunk(ROWS, 1, |range| {
                let mut sampler = samplers.iter().cycle().find_map(|s| s.try_lock().ok()).expect("one is free");
                for seed in range {
                    let ask = Ask { params, tokens, prompt_tokens: 0, seed: seed as u64, texts: &Words };
                    let mut row = rows[seed].lock().expect("nobody panics");
                    sampler.sample(&mut row, &ask, &mut Memory::default()).expect("the logits are numbers");
                }
            });
            start.elapsed()
        };
        let best = (0..20).map(|_| time()).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e3;
        println!("{ROWS} rows of the last mix, {threads} threads {best:>6.1} ms");
    }
}
