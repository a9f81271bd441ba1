//! Small random models of every architecture, written as GGUF files with a byte-level tokenizer.

use std::collections::HashMap;

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor},
};
use sconce::engine::{
    gguf::{Gguf, GgufWriter, TensorType},
    models::{Architecture, Source},
};

/// The shape of a model, its weights' type, and the seed they are drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Tiny {
    pub architecture: Architecture,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward: usize,
    /// At least the 256 bytes and 4 special tokens; more are padding.
    pub vocabulary: usize,
    pub context: usize,
    pub rope_base: f32,
    /// Of Gemma 3's windowed layers.
    pub local_base: f32,
    pub tied: bool,
    pub dtype: GgmlDType,
    pub seed: u64,
    /// Llama 3's rope factors.
    pub rope_factors: bool,
    /// Positions that windowed layers see.
    pub window: Option<usize>,
    /// One layer in so many sees everything (Gemma).
    pub window_pattern: usize,
}

/// A written model and what its tensors hold after quantisation, by their GGUF names.
pub struct Written {
    pub bytes: Vec<u8>,
    pub tensors: HashMap<String, Tensor>,
}

/// One tensor as it is stored.
struct Stored {
    name: String,
    dtype: TensorType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// Gemma 2's caps, small enough to matter here.
pub const ATTENTION_CAP: f32 = 4.0;
pub const LOGIT_CAP: f32 = 8.0;
/// Granite's scales.
pub const GRANITE_SCALES: [(&str, &str, f32); 4] = [
    ("embedding_multiplier", "embedding_scale", 3.0),
    ("residual_multiplier", "residual_scale", 0.5),
    ("attention_multiplier", "attention.scale", 0.25),
    ("logits_scaling", "logit_scale", 2.0),
];

impl Tiny {
    pub fn new(architecture: Architecture) -> Self {
        let gemma = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
        Self {
            architecture,
            hidden: 256,
            layers: match architecture {
                Architecture::Gemma3 | Architecture::SmolLm3 => 4,
                _ => 2,
            },
            heads: 8,
            kv_heads: 2,
            head_dim: 32,
            feed_forward: 512,
            vocabulary: 288,
            context: 512,
            rope_base: if architecture == Architecture::Gemma3 { 100_000.0 } else { 10_000.0 },
            local_base: 10_000.0,
            tied: true,
            dtype: GgmlDType::Q8_0,
            seed: 1,
            rope_factors: architecture == Architecture::Llama,
            window: gemma.then_some(24),
            window_pattern: 2,
        }
    }

    /// The file, as the engine opens it.
    pub fn source(&self) -> Source {
        Gguf::from_bytes(self.write().bytes).expect("the test's own file is good").into()
    }

    pub fn write(&self) -> Written {
        let (stored, tensors) = self.tensors();
        let mut file = GgufWriter::new();
        self.metadata(&mut file);
        for Stored { name, dtype, shape, data } in &stored {
            file.tensor(name, *dtype, shape, data);
        }
        Written { bytes: file.to_bytes(), tensors }
    }

