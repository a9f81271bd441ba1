//! What matrices are multiplied with: rows of activations, quantised as the weights want them.

use super::rows::{Rows, SharedRows};
use crate::engine::{
    kernels::{
        kernels,
        matmul::{self, Block32, Block256, Input},
    },
    team::{Crew, DisjointMut},
};

/// Values that one chunk of a stage quantises: some hundred nanoseconds of work.
const SPAN: usize = 256;
const SPANS_PER_CHUNK: usize = 8;

/// The forms in which a layer's weights take their inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    blocks_32: bool,
    blocks_256: bool,
}

impl Forms {
    /// Those of both.
    pub fn and(self, other: Self) -> Self {
        Self { blocks_32: self.blocks_32 || other.blocks_32, blocks_256: self.blocks_256 || other.blocks_256 }
    }

    /// Adds a form; floats are always there.
    pub fn with(self, input: Input) -> Self {
        match input {
            Input::Blocks32 => Self { blocks_32: true, ..self },
            Input::Blocks256 => Self { blocks_256: true, ..self },
            Input::Floats => self,
        }
    }
}

/// Rows of activations in all forms that are wanted of them; its memory is used again from step to step.
#[derive(Debug, Default)]
pub struct Operand {
    floats: Rows,
    blocks_32: Vec<Block32>,
    blocks_256: Vec<Block256>,
}

impl Operand {
    /// Gives it `rows` rows of `width` values, which are whole blocks of each form.
    pub fn reset(&mut self, rows: usize, width: usize, forms: Forms) {
        self.floats.reset(rows, width);
        let values = rows * width;
        self.blocks_32.resize(if forms.blocks_32 { values / 32 } else { 0 }, Block32::ZERO);
        self.blocks_256.resize(if forms.blocks_256 { values / 256 } else { 0 }, Block256::ZERO);
    }

    /// The floats alone.
    pub fn floats_mut(&mut self) -> &mut Rows {
        &mut self.floats
    }

    /// # Safety
    /// As [`Rows::share`].
    pub unsafe fn share(&mut self) -> SharedOperand<'_> {
        SharedOperand {
            // SAFETY: the caller's.
            floats: unsafe { self.floats.share() },
            blocks_32: DisjointMut::new(&mut self.blocks_32),
            blocks_256: DisjointMut::new(&mut self.blocks_256),
        }
    }
}

/// An operand that the threads of a region fill and read, stage by stage.
pub struct SharedOperand<'a> {
    floats: SharedRows<'a>,
    blocks_32: DisjointMut<'a, Block32>,
    blocks_256: DisjointMut<'a, Block256>,
}

impl SharedOperand<'_> {
    pub fn rows(&self) -> usize {
        self.floats.rows()
    }

    pub fn width(&self) -> usize {
        self.floats.width()
    }

    /// Where a stage puts values that [`quantise`](Self::quantise) takes up.
    pub fn floats(&self) -> &SharedRows<'_> {
        &self.floats
    }

    /// A stage that makes every row and quantises it: `make(row, values)`.
    pub fn fill(&self, crew: &Crew, make: impl Fn(usize, &mut [f32])) {
        let rows_per_chunk = (SPAN * SPANS_PER_CHUNK).div_ceil(self.width());
        crew.stage(self.rows(), rows_per_chunk, |rows| {
            for row in rows {
                make(row, self.floats.row_mut(row));
                self.quantise_part(row, 0, self.width());
            }
        });
    }

    /// A stage that quantises the rows that an earlier one wrote.
    pub fn quantise(&self, crew: &Crew) {
        if self.blocks_32.is_empty() && self.blocks_256.is_empty() {
            return;
        }
        let spans = self.width().div_ceil(SPAN);
        crew.stage(self.rows() * spans, SPANS_PER_CHUNK, |chunk| {
            for span in chunk {
                let from = span % spans * SPAN;
                self.quantise_part(span / spans, from, self.width().min(from + SPAN));
            }
        });
    }

    /// Quantises the values `from..to` of a row, which are whole blocks.
    fn quantise_part(&self, row: usize, from: usize, to: usize) {
        let values = &self.floats.row(row)[from..to];
        let start = row * self.width();
        // SAFETY: each part of each row is quantised by one chunk of a stage, and read by later stages.
        unsafe {
            if !self.blocks_32.is_empty() {
                kernels().quantise_32(values, self.blocks_32.range((start + from) / 32..(start + to) / 32));
            }
            if !self.blocks_256.is_empty() {
                kernels().quantise_256(values, self.blocks_256.range((start + from) / 256..(start + to) / 256));
            }
        }
    }

    /// Rows as weights of one kind take them.
    pub fn get(&self, input: Input, rows: std::ops::Range<usize>) -> matmul::Rows<'_> {
        let values = rows.start * self.width()..rows.end * self.width();
        // SAFETY: quantised by an earlier stage.
        unsafe {
            match input {
                Input::Floats => matmul::Rows::Floats(self.floats.range(rows)),
                Input::Blocks32 => matmul::Rows::Blocks32(self.blocks_32.read(values.start / 32..values.end / 32)),
                Input::Blocks256 => matmul::Rows::Blocks256(self.blocks_256.read(values.start / 256..values.end / 256)),
            }
        }
    }
}
