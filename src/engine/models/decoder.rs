//! The decoder that all batched architectures are: grouped-query attention and a gated MLP, RMSNorm around them.
//!
//! Knows nothing of files or of architectures' names. What only some of them do, a norm behind a part, a scale, a cap, is a
//! stage or a value more for them, and costs the others nothing.

use super::{
    Best, ForwardError, Model, Outcome, Spec, WeightSizes,
    blueprint::Activation,
    head::Head,
    parts::{Block, Join, Parts},
};
use crate::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kernels::kernels,
    kv_cache::{KvCache, KvType, SharedCache},
    layers::{Buffers, Forms, Linear, Operand, RmsNorm, Rows, SharedOperand, SharedRows, Step, Then},
    team::{Crew, Team},
};

/// Rows that join the stream as one chunk of work.
const JOINED_ROWS: usize = 4;

pub(super) struct Decoder {
    parts: Parts,
    team: Team,
    weights: WeightSizes,
    scratch: Scratch,
    /// Layers whose attention differs in window or rope, each kind once, by the index of one of them.
    kinds: Vec<usize>,
    /// Attention's, between its stages, for each kind.
    partials: Vec<Vec<f32>>,
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
    /// What is changed before it joins the stream, where that is so: hidden.
    added: Rows,
    /// The rows that the head reads alone: hidden.
    last: Operand,
    /// Those that are wanted as they are: hidden.
    states: Rows,
    best: Vec<Best>,
}

/// The scratch as the threads of a region share it.
struct Shared<'a> {
    x: SharedRows<'a>,
    normed: SharedOperand<'a>,
    qkv: SharedRows<'a>,
    attended: SharedOperand<'a>,
    gated: SharedOperand<'a>,
    added: SharedRows<'a>,
    last: SharedOperand<'a>,
    states: SharedRows<'a>,
}

impl Scratch {
    /// For so many rows, of which the head reads `headed`, and `states` are wanted as they are.
    fn reset(&mut self, parts: &Parts, rows: usize, headed: usize, states: usize) {
        let hidden = parts.norm.width();
        let block = &parts.blocks[0];
        let forms =
            |of: fn(&Block) -> &Linear| parts.blocks.iter().map(|b| of(b).forms()).fold(Forms::default(), Forms::and);
        self.x.reset(rows, hidden);
        self.normed.reset(rows, hidden, forms(|b| &b.qkv).and(forms(|b| &b.gate_up)));
        self.qkv.reset(rows, block.qkv.outputs());
        self.attended.reset(rows, block.attention_output.inputs(), forms(|b| &b.attention_output));
        self.gated.reset(rows, block.down.inputs(), forms(|b| &b.down));
        let joins = parts.blocks.iter().flat_map(|b| [&b.attention_join, &b.mlp_join]);
        let changed = joins.into_iter().any(|join| matches!(join, Join::Changed { .. }));
        self.added.reset(if changed { rows } else { 0 }, hidden);
        self.last.reset(headed, hidden, parts.embedding.head().forms());
        self.states.reset(states, hidden);
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
                added: self.added.share(),
                last: self.last.share(),
                states: self.states.share(),
            }
        }
    }
}

