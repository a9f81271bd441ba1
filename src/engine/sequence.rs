//! One generation as the scheduler sees it: tokens, of which some are computed. Knows no text and no sampling.
//!
//! There are no modes: a prompt being processed, a stream being generated and a preempted sequence being recomputed
//! differ only in how many of their tokens are not computed yet.

use std::{cmp::Reverse, time::Instant};

use super::blocks::{BlockId, blocks_for};

/// Names a sequence; given out in order of arrival, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// The order of service: higher priority first, then first come first served.
pub type Rank = (Reverse<i32>, SeqId);

#[derive(Debug)]
pub struct Sequence {
    pub id: SeqId,
    /// The prompt, then what was generated.
    pub tokens: Vec<u32>,
    /// Length at which the caller ends the sequence at the latest, in tokens.
    pub tokens_max: usize,
    /// Higher runs first and is preempted last.
    pub priority: i32,
    /// To be admitted by; `None` once it has been.
    pub deadline: Option<Instant>,
    /// Its reader is behind: it gets no rows.
    pub parked: bool,
    /// Keys and values of `tokens[..computed]` are in the cache.
    pub computed: usize,
    /// Block `i` holds positions `32 i .. 32 (i + 1)`.
    pub blocks: Vec<BlockId>,
    pub preemptions: u32,
}

impl Sequence {
    /// So often a sequence may lose its blocks and start again. Then it is pinned.
    pub const PREEMPTIONS_MAX: u32 = 3;

    pub fn new(id: SeqId, prompt: Vec<u32>, tokens_max: usize, priority: i32, deadline: Instant) -> Self {
        Self {
            id,
            tokens: prompt,
            tokens_max,
            priority,
            deadline: Some(deadline),
            parked: false,
            computed: 0,
            blocks: Vec::new(),
            preemptions: 0,
        }
    }

    pub fn rank(&self) -> Rank {
        (Reverse(self.priority), self.id)
    }

    /// Tokens not in the cache yet; 1 while it generates, for the token sampled last is not computed.
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// A pinned sequence is admitted with all the blocks it can ever need promised to it, and keeps them.
    pub fn is_pinned(&self) -> bool {
        self.preemptions >= Self::PREEMPTIONS_MAX
    }

    /// Blocks that nobody else may take while this one runs.
    pub fn blocks_promised(&self) -> usize {
        if self.is_pinned() { blocks_for(self.tokens_max) } else { self.blocks.len() }
    }

    /// Blocks that it holds or is about to take: what admission of others must leave to it.
    pub fn blocks_claimed(&self) -> usize {
        let about_to_take = if self.parked { 0 } else { blocks_for(self.tokens.len()) };
        self.blocks_promised().max(about_to_take)
    }
}
