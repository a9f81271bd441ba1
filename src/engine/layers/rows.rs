//! Rows of activations: what flows between layers.

use std::ops::Range;

use crate::engine::team::DisjointMut;

/// A matrix of floats, one row per token of the step, whose memory is used again from step to step.
#[derive(Debug, Default)]
pub struct Rows {
    data: Vec<f32>,
    width: usize,
}

impl Rows {
    /// Gives it `rows` rows of `width` values. What they hold is left over from before.
    pub fn reset(&mut self, rows: usize, width: usize) {
        self.width = width;
        self.data.resize(rows * width, 0.0);
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.width).unwrap_or(0)
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.width..][..self.width]
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The rows as the threads of a region share them.
    ///
    /// # Safety
    /// As long as the result lives, its users keep to this: what a stage writes is, in that stage, neither written nor read
    /// by another chunk.
    pub unsafe fn share(&mut self) -> SharedRows<'_> {
        SharedRows { rows: self.rows(), width: self.width, data: DisjointMut::new(&mut self.data) }
    }
}

/// Rows that the threads of a region write and read, stage by stage; see [`Rows::share`].
pub struct SharedRows<'a> {
    data: DisjointMut<'a, f32>,
    rows: usize,
    width: usize,
}

impl SharedRows<'_> {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, row by row, for those who see to the promise themselves.
    pub fn values(&self) -> &DisjointMut<'_, f32> {
        &self.data
    }

    pub fn row(&self, index: usize) -> &[f32] {
        self.range(index..index + 1)
    }

    /// Whole rows.
    pub fn range(&self, rows: Range<usize>) -> &[f32] {
        // SAFETY: the promise made to `Rows::share`.
        unsafe { self.data.read(rows.start * self.width..rows.end * self.width) }
    }

    pub fn row_mut(&self, index: usize) -> &mut [f32] {
        self.part_mut(index, 0..self.width)
    }

    /// Some values of a row.
    #[expect(clippy::mut_from_ref, reason = "disjoint by the promise made to `Rows::share`")]
    pub fn part_mut(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(columns.end <= self.width);
        // SAFETY: the promise made to `Rows::share`.
        unsafe { self.data.range(row * self.width + columns.start..row * self.width + columns.end) }
    }
}
