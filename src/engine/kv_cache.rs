//! The paged KV cache: keys and values of all blocks, in f16.

/// Keys and values, (layer, block, kv head, token in block, head dim).
#[derive(Debug)]
pub struct KvCache {}