    /// All tensors in the order of the file, and what they hold.
    fn tensors(&self) -> (Vec<Stored>, HashMap<String, Tensor>) {
        let mut random = Random(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut stored: Vec<Stored> = Vec::new();
        let mut tensors = HashMap::new();
        let mut matrix = |name: &str, rows: usize, columns: usize, gain: f32, random: &mut Random| {
            let spread = gain / (columns as f32).sqrt();
            // Rows of unequal length where they are tokens: logits then have a few clear favourites, as real ones do.
            let lengths: Vec<f32> =
                (0..rows).map(|_| if gain > 1.0 { (0.7 * random.normal()).exp() } else { 1.0 }).collect();
            let values: Vec<f32> =
                (0..rows * columns).map(|i| random.normal() * spread * lengths[i / columns]).collect();
            let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap();
            let dtype = if columns.is_multiple_of(self.dtype.block_size()) { self.dtype } else { GgmlDType::Q8_0 };
            let quantised = QTensor::quantize(&tensor, dtype).unwrap();
            let name = format!("{name}.weight");
            tensors.insert(name.clone(), quantised.dequantize(&Device::Cpu).unwrap());
            let data = quantised.data().unwrap().into_owned();
            stored.push(Stored { name, dtype: tensor_type(dtype), shape: vec![rows, columns], data });
        };
        matrix("token_embd", self.vocabulary, self.hidden, 4.0, &mut random);
        if !self.tied {
            matrix("output", self.vocabulary, self.hidden, 4.0, &mut random);
        }
        for layer in 0..self.layers {
            for (name, rows, columns) in self.matrices() {
                // What a layer adds is small beside the stream, as in trained models.
                let gain = if matches!(name, "attn_output" | "ffn_down") { 0.3 } else { 1.0 };
                matrix(&format!("blk.{layer}.{name}"), rows, columns, gain, &mut random);
            }
        }
        let mut vector = |name: &str, values: Vec<f32>| {
            let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.insert(name.into(), Tensor::from_slice(&values, values.len(), &Device::Cpu).unwrap());
            stored.push(Stored { name: name.into(), dtype: TensorType::F32, shape: vec![values.len()], data });
        };
        // Multiples of 1/4096: 1 can be taken from them and added again without a loss.
        let mut drawn = |len: usize, mean: f32| -> Vec<f32> {
            (0..len).map(|_| ((mean + 0.1 * random.normal()) * 4096.0).round() / 4096.0).collect()
        };
        vector("output_norm.weight", drawn(self.hidden, 1.0));
        for layer in 0..self.layers {
            for (name, len, mean) in self.vectors() {
                vector(&format!("blk.{layer}.{name}"), drawn(len, mean));
            }
        }
        if self.rope_factors {
            vector("rope_freqs.weight", rope_factors(self.head_dim, self.rope_base));
        }
        (stored, tensors)
    }

    fn widths(&self) -> (usize, usize) {
        (self.heads * self.head_dim, self.kv_heads * self.head_dim)
    }

    /// A layer's matrices: name, rows, columns.
    fn matrices(&self) -> Vec<(&'static str, usize, usize)> {
        let ((queries, keys), hidden, wide) = (self.widths(), self.hidden, self.feed_forward);
        let (mut attention, mut mlp) = match self.architecture {
            Architecture::Phi3 => (vec![("attn_qkv", queries + 2 * keys, hidden)], vec![("ffn_up", 2 * wide, hidden)]),
            _ => (
                vec![("attn_q", queries, hidden), ("attn_k", keys, hidden), ("attn_v", keys, hidden)],
                vec![("ffn_gate", wide, hidden), ("ffn_up", wide, hidden)],
            ),
        };
        attention.push(("attn_output", hidden, queries));
        mlp.push(("ffn_down", hidden, wide));
        [attention, mlp].concat()
    }

    /// A layer's vectors: name, length, and what their values are spread about.
    fn vectors(&self) -> Vec<(&'static str, usize, f32)> {
        use Architecture::*;
        let ((queries, keys), hidden) = (self.widths(), self.hidden);
        let mut vectors = Vec::new();
        if self.architecture != Olmo2 {
            vectors.extend([("attn_norm.weight", hidden, 1.0), ("ffn_norm.weight", hidden, 1.0)]);
        }
        if matches!(self.architecture, Gemma2 | Gemma3 | Olmo2) {
            vectors.extend([("post_attention_norm.weight", hidden, 1.0), ("post_ffw_norm.weight", hidden, 1.0)]);
        }
        match self.architecture {
            Qwen2 => {
                vectors.extend([("attn_q.bias", queries, 0.0), ("attn_k.bias", keys, 0.0), ("attn_v.bias", keys, 0.0)])
            }
            Qwen3 | Gemma3 => {
                vectors.extend([("attn_q_norm.weight", self.head_dim, 1.0), ("attn_k_norm.weight", self.head_dim, 1.0)])
            }
            Olmo2 => vectors.extend([("attn_q_norm.weight", queries, 1.0), ("attn_k_norm.weight", keys, 1.0)]),
            _ => {}
        }
        vectors
    }

    fn metadata(&self, file: &mut GgufWriter) {
        let arch = self.architecture.name();
        let key = |name: &str| format!("{arch}.{name}");
        file.str("general.architecture", arch)
            .str("general.name", "tiny-random")
            .u32(&key("context_length"), self.context as u32)
            .u32(&key("embedding_length"), self.hidden as u32)
            .u32(&key("block_count"), self.layers as u32)
            .u32(&key("feed_forward_length"), self.feed_forward as u32)
            .u32(&key("attention.head_count"), self.heads as u32)
            .u32(&key("attention.head_count_kv"), self.kv_heads as u32)
            .u32(&key("attention.key_length"), self.head_dim as u32)
            .u32(&key("attention.value_length"), self.head_dim as u32)
            .f32(&key("attention.layer_norm_rms_epsilon"), 1e-6)
            .f32(&key("rope.freq_base"), self.rope_base)
            .u32(&key("rope.dimension_count"), self.head_dim as u32);
        if let Some(window) = self.window {
            file.u32(&key("attention.sliding_window"), window as u32);
        }
        match self.architecture {
            Architecture::Gemma2 => {
                file.f32(&key("attn_logit_softcapping"), ATTENTION_CAP).f32(&key("final_logit_softcapping"), LOGIT_CAP);
            }
            Architecture::Gemma3 => {
                file.f32(&key("rope.freq_base_swa"), self.local_base)
                    .u32(&key("attention.sliding_window_pattern"), self.window_pattern as u32);
            }
            Architecture::Granite => {
                for (_, name, scale) in GRANITE_SCALES {
                    file.f32(&key(name), scale);
                }
            }
            _ => {}
        }
        let tokens = self.tokens();
        let kinds: Vec<i32> = (0..self.vocabulary)
            .map(|i| {
                if i < 256 {
                    1
                } else if i < 260 {
                    3
                } else {
                    5
                }
            })
            .collect();
        file.str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", "qwen2")
            .strings("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &kinds)
            .strings::<&str>("tokenizer.ggml.merges", &[])
            .u32("tokenizer.ggml.eos_token_id", 258)
            .u32("tokenizer.ggml.bos_token_id", 256)
            .bool("tokenizer.ggml.add_bos_token", false)
            .str("tokenizer.chat_template", TEMPLATE);
    }

    /// The bytes, four special tokens, and padding.
    fn tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = (0..=255u8).map(|byte| byte_symbol(byte).to_string()).collect();
        tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"].map(String::from));
        tokens.extend((tokens.len()..self.vocabulary).map(|i| format!("[PAD{i}]")));
        tokens
    }
}

pub const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Llama 3.1's rule: low frequencies are slowed by 8, high ones kept, those between interpolated.
pub fn rope_factors(head_dim: usize, base: f32) -> Vec<f32> {
    let (factor, low, high, original) = (8.0, 1.0, 4.0, 128.0);
    (0..head_dim / 2)
        .map(|i| {
            let wavelength = std::f32::consts::TAU * base.powf(2.0 * i as f32 / head_dim as f32);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        })
        .collect()
}

fn tensor_type(dtype: GgmlDType) -> TensorType {
    match dtype {
        GgmlDType::F32 => TensorType::F32,
        GgmlDType::F16 => TensorType::F16,
        GgmlDType::BF16 => TensorType::Bf16,
        GgmlDType::Q4_0 => TensorType::Q4_0,
        GgmlDType::Q4_1 => TensorType::Q4_1,
        GgmlDType::Q5_0 => TensorType::Q5_0,
        GgmlDType::Q5_1 => TensorType::Q5_1,
        GgmlDType::Q8_0 => TensorType::Q8_0,
        GgmlDType::Q2K => TensorType::Q2K,
        GgmlDType::Q3K => TensorType::Q3K,
        GgmlDType::Q4K => TensorType::Q4K,
        GgmlDType::Q5K => TensorType::Q5K,
        GgmlDType::Q6K => TensorType::Q6K,
        other => panic!("no model is stored as {other:?}"),
    }
}

/// GPT-2's printable stand-in for a byte.
pub fn byte_symbol(byte: u8) -> char {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(&byte) {
        return byte.into();
    }
    let rank = (0..byte).filter(|b| !printable(b)).count() as u32;
    char::from_u32(256 + rank).expect("a letter of Latin Extended")
}

/// xorshift64*; enough for weights.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn unit(&mut self) -> f32 {
        ((self.next() >> 40) as f32 + 0.5) / (1u32 << 24) as f32
    }

    /// Box–Muller.
    pub fn normal(&mut self) -> f32 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f32::consts::TAU * self.unit()).cos()
    }
}
