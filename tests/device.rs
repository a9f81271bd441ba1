//! The decoder for devices, run on candle's CPU device, gives what the CPU's own decoder gives: of ragged batches, prompts
//! cut anyhow, scattered blocks, and whatever is wanted of a row.
#![cfg(feature = "engine")]

mod common;

use std::num::NonZeroUsize;

use candle_core::{Device, quantized::GgmlDType};
use common::tiny::{Random, Tiny};
use sconce::engine::{
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockId},
    device,
    kv_cache::{KvCache, KvType},
    models::{Architecture, LoadOptions, Model, Outcome, load},
};

const SEQUENCES: usize = 5;
/// A sequence's tokens at most.
const TOKENS_MAX: usize = 3 * BLOCK_TOKENS;

/// A token sequence, how far it is computed, and its blocks.
struct Sequence {
    tokens: Vec<u32>,
    computed: usize,
    blocks: Vec<BlockId>,
}

/// Sequences of random tokens in random blocks; each has more of these than it needs.
fn sequences(random: &mut Random, vocabulary: usize) -> Vec<Sequence> {
    let each = TOKENS_MAX / BLOCK_TOKENS + 1;
    let mut free: Vec<_> = (0..(SEQUENCES * each) as u32).map(BlockId).collect();
    for i in (1..free.len()).rev() {
        free.swap(i, random.below(i + 1));
    }
    let mut sequence = |_| Sequence {
        tokens: (0..1 + random.below(TOKENS_MAX)).map(|_| random.below(vocabulary) as u32).collect(),
        computed: 0,
        blocks: free.split_off(free.len() - each),
    };
    (0..SEQUENCES).map(&mut sequence).collect()
}

/// The next step: a random chunk of each sequence that is not done; of a chunk's last row both is wanted in turn.
fn step(random: &mut Random, sequences: &mut [Sequence], choices: usize) -> Option<Batch> {
    let mut batch = Batch::new(choices);
    for sequence in sequences.iter_mut().filter(|s| s.computed < s.tokens.len()) {
        let left = sequence.tokens.len() - sequence.computed;
        let chunk_max = if random.below(2) == 0 { 1 } else { 50 };
        let rows = left.min(1 + random.below(chunk_max));
        let wants: &[Want] = match random.below(4) {
            0 => &[],
            1 => &[Want::Best],
            2 => &[Want::Logits],
            _ if rows > 1 => &[Want::Logits, Want::Best],
            _ => &[Want::Best],
        };
        batch.push(&sequence.tokens[sequence.computed..][..rows], sequence.computed, &sequence.blocks, wants);
        sequence.computed += rows;
    }
    (batch.rows() > 0).then_some(batch)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Runs random steps on both decoders; no row's logits may have a smaller cosine than `cosine_min`.
#[track_caller]
fn check(tiny: Tiny, cosine_min: f64) {
    // Twice the sine of the angle between two rows of logits.
    let error_max = 2.0 * (1.0 - cosine_min * cosine_min).sqrt() as f32;
    let (source, options) = (tiny.source(), LoadOptions::new(NonZeroUsize::MIN));
    let mut expected = load(&source, options).unwrap();
    let mut found = device::load(&source, options, Device::Cpu).unwrap();
    assert_eq!(found.spec(), expected.spec());
    let blocks = SEQUENCES * (TOKENS_MAX / BLOCK_TOKENS + 1);
    let mut expected_cache = KvCache::new(expected.spec(), blocks, KvType::F16);
    let mut found_cache = found.new_cache(blocks, KvType::F16).unwrap();
    let mut random = Random(0x5eed + tiny.seed);
    // Fewer than the vocabulary: what is beyond is padding.
    let choices = tiny.vocabulary - 20;
    let mut sequences = sequences(&mut random, tiny.vocabulary);
    let mut rows = 0;
    while let Some(batch) = step(&mut random, &mut sequences, choices) {
        let (mut e, mut f) = (Outcome::default(), Outcome::default());
        expected.forward(&batch, &mut expected_cache, &mut e).unwrap();
        found.forward(&batch, &mut found_cache, &mut f).unwrap();
        assert_eq!((e.logits.len(), e.best.len()), (f.logits.len(), f.best.len()));
        for (e, f) in e.logits.chunks(tiny.vocabulary).zip(f.logits.chunks(tiny.vocabulary)) {
            let cosine = cosine(e, f);
            assert!(cosine >= cosine_min, "{tiny:?}: cosine {cosine}");
            rows += 1;
        }
        for (e, f) in e.best.iter().zip(&f.best) {
            // Another token may be the best, but only by a hair.
            let near = (e.logit - f.logit).abs() <= error_max * e.logit.abs().max(1.0);
            assert!(near && (f.token as usize) < choices, "{tiny:?}: {e:?}, {f:?}");
            rows += 1;
        }
    }
    assert!(rows >= SEQUENCES, "{rows} rows were compared");
}

#[test]
fn float_weights_of_every_architecture() {
    for architecture in Architecture::BATCHED {
        for dtype in [GgmlDType::F32, GgmlDType::F16] {
            check(Tiny { dtype, ..Tiny::new(architecture) }, 0.99999);
        }
    }
}

#[test]
fn quantised_weights() {
    for (dtype, seed) in [(GgmlDType::Q8_0, 2), (GgmlDType::Q4K, 3), (GgmlDType::Q6K, 4), (GgmlDType::Q4_0, 5)] {
        for tied in [true, false] {
            check(Tiny { dtype, seed, tied, ..Tiny::new(Architecture::Qwen3) }, 0.999);
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let source = Tiny::new(Architecture::Llama).source();
    let mut model = device::load(&source, LoadOptions::new(NonZeroUsize::MIN), Device::Cpu).unwrap();
    let mut cache = model.new_cache(1, KvType::F16).unwrap();
    let mut batch = Batch::new(260);
    batch.push(&[1], 0, &[BlockId(1)], &[Want::Best]);
    assert!(model.forward(&batch, &mut cache, &mut Outcome::default()).unwrap_err().0.contains("beyond the cache"));
    let mut host = KvCache::new(model.spec(), 2, KvType::F16);
    assert!(model.forward(&batch, &mut host, &mut Outcome::default()).unwrap_err().0.contains("device"));
}
