//! An encoder in memory, and its forward pass: one region of the team for a batch.

use super::{
    attention::{Attention, Unit},
    batch::{InputBatch, InputTokens},
    blueprint::{Activation, EncoderSpec, Output, Pooler, Pooling, Score},
    weights::{Head, Layer, Mlp, Parts},
};
use crate::engine::{
    kernels::kernels,
    layers::{Angles, Forms, Linear, Operand, Rope, Rows, SharedOperand, SharedRows, Then},
    models::ForwardError,
    team::{Crew, Team},
};

/// Rows that are turned as one chunk of work.
const TURNED_ROWS: usize = 16;

/// An encoder with the threads that compute it.
pub struct EncoderModel {
    spec: EncoderSpec,
    parts: Parts,
    rope: Option<Rope>,
    team: Team,
    scratch: Scratch,
}

/// A step's activations, whose memory is used again. Shapes are (tokens, …), but for the last three: (inputs, …).
#[derive(Default)]
struct Scratch {
    /// The stream: hidden.
    x: Operand,
    /// Three times hidden.
    qkv: Rows,
    attended: Operand,
    /// The feed-forward width.
    wide: Operand,
    /// What is added to the stream: hidden.
    added: Rows,
    pooled: Operand,
    /// What the head's first layer gives.
    inner: Operand,
    scores: Rows,
}

/// The scratch as the threads of a region share it.
struct Shared<'a> {
    x: SharedOperand<'a>,
    qkv: SharedRows<'a>,
    attended: SharedOperand<'a>,
    wide: SharedOperand<'a>,
    added: SharedRows<'a>,
    pooled: SharedOperand<'a>,
    inner: SharedOperand<'a>,
    scores: SharedRows<'a>,
}

impl Scratch {
    fn reset(&mut self, spec: &EncoderSpec, parts: &Parts, rows: usize, inputs: usize) {
        let forms =
            |of: fn(&Layer) -> &Linear| parts.layers.iter().map(|l| of(l).forms()).fold(Forms::default(), Forms::and);
        let hidden = spec.hidden;
        self.x.reset(rows, hidden, forms(|l| &l.qkv).and(forms(|l| l.mlp.linear())));
        self.qkv.reset(rows, 3 * hidden);
        self.attended.reset(rows, hidden, forms(|l| &l.attention_output));
        self.wide.reset(rows, spec.feed_forward, forms(|l| &l.down));
        self.added.reset(rows, hidden);
        let head = parts.head.as_ref();
        self.pooled.reset(inputs, hidden, head.map(|head| head.pooler.forms()).unwrap_or_default());
        let inner = head.map_or(1, |head| head.pooler.outputs());
        let output = head.and_then(|head| head.output.as_ref());
        self.inner.reset(inputs, inner, output.map(Linear::forms).unwrap_or_default());
        self.scores.reset(inputs, 1);
    }

    /// # Safety
    /// As [`Rows::share`].
    unsafe fn share(&mut self) -> Shared<'_> {
        // SAFETY: the caller's.
        unsafe {
            Shared {
                x: self.x.share(),
                qkv: self.qkv.share(),
                attended: self.attended.share(),
                wide: self.wide.share(),
                added: self.added.share(),
                pooled: self.pooled.share(),
                inner: self.inner.share(),
                scores: self.scores.share(),
            }
        }
    }
}

impl EncoderModel {
    pub(super) fn new(spec: EncoderSpec, parts: Parts, team: Team) -> Self {
        Self { rope: spec.rope(), spec, parts, team, scratch: Scratch::default() }
    }

    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// Bytes of all matrices in memory.
    pub fn weight_bytes(&self) -> usize {
        self.parts.bytes()
    }

    /// Does `work` for each of `items`, on all threads.
    pub(super) fn share_out(&self, items: usize, work: impl Fn(usize) + Sync) {
        self.team.for_each_chunk(items, 1, |range| range.for_each(&work));
    }

    /// Runs a short input, so that what is wrong with the model shows now, and its memory is at hand.
    pub(super) fn warm_up(&mut self) -> Result<(), ForwardError> {
        let mut batch = InputBatch::default();
        batch.push(&InputTokens::of_one(vec![0]));
        self.forward(&batch, &mut Vec::new())
    }

    /// Computes every input of `batch`; `outputs` gets [`EncoderSpec::output_width`] values of each, in order. What an
    /// input becomes does not depend on the others, to the bit.
    ///
    /// # Errors
    /// The batch has a token or a position that the model has not.
    pub fn forward(&mut self, batch: &InputBatch, outputs: &mut Vec<f32>) -> Result<(), ForwardError> {
        self.check(batch)?;
        let Self { spec, parts, rope, team, scratch } = self;
        scratch.reset(spec, parts, batch.rows(), batch.len());
        let attention = Attention { heads: spec.heads, head_dim: spec.head_dim() };
        let units = attention.units(batch);
        let angles = rope.as_ref().map(|rope| rope.angles(&batch.positions));
        {
            // SAFETY: in each stage below a chunk writes rows, or columns of rows, that are its own, and no stage reads
            // what it writes but for these.
            let s = unsafe { scratch.share() };
            team.run(|crew| {
                parts.embed(crew, spec, batch, &s);
                for layer in &parts.layers {
                    layer.forward(crew, spec, attention, &units, angles.as_ref(), &s);
                }
                pool(crew, spec, batch, &s);
                if let (Some(head), Output::Score { pooler, score }) = (&parts.head, spec.output) {
                    head.forward(crew, pooler, score, &s);
                }
            });
        }
        outputs.clear();
        outputs.extend_from_slice(match spec.output {
            Output::Vector { .. } => scratch.pooled.floats_mut().values(),
            Output::Score { .. } => scratch.scores.values(),
        });
        Ok(())
    }

