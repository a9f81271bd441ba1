//! Writes the trained network and its tokenizer as one GGUF file, weights in Q8_0 and norms in F32, and reads it back
//! for the reference implementation.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::qwen3;

use crate::corpus::{CHAT_TEMPLATE, PADDING, TURN_END};
use crate::model::{Qwen3, Shape};

/// GGUF's numbers for `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Hugging Face's and GGUF's names of a layer's weights.
const LAYER_NAMES: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Pairs of (Hugging Face, GGUF) names in file order. There is no output head: it is tied to the embedding.
fn names(layers: usize) -> Vec<(String, String)> {
    let mut names = vec![
        ("model.embed_tokens.weight".to_string(), "token_embd.weight".to_string()),
        ("model.norm.weight".to_string(), "output_norm.weight".to_string()),
    ];
    for layer in 0..layers {
        names.extend(
            LAYER_NAMES.map(|(ours, gguf)| {
                (format!("model.layers.{layer}.{ours}.weight"), format!("blk.{layer}.{gguf}.weight"))
            }),
        );
    }
    names
}

fn metadata(shape: Shape, tokens: &[String], merges: &[String]) -> Vec<(&'static str, Value)> {
    let strings = |texts: &[String]| Value::Array(texts.iter().cloned().map(Value::String).collect());
    let id = |text: &str| Value::U32(tokens.iter().position(|token| token == text).expect("a special token") as u32);
    let kinds =
        tokens.iter().map(|token| if token.starts_with("<|") && token.ends_with("|>") { CONTROL } else { NORMAL });
    vec![
        ("general.architecture", Value::String("qwen3".into())),
        ("general.type", Value::String("model".into())),
        ("general.name", Value::String("sconce-demo".into())),
        ("general.description", Value::String("The tiny demo model embedded in Sconce; not for real answers".into())),
        ("general.license", Value::String("MIT OR Apache-2.0".into())),
        ("general.file_type", Value::U32(7)), // mostly Q8_0
        ("general.quantization_version", Value::U32(2)),
        ("qwen3.block_count", Value::U32(shape.layers as u32)),
        ("qwen3.context_length", Value::U32(shape.context as u32)),
        ("qwen3.embedding_length", Value::U32(shape.hidden as u32)),
        ("qwen3.feed_forward_length", Value::U32(shape.feed_forward as u32)),
        ("qwen3.attention.head_count", Value::U32(shape.heads as u32)),
        ("qwen3.attention.head_count_kv", Value::U32(shape.kv_heads as u32)),
        ("qwen3.attention.key_length", Value::U32(shape.head_dim as u32)),
        ("qwen3.attention.value_length", Value::U32(shape.head_dim as u32)),
        ("qwen3.attention.layer_norm_rms_epsilon", Value::F32(shape.rms_eps as f32)),
        ("qwen3.rope.freq_base", Value::F32(shape.rope_theta as f32)),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("qwen2".into())),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(kinds.map(Value::I32).collect())),
        ("tokenizer.ggml.merges", strings(merges)),
        ("tokenizer.ggml.bos_token_id", id(PADDING)),
        ("tokenizer.ggml.padding_token_id", id(PADDING)),
        ("tokenizer.ggml.eos_token_id", id(TURN_END)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.chat_template", Value::String(CHAT_TEMPLATE.into())),
    ]
}

pub fn save(path: &Path, model: &Qwen3, tokens: &[String], merges: &[String]) -> Result<()> {
    let mut tensors = Vec::new();
    for (ours, gguf) in names(model.shape.layers) {
        let weight = model.weights[&ours].as_tensor();
        let kind = if weight.rank() == 1 { GgmlDType::F32 } else { GgmlDType::Q8_0 };
        tensors.push((gguf, QTensor::quantize(weight, kind)?));
    }
    let metadata = metadata(model.shape, tokens, merges);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    write(&mut file, &metadata, &tensors)?;
    let mut bytes = file.into_inner();
    // Candle writes version 2. Version 3 only adds big-endian files: the bytes are otherwise the same.
    bytes[4..8].copy_from_slice(&3u32.to_le_bytes());
    Ok(fs::write(path, bytes)?)
}

/// What the file ships, as the reference implementation sees it: weights dequantised from Q8_0.
pub fn load_reference(path: &Path, shape: Shape) -> Result<qwen3::ModelForCausalLM> {
    let mut file = fs::File::open(path)?;
    let content = Content::read(&mut file)?;
    let mut weights = HashMap::new();
    for (ours, gguf) in names(shape.layers) {
        weights.insert(ours, content.tensor(&mut file, &gguf, &Device::Cpu)?.dequantize(&Device::Cpu)?);
    }
    reference(weights, shape)
}

/// candle-transformers' Qwen3 with these weights.
pub fn reference(weights: HashMap<String, Tensor>, shape: Shape) -> Result<qwen3::ModelForCausalLM> {
    let config = qwen3::Config {
        vocab_size: shape.vocabulary,
        hidden_size: shape.hidden,
        intermediate_size: shape.feed_forward,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        head_dim: shape.head_dim,
        attention_bias: false,
        num_key_value_heads: shape.kv_heads,
        max_position_embeddings: shape.context,
        sliding_window: None,
        max_window_layers: shape.layers,
        tie_word_embeddings: true,
        rope_theta: shape.rope_theta,
        rms_norm_eps: shape.rms_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    qwen3::ModelForCausalLM::new(&config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))
}
