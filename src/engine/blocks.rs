//! KV blocks: who holds which.

/// Tokens per block.
pub const BLOCK_TOKENS: usize = 32;

/// One block of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);
