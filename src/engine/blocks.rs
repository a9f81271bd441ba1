//! KV blocks: who holds which. Knows counts and ids; never what a block contains.
//!
//! After every call: blocks free + blocks held = blocks total, and no block is both.

/// Tokens per block.
pub const BLOCK_TOKENS: usize = 32;

/// One block of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Blocks that `tokens` positions take.
pub fn blocks_for(tokens: usize) -> usize {
    tokens.div_ceil(BLOCK_TOKENS)
}

/// All blocks of one KV cache.
#[derive(Debug)]
pub struct BlockPool {
    /// Last freed, first given: its memory is the most likely to be in a CPU cache.
    free: Vec<BlockId>,
    /// By block id.
    held: Vec<bool>,
}

impl BlockPool {
    pub fn new(total: usize) -> Self {
        let total_u32 = u32::try_from(total).expect("block ids are 32 bits");
        Self { free: (0..total_u32).rev().map(BlockId).collect(), held: vec![false; total] }
    }

    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.held[block.0 as usize] = true;
        Some(block)
    }

    /// Takes a block back.
    ///
    /// # Panics
    /// If nobody holds it: a block freed twice would be given to two sequences, which then overwrite each other.
    pub fn free(&mut self, block: BlockId) {
        let held = &mut self.held[block.0 as usize];
        assert!(*held, "{block:?} freed twice");
        *held = false;
        self.free.push(block);
    }

    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    pub fn held_count(&self) -> usize {
        self.held.len() - self.free.len()
    }

    pub fn total(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_given_once() {
        let mut pool = BlockPool::new(3);
        let mut given: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!((pool.free_count(), pool.held_count()), (0, 3));
        for &block in &given {
            pool.free(block);
        }
        assert_eq!((pool.free_count(), pool.held_count()), (3, 0));
        given.sort();
        assert_eq!(given, [BlockId(0), BlockId(1), BlockId(2)]);
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_block_freed_twice_is_our_bug() {
        let mut pool = BlockPool::new(2);
        let block = pool.allocate().unwrap();
        pool.free(block);
        pool.free(block);
    }

    #[test]
    fn the_last_block_of_a_sequence_may_be_partial() {
        let cases = [(0, 0), (1, 1), (31, 1), (32, 1), (33, 2), (64, 2)];
        for (tokens, blocks) in cases {
            assert_eq!(blocks_for(tokens), blocks, "{tokens} tokens");
        }
    }
}
