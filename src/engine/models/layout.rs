//! The tensors that a [`Blueprint`] takes, by GGUF's names and with their shapes: the one place that has them.
//!
//! Knows no tensor's bytes, and not which of its biases a model has: a matrix `x.weight` may have a vector `x.bias`.

use std::ops::Range;

use super::blueprint::{Blueprint, HeadNorms, Projections};

/// A vector of `len` values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorName {
    /// With its ending.
    pub name: String,
    pub len: usize,
}

/// Matrices of the same inputs, their outputs side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixNames {
    pub inputs: usize,
    pub parts: Vec<MatrixPart>,
}

/// Some rows of a stored matrix: all of them, but where an architecture stores several matrices as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixPart {
    /// The weights are `NAME.weight`, of shape (stored, inputs).
    pub name: String,
    pub stored: usize,
    pub outputs: Range<usize>,
}

/// What one layer takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerNames {
    pub attention_norm: Option<VectorName>,
    /// Queries, keys and values side by side.
    pub qkv: MatrixNames,
    /// Of the queries and of the keys.
    pub head_norms: Option<(VectorName, VectorName)>,
    pub attention_output: MatrixNames,
    pub attention_post_norm: Option<VectorName>,
    pub mlp_norm: Option<VectorName>,
    /// Gate and up side by side.
    pub gate_up: MatrixNames,
    pub down: MatrixNames,
    pub mlp_post_norm: Option<VectorName>,
}

impl Blueprint {
    /// The table of token embeddings, shape (vocabulary, hidden).
    pub fn embedding_name(&self) -> MatrixNames {
        MatrixNames::separate(self.hidden, [("token_embd".into(), self.spec.vocabulary)])
    }

    /// The matrix that turns vectors into logits, shape (vocabulary, hidden); the embedding table if they are one.
    pub fn head_name(&self) -> MatrixNames {
        if self.tied {
            return self.embedding_name();
        }
        MatrixNames::separate(self.hidden, [("output".into(), self.spec.vocabulary)])
    }

    /// The norm before the head.
    pub fn output_norm_name(&self) -> VectorName {
        VectorName { name: "output_norm.weight".into(), len: self.hidden }
    }

    /// The tensors of layer `index`.
    pub fn layer_names(&self, index: usize) -> LayerNames {
        let (hidden, queries, keys, wide) = (self.hidden, self.query_width(), self.key_width(), self.feed_forward);
        let name = |part: &str| format!("blk.{index}.{part}");
        let matrices = |inputs, parts: &[(&str, usize)]| {
            MatrixNames::separate(inputs, parts.iter().map(|(part, outputs)| (name(part), *outputs)))
        };
        let norm = |part: &str, len| VectorName { name: name(&format!("{part}.weight")), len };
        let before = |part| self.norms.before().then(|| norm(part, hidden));
        let after = |part| self.norms.after().then(|| norm(part, hidden));
        let head_norms = |query_len, key_len| Some((norm("attn_q_norm", query_len), norm("attn_k_norm", key_len)));
        LayerNames {
            attention_norm: before("attn_norm"),
            qkv: match self.projections {
                Projections::Separate => matrices(hidden, &[("attn_q", queries), ("attn_k", keys), ("attn_v", keys)]),
                Projections::Fused => MatrixNames::fused(hidden, name("attn_qkv"), &[queries, keys, keys]),
            },
            head_norms: match self.head_norms {
                HeadNorms::None => None,
                HeadNorms::PerHead => head_norms(self.spec.head_dim, self.spec.head_dim),
                HeadNorms::WholeRow => head_norms(queries, keys),
            },
            attention_output: matrices(queries, &[("attn_output", hidden)]),
            attention_post_norm: after("post_attention_norm"),
            mlp_norm: before("ffn_norm"),
            gate_up: match self.projections {
                Projections::Separate => matrices(hidden, &[("ffn_gate", wide), ("ffn_up", wide)]),
                Projections::Fused => MatrixNames::fused(hidden, name("ffn_up"), &[wide, wide]),
            },
            down: matrices(wide, &[("ffn_down", hidden)]),
            mlp_post_norm: after("post_ffw_norm"),
        }
    }
}

/// The tensor that is packed together with tensor `up`, if that is an up.
pub fn gate_of(up: &str) -> Option<String> {
    up.strip_suffix("ffn_up.weight").map(|layer| format!("{layer}ffn_gate.weight"))
}

impl MatrixNames {
    /// Matrices `(name, outputs)`.
    fn separate(inputs: usize, matrices: impl IntoIterator<Item = (String, usize)>) -> Self {
        let part = |(name, outputs)| MatrixPart { name, stored: outputs, outputs: 0..outputs };
        Self { inputs, parts: matrices.into_iter().map(part).collect() }
    }

    /// Matrices of so many outputs, stored one below the other as one.
    fn fused(inputs: usize, name: String, outputs: &[usize]) -> Self {
        let stored = outputs.iter().sum();
        let mut first = 0;
        let part = |outputs: &usize| {
            first += outputs;
            MatrixPart { name: name.clone(), stored, outputs: first - outputs..first }
        };
        Self { inputs, parts: outputs.iter().map(part).collect() }
    }

    /// Outputs of all matrices together.
    pub fn outputs(&self) -> usize {
        self.parts.iter().map(|part| part.outputs.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_matrices_are_cut_into_their_parts() {
        let fused = MatrixNames::fused(8, "attn_qkv".into(), &[32, 16, 16]);
        let rows: Vec<_> = fused.parts.iter().map(|part| (part.stored, part.outputs.clone())).collect();
        assert_eq!(rows, [(64, 0..32), (64, 32..48), (64, 48..64)]);
        assert_eq!(fused.outputs(), 64);
    }
}
