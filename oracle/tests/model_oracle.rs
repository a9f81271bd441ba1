//! Every architecture's logits against candle-transformers' float models, loaded from the same dequantised weights.

#[path = "../../tests/common/hugging_face.rs"]
#[allow(dead_code, reason = "the tests of the main package use more of it")]
mod hugging_face;
#[path = "../../tests/common/tiny.rs"]
#[allow(dead_code, reason = "the tests of the main package use more of it")]
mod tiny;

use std::{collections::HashMap, num::NonZeroUsize};

use candle_core::{DType, Device, Tensor, quantized::GgmlDType};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma, gemma2, gemma3, llama, olmo2, phi3, qwen2, qwen3, smol::smollm3};

use sconce::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kv_cache::{KvCache, KvType},
    models::{Architecture, LoadOptions, Outcome, Source, load},
};
use serde_json::{Value, json};
use tiny::{Random, Tiny};

const POSITIONS: usize = 200;

/// A model of candle-transformers, whichever: logits of one token at one position.
type Forward = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

/// The logits of every position, from candle-transformers.
fn oracle(tiny: &Tiny, tensors: &HashMap<String, Tensor>, tokens: &[u32]) -> Vec<Vec<f32>> {
    let tensors = tensors.iter().filter(|(name, _)| *name != "rope_freqs.weight");
    let tensors = tensors.map(|(name, t)| (tiny.hugging_face_name(name), tiny.hugging_face_tensor(name, t)));
    let weights = VarBuilder::from_tensors(tensors.collect(), DType::F32, &Device::Cpu);
    let mut config = tiny.config();
    // What candle's structs want to be told though it changes nothing.
    for (key, value) in [
        ("attention_bias", json!(tiny.architecture == Architecture::Qwen2)),
        ("max_window_layers", json!(tiny.layers)),
        ("use_sliding_window", json!(false)),
        ("sliding_window", json!(tiny.window.unwrap_or(tiny.context))),
        ("query_pre_attn_scalar", json!(tiny.head_dim)),
        ("clip_qkv", Value::Null),
    ] {
        config[key] = value;
    }
    let mut forward: Forward = match tiny.architecture {
        Architecture::Llama => {
            let config: llama::LlamaConfig = read(&config);
            let config = config.into_config(false);
            let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
            let model = llama::Llama::load(weights, &config).unwrap();
            Box::new(move |x, at| model.forward(x, at, &mut cache))
        }
        Architecture::Qwen2 => {
            let mut model = qwen2::ModelForCausalLM::new(&read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Qwen3 => {
            let mut model = qwen3::ModelForCausalLM::new(&read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Phi3 => {
            let mut model = phi3::Model::new(&read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Gemma => {
            let mut model = gemma::Model::new(false, &read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Gemma2 => {
            let mut model = gemma2::Model::new(false, &read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Gemma3 => {
            let mut model = gemma3::Model::new(false, &read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::SmolLm3 => {
            let mut model = smollm3::ModelForCausalLM::new(&read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Olmo2 => {
            let mut model = olmo2::Model::new(&read(&config), weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Granite | Architecture::Unbatched(_) => {
            panic!("candle has no such model, or not with its scales")
        }
    };
    let row = |(at, token): (usize, &u32)| {
        let x = Tensor::new(&[[*token]], &Device::Cpu).unwrap();
        forward(&x, at).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    tokens.iter().enumerate().map(row).collect()
}

fn read<C: serde::de::DeserializeOwned>(config: &Value) -> C {
    serde_json::from_value(config.clone()).unwrap()
}

/// The logits of every position from our model, the prompt taken in chunks of `chunk`.
fn ours(tiny: &Tiny, bytes: Vec<u8>, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let source = Source::from(sconce::engine::gguf::Gguf::from_bytes(bytes).unwrap());
    let mut model = load(&source, LoadOptions::new(NonZeroUsize::new(2).unwrap())).unwrap();
    let blocks: Vec<_> = (0..tokens.len().div_ceil(32) as u32).rev().map(BlockId).collect();
    let mut cache = KvCache::new(model.spec(), blocks.len(), KvType::F16);
    let (mut rows, mut outcome) = (Vec::new(), Outcome::default());
    for (i, part) in tokens.chunks(chunk).enumerate() {
        let mut batch = Batch::new(tiny.vocabulary);
        batch.push(part, i * chunk, &blocks, &vec![Want::Logits; part.len()]);
        model.forward(&batch, &mut cache, &mut outcome).unwrap();
        rows.extend(outcome.logits.chunks_exact(tiny.vocabulary).map(<[f32]>::to_vec));
    }
    rows
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn top(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

#[track_caller]
fn check(tiny: Tiny, cosine_min: f64, agreement_min: f64) {
    let written = tiny.write();
    let mut random = Random(7);
    let tokens: Vec<u32> = (0..POSITIONS).map(|_| random.below(tiny.vocabulary) as u32).collect();
    let expected = oracle(&tiny, &written.tensors, &tokens);
    let found = ours(&tiny, written.bytes, &tokens, 37);
    assert_eq!(found.len(), POSITIONS);
    let cosines: Vec<f64> = expected.iter().zip(&found).map(|(e, f)| cosine(e, f)).collect();
    let (mean, worst) = (cosines.iter().sum::<f64>() / POSITIONS as f64, cosines.iter().copied().fold(1.0, f64::min));
    let agreed = expected.iter().zip(&found).filter(|(e, f)| top(e) == top(f)).count() as f64 / POSITIONS as f64;
    println!(
        "{:?} {:?}: cosine {mean:.6}, at worst {worst:.6}, top-1 agreement {agreed:.3}",
        tiny.architecture, tiny.dtype
    );
    assert!(mean > cosine_min && worst > cosine_min - 0.001, "{tiny:?}: cosine {mean}, at worst {worst}");
    assert!(agreed > agreement_min, "{tiny:?}: top-1 agreement {agreed}");
}

/// Those that candle-transformers has, and computes as they are: it knows Granite without its scales, and Gemma 2 without
/// its windows, which `tests/architectures.rs` has in the main package.
fn models() -> impl Iterator<Item = Tiny> {
    let known = Architecture::BATCHED.into_iter().filter(|architecture| *architecture != Architecture::Granite);
    known.map(|architecture| {
        let tiny = Tiny::new(architecture);
        Tiny { window: tiny.window.filter(|_| architecture != Architecture::Gemma2), ..tiny }
    })
}

#[test]
fn float_weights_give_the_oracles_logits() {
    for tiny in models() {
        for dtype in [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16] {
            check(Tiny { dtype, ..tiny }, 0.999_9, 0.98);
        }
    }
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
        check(Tiny { dtype: GgmlDType::F32, tied: false, ..Tiny::new(architecture) }, 0.999_9, 0.99);
    }
}

#[test]
fn quantised_weights_give_the_oracles_logits() {
    for tiny in models() {
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q5_0] {
            check(Tiny { dtype, ..tiny }, 0.999, 0.96);
        }
    }
}
