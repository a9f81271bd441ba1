//! What is to be sent: bytes copied into a buffer, bytes sent from where they lie, and ranges of files, in order.
//!
//! Knows no socket: [`Output::write_to`] hands its parts to a [`Sink`].
//!
//! Small pieces are copied into one buffer, and nearly all output is only that. What is not copied is an *insert*: it
//! knows how many of the copied bytes leave before it. So pushing bytes costs the same whether there are inserts or
//! not, and an output without inserts is a buffer and nothing else.
//!
//! Invariants: the copied bytes that leave before inserts are among those in the buffer; no insert is empty; without
//! inserts there is no list of them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::buffer::Buffer;

/// Smaller shared bytes are copied: that is cheaper than a list entry and a slice of their own.
const SHARED_BYTES_MIN: usize = 4 << 10;

/// Slices in one write. Linux takes 1024; the gain of more than some dozens is small.
const SLICES_MAX: usize = 64;

/// Bytes that are sent from where they lie.
#[derive(Clone, Debug)]
pub struct SharedBytes(Shared);

#[derive(Clone, Debug)]
enum Shared {
    Static(&'static [u8]),
    Counted(Arc<[u8]>),
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Shared::Static(bytes) => bytes,
            Shared::Counted(bytes) => bytes,
            Shared::Owned(bytes) => bytes,
        }
    }
}

impl From<&'static [u8]> for SharedBytes {
    fn from(bytes: &'static [u8]) -> SharedBytes {
        SharedBytes(Shared::Static(bytes))
    }
}

impl From<&'static str> for SharedBytes {
    fn from(text: &'static str) -> SharedBytes {
        SharedBytes(Shared::Static(text.as_bytes()))
    }
}

impl From<Arc<[u8]>> for SharedBytes {
    fn from(bytes: Arc<[u8]>) -> SharedBytes {
        SharedBytes(Shared::Counted(bytes))
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> SharedBytes {
        SharedBytes(Shared::Owned(bytes))
    }
}

impl From<String> for SharedBytes {
    fn from(text: String) -> SharedBytes {
        SharedBytes(Shared::Owned(text.into_bytes()))
    }
}

/// A part of an open file, read at the moment it is sent. A regular file: reading it may wait for the disk, not longer.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// Its own position is neither used nor moved.
    pub file: Arc<File>,
    /// Where the range begins, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes; all of them must be there when they are sent, or the connection is reset.
    pub len: u64,
}

impl FileRange {
    /// The bytes, in memory.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than the range.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// Bytes on their way to a peer. An empty output holds no memory.
#[derive(Debug, Default)]
pub struct Output {
    copied: Buffer,
    inserts: Option<Box<Inserts>>,
}

impl Output {
    /// Bytes that have not been sent, those of files included.
    pub fn len(&self) -> usize {
        self.copied.len() + self.inserts.as_ref().map_or(0, |inserts| inserts.bytes)
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty() && self.inserts.is_none()
    }

    /// Adds a copy of `bytes`.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.copied.push(bytes);
    }

    /// Room for at least `count` bytes; what is written there counts when it is [committed](Output::commit).
    #[inline]
    pub fn room(&mut self, count: usize) -> &mut [u8] {
        self.copied.reserve(count);
        self.copied.spare()
    }

    /// Adds the first `count` bytes of the room.
    #[inline]
    pub fn commit(&mut self, count: usize) {
        self.copied.commit(count);
    }

    /// Adds bytes without copying them, unless they are so few that a copy is cheaper.
    pub fn push_shared(&mut self, bytes: impl Into<SharedBytes>) {
        let bytes = bytes.into();
        match bytes.as_ref().len() {
            0..SHARED_BYTES_MIN => self.push(bytes.as_ref()),
            _ => self.insert(Source::Memory { bytes, sent: 0 }),
        }
    }

    /// Adds a part of a file. Where the system can, its bytes go from the page cache to the socket.
    pub fn push_file(&mut self, range: FileRange) {
        if range.len > 0 {
            self.insert(Source::File(range));
        }
    }

    fn insert(&mut self, source: Source) {
        let inserts = self.inserts.get_or_insert_default();
        inserts.bytes = inserts.bytes.saturating_add(source.len());
        let copied_before = self.copied.len() - inserts.copied_before;
        inserts.copied_before += copied_before;
        inserts.queue.push_back(Insert { copied_before, source });
    }

