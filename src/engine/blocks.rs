//! KV blocks: how many sequences use which, and which keep what a later sequence may want.
//!
//! ```text
//! free ──allocate──▶ held (by 1, 2, … sequences) ──release by the last──▶ free, or cached if it can be found
//!                      ▲                                                              │
//!                      └──── share: found by its tokens ◀─────────────────────────────┤
//!                      └──── allocate: nothing is free, the longest unused goes ◀─────┘
//! ```
//!
//! Knows counts, ids and the tokens of full blocks; never keys and values. After every call: free + cached + held = total,
//! each block is one of these, and a block that more than one sequence holds is full, so that nobody writes to it.

use std::collections::BTreeMap;

use super::prefix::{Before, Name, PrefixIndex};

/// Tokens per block.
pub const BLOCK_TOKENS: usize = 32;

/// One block of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Blocks that `tokens` positions take.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}

#[derive(Debug, Clone, Copy)]
enum State {
    Free,
    Held {
        by: u32,
    },
    /// Nobody's since this moment, and findable.
    Cached {
        since: u64,
    },
}

/// All blocks of one KV cache.
#[derive(Debug)]
pub struct BlockPool {
    /// By block id.
    states: Vec<State>,
    /// Last freed, first given: its memory is the most likely to be in a CPU cache.
    free: Vec<BlockId>,
    /// By the moment of their release. A sequence releases its last block first, so that beginnings outlive ends.
    cached: BTreeMap<u64, BlockId>,
    releases: u64,
    prefixes: PrefixIndex,
}

impl BlockPool {
    pub fn new(total: usize) -> Self {
        let total_u32 = u32::try_from(total).expect("block ids are 32 bits");
        Self {
            states: vec![State::Free; total],
            free: (0..total_u32).rev().map(BlockId).collect(),
            cached: BTreeMap::new(),
            releases: 0,
            prefixes: PrefixIndex::new(total),
        }
    }

