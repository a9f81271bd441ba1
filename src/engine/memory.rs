//! Memory for weights: few large zeroed allocations on huge pages, cut into pieces.
//!
//! A core that reads weights from memory gets them half as fast again from huge pages: its prefetcher stops at the end of a
//! page (benches/RESULTS.md). A matrix alone is often smaller than one, so matrices lie side by side. Knows nothing of what
//! is stored.
//!
//! Invariant: pieces do not overlap.

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
    sync::Arc,
};

use super::process::prefer_huge_pages;

const HUGE_PAGE_BYTES: usize = 2 << 20;
/// What is asked of the system at once; its unused end is never touched, and so takes no memory.
const CHUNK_BYTES: usize = 64 << 20;
/// Pieces start at cache lines, and so at the start of vectors.
const ALIGNMENT: usize = 64;

/// Gives out memory that lives until its last piece is dropped.
#[derive(Default)]
pub struct Arena {
    current: Option<Arc<Chunk>>,
    /// Bytes of the current chunk that are given out.
    used: usize,
}

struct Chunk {
    start: NonNull<u8>,
    len: usize,
    /// With room for the alignment; never used but to be freed.
    _data: Vec<u8>,
}

// SAFETY: plain memory; pieces of it do not overlap, and each is borrowed as its own.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(bytes: usize) -> Self {
        // Zeroed memory comes lazily from the system; an allocation with an alignment would be written to.
        let mut data = vec![0; bytes + HUGE_PAGE_BYTES];
        let offset = data.as_ptr().align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
        let memory = &mut data[offset..];
        prefer_huge_pages(memory);
        Self { start: NonNull::from(&mut *memory).cast(), len: memory.len(), _data: data }
    }
}

impl Arena {
    /// A piece of zeros.
    pub fn allocate(&mut self, bytes: usize) -> Piece {
        let needed = bytes.next_multiple_of(ALIGNMENT);
        let chunk = match self.current.take() {
            Some(chunk) if chunk.len - self.used >= needed => chunk,
            _ => {
                self.used = 0;
                Arc::new(Chunk::new(needed.max(CHUNK_BYTES)))
            }
        };
        // SAFETY: `used + needed` is within the chunk.
        let start = unsafe { chunk.start.add(self.used) };
        self.used += needed;
        self.current = Some(Arc::clone(&chunk));
        Piece { start, len: bytes, _chunk: chunk }
    }
}

/// Some memory of an [`Arena`].
pub struct Piece {
    start: NonNull<u8>,
    len: usize,
    _chunk: Arc<Chunk>,
}

// SAFETY: a piece owns its bytes, as a box would.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: these bytes are the piece's, initialised, and live as long as its chunk.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and no other piece has them.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zeroed_aligned_and_apart() {
        let mut arena = Arena::default();
        let sizes = [1, 64, 65, 1 << 20, CHUNK_BYTES + 1, 100, 0, 63 << 20, 3 << 20];
        let mut pieces: Vec<Piece> = sizes.iter().map(|bytes| arena.allocate(*bytes)).collect();
        drop(arena);
        for (i, (piece, bytes)) in pieces.iter_mut().zip(sizes).enumerate() {
            assert_eq!((piece.len(), piece.as_ptr().addr() % ALIGNMENT), (bytes, 0));
            for at in [0, bytes / 2, bytes.saturating_sub(1)] {
                assert_eq!(piece.get(at).copied().unwrap_or(0), 0);
            }
            if bytes > 0 {
                (piece[0], piece[bytes - 1]) = (i as u8 + 1, i as u8 + 1);
            }
        }
        for (i, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
            assert_eq!((piece[0], piece[piece.len() - 1]), (i as u8 + 1, i as u8 + 1));
        }
    }
}
