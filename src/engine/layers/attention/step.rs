//! How a step's attention is cut into work for many threads.
//!
//! The cut decides who computes what and never what comes out: a query's chunks are merged in order whether one thread
//! goes through all of them or each has one.

use std::{cmp::Reverse, ops::Range};

use super::{Angles, Attention, BLOCK_TOKENS, BlockId, DisjointMut, QUERIES_MAX, record_len};
use crate::engine::{
    batch::{Batch, Segment},
    kernels::attention::CHUNK_TOKENS,
};

/// What is the same in a step for every layer of one kind: of the same heads, window and rope.
pub struct Step<'a> {
    pub(super) batch: &'a Batch,
    pub(super) angles: Option<&'a Angles>,
    /// Where each row's key and value go: block, and token in the block.
    pub(super) slots: Vec<(BlockId, usize)>,
    pub(super) units: Vec<Unit>,
    pub(super) merges: Vec<Merge>,
    /// Records of the units that are merged.
    pub(super) partials: DisjointMut<'a, f32>,
}

/// A piece of work: queries of one segment that share a KV head, and chunks of its cache. A query is a row and a head
/// of the group that shares the KV head; a segment's are numbered row by row, head by head.
pub(super) struct Unit {
    pub segment: usize,
    pub kv_head: usize,
    pub queries: Range<usize>,
    pub chunks: Range<usize>,
    /// Where the records of its one chunk go, if another unit has the next chunk.
    pub partial: Option<usize>,
}

/// Records of the same queries, of one chunk after the other.
pub(super) struct Merge {
    pub segment: usize,
    pub kv_head: usize,
    pub queries: Range<usize>,
    pub chunks: usize,
    /// Where they start.
    pub partial: usize,
}

impl<'a> Step<'a> {
    /// For the layers that are like `attention`. Queries and keys are turned by `angles`, if there are any. `partials`
    /// is memory to be used again.
    pub fn new(
        attention: &Attention,
        batch: &'a Batch,
        angles: Option<&'a Angles>,
        partials: &'a mut Vec<f32>,
    ) -> Self {
        let slot = |s: &Segment, position: usize| (s.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
        let slots = batch.segments.iter().flat_map(|s| (s.start..s.start + s.rows).map(move |p| slot(s, p))).collect();
        let record = record_len(attention.head_dim);
        let (mut units, mut shared, mut merges, mut partial) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (index, segment) in batch.segments.iter().enumerate() {
            let all = segment.rows * attention.group();
            for first in (0..all).step_by(QUERIES_MAX) {
                let queries = first..all.min(first + QUERIES_MAX);
                let chunks = chunks_of(attention, segment, &queries);
                let unit = |kv_head, chunks, partial| Unit {
                    segment: index,
                    kv_head,
                    queries: queries.clone(),
                    chunks,
                    partial,
                };
                // A few queries that see far are shared out by chunks; of many there are units enough.
                let share = all <= QUERIES_MAX && chunks.len() > 1;
                for kv_head in 0..attention.kv_heads {
                    if !share {
                        units.push(unit(kv_head, chunks.clone(), None));
                        continue;
                    }
                    let queries = queries.clone();
                    merges.push(Merge { segment: index, kv_head, queries, chunks: chunks.len(), partial });
                    for chunk in chunks.clone() {
                        shared.push(unit(kv_head, chunk..chunk + 1, Some(partial)));
                        partial += all * record;
                    }
                }
            }
        }
        // The costly ones first, so that threads come to an end together.
        units.sort_by_key(|unit| Reverse(unit.queries.len() * unit.chunks.len()));
        units.append(&mut shared);
        partials.resize(partial.max(partials.len()), 0.0);
        Self { batch, angles, slots, units, merges, partials: DisjointMut::new(partials) }
    }
}

/// The chunks that some of a segment's queries see.
fn chunks_of(attention: &Attention, segment: &Segment, queries: &Range<usize>) -> Range<usize> {
    let position = |query: usize| segment.start + query / attention.group();
    let first = attention.window.map_or(0, |window| (position(queries.start) + 1).saturating_sub(window));
    first / CHUNK_TOKENS..position(queries.end - 1) / CHUNK_TOKENS + 1
}
