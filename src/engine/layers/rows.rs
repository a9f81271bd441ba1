//! Rows of activations: what flows between layers.

use crate::engine::team::{DisjointMut, Team};

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

    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.data[index * self.width..][..self.width]
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// All values, without their shape.
    pub fn into_values(self) -> Vec<f32> {
        self.data
    }

    /// The memory itself, for an operation that must own its input; [`put_back`](Self::put_back) returns it.
    pub(super) fn take(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.data)
    }

    pub(super) fn put_back(&mut self, data: Vec<f32>) {
        self.data = data;
    }

    /// Runs `work(index of the first row, rows)` on chunks of `rows_per_chunk` rows, on the team.
    pub fn for_each_chunk(&mut self, team: &Team, rows_per_chunk: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        let (rows, width) = (self.rows(), self.width);
        let data = DisjointMut::new(&mut self.data);
        team.for_each_chunk(rows, rows_per_chunk, |range| {
            // SAFETY: every chunk of rows is handed out once.
            let chunk = unsafe { data.range(range.start * width..range.end * width) };
            work(range.start, chunk);
        });
    }
}

/// Memory to be used again; its shape is set by the first [`Rows::reset`].
impl From<Vec<f32>> for Rows {
    fn from(data: Vec<f32>) -> Self {
        Self { data, width: 0 }
    }
}
