//! The pre-norm decoder that llama, qwen2 and qwen3 are: grouped-query attention and SwiGLU, RMSNorm before each.
//!
//! Knows nothing of files or of architectures' names: a [`Blueprint`] says what is computed.

use super::{
    Best, ForwardError, LoadError, Model, Outcome, Spec, WeightSizes, blueprint::Blueprint, head::Head,
    layout::VectorName, weights::Weights,
};
use crate::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kernels::kernels,
    kv_cache::{KvCache, KvType, SharedCache},
    layers::{
        Attention, Buffers, Forms, Linear, Operand, QkNorm, RmsNorm, Rope, Rows, SharedOperand, SharedRows, Step, Then,
    },
    team::{Crew, Team},
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
        if !blueprint.is_llama_like() {
            return Err(LoadError::Architecture(blueprint.spec.architecture));
        }
        let table = weights.linear(&blueprint.embedding_name())?;
        let embedding = match blueprint.tied {
            true => Embedding::Tied(table),
            false => Embedding::Untied { table, head: weights.linear(&blueprint.head_name())? },
        };
        let norm = |name: &VectorName| weights.norm(name, blueprint.eps);
        let block = |index: usize| {
            let names = blueprint.layer_names(index);
            let norms = match &names.head_norms {
                Some((query, key)) => QkNorm::PerHead { query: norm(query)?, key: norm(key)? },
                None => QkNorm::None,
            };
            let Spec { kv_heads, head_dim, .. } = blueprint.spec;
            Ok(Block {
                attention_norm: norm(names.attention_norm.as_ref().expect("a norm before each part"))?,
                qkv: weights.linear(&names.qkv)?,
                attention: Attention { norms, ..Attention::new(blueprint.heads, kv_heads, head_dim) },
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
    weights: WeightSizes,
    scratch: Scratch,
    /// Attention's, between its stages.
    partials: Vec<f32>,
}

/// A step's activations, whose memory is used again. Shapes are (tokens, …).
#[derive(Default)]
struct Scratch {
    /// The residual stream: hidden.
    x: Rows,
    /// What qkv and gate/up read: hidden.
    normed: Operand,
    /// Heads and twice the KV heads, times head dim.
    qkv: Rows,
    /// Heads times head dim.
    attended: Operand,
    /// The feed-forward width.
    gated: Operand,
    /// The sampled rows alone: hidden.
    last: Operand,
    best: Vec<Best>,
}

/// The scratch as the threads of a region share it.
struct Shared<'a> {
    x: SharedRows<'a>,
    normed: SharedOperand<'a>,
    qkv: SharedRows<'a>,
    attended: SharedOperand<'a>,
    gated: SharedOperand<'a>,
    last: SharedOperand<'a>,
}

impl Scratch {
    fn reset(&mut self, parts: &Parts, rows: usize, sampled: usize) {
        let hidden = parts.norm.width();
        let block = &parts.blocks[0];
        let forms =
            |of: fn(&Block) -> &Linear| parts.blocks.iter().map(|b| of(b).forms()).fold(Forms::default(), Forms::and);
        self.x.reset(rows, hidden);
        self.normed.reset(rows, hidden, forms(|b| &b.qkv).and(forms(|b| &b.gate_up)));
        self.qkv.reset(rows, block.qkv.outputs());
        self.attended.reset(rows, block.attention_output.inputs(), forms(|b| &b.attention_output));
        self.gated.reset(rows, block.down.inputs(), forms(|b| &b.down));
        self.last.reset(sampled, hidden, parts.embedding.head().forms());
    }

    /// # Safety
    /// As [`Rows::share`].
    unsafe fn share(&mut self) -> Shared<'_> {
        // SAFETY: the caller's.
        unsafe {
            Shared {
                x: self.x.share(),
                normed: self.normed.share(),
                qkv: self.qkv.share(),
                attended: self.attended.share(),
                gated: self.gated.share(),
                last: self.last.share(),
            }
        }
    }
}

impl Decoder {
    pub fn new(parts: Parts, team: Team, weights: WeightSizes) -> Self {
        Self { parts, team, weights, scratch: Scratch::default(), partials: Vec::new() }
    }

    /// Runs two tokens through the model, so that what is wrong with it shows now, and its memory is at hand.
    pub fn warm_up(&mut self) -> Result<(), ForwardError> {
        let mut cache = KvCache::new(&self.parts.spec, 1, KvType::F16);
        let mut batch = Batch::new(self.parts.spec.vocabulary);
        batch.push(&[0, 0], 0, &[BlockId(0)], &[Want::Logits, Want::Best]);
        self.forward(&batch, &mut cache, &mut Outcome::default())
    }
}

impl Model for Decoder {
    fn spec(&self) -> &Spec {
        &self.parts.spec
    }

    fn weights(&self) -> WeightSizes {
        self.weights
    }

    fn forward(&mut self, batch: &Batch, cache: &mut KvCache, outcome: &mut Outcome) -> Result<(), ForwardError> {
        batch.check(self.parts.spec.vocabulary, cache.blocks())?;
        let Self { parts, team, scratch, partials, .. } = self;
        scratch.reset(parts, batch.rows(), batch.sampled.len());
        let Some(first) = parts.blocks.first() else { return Err(ForwardError("no layers".into())) };
        let angles = parts.rope.angles(&batch.positions);
        let step = Step::new(&first.attention, batch, Some(&angles), partials);
        let mut head = Head::new(batch, parts, outcome, std::mem::take(&mut scratch.best));
        {
            // SAFETY: in each stage below a chunk writes rows, or columns of rows, that are its own, and no stage reads
            // what it writes but for these.
            let (s, cache, head) = unsafe { (scratch.share(), cache.share(), head.share()) };
            team.run(|crew| {
                parts.embed(crew, &batch.tokens, &s.x);
                for (layer, block) in parts.blocks.iter().enumerate() {
                    block.forward(crew, &step, &cache, layer, &s);
                }
                s.last.fill(crew, |i, row| parts.norm.forward_row(s.x.row(batch.sampled[i].0), row));
                head.forward(crew, parts.embedding.head(), &s.last);
            });
        }
        scratch.best = head.finish();
        Ok(())
    }
}

impl Parts {
    fn embed(&self, crew: &Crew, tokens: &[u32], x: &SharedRows) {
        crew.stage(tokens.len(), 4, |rows| {
            for row in rows {
                self.embedding.table().weight_row(tokens[row] as usize, x.row_mut(row));
            }
        });
    }
}

impl Block {
    fn forward(&self, crew: &Crew, step: &Step, cache: &SharedCache, layer: usize, s: &Shared) {
        s.normed.fill(crew, |row, out| self.attention_norm.forward_row(s.x.row(row), out));
        self.qkv.forward(crew, &s.normed, Then::Store, &s.qkv);
        let buffers = Buffers { qkv: s.qkv.values(), cache, out: s.attended.floats().values() };
        // SAFETY: stages of this region like the others, see `Decoder::forward`.
        unsafe { self.attention.forward(crew, step, layer, &buffers) };
        s.attended.quantise(crew);
        self.attention_output.forward(crew, &s.attended, Then::Add, &s.x);

        s.normed.fill(crew, |row, out| self.mlp_norm.forward_row(s.x.row(row), out));
        self.gate_up.gated(crew, &s.normed, |row, first, gate, up| {
            let out = s.gated.floats().part_mut(row, first..first + gate.len());
            kernels().silu_mul(gate, up, out);
        });
        s.gated.quantise(crew);
        self.down.forward(crew, &s.gated, Then::Add, &s.x);
    }
}
