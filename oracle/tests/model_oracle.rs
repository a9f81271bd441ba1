//! Every architecture's logits against candle-transformers' float models, loaded from the same dequantised weights.

#[path = "../../tests/common/tiny.rs"]
#[allow(dead_code, reason = "the tests of the main package use more of it")]
mod tiny;

use std::{collections::HashMap, num::NonZeroUsize};

use candle_core::{DType, Device, Tensor, quantized::GgmlDType};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{llama, qwen2, qwen3};

use sconce::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kv_cache::KvCache,
    models::{Architecture, LoadOptions, Outcome, Source, load},
};
use tiny::{Random, Tiny};

const POSITIONS: usize = 200;

/// A model of candle-transformers, whichever: logits of one token at one position.
type Forward = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

/// The logits of every position, from candle-transformers.
fn oracle(tiny: &Tiny, tensors: &HashMap<String, Tensor>, tokens: &[u32]) -> Vec<Vec<f32>> {
    let tensors = tensors.iter().map(|(name, t)| (hugging_face_name(name), unpermuted(tiny, name, t))).collect();
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let mut forward: Forward = match tiny.architecture {
        Architecture::Qwen3 => {
            let config = qwen3::Config {
                vocab_size: tiny.vocabulary,
                hidden_size: tiny.hidden,
                intermediate_size: tiny.feed_forward,
                num_hidden_layers: tiny.layers,
                num_attention_heads: tiny.heads,
                head_dim: tiny.head_dim,
                attention_bias: false,
                num_key_value_heads: tiny.kv_heads,
                max_position_embeddings: tiny.context,
                sliding_window: None,
                max_window_layers: 0,
                tie_word_embeddings: tiny.tied,
                rope_theta: tiny.rope_base.into(),
                rms_norm_eps: 1e-6,
                use_sliding_window: false,
                hidden_act: Activation::Silu,
            };
            let mut model = qwen3::ModelForCausalLM::new(&config, weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Qwen2 => {
            let config = qwen2::Config {
                vocab_size: tiny.vocabulary,
                hidden_size: tiny.hidden,
                intermediate_size: tiny.feed_forward,
                num_hidden_layers: tiny.layers,
                num_attention_heads: tiny.heads,
                num_key_value_heads: tiny.kv_heads,
                max_position_embeddings: tiny.context,
                sliding_window: tiny.context,
                max_window_layers: 0,
                tie_word_embeddings: tiny.tied,
                rope_theta: tiny.rope_base.into(),
                rms_norm_eps: 1e-6,
                use_sliding_window: false,
                hidden_act: Activation::Silu,
            };
            let mut model = qwen2::ModelForCausalLM::new(&config, weights).unwrap();
            Box::new(move |x, at| model.forward(x, at))
        }
        Architecture::Llama => {
            let config = llama::Config {
                hidden_size: tiny.hidden,
                intermediate_size: tiny.feed_forward,
                vocab_size: tiny.vocabulary,
                num_hidden_layers: tiny.layers,
                num_attention_heads: tiny.heads,
                num_key_value_heads: tiny.kv_heads,
                use_flash_attn: false,
                rms_norm_eps: 1e-6,
                rope_theta: tiny.rope_base,
                bos_token_id: None,
                eos_token_id: None,
                rope_scaling: tiny.rope_factors.then_some(llama::Llama3RopeConfig {
                    factor: 8.0,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_max_position_embeddings: 128,
                    rope_type: llama::Llama3RopeType::Llama3,
                }),
                max_position_embeddings: tiny.context,
                tie_word_embeddings: tiny.tied,
            };
            let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
            let model = llama::Llama::load(weights, &config).unwrap();
            Box::new(move |x, at| model.forward(x, at, &mut cache))
        }
        other => panic!("no oracle for {other:?}"),
    };
    let row = |(at, token): (usize, &u32)| {
        let x = Tensor::new(&[[*token]], &Device::Cpu).unwrap();
        forward(&x, at).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    tokens.iter().enumerate().map(row).collect()
}

fn hugging_face_name(gguf: &str) -> String {
    let parts = [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    let (stem, kind) = gguf.rsplit_once('.').unwrap();
    let (layer, part) = stem.rsplit_once('.').unwrap_or(("", stem));
    let part = parts.iter().find(|p| p.0 == part).unwrap().1;
    match layer.strip_prefix("blk.") {
        Some(layer) => format!("model.layers.{layer}.{part}.{kind}"),
        None => format!("{part}.{kind}"),
    }
}

/// Llama's queries and keys, back from GGUF's order of rows (pairs side by side) to halves.
fn unpermuted(tiny: &Tiny, name: &str, tensor: &Tensor) -> Tensor {
    let turned = name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight");
    if tiny.architecture != Architecture::Llama || !turned {
        return tensor.clone();
    }
    let (rows, columns) = tensor.dims2().unwrap();
    let heads = rows / tiny.head_dim;
    let pairs = tensor.reshape((heads, tiny.head_dim / 2, 2, columns)).unwrap();
    pairs.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, columns)).unwrap()
}

/// The logits of every position from our model, the prompt taken in chunks of `chunk`.
fn ours(tiny: &Tiny, bytes: Vec<u8>, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let source = Source::from(sconce::engine::gguf::Gguf::from_bytes(bytes).unwrap());
    let mut model = load(&source, LoadOptions::new(NonZeroUsize::new(2).unwrap())).unwrap();
    let blocks: Vec<_> = (0..tokens.len().div_ceil(32) as u32).rev().map(BlockId).collect();
    let mut cache = KvCache::new(model.spec(), blocks.len());
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

#[test]
fn float_weights_give_the_oracles_logits() {
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
        for dtype in [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16] {
            check(Tiny { dtype, ..Tiny::new(architecture) }, 0.999_9, 0.99);
            check(Tiny { dtype, tied: false, ..Tiny::new(architecture) }, 0.999_9, 0.99);
        }
    }
}

#[test]
fn quantised_weights_give_the_oracles_logits() {
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3] {
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q5_0] {
            check(Tiny { dtype, ..Tiny::new(architecture) }, 0.999, 0.97);
        }
    }
}
