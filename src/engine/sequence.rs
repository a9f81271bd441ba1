//! One generation as the scheduler sees it: tokens, of which some are computed. Knows no text and no sampling.
//!
//! There are no modes: a prompt being processed, a stream being generated and a preempted sequence being recomputed
//! differ only in how many of their tokens are not computed yet.

use std::{cmp::Reverse, ops::Range, time::Instant};

use super::{
    batch::Want,
    blocks::{BLOCK_TOKENS, BlockId, blocks_for},
    prefix::{Before, Name, Namer, Tenant},
    request::ClientKey,
    speculation::Speculation,
};

/// Names a sequence; given out in order of arrival, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// The order in which running sequences give way, last first: higher priority, then earlier admission.
pub type Rank = (Reverse<i32>, u64);

#[derive(Debug)]
pub struct Sequence {
    pub id: SeqId,
    /// The prompt, then what was generated.
    pub tokens: Vec<u32>,
    /// Length at which the caller ends the sequence at the latest, in tokens.
    pub tokens_max: usize,
    /// What is asked of the rows that it is continued from.
    pub want: Want,
    /// Positions of prompt tokens whose logits are wanted too and have not been had; all of them are computed, none found.
    pub unscored: Range<usize>,
    /// Higher runs first and is preempted last.
    pub priority: i32,
    /// Who shares its turns.
    pub client: Option<ClientKey>,
    /// Who shares its cache.
    pub tenant: Option<Tenant>,
    /// Since when nobody but others has been served: its arrival or, if later, the last admission of a request of the same
    /// client and priority.
    pub since: Instant,
    /// To be admitted by, for the first time.
    pub deadline: Option<Instant>,
    /// To be finished by.
    pub expires: Option<Instant>,
    /// `None`: nothing is guessed for it.
    pub speculation: Option<Speculation>,
    /// What must follow its tokens, as far as a grammar tells: a draft that is right.
    pub foretold: Vec<u32>,
    /// Its reader is behind: it gets no rows.
    pub parked: bool,
    /// The how manieth it was to be admitted for the first time; `None` before.
    pub admission: Option<u64>,
    /// Keys and values of `tokens[..computed]` are in the cache.
    pub computed: usize,
    /// Block `i` holds positions `32 i .. 32 (i + 1)`. Those that are computed in full may be others' too.
    pub blocks: Vec<BlockId>,
    /// Of the tenant, then of each full block of `tokens`; as far as they have been needed.
    pub names: Vec<Name>,
    /// Prompt tokens that others had computed.
    pub cached_tokens: usize,
    pub preemptions: u32,
}

impl Sequence {
    /// So often a sequence may lose its blocks and start again. Then it is pinned.
    pub const PREEMPTIONS_MAX: u32 = 3;

    /// A sequence that arrives at `now`, nobody's in particular, that waits as long as it takes.
    pub fn new(id: SeqId, prompt: Vec<u32>, tokens_max: usize, now: Instant) -> Self {
        Self {
            id,
            tokens: prompt,
            tokens_max,
            want: Want::Logits,
            unscored: 0..0,
            priority: 0,
            client: None,
            tenant: None,
            since: now,
            deadline: None,
            expires: None,
            speculation: None,
            foretold: Vec::new(),
            parked: false,
            admission: None,
            computed: 0,
            blocks: Vec::new(),
            names: Vec::new(),
            cached_tokens: 0,
            preemptions: 0,
        }
    }

    /// Those not admitted yet come last.
    pub fn rank(&self) -> Rank {
        (Reverse(self.priority), self.admission.unwrap_or(u64::MAX))
    }

    /// Tokens not in the cache yet; 1 while it generates, for the token sampled last is not computed.
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// It generates: one row continues it.
    pub fn is_stream(&self) -> bool {
        self.remaining() == 1
    }

    /// A pinned sequence is admitted with all the blocks it can ever need promised to it, and keeps them.
    pub fn is_pinned(&self) -> bool {
        self.preemptions >= Self::PREEMPTIONS_MAX
    }

    /// Blocks beyond those it holds that nobody else may take.
    pub fn blocks_reserved(&self) -> usize {
        if self.is_pinned() { self.blocks_max() - self.blocks.len() } else { 0 }
    }

    /// Blocks beyond those it holds that admission of others must leave to it: it is about to take them.
    pub fn blocks_wanted(&self) -> usize {
        let about_to_take =
            if self.parked { 0 } else { blocks_for(self.tokens.len()).saturating_sub(self.blocks.len()) };
        self.blocks_reserved().max(about_to_take)
    }

    /// Blocks that it can ever need.
    pub fn blocks_max(&self) -> usize {
        blocks_for(self.tokens_max)
    }

    /// It has got these tokens more.
    pub fn extend(&mut self, tokens: &[u32]) {
        self.foretold.clear();
        for &token in tokens {
            self.tokens.push(token);
            if let Some(speculation) = &mut self.speculation {
                speculation.push(&self.tokens);
            }
        }
    }

    /// Its next block, found in the cache.
    pub fn take_found(&mut self, block: BlockId) {
        self.blocks.push(block);
        self.computed += BLOCK_TOKENS;
        // What it had computed itself before it was preempted is no gift.
        if self.preemptions == 0 {
            self.cached_tokens += BLOCK_TOKENS;
        }
    }

    /// Names the full blocks that have no name yet.
    pub fn name_blocks(&mut self, namer: &Namer) {
        let Self { names, tokens, tenant, .. } = self;
        let mut last = *names.last().unwrap_or(&namer.root(tenant.as_ref()));
        if names.is_empty() {
            names.push(last);
        }
        let (full, _) = tokens.as_chunks::<BLOCK_TOKENS>();
        for tokens in &full[names.len() - 1..] {
            last = namer.next(last, tokens);
            names.push(last);
        }
    }

    /// What the block after `blocks`, its first ones, follows.
    pub fn before<'a>(&'a self, blocks: &[BlockId]) -> Before<'a> {
        blocks.last().map_or(Before::Start(self.tenant.as_ref()), |&block| Before::Block(block))
    }

    /// Name and tokens of its block `index`, if it is full and named.
    pub fn full_block(&self, index: usize) -> Option<(Name, &[u32])> {
        let tokens = self.tokens.get(index * BLOCK_TOKENS..(index + 1) * BLOCK_TOKENS)?;
        Some((*self.names.get(index + 1)?, tokens))
    }

    /// Its next block, if all of it is to be computed and it may as well be another's: the last token is not among its
    /// tokens, for somebody must compute that one's logits.
    pub fn next_shareable(&self) -> Option<usize> {
        let index = self.blocks.len();
        let whole = self.computed == index * BLOCK_TOKENS && self.unscored.is_empty();
        (whole && (index + 1) * BLOCK_TOKENS < self.tokens.len()).then_some(index)
    }
}
