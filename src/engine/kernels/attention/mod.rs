//! Attention of some queries over one chunk of one KV head's paged cache.
//!
//! A chunk is 512 tokens, counted from position 0. Its scores are kept, so softmax goes over all of it at once; what
//! comes out is a *record* for each query: the sum of the values under weights relative to the chunk's largest score,
//! that score, and the sum of the weights. Records of chunks are merged in order (online softmax: Milakov & Gimelshein
//! 2018; split keys: Dao et al., Flash-Decoding, 2023).
//!
//! A tile of keys or values is multiplied as a matrix; with many queries it is widened before. Every sum of a query is made in the same order whatever queries run beside it and whichever tile of the product it falls into, so
//! its record depends neither on the batch, nor on how its prompt was cut, nor on threads.

mod matrix;
mod product;
mod quantise;
mod softmax;
#[cfg(test)]
mod tests;
mod whole;

use std::{
    alloc::{self, Layout},
    array,
    ops::Range,
};

use super::simd::Simd;
use crate::engine::{blocks::BLOCK_TOKENS, kv_cache::PagedHead};
use matrix::{Matrix, Tile, widen};
use product::{Start, To, product, rows_at};
pub(super) use quantise::quantise;
pub(super) use softmax::soft_cap;
use softmax::soften;
pub(super) use whole::attend_whole;
pub use whole::{Keys, WholeAsk};

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

/// Up to so many queries a tile is widened as it is read; for more it is widened once.
const DIRECT_QUERIES_MAX: usize = 8;

/// # Safety
/// The CPU has the features of `S`; as [`Kernels::attend`](super::Kernels::attend) asserts: head dimension, number of
/// queries and length of `records` fit, and the cache holds every position up to the largest.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd>(ask: &Ask, space: &mut Workspace, records: &mut [f32]) {
    let (head, dim, count) = (ask.head, ask.head.dim(), ask.positions.len());
    let mut groups: [Group; QUERIES_MAX] = array::from_fn(|_| Group { queries: 0..0, seen: 0..0 });
    let (mut used, mut first) = (0, 0);
    while first < count {
        let queries = first..first + rows_at::<S>(count - first);
        first = queries.end;
        groups[used] = Group { seen: ask.seen_by(queries.clone()), queries };
        used += 1;
    }
    let groups = &groups[..used];
    let direct = count <= DIRECT_QUERIES_MAX;
    let all = ask.seen_by(0..count);
    let tiles = all.start / BLOCK_TOKENS..all.end.div_ceil(BLOCK_TOKENS);
    let block = ask.chunk * (CHUNK_TOKENS / BLOCK_TOKENS);
    let Workspace { queries, scores, tile: widened } = space;

    // SAFETY: features by the caller. Tiles have the shapes that `Tile` is told, and `widened` has room for one.
    unsafe {
        for tile in tiles.clone() {
            // After the last tile of keys come the values.
            let next =
                if tile + 1 < tiles.end { head.keys(block + tile + 1) } else { head.values(block + tiles.start) };
            match Tile::keys(head.keys(block + tile), next) {
                Tile::Halves(keys) if direct => score::<S>(groups, tile, queries, &keys, dim, scores),
                Tile::Bytes(keys) if direct => score::<S>(groups, tile, queries, &keys, dim, scores),
                Tile::Halves(keys) => score::<S>(groups, tile, queries, &widen::<S>(&keys, dim, widened), dim, scores),
                Tile::Bytes(keys) => score::<S>(groups, tile, queries, &widen::<S>(&keys, dim, widened), dim, scores),
            }
        }
        for Group { queries, seen: together } in groups {
            for query in queries.clone() {
                let (values, tail) = records[query * record_len(dim)..][..record_len(dim)].split_at_mut(dim);
                (tail[0], tail[1]) = soften::<S>(&mut scores[query], ask.seen(query), together, ask.soft_cap);
                if together.is_empty() {
                    values.fill(0.0);
                }
            }
        }
        for tile in tiles.clone() {
            let next = head.values(block + tile.saturating_add(1).min(tiles.end - 1));
            let written = part(&all, tile).unwrap_or(0..0).end;
            match Tile::values(head.values(block + tile), next, dim) {
                Tile::Halves(values) if direct => sum::<S>(groups, tile, scores, &values, records),
                Tile::Bytes(values) if direct => sum::<S>(groups, tile, scores, &values, records),
                Tile::Halves(values) => sum::<S>(groups, tile, scores, &widen::<S>(&values, written, widened), records),
                Tile::Bytes(values) => sum::<S>(groups, tile, scores, &widen::<S>(&values, written, widened), records),
            }
        }
    }
}

/// Scores of the queries that see some of a tile's keys; `keys` has the shape (dim, BLOCK_TOKENS).
///
/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
unsafe fn score<S: Simd>(
    groups: &[Group],
    tile: usize,
    queries: &[[f32; STRIDE]; QUERIES_MAX],
    keys: &impl Matrix<S>,
    dim: usize,
    scores: &mut [[f32; STRIDE]; QUERIES_MAX],
) {
    for Group { queries: rows, .. } in groups.iter().filter(|g| part(&g.seen, tile).is_some()) {
        let data = scores[rows.start..rows.end].as_flattened_mut()[tile * BLOCK_TOKENS..].as_mut_ptr();
        let to = To { data, distance: STRIDE, start: Start::Zero };
        let from = queries[rows.start..rows.end].as_flattened().as_ptr();
        // SAFETY: features by the caller; a query has `dim` values of `STRIDE`, a row of scores 512.
        unsafe { product(rows.len(), from, keys, 0..dim, to) };
    }
}

/// Adds a tile's values to the records of the queries that see some of it, or starts them; `values` has the shape
/// (BLOCK_TOKENS, dim).
///
/// # Safety
/// The CPU has the features of `S`, `records` are as many and as long as the groups say.
#[inline(always)]
unsafe fn sum<S: Simd>(
    groups: &[Group],
    tile: usize,
    scores: &[[f32; STRIDE]; QUERIES_MAX],
    values: &impl Matrix<S>,
    records: &mut [f32],
) {
    let distance = record_len(values.width());
    for Group { queries: rows, seen } in groups {
        let Some(keys) = part(seen, tile) else { continue };
        let start = if seen.start / BLOCK_TOKENS == tile { Start::Zero } else { Start::Add };
        let data = records[rows.start * distance..rows.end * distance].as_mut_ptr();
        let from = scores[rows.start..rows.end].as_flattened()[tile * BLOCK_TOKENS..].as_ptr();
        // SAFETY: features by the caller; a row of scores has those of this tile, a record `width` values.
        unsafe { product(rows.len(), from, values, keys, To { data, distance, start }) };
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
