//! The paged KV cache: keys and values of every block, in half precision or as bytes with scales.
//!
//! One allocation of shape (block, layer, KV head, {keys, values}, tile), so that memory is taken as blocks are first
//! written. A tile holds one head's 32 tokens: keys as (dim, token), so that attention computes 32 scores side by side,
//! values as (token, dim). Knows nothing of who holds which block.

use std::{marker::PhantomData, slice};

use super::{
    blocks::{BLOCK_TOKENS, BlockId},
    device::Pages,
    models::Spec,
    process::prefer_huge_pages,
};

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// IEEE half precision.
    #[default]
    F16,
    /// Signed bytes, with a scale for each 32 values of a head: 17/32 of the memory. A scale for a whole head would be
    /// simpler, but keys have a few large channels beside which the others would be rounded away.
    Q8_0,
}

/// Values that share a scale.
pub const SCALE_VALUES: usize = 32;

/// Stored values of a tile, or of one token's head: half floats as bits, or bytes and their scales, bfloat16 as bits. The
/// scales of a tile of keys have the shape (groups, BLOCK_TOKENS), of values (BLOCK_TOKENS, groups).
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    F16(&'a [u16]),
    Q8 { values: &'a [i8], scales: &'a [u16] },
}

/// Bytes of a huge page, to which the cache is aligned.
const HUGE_PAGE_BYTES: usize = 2 << 20;

pub struct KvCache {
    /// With room for the alignment.
    data: Vec<u8>,
    start: usize,
    shape: Shape,
    /// Where the keys and values are instead, if a device computes.
    pages: Option<Pages>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    kind: KvType,
    layers: usize,
    blocks: usize,
    heads: usize,
    dim: usize,
}

impl Shape {
    fn new(spec: &Spec, blocks: usize, kind: KvType) -> Self {
        Self { kind, layers: spec.layers, blocks, heads: spec.kv_heads, dim: spec.head_dim }
    }

    /// Scales of one head of one token.
    fn groups(self) -> usize {
        self.dim.div_ceil(SCALE_VALUES)
    }

    /// Bytes of a tile's values, behind which are its scales.
    fn tile_values(self) -> usize {
        match self.kind {
            KvType::F16 => self.dim * BLOCK_TOKENS * size_of::<u16>(),
            KvType::Q8_0 => self.dim * BLOCK_TOKENS,
        }
    }

    /// Bytes of one head's keys (or values) in one block.
    fn tile(self) -> usize {
        match self.kind {
            KvType::F16 => self.tile_values(),
            KvType::Q8_0 => self.tile_values() + self.groups() * BLOCK_TOKENS * size_of::<u16>(),
        }
    }

    /// Bytes of one block in all layers.
    fn block(self) -> usize {
        self.layers * self.heads * 2 * self.tile()
    }

    /// Where the key tile of a head starts, in a block; the value tile is behind it.
    fn head(self, layer: usize, head: usize) -> usize {
        assert!(layer < self.layers && head < self.heads);
        (layer * self.heads + head) * 2 * self.tile()
    }
}

impl KvCache {
    /// A cache of `blocks` blocks for a model. Memory is taken from the system as blocks are first written.
    pub fn new(spec: &Spec, blocks: usize, kind: KvType) -> Self {
        let shape = Shape::new(spec, blocks, kind);
        // Zeroed memory comes lazily from the system; an allocation with an alignment would be written to.
        let mut data = vec![0; blocks.saturating_mul(shape.block()).saturating_add(HUGE_PAGE_BYTES)];
        let start = data.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // Attention reads a few kilobytes here and there over all of it.
        prefer_huge_pages(&mut data[start..]);
        Self { data, start, shape, pages: None }
    }

    /// The cache of a model whose keys and values are in a device's memory: here only their blocks are counted.
    pub fn on_device(spec: &Spec, pages: Pages) -> Self {
        let shape = Shape::new(spec, pages.blocks(), KvType::F16);
        Self { data: Vec::new(), start: 0, shape, pages: Some(pages) }
    }

    /// What a device computes with.
    pub fn pages(&self) -> Option<&Pages> {
        self.pages.as_ref()
    }

    /// Bytes that one block takes over all layers.
    pub fn block_bytes(spec: &Spec, kind: KvType) -> usize {
        Shape::new(spec, 1, kind).block()
    }

    pub fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// The cache as the threads of a region share it.
    ///
    /// # Panics
    /// If it is in a device's memory.
    pub fn share(&mut self) -> SharedCache<'_> {
        assert!(self.pages.is_none(), "the cache is in a device's memory");
        SharedCache { data: self.data[self.start..].as_mut_ptr(), shape: self.shape, cache: PhantomData }
    }
}

/// A cache whose places are written and read by many threads. What each may do when is the caller's promise.
pub struct SharedCache<'a> {
    data: *mut u8,
    shape: Shape,
    cache: PhantomData<&'a mut KvCache>,
}

