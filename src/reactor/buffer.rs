//! A byte queue: bytes are added at the end and consumed from the front.
//!
//! Invariant: `start <= end <= data.len()`. All of `data` is initialised once, when it grows, so that a socket can read
//! into the room behind `end` without zeroing it for each read.

/// The size of a fresh buffer, and of each read.
pub const BLOCK_BYTES: usize = 32 << 10;

/// How many empty buffers a loop keeps for the next connection that needs one.
const POOLED_MAX: usize = 64;

/// What waits long in a buffer, say half of a head, is kept in memory of its own size when it is no more than this.
const SETTLED_BYTES_MAX: usize = 2 << 10;

/// A byte queue. An empty one has no memory, so that an idle connection costs none.
#[derive(Debug, Default)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that have not been consumed.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// How many bytes have not been consumed.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether all bytes have been consumed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Adds bytes at the end.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.data[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Makes room for `count` more bytes.
    #[inline]
    pub fn reserve(&mut self, count: usize) {
        if self.data.len() - self.end < count {
            self.grow(count);
        }
    }

    #[cold]
    fn grow(&mut self, count: usize) {
        self.compact();
        if self.data.len() - self.end < count {
            let len = (self.end + count).max(self.data.len().saturating_mul(2)).max(BLOCK_BYTES);
            self.data.resize(len, 0);
        }
    }

    /// The room there is behind the bytes.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    /// Forgets the first `count` bytes, or all when there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start.saturating_add(count));
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room to read into, growing by blocks while the bytes held stay within `bytes_max`; empty when that is reached.
    pub fn room(&mut self, bytes_max: usize) -> &mut [u8] {
        if self.end == self.data.len() {
            self.compact();
        }
        if self.end == self.data.len() && self.len() < bytes_max {
            self.data.resize((self.data.len() + BLOCK_BYTES).min(bytes_max), 0);
        }
        let end = self.data.len().min(self.start + bytes_max).max(self.end);
        &mut self.data[self.end..end]
    }

    /// Counts the first `count` bytes of the room as bytes of the queue.
    pub fn commit(&mut self, count: usize) {
        self.end = self.data.len().min(self.end + count);
    }

    /// Moves the bytes to the front of the memory.
    fn compact(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

/// Empty buffers with memory, kept by a loop and lent to the connections that have bytes right now.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Buffer>,
}

impl Pool {
    /// Gives `buffer` a block of memory if it has less.
    #[inline]
    pub fn lend(&mut self, buffer: &mut Buffer) {
        if buffer.data.len() < BLOCK_BYTES {
            let block = self.free.pop().unwrap_or_else(|| Buffer { data: vec![0; BLOCK_BYTES], start: 0, end: 0 });
            let little = std::mem::replace(buffer, block);
            buffer.push(little.as_slice());
        }
    }

    /// Takes the memory of `buffer` back if it is empty. Memory that grew is freed: a burst must not be held for ever.
    #[inline]
    pub fn take_back(&mut self, buffer: &mut Buffer) {
        if buffer.is_empty() && !buffer.data.is_empty() {
            self.keep(std::mem::take(buffer));
        }
    }

    /// Takes the memory of a buffer back whose bytes may wait for long. A little that is left moves to memory of its
    /// own size, so that ten thousand half heads do not hold ten thousand blocks.
    pub fn settle(&mut self, buffer: &mut Buffer) {
        if (1..=SETTLED_BYTES_MAX).contains(&buffer.len()) && buffer.data.len() >= BLOCK_BYTES {
            let little = Buffer { data: buffer.as_slice().to_vec(), start: 0, end: buffer.len() };
            let mut block = std::mem::replace(buffer, little);
            block.consume(usize::MAX);
            self.keep(block);
        } else {
            self.take_back(buffer);
        }
    }

    fn keep(&mut self, block: Buffer) {
        if self.free.len() < POOLED_MAX && block.data.len() == BLOCK_BYTES {
            self.free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Random pushes, reads and consumes, against a `VecDeque`.
    #[test]
    fn behaves_as_a_queue() {
        let (seeds, steps) = if cfg!(miri) { (1, 30) } else { (50, 300) };
        for seed in 0..seeds {
            let mut pool = Pool::default();
            let mut random = u64::wrapping_add(seed, 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |bound: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as usize % bound
            };
            let (mut buffer, mut model) = (Buffer::default(), VecDeque::<u8>::new());
            for step in 0..steps {
                let bytes = vec![step as u8; next(3 * BLOCK_BYTES / 2)];
                match next(4) {
                    0 => {
                        buffer.push(&bytes);
                        model.extend(&bytes);
                    }
                    1 => {
                        let held = buffer.len();
                        let room = buffer.room(3 * BLOCK_BYTES);
                        assert!(held + room.len() <= held.max(3 * BLOCK_BYTES), "seed {seed}");
                        assert!(!room.is_empty() || held >= 3 * BLOCK_BYTES, "seed {seed}");
                        let count = room.len().min(bytes.len());
                        room[..count].copy_from_slice(&bytes[..count]);
                        buffer.commit(count);
                        model.extend(&bytes[..count]);
                    }
                    2 => match next(3) {
                        0 => pool.lend(&mut buffer),
                        1 => pool.take_back(&mut buffer),
                        _ => pool.settle(&mut buffer),
                    },
                    _ => {
                        let count = next(2 * BLOCK_BYTES);
                        buffer.consume(count);
                        model.drain(..count.min(model.len()));
                    }
                }
                assert!(buffer.as_slice() == model.make_contiguous(), "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn the_pool_frees_what_grew_and_keeps_no_more_than_its_bound() {
        let mut pool = Pool::default();
        let mut buffers: Vec<Buffer> = (0..POOLED_MAX + 10).map(|_| Buffer::default()).collect();
        buffers.iter_mut().for_each(|buffer| pool.lend(buffer));
        buffers[0].push(&[1; 2 * BLOCK_BYTES]);
        buffers[0].consume(2 * BLOCK_BYTES);
        buffers.iter_mut().for_each(|buffer| pool.take_back(buffer));
        assert_eq!(pool.free.len(), POOLED_MAX);
        assert!(pool.free.iter().all(|buffer| buffer.data.len() == BLOCK_BYTES));
    }

    #[test]
    fn a_little_that_waits_holds_no_block() {
        let mut pool = Pool::default();
        for (len, settled) in [(1, true), (SETTLED_BYTES_MAX, true), (SETTLED_BYTES_MAX + 1, false)] {
            let mut buffer = Buffer::default();
            pool.lend(&mut buffer);
            buffer.push(b"gone");
            buffer.push(&vec![7; len]);
            buffer.consume(4);
            pool.settle(&mut buffer);
            assert_eq!(buffer.data.len(), if settled { len } else { BLOCK_BYTES });
            // It can go on from there, with and without a block.
            buffer.push(b"a");
            pool.lend(&mut buffer);
            assert_eq!(buffer.data.len(), if settled { BLOCK_BYTES } else { buffer.data.len() });
            buffer.push(b"b");
            assert_eq!(buffer.as_slice(), [&vec![7; len][..], b"ab"].concat());
        }
        assert_eq!(pool.free.len(), 0);
    }
}
