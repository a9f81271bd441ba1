//! Bidirectional attention over a ragged batch: every row sees all rows of its own input.
//!
//! Keys and values are read where the product left them; nothing is cached. Long inputs go part by part from the first row
//! on, so a row's result depends on nothing but its input.

use std::{cell::RefCell, ops::Range};

use super::batch::InputBatch;
use crate::engine::{
    kernels::{
        attention::{CHUNK_TOKENS, Keys, QUERIES_MAX, WholeAsk, Workspace, conclude, merge, record_len},
        kernels,
    },
    layers::SharedRows,
    team::Crew,
};

/// Units that each thread gets of a stage, if there are as many.
const CHUNKS_PER_THREAD: usize = 16;

thread_local! {
    /// What a thread needs to attend; of no use between units.
    static LOCAL: RefCell<Local> = RefCell::new(Local {
        space: Workspace::new(),
        keys: Keys::default(),
        total: Vec::new(),
        later: Vec::new(),
    });
}

struct Local {
    space: Box<Workspace>,
    keys: Keys,
    /// Records of the parts so far, and of the next one.
    total: Vec<f32>,
    later: Vec<f32>,
}

/// One layer's attention; the same for all layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    pub heads: usize,
    pub head_dim: usize,
}

/// What one thread does at a time: some queries of one head of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Rows of the input.
    rows: Range<usize>,
    head: usize,
    /// Rows of the queries, within those.
    queries: Range<usize>,
}

impl Attention {
    /// How a batch is cut. Queries that share their keys are shared out evenly.
    pub fn units(self, batch: &InputBatch) -> Vec<Unit> {
        let mut units = Vec::new();
        for rows in &batch.inputs {
            let parts = rows.len().div_ceil(QUERIES_MAX);
            let start = |part: usize| rows.start + rows.len() * part / parts;
            for head in 0..self.heads {
                let unit = |part| Unit { rows: rows.clone(), head, queries: start(part)..start(part + 1) };
                units.extend((0..parts).map(unit));
            }
        }
        units
    }

    /// A stage: `qkv` holds every row's queries, keys and values, head by head; `out` gets the attended values.
    pub fn forward(self, crew: &Crew, units: &[Unit], qkv: &SharedRows, out: &SharedRows) {
        crew.stage(units.len(), units.len().div_ceil(crew.threads() * CHUNKS_PER_THREAD), |chunk| {
            LOCAL.with_borrow_mut(|local| units[chunk].iter().for_each(|unit| self.attend(unit, local, qkv, out)));
        });
    }

    fn attend(self, unit: &Unit, local: &mut Local, qkv: &SharedRows, out: &SharedRows) {
        let Self { heads, head_dim: dim } = self;
        let Local { space, keys, total, later } = local;
        let hidden = heads * dim;
        let first = unit.head * dim;
        let scale = 1.0 / (dim as f32).sqrt();
        for (i, row) in unit.queries.clone().enumerate() {
            let query = &qkv.row(row)[first..first + dim];
            space.query_mut(i).iter_mut().zip(query).for_each(|(to, x)| *to = x * scale);
        }
        let queries = unit.queries.len();
        let len = queries * record_len(dim);
        total.resize(len.max(total.len()), 0.0);
        later.resize(len.max(later.len()), 0.0);
        for start in unit.rows.clone().step_by(CHUNK_TOKENS) {
            let part = start..unit.rows.end.min(start + CHUNK_TOKENS);
            let rows = qkv.range(part.clone());
            keys.fill(&rows[hidden + first..], part.len(), qkv.width(), dim);
            let ask = WholeAsk { keys, values: &rows[2 * hidden + first..], distance: qkv.width(), queries };
            if start == unit.rows.start {
                kernels().attend_whole(&ask, space, &mut total[..len]);
                continue;
            }
            kernels().attend_whole(&ask, space, &mut later[..len]);
            let records = total[..len].chunks_exact_mut(record_len(dim));
            records.zip(later.chunks_exact(record_len(dim))).for_each(|(total, later)| merge(total, later));
        }
        for (row, record) in unit.queries.clone().zip(total.chunks_exact(record_len(dim))) {
            conclude(record, out.part_mut(row, first..first + dim));
        }
    }
}
