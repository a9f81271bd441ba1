//! The paged KV cache: keys and values of every block, in half precision.
//!
//! One allocation of shape (layer, block, KV head, {keys, values}, tile). A tile holds one head's 32 tokens: keys as
//! (dim, token), so that attention computes 32 scores side by side, values as (token, dim). Knows nothing of who
//! holds which block.

use super::{
    blocks::{BLOCK_TOKENS, BlockId},
    device::Pages,
    models::Spec,
    team::DisjointMut,
};

pub struct KvCache {
    /// Half floats, as bits.
    data: Vec<u16>,
    shape: Shape,
    /// Where the keys and values are instead, if a device computes.
    pages: Option<Pages>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    layers: usize,
    blocks: usize,
    heads: usize,
    dim: usize,
}

impl Shape {
    /// Values of one head's keys (or values) in one block.
    fn tile(self) -> usize {
        self.dim * BLOCK_TOKENS
    }

    /// Values of one block in one layer.
    fn block(self) -> usize {
        self.heads * 2 * self.tile()
    }

    /// Where a layer's tiles of a head start, in its block 0.
    fn head(self, layer: usize, head: usize) -> usize {
        layer * self.blocks * self.block() + head * 2 * self.tile()
    }
}

impl KvCache {
    /// A cache of `blocks` blocks for a model. Memory is taken from the system as blocks are first written.
    pub fn new(spec: &Spec, blocks: usize) -> Self {
        let shape = Shape { layers: spec.layers, blocks, heads: spec.kv_heads, dim: spec.head_dim };
        Self { data: vec![0; shape.layers * blocks * shape.block()], shape, pages: None }
    }

    /// The cache of a model whose keys and values are in a device's memory: here only their blocks are counted.
    pub fn on_device(spec: &Spec, pages: Pages) -> Self {
        let shape = Shape { layers: spec.layers, blocks: pages.blocks(), heads: spec.kv_heads, dim: spec.head_dim };
        Self { data: Vec::new(), shape, pages: Some(pages) }
    }

    /// What a device computes with.
    pub fn pages(&self) -> Option<&Pages> {
        self.pages.as_ref()
    }

    /// Bytes that one block takes over all layers.
    pub fn block_bytes(spec: &Spec) -> usize {
        let shape = Shape { layers: spec.layers, blocks: 1, heads: spec.kv_heads, dim: spec.head_dim };
        shape.layers * shape.block() * size_of::<u16>()
    }

    pub fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// The cache as the threads of a region write and read it.
    ///
    /// # Safety
    /// As long as the result lives, its users keep to this: what a stage writes is, in that stage, neither written nor read
    /// by another chunk.
    pub unsafe fn share(&mut self) -> SharedCache<'_> {
        assert!(self.pages.is_none(), "the cache is in a device's memory");
        SharedCache { data: DisjointMut::new(&mut self.data), shape: self.shape }
    }
}

/// See [`KvCache::share`].
pub struct SharedCache<'a> {
    data: DisjointMut<'a, u16>,
    shape: Shape,
}

impl SharedCache<'_> {
    /// One KV head of one layer, of the sequence that holds `blocks`.
    pub fn head<'a>(&'a self, layer: usize, head: usize, blocks: &'a [BlockId]) -> PagedHead<'a> {
        assert!(blocks.iter().all(|b| (b.0 as usize) < self.shape.blocks), "a block beyond the cache");
        let values = self.shape.layers * self.shape.blocks * self.shape.block();
        // SAFETY: written by earlier stages, as was promised to `KvCache::share`.
        let data = unsafe { self.data.read(self.shape.head(layer, head)..values) };
        PagedHead { data, blocks, stride: self.shape.block(), dim: self.shape.dim }
    }

    /// Stores one token's key and value of one head, half floats as bits.
    pub fn write(&self, layer: usize, head: usize, block: BlockId, offset: usize, key: &[u16], value: &[u16]) {
        let dim = self.shape.dim;
        assert!(offset < BLOCK_TOKENS && head < self.shape.heads && key.len() == dim && value.len() == dim);
        let tile = self.shape.head(layer, head) + block.0 as usize * self.shape.block();
        // SAFETY: this token's own places in the tile, written by one chunk as was promised to `KvCache::share`.
        unsafe {
            for (i, x) in key.iter().enumerate() {
                self.data.write(tile + i * BLOCK_TOKENS + offset, *x);
            }
            let at = tile + self.shape.tile() + offset * dim;
            self.data.range(at..at + dim).copy_from_slice(value);
        }
    }
}

/// One KV head of one sequence, as attention reads it.
pub struct PagedHead<'a> {
    /// Starts at the head's key tile in block 0.
    data: &'a [u16],
    blocks: &'a [BlockId],
    stride: usize,
    dim: usize,
}

impl PagedHead<'_> {
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether the block table reaches `position`.
    pub fn covers(&self, position: usize) -> bool {
        position < self.blocks.len() * BLOCK_TOKENS
    }

    /// Keys, shape (dim, BLOCK_TOKENS), and values, shape (BLOCK_TOKENS, dim), of the sequence's `index`th block.
    #[inline(always)]
    pub fn tiles(&self, index: usize) -> (&[u16], &[u16]) {
        let at = self.blocks[index].0 as usize * self.stride;
        let tile = self.dim * BLOCK_TOKENS;
        self.data[at..at + 2 * tile].split_at(tile)
    }
}
