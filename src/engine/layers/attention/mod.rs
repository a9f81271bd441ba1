//! Grouped-query attention over the paged cache, for the ragged batch of a step.
//!
//! First every row's key and value are written to the cache, then every query reads it: a key is always seen as the
//! cache holds it, in its precision, whichever step wrote it. Three stages of a region: normalise, turn and store;
//! attend; and, where a sequence's chunks were shared out, merge. How the work is cut is in `step`.

mod step;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, ops::Range};

use super::{RmsNorm, Rows, rope::Angles};
use crate::engine::{
    batch::Segment,
    blocks::{BLOCK_TOKENS, BlockId},
    kernels::{
        attention::{Ask, HEAD_DIM_MAX, HEAD_DIM_MULTIPLE, QUERIES_MAX, Workspace, conclude, merge, record_len},
        kernels,
    },
    kv_cache::{KvCache, KvType, SCALE_VALUES, SharedCache, Stored},
    team::{Crew, DisjointMut, Team},
};
pub use step::Step;
use step::{Merge, Unit};

/// Heads of rows that are normalised, turned and stored as one chunk of work, at least.
const STORED_HEADS_MIN: usize = 8;

/// One layer's attention. The fields that most models leave alone are set after [`new`](Self::new).
pub struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub norms: QkNorm,
    /// Factor of the products of queries and keys, 1/√(head dim) in most models.
    pub scale: f32,
    /// Scores go through `cap · tanh(score / cap)` (Gemma 2).
    pub soft_cap: Option<f32>,
    /// A row sees itself and the `window - 1` positions before it; all if `None`.
    pub window: Option<usize>,
}

/// RMSNorm of queries and keys before they are turned.
pub enum QkNorm {
    None,
    /// Of each head by itself (Qwen3, Gemma 3).
    PerHead {
        query: RmsNorm,
        key: RmsNorm,
    },
    /// Of a row's query heads together, and of its key heads together (OLMo 2).
    WholeRow {
        query: RmsNorm,
        key: RmsNorm,
    },
}

thread_local! {
    /// What a thread needs to attend; of no use between units.
    static LOCAL: RefCell<Local> = RefCell::new(Local { space: Workspace::new(), total: Vec::new(), later: Vec::new() });
}

struct Local {
    space: Box<Workspace>,
    /// Records of the chunks so far, and of the next one.
    total: Vec<f32>,
    later: Vec<f32>,
}

/// What a layer reads and writes, as the threads of a region share it.
pub struct Buffers<'a> {
    /// Every row's queries, keys and values, head by head. Queries and keys are left normalised and turned.
    pub qkv: &'a DisjointMut<'a, f32>,
    pub cache: &'a SharedCache<'a>,
    /// The attended values, shape (rows, heads · head dim).
    pub out: &'a DisjointMut<'a, f32>,
}

impl Attention {
    /// # Panics
    /// If the kernels don't have these sizes.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        assert!(heads.is_multiple_of(kv_heads) && head_dim.is_multiple_of(HEAD_DIM_MULTIPLE));
        assert!(head_dim <= HEAD_DIM_MAX);
        let scale = 1.0 / (head_dim as f32).sqrt();
        Self { heads, kv_heads, head_dim, norms: QkNorm::None, scale, soft_cap: None, window: None }
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values of a row of queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Attends to the rows of `step`, which must be made for this layer or one like it, as one stage of a region after
    /// the other.
    ///
    /// # Safety
    /// Every thread of the crew calls this with the same arguments, and meanwhile nothing else uses what `buffers` says.
    pub unsafe fn forward(&self, crew: &Crew, step: &Step, layer: usize, buffers: &Buffers) {
        let rows = step.batch.rows();
        if let QkNorm::WholeRow { query, key } = &self.norms {
            crew.stage(rows, 1, |range| range.for_each(|row| self.normalise_row(row, query, key, buffers)));
        }
        // Head by head, so that a tile of keys is filled while it is in a thread's cache.
        let items = rows * self.kv_heads;
        crew.stage(items, (items / 64).max(STORED_HEADS_MIN), |range| {
            range.for_each(|item| self.turn_and_store(step, layer, item / rows, item % rows, buffers));
        });
        crew.stage(step.units.len(), 1, |range| {
            LOCAL.with_borrow_mut(|local| {
                step.units[range].iter().for_each(|unit| self.attend(step, layer, unit, local, buffers));
            });
        });
        if !step.merges.is_empty() {
            crew.stage(step.merges.len(), 4, |range| {
                step.merges[range].iter().for_each(|merge| self.merge(step, merge, buffers));
            });
        }
    }

