//! A tiny Qwen3-shaped GGUF with random weights and a byte-level tokenizer: real in every part, and fast.

use std::path::PathBuf;

use sconce::engine::gguf::{GgufWriter, TensorType};

/// Positions the tiny model was "trained" for.
pub const CONTEXT: usize = 4096;

const HIDDEN: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const FFN: usize = 128;

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Writes the model once per process; gives its path.
pub fn tiny() -> PathBuf {
    static PATH: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PATH.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny-{}.gguf", std::process::id()));
        std::fs::write(&path, bytes()).unwrap();
        path
    })
    .clone()
}

/// The file's bytes.
pub fn bytes() -> Vec<u8> {
    let tokens = tokens();
    let mut types = vec![1; tokens.len()];
    types[256..].fill(3);
    let mut random = Random(7);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut tensor = |name: String, shape: &[usize], mean: f32, spread: f32| {
        let n = shape.iter().product::<usize>();
        let data = (0..n).flat_map(|_| (mean + spread * random.next()).to_le_bytes()).collect();
        tensors.push((name, shape.to_vec(), data));
    };
    tensor("token_embd.weight".into(), &[tokens.len(), HIDDEN], 0.0, 1.0);
    tensor("output_norm.weight".into(), &[HIDDEN], 1.0, 0.1);
    for i in 0..LAYERS {
        for (name, rows, columns) in [
            ("attn_q", HEADS * HEAD_DIM, HIDDEN),
            ("attn_k", KV_HEADS * HEAD_DIM, HIDDEN),
            ("attn_v", KV_HEADS * HEAD_DIM, HIDDEN),
            ("attn_output", HIDDEN, HEADS * HEAD_DIM),
            ("ffn_gate", FFN, HIDDEN),
            ("ffn_up", FFN, HIDDEN),
            ("ffn_down", HIDDEN, FFN),
        ] {
            tensor(format!("blk.{i}.{name}.weight"), &[rows, columns], 0.0, 1.7 / (columns as f32).sqrt());
        }
        for (name, n) in
            [("attn_norm", HIDDEN), ("ffn_norm", HIDDEN), ("attn_q_norm", HEAD_DIM), ("attn_k_norm", HEAD_DIM)]
        {
            tensor(format!("blk.{i}.{name}.weight"), &[n], 1.0, 0.1);
        }
    }

    let mut file = GgufWriter::new();
    file.str("general.architecture", "qwen3")
        .str("general.name", "tiny")
        .u32("qwen3.block_count", LAYERS as u32)
        .u32("qwen3.context_length", CONTEXT as u32)
        .u32("qwen3.embedding_length", HIDDEN as u32)
        .u32("qwen3.feed_forward_length", FFN as u32)
        .u32("qwen3.attention.head_count", HEADS as u32)
        .u32("qwen3.attention.head_count_kv", KV_HEADS as u32)
        .u32("qwen3.attention.key_length", HEAD_DIM as u32)
        .u32("qwen3.attention.value_length", HEAD_DIM as u32)
        .f32("qwen3.attention.layer_norm_rms_epsilon", 1e-6)
        .f32("qwen3.rope.freq_base", 1e6)
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "qwen2")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .strings::<&str>("tokenizer.ggml.merges", &[])
        .u32("tokenizer.ggml.eos_token_id", 258)
        .bool("tokenizer.ggml.add_bos_token", false)
        .str("tokenizer.chat_template", TEMPLATE);
    for (name, shape, data) in &tensors {
        file.tensor(name, TensorType::F32, shape, data);
    }
    file.to_bytes()
}

/// One token for each byte, as GPT-2 writes bytes (printable ones as themselves, the rest from U+0100), then three
/// control tokens.
fn tokens() -> Vec<String> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut tokens: Vec<String> = (0..=255)
        .map(|byte: u8| {
            let code = if printable(byte) {
                byte.into()
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
    tokens
}

/// Uniform in -1..1: xorshift, which is random enough for weights.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
