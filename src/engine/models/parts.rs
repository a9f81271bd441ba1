//! What a decoder is made of: the layers that a [`Blueprint`] says, with the weights that it names.

use super::{
    LoadError, Spec, WeightSizes,
    blueprint::{Activation, Blueprint, HeadNorms, SoftCaps},
    layout::VectorName,
    weights::Weights,
};
use crate::engine::layers::{Attention, Linear, QkNorm, RmsNorm, Rope};

pub(super) struct Parts {
    pub spec: Spec,
    /// (vocabulary, hidden)
    pub embedding: Embedding,
    /// What the table's vectors are multiplied with; 1 in most models.
    pub embedding_scale: f32,
    pub ropes: Vec<Rope>,
    pub blocks: Vec<Block>,
    pub norm: RmsNorm,
    pub logits: Logits,
}

/// What becomes of the head's products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Logits {
    pub scale: f32,
    pub soft_cap: Option<f32>,
}

impl Parts {
    /// Takes the tensors that the blueprint names.
    pub fn load(weights: &Weights, blueprint: Blueprint) -> Result<Self, LoadError> {
        let table = weights.linear(&blueprint.embedding_name())?;
        let embedding = match blueprint.tied {
            true => Embedding::Tied(table),
            false => Embedding::Untied { table, head: weights.linear(&blueprint.head_name())? },
        };
        let layers = 0..blueprint.layers.len();
        let blocks = layers.map(|index| Block::load(weights, &blueprint, index)).collect::<Result<_, _>>()?;
        let SoftCaps { logits: soft_cap, .. } = blueprint.soft_caps;
        Ok(Self {
            embedding,
            embedding_scale: blueprint.scales.embedding,
            ropes: blueprint.ropes.iter().map(|rotary| rotary.rope()).collect(),
            blocks,
            norm: norm(weights, &blueprint, &blueprint.output_norm_name())?,
            logits: Logits { scale: blueprint.scales.logits, soft_cap },
            spec: blueprint.spec,
        })
    }

    /// What the weights take as they are packed; `file` says the rest.
    pub fn packed_sizes(&self, file: WeightSizes) -> WeightSizes {
        let bytes = |block: &Block| -> usize {
            [&block.qkv, &block.attention_output, &block.gate_up, &block.down].into_iter().map(Linear::bytes).sum()
        };
        WeightSizes {
            layer_bytes: self.blocks.iter().map(bytes).sum::<usize>() as u64,
            head_bytes: self.embedding.head().bytes() as u64,
            table_bytes: self.embedding.table_bytes() as u64,
            ..file
        }
    }
}

/// The table that turns tokens into vectors, and the matrix that turns vectors into logits.
pub(super) enum Embedding {
    /// One for both.
    Tied(Linear),
    Untied {
        table: Linear,
        head: Linear,
    },
}

impl Embedding {
    pub fn table(&self) -> &Linear {
        match self {
            Self::Tied(both) => both,
            Self::Untied { table, .. } => table,
        }
    }

    /// Bytes that the table has by itself.
    pub fn table_bytes(&self) -> usize {
        match self {
            Self::Tied(_) => 0,
            Self::Untied { table, .. } => table.bytes(),
        }
    }

    pub fn head(&self) -> &Linear {
        match self {
            Self::Tied(both) => both,
            Self::Untied { head, .. } => head,
        }
    }
}

/// One layer.
pub(super) struct Block {
    pub attention_norm: Option<RmsNorm>,
    /// Queries, keys and values side by side.
    pub qkv: Linear,
    pub attention: Attention,
    /// Index among the ropes.
    pub rope: Option<usize>,
    pub attention_output: Linear,
    pub attention_join: Join,
    pub mlp_norm: Option<RmsNorm>,
    /// Gate and up side by side.
    pub gate_up: Linear,
    pub activation: Activation,
    pub down: Linear,
    pub mlp_join: Join,
}

/// How what attention or MLP gives is added to the residual stream.
pub(super) enum Join {
    /// As it is.
    Plain,
    /// Normalised, if there is a norm, and scaled.
    Changed { norm: Option<RmsNorm>, scale: f32 },
}

impl Block {
    fn load(weights: &Weights, blueprint: &Blueprint, index: usize) -> Result<Self, LoadError> {
        let names = blueprint.layer_names(index);
        let norm = |name: &VectorName| norm(weights, blueprint, name);
        let optional = |name: &Option<VectorName>| name.as_ref().map(norm).transpose();
        let join = |name: &Option<VectorName>| {
            Ok::<_, LoadError>(match (optional(name)?, blueprint.scales.residual) {
                (None, 1.0) => Join::Plain,
                (norm, scale) => Join::Changed { norm, scale },
            })
        };
        let norms = match (&names.head_norms, blueprint.head_norms) {
            (Some((query, key)), HeadNorms::WholeRow) => QkNorm::WholeRow { query: norm(query)?, key: norm(key)? },
            (Some((query, key)), _) => QkNorm::PerHead { query: norm(query)?, key: norm(key)? },
            (None, _) => QkNorm::None,
        };
        let layer = blueprint.layers[index];
        let Spec { kv_heads, head_dim, .. } = blueprint.spec;
        Ok(Self {
            attention_norm: optional(&names.attention_norm)?,
            qkv: weights.linear(&names.qkv)?,
            attention: Attention {
                norms,
                scale: blueprint.scales.attention,
                soft_cap: blueprint.soft_caps.attention,
                window: layer.window,
                ..Attention::new(blueprint.heads, kv_heads, head_dim)
            },
            rope: layer.rope,
            attention_output: weights.linear(&names.attention_output)?,
            attention_join: join(&names.attention_post_norm)?,
            mlp_norm: optional(&names.mlp_norm)?,
            gate_up: weights.gate_up(&names.gate_up)?,
            activation: blueprint.activation,
            down: weights.linear(&names.down)?,
            mlp_join: join(&names.mlp_post_norm)?,
        })
    }
}

fn norm(weights: &Weights, blueprint: &Blueprint, name: &VectorName) -> Result<RmsNorm, LoadError> {
    weights.norm(name, blueprint.eps)
}
