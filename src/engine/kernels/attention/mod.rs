//! Attention of some queries over one chunk of one KV head's paged cache.
//!
//! A chunk is 512 tokens, counted from position 0. Its scores are kept, so softmax goes over all of it at once; what
//! comes out is a *record* for each query: the sum of the values under weights relative to the chunk's largest score,
//! that score, and the sum of the weights. Records of chunks are merged in order (online softmax: Milakov & Gimelshein
//! 2018; split keys: Dao et al., Flash-Decoding, 2023).
//!
//! Keys and values are widened a tile at a time, once for all queries, then multiplied as matrices. Every sum of a
//! query is made in the same order whatever queries run beside it and whichever tile of the product it falls into, so
//! its record depends neither on the batch, nor on how its prompt was cut, nor on threads.

mod product;
mod softmax;
#[cfg(test)]
mod tests;
mod widen;

use std::{
    alloc::{self, Layout},
    array,
    ops::Range,
};

use super::simd::Simd;
use crate::engine::{blocks::BLOCK_TOKENS, kv_cache::PagedHead};
use product::{Start, product, rows_at};
pub(super) use softmax::soft_cap;
use softmax::soften;
pub(super) use widen::quantise;
use widen::{widen_keys, widen_values};

/// Tokens of a chunk.
pub const CHUNK_TOKENS: usize = 512;
/// Queries that are taken at once, at most.
pub const QUERIES_MAX: usize = 96;
/// Head dimensions must be a multiple of this.
pub const HEAD_DIM_MULTIPLE: usize = 16;
/// Largest head dimension.
pub const HEAD_DIM_MAX: usize = 256;

/// Values from one query, or one row of scores, to the next: an odd number of cache lines, so that neighbours don't
/// compete for the same places of the cache.
const STRIDE: usize = CHUNK_TOKENS + 16;

/// What a query leaves of a chunk, after its `dim` values: the largest score and the sum of weights, then padding to a
/// cache line.
const RECORD_TAIL: usize = 16;

/// Floats of a query's record.
pub const fn record_len(dim: usize) -> usize {
    dim + RECORD_TAIL
}

/// What a chunk is asked.
pub struct Ask<'a> {
    pub head: &'a PagedHead<'a>,
    /// Its chunk with the positions `512 chunk .. 512 (chunk + 1)`.
    pub chunk: usize,
    /// One for each query, which sees the keys up to and with its own position.
    pub positions: &'a [u32],
    /// How many of these it sees, the last ones; all if `None`.
    pub window: Option<usize>,
    /// Scores go through `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

impl Ask<'_> {
    /// The keys of this chunk that query `index` sees, counted from the chunk's first.
    fn seen(&self, index: usize) -> Range<usize> {
        let end = self.positions[index] as usize + 1;
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        let first = self.chunk * CHUNK_TOKENS;
        let within = |position: usize| position.saturating_sub(first).min(CHUNK_TOKENS);
        within(start)..within(end)
    }

    /// The keys that any of these queries sees; holes in between cost time, not correctness.
    fn seen_by(&self, queries: Range<usize>) -> Range<usize> {
        let seen = queries.map(|i| self.seen(i)).filter(|seen| !seen.is_empty());
        seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0)
    }
}

/// A thread's memory for queries, scores and widened tiles: some hundred kilobytes, used again and again.
#[repr(C, align(64))]
pub struct Workspace {
    queries: [[f32; STRIDE]; QUERIES_MAX],
    scores: [[f32; STRIDE]; QUERIES_MAX],
    tile: [f32; HEAD_DIM_MAX * BLOCK_TOKENS],
}

impl Workspace {
    pub fn new() -> Box<Self> {
        let layout = Layout::new::<Self>();
        // Not made on the stack, for which it is large.
        // SAFETY: the layout has a size; all zeros are a value of floats.
        unsafe {
            let memory = alloc::alloc_zeroed(layout);
            if memory.is_null() {
                alloc::handle_alloc_error(layout);
            }
            Box::from_raw(memory.cast())
        }
    }

    /// Where query `index` is to be put before the kernel is called, already scaled; as long as the head dimension.
    pub fn query_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.queries[index][..HEAD_DIM_MAX]
    }
}

/// Queries that are multiplied together, and what they see of the chunk.
#[derive(Clone)]
struct Group {
    queries: Range<usize>,
    seen: Range<usize>,
}