// SAFETY: plain bytes, borrowed mutably; access goes through unsafe methods whose callers promise that nothing is
// written while it is used by another thread.
unsafe impl Sync for SharedCache<'_> {}
// SAFETY: as above.
unsafe impl Send for SharedCache<'_> {}

impl SharedCache<'_> {
    pub fn kind(&self) -> KvType {
        self.shape.kind
    }

    /// Stores one token's key and value of one head, of this cache's type.
    ///
    /// # Safety
    /// Nobody else uses the same place of the same block and head at the same time.
    pub unsafe fn write(
        &self,
        layer: usize,
        head: usize,
        (block, offset): (BlockId, usize),
        key: Stored,
        value: Stored,
    ) {
        let Shape { dim, kind, .. } = self.shape;
        assert!(offset < BLOCK_TOKENS && (block.0 as usize) < self.shape.blocks);
        let at = block.0 as usize * self.shape.block() + self.shape.head(layer, head);
        // SAFETY: within the allocation, since layer, head, block and offset are; lengths are checked; exclusive by the
        // caller's promise.
        unsafe {
            let keys = self.data.add(at);
            let values = keys.add(self.shape.tile());
            match (kind, key, value) {
                (KvType::F16, Stored::F16(key), Stored::F16(value)) => {
                    assert!(key.len() == dim && value.len() == dim);
                    scatter(key, keys.cast::<u16>().add(offset));
                    values.cast::<u16>().add(offset * dim).copy_from_nonoverlapping(value.as_ptr(), dim);
                }
                (KvType::Q8_0, Stored::Q8 { values: k, scales: ks }, Stored::Q8 { values: v, scales: vs }) => {
                    let groups = self.shape.groups();
                    assert!(k.len() == dim && v.len() == dim && ks.len() == groups && vs.len() == groups);
                    scatter(k, keys.cast::<i8>().add(offset));
                    scatter(ks, keys.add(self.shape.tile_values()).cast::<u16>().add(offset));
                    values.cast::<i8>().add(offset * dim).copy_from_nonoverlapping(v.as_ptr(), dim);
                    let scales = values.add(self.shape.tile_values()).cast::<u16>();
                    scales.add(offset * groups).copy_from_nonoverlapping(vs.as_ptr(), groups);
                }
                _ => panic!("keys and values of another type than the cache"),
            }
        }
    }

    /// One KV head of one layer, of the sequence that holds `blocks`.
    ///
    /// # Safety
    /// While the result lives, nobody writes to it.
    pub unsafe fn head<'a>(&'a self, layer: usize, head: usize, blocks: &'a [BlockId]) -> PagedHead<'a> {
        assert!(blocks.iter().all(|b| (b.0 as usize) < self.shape.blocks), "a block beyond the cache");
        let at = self.shape.head(layer, head);
        PagedHead { data: self.data.wrapping_add(at), blocks, shape: self.shape, cache: PhantomData }
    }
}

/// Writes values a column's distance apart.
///
/// # Safety
/// `to` has a place every `BLOCK_TOKENS`, as many as `values`.
unsafe fn scatter<T: Copy>(values: &[T], to: *mut T) {
    for (i, value) in values.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { to.add(i * BLOCK_TOKENS).write(*value) };
    }
}

/// One KV head of one sequence, as attention reads it.
pub struct PagedHead<'a> {
    /// The head's key tile in block 0.
    data: *const u8,
    blocks: &'a [BlockId],
    shape: Shape,
    cache: PhantomData<&'a [u8]>,
}

impl<'a> PagedHead<'a> {
    pub fn dim(&self) -> usize {
        self.shape.dim
    }

    /// Whether the block table reaches `position`.
    pub fn covers(&self, position: usize) -> bool {
        position < self.blocks.len() * BLOCK_TOKENS
    }

    /// Keys of the sequence's `index`th block, shape (dim, BLOCK_TOKENS).
    #[inline(always)]
    pub fn keys(&self, index: usize) -> Stored<'a> {
        self.tile(index, 0)
    }

    /// Values of the sequence's `index`th block, shape (BLOCK_TOKENS, dim).
    #[inline(always)]
    pub fn values(&self, index: usize) -> Stored<'a> {
        self.tile(index, self.shape.tile())
    }

    #[inline(always)]
    fn tile(&self, index: usize, at: usize) -> Stored<'a> {
        let at = self.blocks[index].0 as usize * self.shape.block() + at;
        let count = self.shape.dim * BLOCK_TOKENS;
        // SAFETY: within the allocation, since the head was checked and so were the blocks; not written while this lives,
        // as was promised for it. Tiles are a multiple of 16 bytes long, so halves are aligned.
        unsafe {
            let data = self.data.add(at);
            match self.shape.kind {
                KvType::F16 => Stored::F16(slice::from_raw_parts(data.cast(), count)),
                KvType::Q8_0 => Stored::Q8 {
                    values: slice::from_raw_parts(data.cast(), count),
                    scales: slice::from_raw_parts(data.add(count).cast(), self.shape.groups() * BLOCK_TOKENS),
                },
            }
        }
    }
}
