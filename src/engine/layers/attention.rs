//! Grouped-query attention over the paged cache, for the ragged batch of a step.
//!
//! First every row's key and value are written to the cache, then every query reads it: a key is always seen as the
//! cache holds it, in half precision, whichever step wrote it.

use super::{PARALLEL_MIN_VALUES, RmsNorm, Rope, SharedRows, rope::Angles};
use crate::engine::{
    batch::{Batch, Segment},
    blocks::{BLOCK_TOKENS, BlockId},
    kernels::{HEAD_DIM_MULTIPLE, MAX_QUERIES, kernels},
    kv_cache::SharedCache,
    team::Crew,
};

/// Largest head dimension, so that a unit's vectors live on the stack.
pub const HEAD_DIM_MAX: usize = 256;

pub struct Attention {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// RMSNorm of every query head and key head before they are turned (Qwen3).
    norms: Option<(RmsNorm, RmsNorm)>,
}

/// What is the same for every layer of a step.
pub struct Step<'a> {
    pub batch: &'a Batch,
    rope: &'a Rope,
    angles: Angles,
    /// Where each row's key and value go: block, and token in the block.
    slots: Vec<(BlockId, usize)>,
}

impl<'a> Step<'a> {
    pub fn new(batch: &'a Batch, rope: &'a Rope) -> Self {
        let slot = |s: &Segment, position: usize| (s.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        let slots = batch.segments.iter().flat_map(|s| (s.start..s.start + s.rows).map(move |p| slot(s, p)));
        Self { batch, rope, angles: rope.angles(&batch.positions), slots: slots.collect() }
    }
}

/// A piece of a step's attention: up to [`MAX_QUERIES`] queries of one segment and one KV head. A query is a row and
/// a head of the group that shares the KV head; a segment's are numbered row by row, head by head.
struct Unit<'a> {
    segment: &'a Segment,
    kv_head: usize,
    first: usize,
    queries: usize,
}

impl Attention {
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize, norms: Option<(RmsNorm, RmsNorm)>) -> Self {
        assert!(heads.is_multiple_of(kv_heads) && head_dim.is_multiple_of(HEAD_DIM_MULTIPLE));
        assert!(head_dim <= HEAD_DIM_MAX);
        Self { heads, kv_heads, head_dim, norms }
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Two stages. `qkv` holds every row's queries, keys and values, head by head; `out` gets the attended values, shape
    /// (tokens, heads · head dim).
    pub fn forward(
        &self,
        crew: &Crew,
        step: &Step,
        qkv: &SharedRows,
        cache: &SharedCache,
        layer: usize,
        out: &SharedRows,
    ) {
        self.turn_and_store(crew, step, qkv, cache, layer);
        let units = self.units(step.batch);
        crew.stage(units.len(), 1, |range| {
            for unit in &units[range] {
                self.attend(unit, qkv, cache, layer, |row, column, values| {
                    out.part_mut(row, column..column + values.len()).copy_from_slice(values);
                });
            }
        });
    }

    /// Cuts a batch's attention into units.
    fn units<'a>(&self, batch: &'a Batch) -> Vec<Unit<'a>> {
        let mut units = Vec::new();
        for segment in &batch.segments {
            let queries = segment.rows * self.group();
            for kv_head in 0..self.kv_heads {
                for first in (0..queries).step_by(MAX_QUERIES) {
                    units.push(Unit { segment, kv_head, first, queries: MAX_QUERIES.min(queries - first) });
                }
            }
        }
        units
    }

    /// Normalises and turns queries and keys in place, and writes keys and values to the cache.
    fn turn_and_store(&self, crew: &Crew, step: &Step, qkv: &SharedRows, cache: &SharedCache, layer: usize) {
        let dim = self.head_dim;
        let turn = |norm: Option<&RmsNorm>, row: usize, head: &mut [f32]| {
            normalise(norm, head);
            step.rope.apply(&step.angles, row, head);
        };
        let (query_norm, key_norm) = self.norms.as_ref().map(|(q, k)| (q, k)).unzip();
        crew.stage(qkv.rows(), PARALLEL_MIN_VALUES.div_ceil(qkv.width()), |rows| {
            for row in rows {
                let (queries, keys_values) = qkv.row_mut(row).split_at_mut(self.heads * dim);
                let (keys, values) = keys_values.split_at_mut(self.kv_heads * dim);
                queries.chunks_exact_mut(dim).for_each(|query| turn(query_norm, row, query));
                let (block, offset) = step.slots[row];
                for (head, (key, value)) in keys.chunks_exact_mut(dim).zip(values.chunks_exact(dim)).enumerate() {
                    turn(key_norm, row, key);
                    let (mut k, mut v) = ([0; HEAD_DIM_MAX], [0; HEAD_DIM_MAX]);
                    kernels().narrow(key, &mut k[..dim]);
                    kernels().narrow(value, &mut v[..dim]);
                    cache.write(layer, head, block, offset, &k[..dim], &v[..dim]);
                }
            }
        });
    }

    /// Computes one unit; `put(row, column, values)` takes the results.
    fn attend(
        &self,
        unit: &Unit,
        qkv: &SharedRows,
        cache: &SharedCache,
        layer: usize,
        put: impl Fn(usize, usize, &[f32]),
    ) {
        let (dim, group, n, segment) = (self.head_dim, self.group(), unit.queries, unit.segment);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut q = [0.0; MAX_QUERIES * HEAD_DIM_MAX];
        let mut out = [0.0; MAX_QUERIES * HEAD_DIM_MAX];
        let mut positions = [0; MAX_QUERIES];
        // The row in the segment and the column in a row of queries.
        let place = |i: usize| {
            let query = unit.first + i;
            (query / group, (unit.kv_head * group + query % group) * dim)
        };
        for (i, q) in q.chunks_exact_mut(dim).take(n).enumerate() {
            let (row, column) = place(i);
            positions[i] = (segment.start + row) as u32;
            let from = &qkv.row(segment.first_row + row)[column..column + dim];
            q.iter_mut().zip(from).for_each(|(q, x)| *q = x * scale);
        }
        let head = cache.head(layer, unit.kv_head, &segment.blocks);
        kernels().attend(&head, &q[..n * dim], &positions[..n], &mut out[..n * dim]);
        for (i, out) in out.chunks_exact(dim).take(n).enumerate() {
            let (row, column) = place(i);
            put(segment.first_row + row, column, out);
        }
    }
}

fn normalise(norm: Option<&RmsNorm>, head: &mut [f32]) {
    if let Some(norm) = norm {
        let mut normed = [0.0; HEAD_DIM_MAX];
        norm.forward_row(head, &mut normed[..head.len()]);
        head.copy_from_slice(&normed[..head.len()]);
    }
}
