//! Every architecture's logits against a decoder in plain loops that reads the same configuration.
#![cfg(feature = "engine")]

mod common;

use std::num::NonZeroUsize;

use candle_core::{DType, quantized::GgmlDType};
use common::{
    naive,
    tiny::{Random, Tiny},
};
use sconce::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kv_cache::{KvCache, KvType},
    models::{Architecture, LoadOptions, Outcome, Source, load},
};
use serde_json::json;

const POSITIONS: usize = 70;

/// The logits of every position, taken in chunks of 23.
fn ours(source: &Source, tokens: &[u32]) -> Vec<f32> {
    let mut model = load(source, LoadOptions::new(NonZeroUsize::new(2).unwrap())).unwrap();
    let blocks: Vec<_> = (0..tokens.len().div_ceil(32) as u32).map(BlockId).collect();
    let mut cache = KvCache::new(model.spec(), blocks.len(), KvType::F16);
    let (mut logits, mut outcome) = (Vec::new(), Outcome::default());
    for (i, part) in tokens.chunks(23).enumerate() {
        let mut batch = Batch::new(model.spec().vocabulary);
        batch.push(part, i * 23, &blocks, &vec![Want::Logits; part.len()]);
        model.forward(&batch, &mut cache, &mut outcome).unwrap();
        logits.extend_from_slice(&outcome.logits);
    }
    logits
}

fn tokens(tiny: &Tiny) -> Vec<u32> {
    let mut random = Random(7);
    (0..POSITIONS).map(|_| random.below(tiny.vocabulary) as u32).collect()
}

#[track_caller]
fn check(expected: &[Vec<f32>], found: &[f32], what: &str) {
    let expected = expected.concat();
    assert_eq!(expected.len(), found.len());
    let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
    let distance = expected.iter().zip(found).fold(0f32, |d, (e, f)| d.max((e - f).abs()));
    // Keys and values are kept in half precision: errors of some 2^-11 in each product.
    assert!(distance < 5e-3 * largest, "{what}: {distance} of {largest}");
}

#[track_caller]
fn check_tiny(tiny: Tiny) {
    let tokens = tokens(&tiny);
    check(&naive::logits(&tiny, &tokens), &ours(&tiny.source(), &tokens), &format!("{tiny:?}"));
}

#[test]
fn architectures_compute_what_their_configurations_say() {
    for architecture in Architecture::BATCHED {
        let tiny = Tiny { dtype: GgmlDType::F32, ..Tiny::new(architecture) };
        check_tiny(tiny);
        check_tiny(Tiny { tied: false, seed: 2, ..tiny });
    }
}

/// The logits of a row are the products of its hidden state with the head, which is the token table here.
#[test]
fn hidden_states_are_what_the_head_reads() {
    let tiny = Tiny { dtype: GgmlDType::F32, ..Tiny::new(Architecture::Qwen3) };
    let (tokens, source) = (tokens(&tiny), tiny.source());
    let mut model = load(&source, LoadOptions::new(NonZeroUsize::new(2).unwrap())).unwrap();
    let blocks: Vec<_> = (0..3).map(BlockId).collect();
    let mut cache = KvCache::new(model.spec(), blocks.len(), KvType::F16);
    let mut outcomes =
        [&[Want::Hidden; 3][..], &[Want::Logits; 3], &[Want::Hidden, Want::Best, Want::Logits]].map(|wants| {
            let (mut batch, mut outcome) = (Batch::new(tiny.vocabulary), Outcome::default());
            batch.push(&tokens, 0, &blocks, wants);
            model.forward(&batch, &mut cache, &mut outcome).unwrap();
            outcome
        });
    let [hidden, logits, mixed] = &mut outcomes;
    assert_eq!((model.hidden(), hidden.hidden.len()), (Some(tiny.hidden), 3 * tiny.hidden));
    assert_eq!(mixed.hidden, hidden.hidden[..tiny.hidden]);
    assert_eq!(mixed.logits, logits.logits[2 * tiny.vocabulary..]);
    let table: Vec<Vec<f32>> = tiny.write().tensors["token_embd.weight"].to_vec2().unwrap();
    let product = |state: &[f32], row: &[f32]| state.iter().zip(row).map(|(a, b)| a * b).sum::<f32>();
    let rows = hidden.hidden.chunks(tiny.hidden);
    let expected: Vec<Vec<f32>> = rows.map(|state| table.iter().map(|row| product(state, row)).collect()).collect();
    check(&expected, &logits.logits, "products of hidden states");
}

#[test]
fn windows_hide_what_is_before_them() {
    for architecture in [Architecture::Llama, Architecture::Phi3, Architecture::Gemma2, Architecture::Gemma3] {
        for window in [1, 7, 40] {
            let tiny = Tiny { dtype: GgmlDType::F32, window: Some(window), ..Tiny::new(architecture) };
            check_tiny(tiny);
        }
    }
}

/// Ropes that only `config.json` describes here.
#[test]
fn ropes_are_stretched() {
    let longrope = json!({
        "type": "longrope",
        "long_factor": (0..16).map(|i| 1.0 + f64::from(i)).collect::<Vec<_>>(), "short_factor": vec![1.0; 16],
    });
    let linear = json!({ "rope_type": "linear", "factor": 8.0 });
    for (architecture, scaling) in [(Architecture::Phi3, longrope), (Architecture::Gemma3, linear)] {
        let tiny = Tiny { dtype: GgmlDType::F32, ..Tiny::new(architecture) };
        let folder = common::hugging_face::Folder::new("rope");
        tiny.write_directory(&folder.0, DType::F32);
        let mut config = tiny.config();
        config["rope_scaling"] = scaling;
        config["original_max_position_embeddings"] = json!(64);
        std::fs::write(folder.0.join("config.json"), config.to_string()).unwrap();
        let source = Source::open(&folder.0).unwrap();
        let tokens = tokens(&tiny);
        check(&naive::logits_with(&tiny, config, &tokens), &ours(&source, &tokens), architecture.name());
    }
}
