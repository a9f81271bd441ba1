//! The ragged batch of one step: prompt chunks and decode rows of many sequences, side by side.
//!
//! Tokens run flat with a position each; only attention looks at [`Segment`]s. Knows no sampling and no text.

use super::blocks::BlockId;

/// A run of consecutive tokens of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of its first row in the batch.
    pub first_row: usize,
    /// Rows (new tokens) in this step, at least 1.
    pub rows: usize,
    /// Position of its first row: so many tokens of the sequence are in the cache already.
    pub start: usize,
    /// The sequence's block table: block `i` holds positions `32 i .. 32 (i + 1)`. Covers `start + rows` positions.
    pub blocks: Vec<BlockId>,
}

/// What one forward pass computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, one per row.
    pub tokens: Vec<u32>,
    /// Positions, one per row.
    pub positions: Vec<u32>,
    pub segments: Vec<Segment>,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<usize>,
}

impl Batch {
    /// Adds the tokens `start..start + tokens.len()` of a sequence; its last row is sampled if `sample`.
    pub fn push(&mut self, tokens: &[u32], start: usize, blocks: &[BlockId], sample: bool) {
        let first_row = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((start..start + tokens.len()).map(|p| p as u32));
        self.segments.push(Segment { first_row, rows: tokens.len(), start, blocks: blocks.to_vec() });
        if sample {
            self.logit_rows.push(self.tokens.len() - 1);
        }
    }

    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
}