    /// A block to write to: a free one, else the cached one that nobody has wanted for longest.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop().or_else(|| self.cached.pop_first().map(|(_, block)| block))?;
        self.prefixes.forget(block);
        self.states[block.0 as usize] = State::Held { by: 1 };
        Some(block)
    }

    /// The block with these tokens behind `before`, if it is held or cached; see [`PrefixIndex::find`].
    pub fn find(&self, before: Before, name: Name, tokens: &[u32]) -> Option<BlockId> {
        self.prefixes.find(before, name, tokens)
    }

    /// One sequence more holds a block that was found.
    ///
    /// # Panics
    /// If the block is free.
    pub fn share(&mut self, block: BlockId) {
        let state = &mut self.states[block.0 as usize];
        *state = match *state {
            State::Free => panic!("{block:?} is free, it holds nothing to share"),
            State::Held { by } => State::Held { by: by + 1 },
            State::Cached { since } => {
                self.cached.remove(&since);
                State::Held { by: 1 }
            }
        };
    }

    /// A held block is full and computed, and is not written to any more: others may find it. Returns the block to hold
    /// from now on: if the same tokens are in the cache already, that one, and this one is given back.
    pub fn publish(&mut self, block: BlockId, before: Before, name: Name, tokens: &[u32]) -> BlockId {
        match self.prefixes.find(before, name, tokens) {
            Some(same) if same != block => {
                self.share(same);
                self.release(block);
                same
            }
            _ => {
                if let Some(namesake) = self.prefixes.insert(block, before, name, tokens) {
                    self.lose(namesake);
                }
                block
            }
        }
    }

    /// One sequence less holds a block.
    ///
    /// # Panics
    /// If nobody holds it: a block released twice would be given to two sequences, which then overwrite each other.
    pub fn release(&mut self, block: BlockId) {
        let state = &mut self.states[block.0 as usize];
        let State::Held { by } = *state else { panic!("{block:?} released twice") };
        *state = if by > 1 {
            State::Held { by: by - 1 }
        } else if self.prefixes.holds(block) {
            self.releases += 1;
            self.cached.insert(self.releases, block);
            State::Cached { since: self.releases }
        } else {
            self.free.push(block);
            State::Free
        };
    }

    /// What a block holds is not to be used again by anybody who comes.
    pub fn forget(&mut self, block: BlockId) {
        self.prefixes.forget(block);
        self.lose(block);
    }

    /// Sequences that hold a block.
    pub fn holders(&self, block: BlockId) -> usize {
        match self.states[block.0 as usize] {
            State::Held { by } => by as usize,
            State::Free | State::Cached { .. } => 0,
        }
    }

    /// Whether a block can be found.
    pub fn is_published(&self, block: BlockId) -> bool {
        self.prefixes.holds(block)
    }

    /// Blocks that can be allocated.
    pub fn available(&self) -> usize {
        self.free.len() + self.cached.len()
    }

    pub fn cached_count(&self) -> usize {
        self.cached.len()
    }

    pub fn held_count(&self) -> usize {
        self.total() - self.available()
    }

    pub fn total(&self) -> usize {
        self.states.len()
    }

    /// A block can't be found any more: if nobody holds it, it is free.
    fn lose(&mut self, block: BlockId) {
        let state = &mut self.states[block.0 as usize];
        if let State::Cached { since } = *state {
            *state = State::Free;
            self.cached.remove(&since);
            self.free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u32; BLOCK_TOKENS] = [1; BLOCK_TOKENS];
    const B: [u32; BLOCK_TOKENS] = [2; BLOCK_TOKENS];
    const START: Before = Before::Start(None);

    /// (free, cached, held), which are all there are.
    #[track_caller]
    fn check(pool: &BlockPool, expected: (usize, usize, usize)) {
        assert_eq!((pool.available() - pool.cached_count(), pool.cached_count(), pool.held_count()), expected);
        assert_eq!(expected.0 + expected.1 + expected.2, pool.total());
    }

    #[test]
    fn every_block_is_given_once() {
        let mut pool = BlockPool::new(3);
        let mut given: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        check(&pool, (0, 0, 3));
        for &block in &given {
            pool.release(block);
        }
        check(&pool, (3, 0, 0));
        given.sort();
        assert_eq!(given, [BlockId(0), BlockId(1), BlockId(2)]);
    }

    #[test]
    fn a_published_block_is_found_until_it_is_needed() {
        let mut pool = BlockPool::new(2);
        let [first, second] = [pool.allocate().unwrap(), pool.allocate().unwrap()];
        assert_eq!(pool.publish(first, START, Name(1), &A), first);
        assert_eq!(pool.publish(second, Before::Block(first), Name(2), &A), second);
        pool.share(first);
        assert_eq!(pool.holders(first), 2);
        pool.release(first);
        pool.release(second);
        pool.release(first);
        check(&pool, (0, 2, 0));
        assert_eq!(pool.find(Before::Block(first), Name(2), &A), Some(second));
        // The end of the chain was released first and goes first; the beginning is still found.
        assert_eq!(pool.allocate(), Some(second));
        assert_eq!(pool.find(Before::Block(first), Name(2), &A), None);
        pool.share(pool.find(START, Name(1), &A).unwrap());
        check(&pool, (0, 0, 2));
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn the_same_tokens_are_kept_once() {
        let mut pool = BlockPool::new(2);
        let [ours, theirs] = [pool.allocate().unwrap(), pool.allocate().unwrap()];
        pool.publish(theirs, START, Name(1), &A);
        assert_eq!(pool.publish(ours, START, Name(1), &A), theirs);
        assert_eq!((pool.holders(ours), pool.holders(theirs)), (0, 2));
        check(&pool, (1, 0, 1));
    }

    #[test]
    fn what_is_forgotten_is_not_found() {
        let mut pool = BlockPool::new(2);
        let [held, cached] = [pool.allocate().unwrap(), pool.allocate().unwrap()];
        pool.publish(held, START, Name(1), &A);
        pool.publish(cached, Before::Block(held), Name(2), &A);
        pool.release(cached);
        pool.forget(cached);
        check(&pool, (1, 0, 1));
        pool.forget(held);
        assert_eq!((pool.find(START, Name(1), &A), pool.is_published(held)), (None, false));
        pool.release(held);
        check(&pool, (2, 0, 0));
        // A name that others take is lost in the same way.
        let [loser, winner] = [pool.allocate().unwrap(), pool.allocate().unwrap()];
        pool.publish(loser, START, Name(1), &A);
        pool.release(loser);
        pool.publish(winner, START, Name(1), &B);
        check(&pool, (1, 0, 1));
    }

    #[test]
    #[should_panic(expected = "released twice")]
    fn a_block_released_twice_is_our_bug() {
        let mut pool = BlockPool::new(2);
        let block = pool.allocate().unwrap();
        pool.release(block);
        pool.release(block);
    }

    #[test]
    fn the_last_block_of_a_sequence_may_be_partial() {
        let cases = [(0, 0), (1, 1), (31, 1), (32, 1), (33, 2), (64, 2)];
        for (tokens, blocks) in cases {
            assert_eq!(blocks_for(tokens), blocks, "{tokens} tokens");
        }
    }
}
