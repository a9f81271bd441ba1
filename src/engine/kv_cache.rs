//! The paged KV cache: keys and values of all blocks, in f16.

use super::models::Spec;

/// Keys and values, (layer, block, kv head, token in block, head dim).
#[derive(Debug)]
pub struct KvCache {
    blocks: usize,
}

impl KvCache {
    pub fn new(_: &Spec, blocks: usize) -> Self {
        Self { blocks }
    }

    pub fn blocks(&self) -> usize {
        self.blocks
    }
}