    /// As [`forward`](Self::forward), as a region of its own.
    pub fn run(&self, team: &Team, step: &Step, layer: usize, qkv: &mut Rows, cache: &mut KvCache, out: &mut Rows) {
        out.reset(step.batch.rows(), self.heads * self.head_dim);
        let buffers = Buffers {
            qkv: &DisjointMut::new(qkv.values_mut()),
            cache: &cache.share(),
            out: &DisjointMut::new(out.values_mut()),
        };
        // SAFETY: the threads of this region do this and nothing else, and the buffers are borrowed mutably.
        team.run(|crew| unsafe { self.forward(crew, step, layer, &buffers) });
    }

    fn normalise_row(&self, row: usize, query: &RmsNorm, key: &RmsNorm, buffers: &Buffers) {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let at = row * self.qkv_width();
        // SAFETY: a row is one thread's in this stage.
        let (q, k) = unsafe { buffers.qkv.range(at..at + queries + keys) }.split_at_mut(queries);
        query.forward_in_place(q);
        key.forward_in_place(k);
    }

    /// Normalises and turns the queries and the key of one KV head of a row in place, and writes key and value to the
    /// cache.
    fn turn_and_store(&self, step: &Step, layer: usize, kv_head: usize, row: usize, buffers: &Buffers) {
        let dim = self.head_dim;
        // SAFETY: these heads of this row are one thread's in this stage.
        let head = |index: usize| unsafe { buffers.qkv.range(self.head_of(row, index)) };
        let norms = match &self.norms {
            QkNorm::PerHead { query, key } => Some((query, key)),
            _ => None,
        };
        let turn = |norm: Option<&RmsNorm>, head: &mut [f32]| {
            if let Some(norm) = norm {
                norm.forward_in_place(head);
            }
            if let Some(angles) = step.angles {
                angles.turn(row, head);
            }
        };
        for index in kv_head * self.group()..(kv_head + 1) * self.group() {
            turn(norms.map(|(query, _)| query), head(index));
        }
        let key = head(self.heads + kv_head);
        turn(norms.map(|(_, key)| key), key);
        let value = head(self.heads + self.kv_heads + kv_head);
        let slot = step.slots[row];
        let (mut k, mut v) = (Narrow::default(), Narrow::default());
        let (key, value) = (k.store(buffers.cache.kind(), &key[..dim]), v.store(buffers.cache.kind(), &value[..dim]));
        // SAFETY: as above, and no two rows of a batch share a position of a block.
        unsafe { buffers.cache.write(layer, kv_head, slot, key, value) };
    }

    /// Where a head of a row lies in `qkv`: queries come first, then keys, then values.
    fn head_of(&self, row: usize, index: usize) -> Range<usize> {
        let at = row * self.qkv_width() + index * self.head_dim;
        at..at + self.head_dim
    }

    /// The row of the batch, and the query head, of a segment's query.
    fn query(&self, segment: &Segment, kv_head: usize, index: usize) -> (usize, usize) {
        (segment.first_row + index / self.group(), kv_head * self.group() + index % self.group())
    }

