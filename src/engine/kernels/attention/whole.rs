//! Attention of some queries over a part of a sequence whose keys and values lie side by side: every query sees all of
//! them (bidirectional attention, Devlin et al. 2019).
//!
//! Gives records as [`attend`](super::attend) does, so that parts of a long sequence are merged in order.

use super::{
    CHUNK_TOKENS, Group, HEAD_DIM_MAX, STRIDE, Simd, Workspace,
    matrix::{Matrix, Wide},
    product::{Start, To, product, rows_at},
    record_len,
    softmax::soften,
};

/// Keys of one head, as the kernel reads them: transposed, shape (dim, keys rounded up to whole vectors).
pub struct Keys {
    data: Vec<f32>,
    count: usize,
    dim: usize,
}

/// Keys are rounded up to a multiple of this, which is one of every tier's lanes.
const VECTOR: usize = 16;

impl Default for Keys {
    /// No keys, and room for a chunk of them.
    fn default() -> Self {
        Self { data: vec![0.0; HEAD_DIM_MAX * CHUNK_TOKENS], count: 0, dim: 0 }
    }
}

impl Keys {
    /// Takes up to [`CHUNK_TOKENS`] keys of `dim` values, which begin `distance` values apart in `from`.
    pub fn fill(&mut self, from: &[f32], count: usize, distance: usize, dim: usize) {
        assert!(
            dim <= HEAD_DIM_MAX && (1..=CHUNK_TOKENS).contains(&count) && from.len() >= (count - 1) * distance + dim
        );
        (self.count, self.dim) = (count, dim);
        let width = self.width();
        for (k, key) in from.chunks(distance).take(count).enumerate() {
            for (d, value) in key[..dim].iter().enumerate() {
                self.data[d * width + k] = *value;
            }
        }
    }

    fn width(&self) -> usize {
        self.count.next_multiple_of(VECTOR)
    }
}

/// What is asked.
pub struct WholeAsk<'a> {
    pub keys: &'a Keys,
    /// The value of each key; they begin `distance` apart.
    pub values: &'a [f32],
    pub distance: usize,
    /// How many queries lie in the workspace, at most [`QUERIES_MAX`](super::QUERIES_MAX).
    pub queries: usize,
}

impl WholeAsk<'_> {
    /// Values of a head.
    pub fn dim(&self) -> usize {
        self.keys.dim
    }

    /// Whether there is a value for each key.
    pub fn fits(&self) -> bool {
        self.keys.count > 0 && self.values.len() >= (self.keys.count - 1) * self.distance + self.keys.dim
    }
}

/// Values that lie `distance` apart.
struct Apart {
    data: *const f32,
    width: usize,
    distance: usize,
}

impl<S: Simd> Matrix<S> for Apart {
    type Scale = ();

    #[inline(always)]
    fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn scale(&self, _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize, _: ()) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(self.data.add(k * self.distance + column)) }
    }
}

/// # Safety
/// The CPU has the features of `S`; as [`Kernels::attend_whole`](crate::engine::kernels::Kernels::attend_whole) asserts:
/// head dimension, numbers of queries and keys and the length of `records` fit.
#[inline(always)]
pub(in crate::engine::kernels) unsafe fn attend_whole<S: Simd>(
    ask: &WholeAsk,
    space: &mut Workspace,
    records: &mut [f32],
) {
    let Keys { count, dim, .. } = *ask.keys;
    let keys = Wide::new(&ask.keys.data, ask.keys.width());
    let values = Apart { data: ask.values.as_ptr(), width: dim, distance: ask.distance };
    let distance = record_len(dim);
    let Workspace { queries, scores, .. } = space;
    let mut first = 0;
    while first < ask.queries {
        let rows = rows_at::<S>(ask.queries - first);
        let group = Group { queries: first..first + rows, seen: 0..count };
        first += rows;
        let scores = &mut scores[group.queries.clone()];
        let records = &mut records[group.queries.start * distance..group.queries.end * distance];
        let from = queries[group.queries].as_flattened().as_ptr();
        // SAFETY: features by the caller. A query has `dim` values of `STRIDE`, a row of scores as many as there are keys
        // at most, rounded up; there are `count` values of `dim`, and as much room in each record.
        unsafe {
            let to = To { data: scores.as_flattened_mut().as_mut_ptr(), distance: STRIDE, start: Start::Zero };
            product::<S>(rows, from, &keys, 0..dim, to);
            for (row, record) in scores.iter_mut().zip(records.chunks_exact_mut(distance)) {
                (record[dim], record[dim + 1]) = soften::<S>(row, 0..count, &group.seen, None);
            }
            let to = To { data: records.as_mut_ptr(), distance, start: Start::Zero };
            product::<S>(rows, scores.as_flattened().as_ptr(), &values, 0..count, to);
        }
    }
}
