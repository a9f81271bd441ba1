//! Writes the trained network and its tokenizer as one GGUF file, weights in Q8_0 and norms in F32, and reads it back
//! for the reference implementation.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::qwen3;
use sconce::engine::gguf::{GgufWriter, TensorType};

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

pub fn save(path: &Path, model: &Qwen3, tokens: &[String], merges: &[String]) -> Result<()> {
    let mut weights = Vec::new();
    for (ours, gguf) in names(model.shape.layers) {
        let weight = model.weights[&ours].as_tensor();
        let (kind, written) =
            if weight.rank() == 1 { (GgmlDType::F32, TensorType::F32) } else { (GgmlDType::Q8_0, TensorType::Q8_0) };
        weights.push((gguf, weight.dims(), written, QTensor::quantize(weight, kind)?.data()?.into_owned()));
    }
    let mut file = GgufWriter::new();
    describe(&mut file, model.shape, tokens, merges);
    for (name, dimensions, kind, data) in &weights {
        file.tensor(name, *kind, dimensions, data);
    }
    Ok(fs::write(path, file.to_bytes())?)
}

fn describe(file: &mut GgufWriter, shape: Shape, tokens: &[String], merges: &[String]) {
    let id = |text: &str| tokens.iter().position(|token| token == text).expect("a special token") as u32;
    let is_control = |token: &String| token.starts_with("<|") && token.ends_with("|>");
    let kinds: Vec<i32> = tokens.iter().map(|token| if is_control(token) { CONTROL } else { NORMAL }).collect();
    file.str("general.architecture", "qwen3")
        .str("general.type", "model")
        .str("general.name", "sconce-demo")
        .str("general.description", "The tiny demo model embedded in Sconce; not for real answers")
        .str("general.license", "MIT OR Apache-2.0")
        .u32("general.file_type", 7) // mostly Q8_0
        .u32("general.quantization_version", 2)
        .u32("qwen3.block_count", shape.layers as u32)
        .u32("qwen3.context_length", shape.context as u32)
        .u32("qwen3.embedding_length", shape.hidden as u32)
        .u32("qwen3.feed_forward_length", shape.feed_forward as u32)
        .u32("qwen3.attention.head_count", shape.heads as u32)
        .u32("qwen3.attention.head_count_kv", shape.kv_heads as u32)
        .u32("qwen3.attention.key_length", shape.head_dim as u32)
        .u32("qwen3.attention.value_length", shape.head_dim as u32)
        .f32("qwen3.attention.layer_norm_rms_epsilon", shape.rms_eps as f32)
        .f32("qwen3.rope.freq_base", shape.rope_theta as f32)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "qwen2")
        .strings("tokenizer.ggml.tokens", tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strings("tokenizer.ggml.merges", merges)
        .u32("tokenizer.ggml.bos_token_id", id(PADDING))
        .u32("tokenizer.ggml.padding_token_id", id(PADDING))
        .u32("tokenizer.ggml.eos_token_id", id(TURN_END))
        .bool("tokenizer.ggml.add_bos_token", false)
        .str("tokenizer.chat_template", CHAT_TEMPLATE);
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