    /// Takes everything out as bytes in memory; files are read. What a test sees, or an answer made once for many.
    ///
    /// # Errors
    /// A file cannot be read, or is shorter than its range.
    pub fn take_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.copied.len());
        self.write_to(&mut bytes, usize::MAX)?;
        Ok(bytes)
    }

    /// The buffer of copied bytes, whose memory comes from the loop's pool and goes back there.
    pub(super) fn buffer(&mut self) -> &mut Buffer {
        &mut self.copied
    }

    /// Writes until nothing is left, the sink takes no more, or `bytes_max` bytes have gone.
    ///
    /// # Errors
    /// What the sink says, and `UnexpectedEof` when a file is shorter than promised: the rest can never be right, so
    /// the connection must end in a way that the peer cannot take for a good one.
    pub(super) fn write_to(&mut self, sink: &mut impl Sink, bytes_max: usize) -> io::Result<Written> {
        let mut left = bytes_max;
        while !self.is_empty() {
            if left == 0 {
                return Ok(Written::Share);
            }
            let copied = self.copied.as_slice();
            let sent = match &self.inserts {
                None => sink.send(&copied[..copied.len().min(left)]),
                Some(inserts) => inserts.send(copied, sink, left),
            };
            match sent {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    left = left.saturating_sub(count);
                    self.consume(count);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Written::Blocked),
                Err(e) => return Err(e),
            }
        }
        Ok(Written::All)
    }

    /// Forgets the first `count` bytes, which have been sent.
    fn consume(&mut self, mut count: usize) {
        if let Some(inserts) = &mut self.inserts {
            while count > 0
                && let Some(first) = inserts.queue.front_mut()
            {
                let copied = first.copied_before.min(count);
                first.copied_before -= copied;
                inserts.copied_before -= copied;
                self.copied.consume(copied);
                count -= copied;

                let own = first.source.len().min(count);
                first.source.advance(own);
                inserts.bytes -= own;
                count -= own;
                if first.source.len() == 0 {
                    inserts.queue.pop_front();
                }
            }
            if inserts.queue.is_empty() {
                self.inserts = None;
            }
        }
        self.copied.consume(count);
    }
}

/// What came of writing output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything.
    All,
    /// As much as the sink took for now.
    Blocked,
    /// As much as was allowed; the sink may take more.
    Share,
}

/// Where output goes: a socket, or memory. Each call is one attempt, which may take only a part.
pub(super) trait Sink {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// `more`: something follows at once, so that a short end need not leave as a packet of its own.
    fn send_parts(&mut self, parts: &[IoSlice<'_>], more: bool) -> io::Result<usize>;

    /// Up to `len` bytes of a file from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when there is nothing at `offset`.
    fn send_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize>;
}

/// Memory takes everything.
impl Sink for Vec<u8> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn send_parts(&mut self, parts: &[IoSlice<'_>], _: bool) -> io::Result<usize> {
        parts.iter().for_each(|part| self.extend_from_slice(part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn send_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let mut block = vec![0; len.min(64 << 10)];
        match file.read_at(&mut block, offset)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => self.send(&block[..count]),
        }
    }
}

/// The parts that are not in the buffer.
#[derive(Debug, Default)]
struct Inserts {
    queue: VecDeque<Insert>,
    /// Copied bytes that leave before the last of them.
    copied_before: usize,
    /// Bytes of the inserts themselves.
    bytes: usize,
}

#[derive(Debug)]
struct Insert {
    /// Copied bytes between the insert before this one and this one.
    copied_before: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Memory { bytes: SharedBytes, sent: usize },
    File(FileRange),
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Source::Memory { bytes, sent } => bytes.as_ref().len() - sent,
            Source::File(range) => usize::try_from(range.len).unwrap_or(usize::MAX),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Source::Memory { sent, .. } => *sent += count,
            Source::File(range) => {
                range.offset += count as u64;
                range.len -= count as u64;
            }
        }
    }
}

impl Inserts {
    /// Sends what comes first in one call: as much memory as there is in a row, or a part of a file.
    fn send(&self, mut copied: &[u8], sink: &mut impl Sink, bytes_max: usize) -> io::Result<usize> {
        let mut parts = Parts { slices: [IoSlice::new(&[]); SLICES_MAX], count: 0, left: bytes_max };
        for insert in &self.queue {
            let (before, behind) = copied.split_at(insert.copied_before);
            copied = behind;
            parts.add(before);
            match &insert.source {
                Source::Memory { bytes, sent } => parts.add(&bytes.as_ref()[*sent..]),
                Source::File(range) if parts.count == 0 => {
                    return sink.send_file(&range.file, range.offset, insert.source.len().min(bytes_max));
                }
                Source::File(_) => return sink.send_parts(parts.as_slice(), !parts.is_full()),
            }
            if parts.is_full() {
                return sink.send_parts(parts.as_slice(), false);
            }
        }
        parts.add(copied);
        sink.send_parts(parts.as_slice(), false)
    }
}

/// Slices for one write, with a bound on their bytes.
struct Parts<'a> {
    slices: [IoSlice<'a>; SLICES_MAX],
    count: usize,
    left: usize,
}

impl<'a> Parts<'a> {
    fn add(&mut self, bytes: &'a [u8]) {
        let bytes = &bytes[..bytes.len().min(self.left)];
        if !bytes.is_empty()
            && let Some(slot) = self.slices.get_mut(self.count)
        {
            *slot = IoSlice::new(bytes);
            self.count += 1;
            self.left -= bytes.len();
        }
    }

    /// Whether the next two slices may find no place.
    fn is_full(&self) -> bool {
        self.left == 0 || self.count + 2 > SLICES_MAX
    }

    fn as_slice(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.count]
    }
}

#[cfg(test)]
mod tests;