    fn attend(&self, step: &Step, layer: usize, unit: &Unit, local: &mut Local, buffers: &Buffers) {
        let (dim, count) = (self.head_dim, unit.queries.len());
        let segment = &step.batch.segments[unit.segment];
        let Local { space, total, later } = local;
        let mut positions = [0; QUERIES_MAX];
        for (i, query) in unit.queries.clone().enumerate() {
            let (row, head) = self.query(segment, unit.kv_head, query);
            positions[i] = step.batch.positions[row];
            // SAFETY: queries are only read in this stage.
            let from = unsafe { buffers.qkv.read(self.head_of(row, head)) };
            space.query_mut(i).iter_mut().zip(from).for_each(|(q, x)| *q = x * self.scale);
        }
        // SAFETY: the cache is only read in this stage.
        let head = unsafe { buffers.cache.head(layer, unit.kv_head, &segment.blocks) };
        let positions = &positions[..count];
        let mut attend = |chunk: usize, records: &mut [f32]| {
            let ask = Ask { head: &head, chunk, positions, window: self.window, soft_cap: self.soft_cap };
            kernels().attend(&ask, space, records);
        };
        let record = record_len(dim);
        if let Some(at) = unit.partial {
            // SAFETY: these records are this unit's.
            return attend(unit.chunks.start, unsafe { step.partials.range(at..at + count * record) });
        }
        total.resize(count * record, 0.0);
        later.resize(count * record, 0.0);
        attend(unit.chunks.start, total);
        for chunk in unit.chunks.start + 1..unit.chunks.end {
            attend(chunk, later);
            total.chunks_exact_mut(record).zip(later.chunks_exact(record)).for_each(|(t, l)| merge(t, l));
        }
        for (query, total) in unit.queries.clone().zip(total.chunks_exact(record)) {
            self.put(segment, unit.kv_head, query, total, buffers);
        }
    }

    /// Merges the records of a sequence's chunks, in order.
    fn merge(&self, step: &Step, parts: &Merge, buffers: &Buffers) {
        let record = record_len(self.head_dim);
        let count = parts.queries.len();
        let mut total = [0.0; record_len(HEAD_DIM_MAX)];
        let total = &mut total[..record];
        for (i, query) in parts.queries.clone().enumerate() {
            for chunk in 0..parts.chunks {
                let at = parts.partial + (chunk * count + i) * record;
                // SAFETY: records are only read in this stage.
                let found = unsafe { step.partials.read(at..at + record) };
                match chunk {
                    0 => total.copy_from_slice(found),
                    _ => merge(total, found),
                }
            }
            self.put(&step.batch.segments[parts.segment], parts.kv_head, query, total, buffers);
        }
    }

    fn put(&self, segment: &Segment, kv_head: usize, query: usize, total: &[f32], buffers: &Buffers) {
        let (row, head) = self.query(segment, kv_head, query);
        let at = (row * self.heads + head) * self.head_dim;
        // SAFETY: a query belongs to one unit, or to one merge.
        conclude(total, unsafe { buffers.out.range(at..at + self.head_dim) });
    }
}

/// A head as the cache stores it.
struct Narrow {
    halves: [u16; HEAD_DIM_MAX],
    bytes: [i8; HEAD_DIM_MAX],
    scales: [u16; HEAD_DIM_MAX / SCALE_VALUES],
}

impl Default for Narrow {
    fn default() -> Self {
        Self { halves: [0; HEAD_DIM_MAX], bytes: [0; HEAD_DIM_MAX], scales: [0; HEAD_DIM_MAX / SCALE_VALUES] }
    }
}

impl Narrow {
    fn store(&mut self, kind: KvType, x: &[f32]) -> Stored<'_> {
        match kind {
            KvType::F16 => {
                let halves = &mut self.halves[..x.len()];
                kernels().narrow(x, halves);
                Stored::F16(halves)
            }
            KvType::Q8_0 => {
                let (values, scales) = (&mut self.bytes[..x.len()], &mut self.scales[..x.len().div_ceil(SCALE_VALUES)]);
                kernels().quantise(x, values, scales);
                Stored::Q8 { values, scales }
            }
        }
    }
}
