//! An encoder's weights, by GGUF's names.

use super::blueprint::{EncoderSpec, Output, Positions};
use crate::engine::{
    gguf::TensorType,
    kernels::kernels,
    layers::Linear,
    models::{
        LoadError,
        layout::{MatrixNames, MatrixPart},
        weights::{Matrix, Weights},
    },
};

pub(super) struct Parts {
    pub tokens: Table,
    /// Shape (positions, hidden), those that are used; empty without a table.
    pub positions: Vec<f32>,
    /// Shape (types, hidden).
    pub types: Vec<f32>,
    pub norm: LayerNorm,
    pub layers: Vec<Layer>,
    pub head: Option<Head>,
}

/// One layer.
pub(super) struct Layer {
    /// Queries, keys and values side by side.
    pub qkv: Linear,
    pub attention_output: Linear,
    pub attention_norm: LayerNorm,
    pub mlp: Mlp,
    pub down: Linear,
    pub output_norm: LayerNorm,
}

pub(super) enum Mlp {
    Plain(Linear),
    /// Gate and up side by side.
    Gated(Linear),
}

impl Mlp {
    pub fn linear(&self) -> &Linear {
        match self {
            Self::Plain(linear) | Self::Gated(linear) => linear,
        }
    }
}

/// What makes a score of an input's first row.
pub(super) struct Head {
    pub pooler: Linear,
    /// Missing where the pooler's own output is the score.
    pub output: Option<Linear>,
}

pub(super) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl LayerNorm {
    /// Of `x + added`, written where `x` is.
    pub fn forward_sum(&self, x: &mut [f32], added: &[f32]) {
        kernels().add_layer_norm(x, added, [&self.weight, &self.bias], self.eps);
    }
}

/// The vectors of tokens.
pub(super) enum Table {
    /// Floats as the file has them: a row is one run of bytes.
    Rows { dtype: TensorType, data: Vec<u8> },
    /// Quantised ones, packed.
    Packed(Linear),
}

impl Table {
    pub fn row(&self, index: usize, out: &mut [f32]) {
        match self {
            Self::Rows { dtype, data } => {
                let row_bytes = out.len() * dtype.block_bytes();
                dtype.write_floats(&data[index * row_bytes..][..row_bytes], out);
            }
            Self::Packed(linear) => linear.weight_row(index, out),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Rows { data, .. } => data.len(),
            Self::Packed(linear) => linear.bytes(),
        }
    }
}

impl Parts {
    pub fn load(weights: &Weights, spec: &EncoderSpec) -> Result<Self, LoadError> {
        let hidden = spec.hidden;
        let norm = |name: &str| {
            let vector = |kind: &str| weights.vector(&format!("{name}.{kind}"), hidden);
            Ok::<_, LoadError>(LayerNorm { weight: vector("weight")?, bias: vector("bias")?, eps: spec.eps })
        };
        let linear = |inputs: usize, parts: &[(String, usize)]| weights.linear(&matrices(inputs, parts));
        let layer = |index: usize| {
            let name = |part: &str| format!("blk.{index}.{part}");
            let wide = spec.feed_forward;
            // As one matrix or as three, which are the same side by side.
            let qkv = match weights.has(&name("attn_qkv.weight")) {
                true => linear(hidden, &[(name("attn_qkv"), 3 * hidden)])?,
                false => linear(hidden, &["attn_q", "attn_k", "attn_v"].map(|part| (name(part), hidden)))?,
            };
            let up = (name("ffn_up"), wide);
            let mlp = match spec.gated {
                true => Mlp::Gated(weights.gate_up(&matrices(hidden, &[(name("ffn_gate"), wide), up]))?),
                false => Mlp::Plain(linear(hidden, &[up])?),
            };
            Ok(Layer {
                qkv,
                attention_output: linear(hidden, &[(name("attn_output"), hidden)])?,
                attention_norm: norm(&name("attn_output_norm"))?,
                mlp,
                down: linear(wide, &[(name("ffn_down"), hidden)])?,
                output_norm: norm(&name("layer_output_norm"))?,
            })
        };
        let head = match spec.output {
            Output::Vector { .. } => None,
            Output::Score { .. } => {
                let output = weights.has("cls.output.weight");
                let outputs = if output { hidden } else { 1 };
                let output = output.then(|| linear(hidden, &[("cls.output".into(), 1)])).transpose()?;
                Some(Head { pooler: linear(hidden, &[("cls".into(), outputs)])?, output })
            }
        };
        Ok(Self {
            tokens: Self::table(weights, spec)?,
            positions: match spec.positions {
                Positions::Learned { offset } => {
                    let used = offset..offset + spec.input_tokens_max;
                    weights.float_rows("position_embd.weight", used, hidden)?
                }
                Positions::Rotary { .. } => Vec::new(),
            },
            types: match spec.token_types {
                0 => Vec::new(),
                count => weights.float_rows("token_types.weight", 0..count, hidden)?,
            },
            norm: norm("token_embd_norm")?,
            layers: (0..spec.layers).map(layer).collect::<Result<_, LoadError>>()?,
            head,
        })
    }

    fn table(weights: &Weights, spec: &EncoderSpec) -> Result<Table, LoadError> {
        let tokens = matrices(spec.hidden, &[("token_embd".into(), spec.vocabulary)]);
        Ok(match weights.floats(&tokens.parts[0], spec.hidden)? {
            Some(Matrix { dtype, data }) => Table::Rows { dtype, data: data.into_owned() },
            None => Table::Packed(weights.linear(&tokens)?),
        })
    }

    /// Bytes of all matrices in memory.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &Layer| {
            let all = [&layer.qkv, &layer.attention_output, layer.mlp.linear(), &layer.down];
            all.into_iter().map(Linear::bytes).sum::<usize>()
        };
        self.tokens.bytes() + self.layers.iter().map(layer).sum::<usize>()
    }
}

fn matrices(inputs: usize, parts: &[(String, usize)]) -> MatrixNames {
    let part =
        |(name, outputs): &(String, usize)| MatrixPart { name: name.clone(), stored: *outputs, outputs: 0..*outputs };
    MatrixNames { inputs, parts: parts.iter().map(part).collect() }
}
