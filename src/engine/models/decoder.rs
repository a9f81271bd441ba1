//! The pre-norm decoder that llama, qwen2 and qwen3 are: grouped-query attention and SwiGLU, RMSNorm before each.
//!
//! Knows nothing of files or of architectures' names: a [`Blueprint`] says what is computed.

use super::{
    Best, ForwardError, LoadError, Model, Outcome, Spec, blueprint::Blueprint, layout::VectorName, weights::Weights,
};
use crate::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kv_cache::KvCache,
    layers::{Attention, Linear, RmsNorm, Rope, Rows, Step, Then, silu_mul},
    team::Team,
};

/// What a decoder is made of.
pub(super) struct Parts {
    pub spec: Spec,
    /// (vocabulary, hidden)
    pub embedding: Embedding,
    pub rope: Rope,
    pub blocks: Vec<Block>,
    pub norm: RmsNorm,
}

impl Parts {
    /// Takes the tensors that the blueprint names.
    pub fn load(weights: &Weights, blueprint: Blueprint) -> Result<Self, LoadError> {
        let table = weights.linear(&blueprint.embedding_name())?;
        let embedding = match blueprint.tied {
            true => Embedding::Tied(table),
            false => Embedding::Untied { table, head: weights.linear(&blueprint.head_name())? },
        };
        let norm = |name: &VectorName| weights.norm(name, blueprint.eps);
        let block = |index: usize| {
            let names = blueprint.layer_names(index);
            let head_norms = match &names.head_norms {
                Some((query, key)) => Some((norm(query)?, norm(key)?)),
                None => None,
            };
            let Spec { kv_heads, head_dim, .. } = blueprint.spec;
            Ok(Block {
                attention_norm: norm(names.attention_norm.as_ref().expect("a norm before each part"))?,
                qkv: weights.linear(&names.qkv)?,
                attention: Attention::new(blueprint.heads, kv_heads, head_dim, head_norms),
                attention_output: weights.linear(&names.attention_output)?,
                mlp_norm: norm(names.mlp_norm.as_ref().expect("a norm before each part"))?,
                gate_up: weights.linear(&names.gate_up)?,
                down: weights.linear(&names.down)?,
            })
        };
        let blocks = (0..blueprint.spec.layers).map(block).collect::<Result<_, LoadError>>()?;
        let norm = norm(&blueprint.output_norm_name())?;
        Ok(Self { embedding, rope: blueprint.ropes[0].rope(), blocks, norm, spec: blueprint.spec })
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
    fn table(&self) -> &Linear {
        match self {
            Self::Tied(both) => both,
            Self::Untied { table, .. } => table,
        }
    }

    fn head(&self) -> &Linear {
        match self {
            Self::Tied(both) => both,
            Self::Untied { head, .. } => head,
        }
    }
}

/// One layer.
pub(super) struct Block {
    pub attention_norm: RmsNorm,
    /// Queries, keys and values side by side.
    pub qkv: Linear,
    pub attention: Attention,
    pub attention_output: Linear,
    pub mlp_norm: RmsNorm,
    /// Gate and up side by side.
    pub gate_up: Linear,
    pub down: Linear,
}

pub(super) struct Decoder {
    parts: Parts,
    team: Team,
    scratch: Scratch,
}

/// A step's activations, whose memory is used again. Shapes are (tokens, …).
#[derive(Default)]
struct Scratch {
    /// The residual stream: hidden.
    x: Rows,
    /// Hidden.
    normed: Rows,
    /// Heads and twice the KV heads, times head dim.
    qkv: Rows,
    /// Heads times head dim.
    attended: Rows,
    /// Twice the feed-forward width.
    gate_up: Rows,
    /// The feed-forward width.
    gated: Rows,
}

impl Decoder {
    pub fn new(parts: Parts, team: Team) -> Self {
        Self { parts, team, scratch: Scratch::default() }
    }

    /// Runs two tokens through the model, since kernels pack their weights when they are first used.
    pub fn warm_up(&mut self) -> Result<(), ForwardError> {
        let mut cache = KvCache::new(&self.parts.spec, 1);
        let mut batch = Batch::new(self.parts.spec.vocabulary);
        batch.push(&[0, 0], 0, &[BlockId(0)], &[Want::Logits, Want::Best]);
        self.forward(&batch, &mut cache, &mut Outcome::default())
    }

    fn embed(&mut self, tokens: &[u32]) {
        let table = self.parts.embedding.table();
        let x = &mut self.scratch.x;
        x.reset(tokens.len(), table.inputs());
        x.for_each_chunk(&self.team, 4, |first, rows| {
            for (token, row) in tokens[first..].iter().zip(rows.chunks_exact_mut(table.inputs())) {
                table.weight_row(*token as usize, row);
            }
        });
    }

    /// The final norm and the head, for the rows that are sampled.
    fn logits(&mut self, batch: &Batch, outcome: &mut Outcome) {
        let Self { parts, team, scratch } = self;
        scratch.normed.reset(batch.sampled.len(), scratch.x.width());
        for (i, (row, _)) in batch.sampled.iter().enumerate() {
            parts.norm.forward_row(scratch.x.row(*row), scratch.normed.row_mut(i));
        }
        let mut out = Rows::default();
        parts.embedding.head().forward(team, &mut scratch.normed, Then::Store, &mut out);
        outcome.clear();
        for (i, (_, want)) in batch.sampled.iter().enumerate() {
            match want {
                Want::Logits => outcome.logits.extend_from_slice(out.row(i)),
                Want::Best => outcome.best.push(best(&out.row(i)[..batch.choices])),
            }
        }
    }
}

impl Model for Decoder {
    fn spec(&self) -> &Spec {
        &self.parts.spec
    }

    fn forward(&mut self, batch: &Batch, cache: &mut KvCache, outcome: &mut Outcome) -> Result<(), ForwardError> {
        batch.check(self.parts.spec.vocabulary, cache.blocks())?;
        self.embed(&batch.tokens);
        let step = Step::new(&self.team, batch, &self.parts.rope);
        for (layer, block) in self.parts.blocks.iter().enumerate() {
            block.forward(&step, cache, layer, &mut self.scratch);
        }
        self.logits(batch, outcome);
        Ok(())
    }
}

impl Block {
    fn forward(&self, step: &Step, cache: &mut KvCache, layer: usize, s: &mut Scratch) {
        self.attention_norm.forward(step.team, &s.x, &mut s.normed);
        self.qkv.forward(step.team, &mut s.normed, Then::Store, &mut s.qkv);
        self.attention.forward(step, &mut s.qkv, cache, layer, &mut s.attended);
        self.attention_output.forward(step.team, &mut s.attended, Then::Add, &mut s.x);

        self.mlp_norm.forward(step.team, &s.x, &mut s.normed);
        self.gate_up.forward(step.team, &mut s.normed, Then::Store, &mut s.gate_up);
        silu_mul(step.team, &s.gate_up, &mut s.gated);
        self.down.forward(step.team, &mut s.gated, Then::Add, &mut s.x);
    }
}

fn best(logits: &[f32]) -> Best {
    let mut best = Best { token: 0, logit: f32::NEG_INFINITY };
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.logit || logit.is_nan() {
            best = Best { token, logit };
        }
        if logit.is_nan() {
            break;
        }
    }
    best
}
