//! Grouped-query attention over the paged cache, for the ragged batch of a step.
//!
//! First every row's key and value are written to the cache, then every query reads it: a key is always seen as the
//! cache holds it, in half precision, whichever step wrote it.

use super::{PARALLEL_MIN_VALUES, RmsNorm, Rope, Rows, rope::Angles};
use crate::engine::{
    batch::{Batch, Segment},
    blocks::{BLOCK_TOKENS, BlockId},
    kernels::{HEAD_DIM_MULTIPLE, MAX_QUERIES, kernels},
    kv_cache::{KvCache, LayerWriter},
    team::{DisjointMut, Team},
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
    pub team: &'a Team,
    pub batch: &'a Batch,
    rope: &'a Rope,
    angles: Angles,
    /// Where each row's key and value go: block, and token in the block.
    slots: Vec<(BlockId, usize)>,
}

impl<'a> Step<'a> {
    pub fn new(team: &'a Team, batch: &'a Batch, rope: &'a Rope) -> Self {
        let slot = |s: &Segment, position: usize| (s.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        let slots = batch.segments.iter().flat_map(|s| (s.start..s.start + s.rows).map(move |p| slot(s, p)));
        Self { team, batch, rope, angles: rope.angles(&batch.positions), slots: slots.collect() }
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

    /// `qkv` holds every row's queries, keys and values, head by head; `out` gets the attended values, shape
    /// (tokens, heads · head dim).
    pub fn forward(&self, step: &Step, qkv: &mut Rows, cache: &mut KvCache, layer: usize, out: &mut Rows) {
        self.turn_and_store(step, qkv, &cache.layer_mut(layer));
        let units = self.units(step.batch);
        out.reset(step.batch.rows(), self.heads * self.head_dim);
        let width = out.width();
        let sink = DisjointMut::new(out.values_mut());
        let (cache, qkv) = (&*cache, &*qkv);
        step.team.for_each_chunk(units.len(), 1, |range| {
            for unit in &units[range] {
                self.attend(unit, qkv, cache, layer, |row, column, values| {
                    let at = row * width + column;
                    // SAFETY: a query belongs to one unit, and a unit is taken once.
                    unsafe { sink.range(at..at + values.len()) }.copy_from_slice(values);
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
    fn turn_and_store(&self, step: &Step, qkv: &mut Rows, cache: &LayerWriter) {
        let (dim, width) = (self.head_dim, qkv.width());
        // The closures run on every thread, where the step's team, which is not `Sync`, can't go.
        let Step { team, rope, angles, slots, .. } = step;
        let turn = |norm: Option<&RmsNorm>, row: usize, head: &mut [f32]| {
            normalise(norm, head);
            rope.apply(angles, row, head);
        };
        let (query_norm, key_norm) = self.norms.as_ref().map(|(q, k)| (q, k)).unzip();
        qkv.for_each_chunk(team, PARALLEL_MIN_VALUES.div_ceil(width), |first, chunk| {
            for (row, values) in (first..).zip(chunk.chunks_exact_mut(width)) {
                let (queries, keys_values) = values.split_at_mut(self.heads * dim);
                let (keys, values) = keys_values.split_at_mut(self.kv_heads * dim);
                queries.chunks_exact_mut(dim).for_each(|query| turn(query_norm, row, query));
                let (block, offset) = slots[row];
                for (head, (key, value)) in keys.chunks_exact_mut(dim).zip(values.chunks_exact(dim)).enumerate() {
                    turn(key_norm, row, key);
                    let (mut k, mut v) = ([0; HEAD_DIM_MAX], [0; HEAD_DIM_MAX]);
                    kernels().narrow(key, &mut k[..dim]);
                    kernels().narrow(value, &mut v[..dim]);
                    // SAFETY: a row is computed by one thread, and no two rows of a batch share a position of a block.
                    unsafe { cache.write(head, block, offset, &k[..dim], &v[..dim]) };
                }
            }
        });
    }

    /// Computes one unit; `put(row, column, values)` takes the results.
    fn attend(&self, unit: &Unit, qkv: &Rows, cache: &KvCache, layer: usize, put: impl Fn(usize, usize, &[f32])) {
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
