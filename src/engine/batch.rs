//! The ragged batch of one step: prompt chunks and decode rows of many sequences, side by side.
//!
//! Tokens run flat with a position each; only attention looks at [`Segment`]s. Knows no sampling and no text.

use super::{
    blocks::{BLOCK_TOKENS, BlockId},
    models::ForwardError,
};

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

/// What is wanted of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Only the largest logit and its token: nothing as long as the vocabulary is written.
    Best,
    /// All of its logits.
    Logits,
    /// What the head would read: the row's vector after the last norm.
    Hidden,
}

/// What one forward pass computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, one per row.
    pub tokens: Vec<u32>,
    /// Positions, one per row.
    pub positions: Vec<u32>,
    pub segments: Vec<Segment>,
    /// Rows that are sampled, ascending, and what of them is wanted.
    pub sampled: Vec<(usize, Want)>,
    /// Ids from here up are padding of the model's output: never [`Want::Best`].
    pub choices: usize,
}

impl Batch {
    /// An empty batch for a tokenizer of `choices` tokens.
    pub fn new(choices: usize) -> Self {
        Self { choices, ..Self::default() }
    }

    /// Adds the tokens `start..start + tokens.len()` of a sequence, and says what is wanted of its last rows, one for each
    /// item of `wants`.
    ///
    /// # Panics
    /// If more rows are wanted than there are.
    pub fn push(&mut self, tokens: &[u32], start: usize, blocks: &[BlockId], wants: &[Want]) {
        let first_row = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((start..start + tokens.len()).map(|p| p as u32));
        self.segments.push(Segment { first_row, rows: tokens.len(), start, blocks: blocks.to_vec() });
        let first_sampled = self.tokens.len() - wants.len();
        assert!(first_sampled >= first_row, "more rows sampled than pushed");
        self.sampled.extend((first_sampled..).zip(wants.iter().copied()));
    }

    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Whether a model of this vocabulary can compute it with a cache of `blocks`. A batch that names tokens or blocks
    /// that do not exist is the engine's mistake; better an error than wrong memory.
    pub fn check(&self, vocabulary: usize, blocks: usize) -> Result<(), ForwardError> {
        let covered = |s: &Segment| s.rows > 0 && s.start + s.rows <= s.blocks.len() * BLOCK_TOKENS;
        if self.tokens.iter().any(|t| *t as usize >= vocabulary) {
            return Err(ForwardError("a token beyond the vocabulary".into()));
        }
        if !self.segments.iter().all(covered) || self.sampled.iter().any(|(row, _)| *row >= self.rows()) {
            return Err(ForwardError("a batch that does not fit together".into()));
        }
        if !(1..=vocabulary).contains(&self.choices) {
            return Err(ForwardError(format!("{} choices of a vocabulary of {vocabulary}", self.choices)));
        }
        if self.segments.iter().flat_map(|s| &s.blocks).any(|b| b.0 as usize >= blocks) {
            return Err(ForwardError("a block beyond the cache".into()));
        }
        Ok(())
    }
}
