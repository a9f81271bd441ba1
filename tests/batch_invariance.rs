//! A sequence's logits do not depend on who else is computed beside it, on how its prompt is cut, on which blocks it
//! holds, or on the number of threads: bit for bit.
#![cfg(feature = "engine")]

mod common;

use std::num::NonZeroUsize;

use candle_core::quantized::GgmlDType;
use common::tiny::{Random, Tiny};
use sconce::engine::{
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockId},
    kv_cache::{KvCache, KvType},
    models::{Architecture, LoadOptions, Model, Outcome, Source, load},
};

/// Tokens generated after each prompt.
const GENERATED: usize = 8;
const SEQUENCES: usize = 8;

/// One sequence as this test runs it: greedy, with every sampled row's logits kept as bits.
struct Run {
    tokens: Vec<u32>,
    prompt: usize,
    computed: usize,
    blocks: Vec<BlockId>,
    logits: Vec<Vec<u32>>,
}

impl Run {
    fn new(prompt: &[u32], blocks: Vec<BlockId>) -> Self {
        Self { tokens: prompt.to_vec(), prompt: prompt.len(), computed: 0, blocks, logits: Vec::new() }
    }

    fn done(&self) -> bool {
        self.tokens.len() == self.prompt + GENERATED
    }
}

fn step(model: &mut dyn Model, cache: &mut KvCache, runs: &mut [Run], mut chunk: impl FnMut() -> usize) {
    let mut batch = Batch::new(model.spec().vocabulary);
    let mut sampled = Vec::new();
    for (i, run) in runs.iter_mut().enumerate().filter(|(_, r)| !r.done()) {
        let end = run.tokens.len().min(run.computed + chunk().max(1));
        let last = end == run.tokens.len();
        batch.push(&run.tokens[run.computed..end], run.computed, &run.blocks, if last { &[Want::Logits] } else { &[] });
        run.computed = end;
        if last {
            sampled.push(i);
        }
    }
    let mut outcome = Outcome::default();
    model.forward(&batch, cache, &mut outcome).unwrap();
    for (i, row) in sampled.into_iter().zip(outcome.logits.chunks_exact(model.spec().vocabulary)) {
        let top = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        runs[i].tokens.push(top as u32);
        runs[i].logits.push(row.iter().map(|x| x.to_bits()).collect());
    }
}

fn prompts() -> Vec<Vec<u32>> {
    let mut random = Random(11);
    (0..SEQUENCES).map(|_| (0..1 + random.below(80)).map(|_| random.below(288) as u32).collect()).collect()
}

/// Every prompt alone, whole, on one thread.
fn alone(source: &Source) -> Vec<Run> {
    let mut model = load(source, LoadOptions::new(NonZeroUsize::MIN)).unwrap();
    let blocks: Vec<_> = (0..8).map(BlockId).collect();
    let run = |prompt: &Vec<u32>| {
        let mut cache = KvCache::new(model.spec(), blocks.len(), KvType::F16);
        let mut runs = [Run::new(prompt, blocks.clone())];
        while !runs[0].done() {
            step(&mut *model, &mut cache, &mut runs, || usize::MAX / 2);
        }
        let [run] = runs;
        run
    };
    prompts().iter().map(run).collect()
}

/// All prompts together with scattered blocks, cut by `chunk`; half-way, every third is preempted and computed again.
fn together(source: &Source, threads: usize, seed: u64, chunk_max: usize) -> Vec<Run> {
    let mut model = load(source, LoadOptions::new(NonZeroUsize::new(threads).unwrap())).unwrap();
    let mut cache = KvCache::new(model.spec(), SEQUENCES * 8, KvType::F16);
    let mut random = Random(seed);
    let mut free: Vec<_> = (0..SEQUENCES as u32 * 8).map(BlockId).collect();
    for i in (1..free.len()).rev() {
        free.swap(i, random.below(i + 1));
    }
    let prompts = prompts();
    let needed = |p: &Vec<u32>| (p.len() + GENERATED).div_ceil(BLOCK_TOKENS);
    let mut runs: Vec<_> = prompts.iter().map(|p| Run::new(p, free.split_off(free.len() - needed(p)))).collect();
    let mut steps = 0;
    while runs.iter().any(|r| !r.done()) {
        step(&mut *model, &mut cache, &mut runs, || 1 + random.below(chunk_max));
        steps += 1;
        if steps == 4 {
            for run in runs.iter_mut().step_by(3).filter(|r| !r.done()) {
                run.computed = 0;
                run.blocks.reverse();
            }
        }
    }
    runs
}

#[track_caller]
fn check(tiny: Tiny) {
    let source = tiny.source();
    let expected = alone(&source);
    for (threads, seed, chunk_max) in [(2, 3, 9), (3, 4, 1000)] {
        let found = together(&source, threads, seed, chunk_max);
        for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
            let at = format!("{:?} {:?}, {threads} threads, seed {seed}: sequence {i}", tiny.architecture, tiny.dtype);
            assert_eq!(e.tokens, f.tokens, "{at}");
            assert!(e.logits == f.logits, "{at}: logits differ in a bit");
        }
    }
}

#[test]
fn logits_are_bit_equal_alone_and_together() {
    for architecture in Architecture::BATCHED {
        check(Tiny { dtype: GgmlDType::Q4K, ..Tiny::new(architecture) });
    }
    for dtype in [GgmlDType::Q6K, GgmlDType::Q8_0, GgmlDType::Q5_0, GgmlDType::F16] {
        check(Tiny { dtype, ..Tiny::new(Architecture::Qwen3) });
    }
}

/// Sizes that the kernels' tiles do not divide.
#[test]
fn logits_are_bit_equal_with_odd_sizes() {
    let odd = Tiny {
        hidden: 224,
        heads: 7,
        kv_heads: 1,
        feed_forward: 352,
        vocabulary: 293,
        ..Tiny::new(Architecture::Llama)
    };
    for dtype in [GgmlDType::Q4_0, GgmlDType::Q8_0, GgmlDType::F32] {
        check(Tiny { dtype, ..odd });
    }
    check(Tiny { architecture: Architecture::Qwen3, rope_factors: false, heads: 10, head_dim: 48, tied: false, ..odd });
}