    fn check(&self, batch: &InputBatch) -> Result<(), ForwardError> {
        let refuse = |what: &str| Err(ForwardError(what.into()));
        if batch.tokens.iter().any(|token| *token as usize >= self.spec.vocabulary) {
            return refuse("a token beyond the vocabulary");
        }
        if batch.inputs.iter().any(|rows| rows.is_empty() || rows.len() > self.spec.input_tokens_max) {
            return refuse("an input that is empty or too long");
        }
        Ok(())
    }
}

impl Parts {
    /// A stage: the sums of each row's vectors, normalised.
    fn embed(&self, crew: &Crew, spec: &EncoderSpec, batch: &InputBatch, s: &Shared) {
        let hidden = spec.hidden;
        let nothing = vec![0.0; hidden];
        s.x.fill(crew, |row, x| {
            self.tokens.row(batch.tokens[row] as usize, x);
            // A model without types for pairs gives both texts the same.
            let kind = usize::from(batch.types[row]).min(spec.token_types.saturating_sub(1));
            if let Some(vector) = self.types.get(kind * hidden..(kind + 1) * hidden) {
                x.iter_mut().zip(vector).for_each(|(x, t)| *x += t);
            }
            let position = batch.positions[row] as usize;
            self.norm
                .forward_sum(x, self.positions.get(position * hidden..(position + 1) * hidden).unwrap_or(&nothing));
        });
    }
}

impl Layer {
    fn forward(
        &self,
        crew: &Crew,
        spec: &EncoderSpec,
        attention: Attention,
        units: &[Unit],
        angles: Option<&Angles>,
        s: &Shared,
    ) {
        self.qkv.forward(crew, &s.x, Then::Store, &s.qkv);
        if let Some(angles) = angles {
            turn(crew, spec, angles, &s.qkv);
        }
        attention.forward(crew, units, &s.qkv, s.attended.floats());
        s.attended.quantise(crew);
        self.attention_output.forward(crew, &s.attended, Then::Store, &s.added);
        s.x.fill(crew, |row, x| self.attention_norm.forward_sum(x, s.added.row(row)));

        match &self.mlp {
            Mlp::Plain(up) => {
                up.forward(crew, &s.x, Then::Store, s.wide.floats());
                // Whole rows at once: the vectors of one are computed while others wait for their exponentials.
                s.wide.fill(crew, |_, wide| spec.activation.apply(wide));
            }
            Mlp::Gated(gate_up) => {
                let join = |gate: &[f32], up: &[f32], out: &mut [f32]| kernels().silu_mul(gate, up, out);
                gate_up.gated(crew, &s.x, s.wide.floats(), join);
                s.wide.quantise(crew);
            }
        }
        self.down.forward(crew, &s.wide, Then::Store, &s.added);
        s.x.fill(crew, |row, x| self.output_norm.forward_sum(x, s.added.row(row)));
    }
}

/// A stage: turns queries and keys by their positions.
fn turn(crew: &Crew, spec: &EncoderSpec, angles: &Angles, qkv: &SharedRows) {
    crew.stage(qkv.rows(), TURNED_ROWS, |rows| {
        for row in rows {
            let heads = qkv.part_mut(row, 0..2 * spec.hidden).chunks_exact_mut(spec.head_dim());
            heads.for_each(|head| angles.turn(row, head));
        }
    });
}

/// A stage: one row for each input.
fn pool(crew: &Crew, spec: &EncoderSpec, batch: &InputBatch, s: &Shared) {
    s.pooled.fill(crew, |input, out| {
        let rows = batch.inputs[input].clone();
        let pooling = match spec.output {
            Output::Vector { pooling, .. } => pooling,
            Output::Score { .. } => Pooling::Cls,
        };
        let x = s.x.floats();
        match pooling {
            Pooling::Cls => out.copy_from_slice(x.row(rows.start)),
            Pooling::Last => out.copy_from_slice(x.row(rows.end - 1)),
            Pooling::Mean => {
                out.copy_from_slice(x.row(rows.start));
                for row in rows.start + 1..rows.end {
                    out.iter_mut().zip(x.row(row)).for_each(|(sum, x)| *sum += x);
                }
                let share = 1.0 / rows.len() as f32;
                out.iter_mut().for_each(|x| *x *= share);
            }
        }
        if let Output::Vector { normalize: true, .. } = spec.output {
            normalize(out);
        }
    });
}

/// Gives a vector the length 1; one of zeros stays as it is.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
}

impl Head {
    /// Two stages: from pooled rows to scores.
    fn forward(&self, crew: &Crew, pooler: Pooler, score: Score, s: &Shared) {
        self.pooler.forward(crew, &s.pooled, Then::Store, s.inner.floats());
        let last = |row: usize, x: f32| s.scores.row_mut(row)[0] = score.of(x);
        s.inner.fill(crew, |row, inner| {
            inner.iter_mut().for_each(|x| *x = pooler.of(*x));
            if self.output.is_none() {
                last(row, inner[0]);
            }
        });
        if let Some(output) = &self.output {
            output.products(crew, &s.inner, |row, _, products| last(row, products[0]));
        }
    }
}

impl Activation {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::Gelu => kernels().gelu_erf(values),
            Self::GeluTanh => kernels().gelu_tanh(values),
            Self::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::Silu => values.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp()),
        }
    }
}

impl Pooler {
    fn of(self, x: f32) -> f32 {
        match self {
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.0),
        }
    }
}

impl Score {
    fn of(self, x: f32) -> f32 {
        match self {
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Identity => x,
        }
    }
}
