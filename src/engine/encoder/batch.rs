//! The ragged batch of one step: inputs side by side, no padding. Knows no text.

use std::ops::Range;

/// An input as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputTokens {
    /// With the model's own tokens around and between texts; at least one.
    pub tokens: Vec<u32>,
    /// Where the second text of a pair begins; the number of tokens where there is none.
    pub second: usize,
}

impl InputTokens {
    pub fn of_one(tokens: Vec<u32>) -> Self {
        Self { second: tokens.len(), tokens }
    }
}

/// What one forward pass computes.
#[derive(Debug, Clone, Default)]
pub struct InputBatch {
    /// Token ids, one per row.
    pub(super) tokens: Vec<u32>,
    /// Each row's place in its input.
    pub(super) positions: Vec<u32>,
    /// 1 for rows of a pair's second text, else 0.
    pub(super) types: Vec<u8>,
    /// The rows of each input.
    pub(super) inputs: Vec<Range<usize>>,
}

impl InputBatch {
    pub fn push(&mut self, input: &InputTokens) {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(&input.tokens);
        self.positions.extend(0..input.tokens.len() as u32);
        self.types.extend((0..input.tokens.len()).map(|at| u8::from(at >= input.second)));
        self.inputs.push(first..self.tokens.len());
    }

    /// Takes all inputs out; its memory is used again.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.types.clear();
        self.inputs.clear();
    }

    /// Tokens of all inputs.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Inputs in it.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }
}