impl Decoder {
    /// `file` says how large the weights were before they were packed.
    pub fn new(parts: Parts, team: Team, file: WeightSizes) -> Self {
        let weights = parts.packed_sizes(file);
        let mut kinds: Vec<usize> = Vec::new();
        for (layer, block) in parts.blocks.iter().enumerate() {
            if !kinds.iter().any(|kind| attends_alike(block, &parts.blocks[*kind])) {
                kinds.push(layer);
            }
        }
        let partials = kinds.iter().map(|_| Vec::new()).collect();
        Self { parts, team, weights, scratch: Scratch::default(), kinds, partials }
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

    fn team(&self) -> Option<&Team> {
        Some(&self.team)
    }

    fn weights(&self) -> WeightSizes {
        self.weights
    }

    fn hidden(&self) -> Option<usize> {
        Some(self.parts.norm.width())
    }

    fn forward(&mut self, batch: &Batch, cache: &mut KvCache, outcome: &mut Outcome) -> Result<(), ForwardError> {
        batch.check(self.parts.spec.vocabulary, cache.blocks())?;
        let Self { parts, team, scratch, kinds, partials, .. } = self;
        let (states, headed): (Vec<(usize, Want)>, _) =
            batch.sampled.iter().partition(|(_, want)| *want == Want::Hidden);
        scratch.reset(parts, batch.rows(), headed.len(), states.len());
        let angles: Vec<_> = parts.ropes.iter().map(|rope| rope.angles(&batch.positions)).collect();
        let step = |(kind, partials)| {
            let block: &Block = &parts.blocks[kind];
            (kind, Step::new(&block.attention, batch, block.rope.map(|rope| &angles[rope]), partials))
        };
        let steps: Vec<(usize, Step)> = kinds.iter().copied().zip(partials).map(step).collect();
        let step_of = |block: &Block| {
            let of_kind = steps.iter().find(|(kind, _)| attends_alike(block, &parts.blocks[*kind]));
            &of_kind.expect("every layer is of a kind").1
        };
        let mut head = Head::new(&headed, batch.choices, parts, outcome, std::mem::take(&mut scratch.best));
        {
            // SAFETY: in each stage below a chunk writes rows, or columns of rows, that are its own, and no stage reads
            // what it writes but for these.
            let (s, cache, head) = unsafe { (scratch.share(), cache.share(), head.share()) };
            team.run(|crew| {
                parts.embed(crew, &batch.tokens, &s.x);
                for (layer, block) in parts.blocks.iter().enumerate() {
                    block.forward(crew, step_of(block), &cache, layer, &s);
                }
                let state = |(row, _): (usize, Want), out: &mut [f32]| parts.norm.forward_row(s.x.row(row), out);
                crew.stage(states.len(), 1, |range| range.for_each(|i| state(states[i], s.states.row_mut(i))));
                s.last.fill(crew, |i, row| state(headed[i], row));
                head.forward(crew, parts.embedding.head(), &s.last);
            });
        }
        scratch.best = head.finish();
        outcome.hidden.extend_from_slice(scratch.states.values());
        Ok(())
    }
}

impl Parts {
    fn embed(&self, crew: &Crew, tokens: &[u32], x: &SharedRows) {
        crew.stage(tokens.len(), 4, |rows| {
            for row in rows {
                let vector = x.row_mut(row);
                self.embedding.table().weight_row(tokens[row] as usize, vector);
                if self.embedding_scale != 1.0 {
                    vector.iter_mut().for_each(|x| *x *= self.embedding_scale);
                }
            }
        });
    }
}

impl Block {
    fn forward(&self, crew: &Crew, step: &Step, cache: &SharedCache, layer: usize, s: &Shared) {
        read_stream(crew, self.attention_norm.as_ref(), s);
        self.qkv.forward(crew, &s.normed, Then::Store, &s.qkv);
        let buffers = Buffers { qkv: s.qkv.values(), cache, out: s.attended.floats().values() };
        // SAFETY: stages of this region like the others, see `Decoder::forward`.
        unsafe { self.attention.forward(crew, step, layer, &buffers) };
        s.attended.quantise(crew);
        self.attention_join.forward(crew, &self.attention_output, &s.attended, s);

        read_stream(crew, self.mlp_norm.as_ref(), s);
        self.gate_up.gated(crew, &s.normed, s.gated.floats(), |gate, up, out| match self.activation {
            Activation::Silu => kernels().silu_mul(gate, up, out),
            Activation::GeluTanh => kernels().gelu_mul(gate, up, out),
        });
        s.gated.quantise(crew);
        self.mlp_join.forward(crew, &self.down, &s.gated, s);
    }
}

/// Whether two layers can share a [`Step`].
fn attends_alike(a: &Block, b: &Block) -> bool {
    a.attention.window == b.attention.window && a.rope == b.rope
}

/// What attention and MLP read: the stream, normalised where they have a norm before them.
fn read_stream(crew: &Crew, norm: Option<&RmsNorm>, s: &Shared) {
    s.normed.fill(crew, |row, out| match norm {
        Some(norm) => norm.forward_row(s.x.row(row), out),
        None => out.copy_from_slice(s.x.row(row)),
    });
}

impl Join {
    /// Adds the products of `x` with `linear` to the stream.
    fn forward(&self, crew: &Crew, linear: &Linear, x: &SharedOperand, s: &Shared) {
        let Self::Changed { norm, scale } = self else { return linear.forward(crew, x, Then::Add, &s.x) };
        linear.forward(crew, x, Then::Store, &s.added);
        crew.stage(s.x.rows(), JOINED_ROWS, |rows| {
            for row in rows {
                let added = s.added.row_mut(row);
                if let Some(norm) = norm {
                    norm.forward_in_place(added);
                }
                s.x.row_mut(row).iter_mut().zip(added).for_each(|(x, added)| *x += scale * *added);
            }
        });
    }
}
