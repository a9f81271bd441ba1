//! Small random encoders, written as GGUF files with a WordPiece vocabulary of letters.

use std::collections::HashMap;

use super::super::InputTokens;
use crate::engine::{
    gguf::{Gguf, GgufWriter, TensorType},
    models::Source,
};

/// The shape of a model.
#[derive(Debug, Clone, Copy)]
pub struct Tiny {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub feed_forward: usize,
    pub positions: usize,
    pub offset: usize,
    pub types: usize,
    pub activation: &'static str,
    /// GGUF's number.
    pub pooling: u32,
    pub normalize: bool,
    /// What becomes of a score, where the model gives scores.
    pub scores: Option<&'static str>,
    pub labels: u32,
    /// A gated MLP and turned queries and keys, as nomic-bert has them.
    pub gated: bool,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            layers: 2,
            hidden: 64,
            heads: 2,
            feed_forward: 96,
            positions: 600,
            offset: 0,
            types: 2,
            activation: "gelu",
            pooling: 1,
            normalize: true,
            scores: None,
            labels: 1,
            gated: false,
        }
    }
}

pub const EPS: f32 = 1e-6;
pub const ROPE_BASE: f32 = 1000.0;
const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
pub const CLS: u32 = 2;
pub const SEP: u32 = 3;

pub struct Written {
    bytes: Vec<u8>,
    pub tensors: HashMap<String, Vec<f32>>,
}

impl Written {
    pub fn source(&self) -> Source {
        Gguf::from_bytes(self.bytes.clone()).expect("the test's own file is good").into()
    }
}

/// xorshift64*.
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

    /// In -1..1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl Tiny {
    /// Special tokens, then each letter as a word's beginning and as its continuation.
    fn tokens(&self) -> Vec<String> {
        let letters = || "abcdefghijklmnopqrstuvwxyz".chars();
        let words = letters().map(|c| format!("\u{2581}{c}")).chain(letters().map(String::from));
        SPECIAL.into_iter().map(String::from).chain(words).collect()
    }

    pub fn vocabulary(&self) -> usize {
        self.tokens().len()
    }

    /// Names and shapes of all tensors.
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, wide) = (self.hidden, self.feed_forward);
        let mut shapes = vec![("token_embd.weight".to_owned(), vec![self.vocabulary(), hidden])];
        if !self.gated {
            shapes.push(("position_embd.weight".into(), vec![self.offset + self.positions, hidden]));
        }
        if self.types > 0 {
            shapes.push(("token_types.weight".into(), vec![self.types, hidden]));
        }
        let norm = |name: &str| ["weight", "bias"].map(|kind| (format!("{name}.{kind}"), vec![hidden]));
        shapes.extend(norm("token_embd_norm"));
        for layer in 0..self.layers {
            let mut matrices = match self.gated {
                true => vec![("attn_qkv", 3 * hidden, hidden), ("ffn_gate", wide, hidden)],
                false => ["attn_q", "attn_k", "attn_v"].map(|name| (name, hidden, hidden)).to_vec(),
            };
            matrices.extend([("attn_output", hidden, hidden), ("ffn_up", wide, hidden), ("ffn_down", hidden, wide)]);
            for (name, outputs, inputs) in matrices {
                shapes.push((format!("blk.{layer}.{name}.weight"), vec![outputs, inputs]));
                if !self.gated {
                    shapes.push((format!("blk.{layer}.{name}.bias"), vec![outputs]));
                }
            }
            shapes.extend(norm(&format!("blk.{layer}.attn_output_norm")));
            shapes.extend(norm(&format!("blk.{layer}.layer_output_norm")));
        }
        if self.scores.is_some() {
            for (name, outputs) in [("cls", hidden), ("cls.output", self.labels as usize)] {
                shapes.push((format!("{name}.weight"), vec![outputs, hidden]));
                shapes.push((format!("{name}.bias"), vec![outputs]));
            }
        }
        shapes
    }

    pub fn write(&self) -> Written {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut tensors = HashMap::new();
        for (name, shape) in self.shapes() {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.float()).collect();
            let matrix = shape.len() == 2 && (name.starts_with("blk.") || name.starts_with("cls"));
            let values = values.into_iter().map(|x| match () {
                () if matrix => 2.0 * x / (shape[1] as f32).sqrt(),
                () if name.ends_with("norm.weight") => 1.0 + 0.2 * x,
                () => x,
            });
            let values: Vec<f32> = values.collect();
            tensors.insert(name, values);
        }
        let architecture = if self.gated { "nomic-bert" } else { "bert" };
        let key = |name: &str| format!("{architecture}.{name}");
        let mut file = GgufWriter::new();
        file.str("general.architecture", architecture)
            .u32(&key("context_length"), self.positions as u32)
            .u32(&key("embedding_length"), self.hidden as u32)
            .u32(&key("block_count"), self.layers as u32)
            .u32(&key("feed_forward_length"), self.feed_forward as u32)
            .u32(&key("attention.head_count"), self.heads as u32)
            .f32(&key("attention.layer_norm_epsilon"), EPS)
            .f32(&key("rope.freq_base"), ROPE_BASE)
            .u32(&key("pooling_type"), if self.scores.is_some() { 4 } else { self.pooling })
            .u32("encoder.position_offset", self.offset as u32)
            .bool("encoder.normalize", self.normalize)
            .str("encoder.activation", self.activation);
        if let Some(score) = self.scores {
            file.str("encoder.score", score).u32("encoder.labels", self.labels);
        }
        let kinds: Vec<i32> = (0..self.vocabulary()).map(|id| if id < SPECIAL.len() { 3 } else { 1 }).collect();
        file.str("tokenizer.ggml.model", "bert")
            .strings("tokenizer.ggml.tokens", &self.tokens())
            .i32s("tokenizer.ggml.token_type", &kinds)
            .u32("tokenizer.ggml.cls_token_id", CLS)
            .u32("tokenizer.ggml.seperator_token_id", SEP)
            .u32("tokenizer.ggml.unknown_token_id", 1);
        let shapes = self.shapes();
        let bytes: Vec<Vec<u8>> =
            shapes.iter().map(|(name, _)| tensors[name].iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        for ((name, shape), bytes) in shapes.iter().zip(&bytes) {
            file.tensor(name, TensorType::F32, shape, bytes);
        }
        Written { bytes: file.to_bytes(), tensors }
    }
}

/// Random inputs, pairs among them, short ones mostly; one is longer than attention takes at once.
pub fn inputs(tiny: &Tiny, count: usize) -> Vec<InputTokens> {
    let mut random = Random(7);
    (0..count)
        .map(|i| {
            let len = if i == 1 { 530 } else { 1 + random.below([4, 30, 130][i % 3]) };
            let tokens = (0..len).map(|_| random.below(tiny.vocabulary()) as u32).collect();
            InputTokens { tokens, second: if i % 2 == 0 { len } else { random.below(len) } }
        })
        .collect()
}