/// # Safety
/// The CPU has the features of `S`; as [`Kernels::attend`](super::Kernels::attend) asserts: head dimension, number of
/// queries and length of `records` fit, and the cache holds every position up to the largest.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd>(ask: &Ask, space: &mut Workspace, records: &mut [f32]) {
    let (head, dim) = (ask.head, ask.head.dim());
    let record = record_len(dim);
    let count = ask.positions.len();
    let mut groups: [Group; QUERIES_MAX] = array::from_fn(|_| Group { queries: 0..0, seen: 0..0 });
    let (mut used, mut first) = (0, 0);
    while first < count {
        let queries = first..first + rows_at::<S>(count - first);
        first = queries.end;
        groups[used] = Group { seen: ask.seen_by(queries.clone()), queries };
        used += 1;
    }
    let groups = &groups[..used];
    let all = ask.seen_by(0..count);
    let tiles = all.start / BLOCK_TOKENS..all.end.div_ceil(BLOCK_TOKENS);
    let block = ask.chunk * (CHUNK_TOKENS / BLOCK_TOKENS);
    let Workspace { queries, scores, tile: widened } = space;

    // SAFETY: features by the caller. A query has `dim` values of `STRIDE`, a row of scores 512; the widened tile holds
    // `dim` rows of keys side by side, or as many rows of values as the block has tokens; records are as asserted.
    unsafe {
        for tile in tiles.clone() {
            let next =
                if tile + 1 < tiles.end { head.keys(block + tile + 1) } else { head.values(block + tiles.start) };
            widen_keys::<S>(head.keys(block + tile), next, dim, widened);
            for Group { queries: rows, .. } in groups.iter().filter(|g| part(&g.seen, tile).is_some()) {
                let to = scores[rows.start].as_mut_ptr().add(tile * BLOCK_TOKENS);
                let from = queries[rows.start].as_ptr();
                product::<S>(rows.len(), from, (widened.as_ptr(), BLOCK_TOKENS, dim), (to, STRIDE), Start::Zero);
            }
        }
        for Group { queries: rows, seen: together } in groups {
            for row in rows.clone() {
                let (peak, sum) = soften::<S>(&mut scores[row], ask.seen(row), together, ask.soft_cap);
                let tail = &mut records[row * record + dim..][..2];
                (tail[0], tail[1]) = (peak, sum);
                if together.is_empty() {
                    records[row * record..][..dim].fill(0.0);
                }
            }
        }
        for tile in tiles.clone() {
            let next = (tile + 1 < tiles.end).then(|| head.values(block + tile + 1));
            let needed = part(&all, tile).unwrap_or(0..0);
            widen_values::<S>(head.values(block + tile), next, dim, needed, widened);
            for Group { queries: rows, seen } in groups {
                let Some(keys) = part(seen, tile) else { continue };
                let weights = scores[rows.start].as_ptr().add(tile * BLOCK_TOKENS + keys.start);
                let values = (widened.as_ptr().add(keys.start * dim), dim, keys.len());
                let to = records[rows.start * record..].as_mut_ptr();
                let start = if seen.start / BLOCK_TOKENS == tile { Start::Zero } else { Start::Add };
                product::<S>(rows.len(), weights, values, (to, record), start);
            }
        }
    }
}

/// The part of `seen` that is in a tile, counted from the tile's first key.
fn part(seen: &Range<usize>, tile: usize) -> Option<Range<usize>> {
    let first = tile * BLOCK_TOKENS;
    let (start, end) = (seen.start.max(first), seen.end.min(first + BLOCK_TOKENS));
    (start < end).then(|| start - first..end - first)
}

/// Adds a later chunk's record to the total of those before it.
pub fn merge(total: &mut [f32], later: &[f32]) {
    let dim = total.len() - RECORD_TAIL;
    let (peak, more) = (total[dim], later[dim]);
    if more == f32::NEG_INFINITY {
        return;
    }
    if peak == f32::NEG_INFINITY {
        return total.copy_from_slice(later);
    }
    let highest = if more > peak { more } else { peak };
    let (keep, add) = ((peak - highest).exp(), (more - highest).exp());
    for (t, l) in total[..dim].iter_mut().zip(later) {
        *t = *t * keep + l * add;
    }
    total[dim] = highest;
    total[dim + 1] = total[dim + 1] * keep + later[dim + 1] * add;
}

/// The attended values that a query's total says.
pub fn conclude(total: &[f32], out: &mut [f32]) {
    let inverse = 1.0 / total[out.len() + 1];
    out.iter_mut().zip(total).for_each(|(o, t)| *o = t * inverse);
}
