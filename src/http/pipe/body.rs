//! The reading end of a pipe.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;
use std::{fmt, mem};

use super::{BACKLOG_LOW_WATER_BYTES, Ear, End, Pipe, Stream, pipe};
use crate::http::news::News;
use crate::reactor::{ConnId, Handle};

/// The reading end: a request body that is still arriving, or an answer's.
///
/// [`Read`] blocks until something arrives, so it is for threads other than the event loops: there a body is passed on
/// ([`Reply::stream`](crate::http::Reply::stream)), not read. A body that was cut reads as an error of kind
/// [`UnexpectedEof`](ErrorKind::UnexpectedEof), never as an end. Dropped, it tells the producer that nobody wants the rest.
pub struct Body {
    pipe: Arc<Pipe>,
    /// Bytes taken out of the pipe; those before `used` have been read.
    taken: Vec<u8>,
    used: usize,
    length: Option<u64>,
}

/// What [`Body::poll`] found.
pub(crate) type Arrived = Option<End>;

impl Body {
    pub(super) fn new(pipe: Arc<Pipe>, length: Option<u64>) -> Body {
        Body { pipe, taken: Vec::new(), used: 0, length }
    }

    /// A body that is complete from the start.
    pub fn whole(bytes: impl Into<Vec<u8>>) -> Body {
        let bytes = bytes.into();
        let (_stream, body) = pipe(Some(bytes.len() as u64));
        body.pipe.queued_bytes.store(bytes.len(), Ordering::Relaxed);
        {
            let mut state = body.pipe.state();
            (state.bytes, state.length_left, state.end) = (bytes, Some(0), Some(End::Complete));
        }
        body
    }

    /// A pipe of your own: what is written to the [`Stream`] is read from the body. With a `length` in bytes, exactly as
    /// many must be written.
    pub fn channel(length: Option<u64>) -> (Stream, Body) {
        pipe(length)
    }

    /// The length in bytes, when it was declared.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Reads to the end, blocking.
    ///
    /// # Errors
    /// When the body is longer than `bytes_max`, or was cut.
    pub fn collect(mut self, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self).take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > bytes_max {
            let reason = format!("the body is longer than {bytes_max} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
        }
        Ok(bytes)
    }

    /// Rings the connection `id` of `handle` when something arrives from now on; what has arrived is there to take.
    pub(crate) fn listen(&self, handle: Handle<News>, id: ConnId) {
        self.pipe.state().reader = Some(Ear::Connection(handle, id));
    }

    /// Takes what has arrived; it is swapped into `bytes`, which must be empty.
    pub(crate) fn poll(&mut self, bytes: &mut Vec<u8>) -> Arrived {
        if self.used < self.taken.len() {
            bytes.extend_from_slice(self.taken.get(self.used..).unwrap_or_default());
            self.taken.clear();
            self.used = 0;
            return None;
        }
        let mut state = self.pipe.state();
        state.reader_rung = false;
        mem::swap(&mut state.bytes, bytes);
        // Counted as unsent before it is no longer counted as queued: the sum never dips.
        self.pipe.unsent_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.pipe.queued_bytes.store(0, Ordering::Relaxed);
        state.end
    }

    /// Says how many of the bytes taken are still on their way.
    pub(crate) fn set_unsent_bytes(&self, unsent_bytes: usize) {
        let before = self.pipe.unsent_bytes.swap(unsent_bytes, Ordering::Relaxed);
        if unsent_bytes < before && unsent_bytes <= BACKLOG_LOW_WATER_BYTES {
            self.pipe.ring_writer(&mut self.pipe.state());
        }
    }

    /// Tells the producer that nobody seems to read any more, while what it writes would still be delivered.
    pub(crate) fn set_closed(&self) {
        // Once: who writes may be who reads, and would ring itself for ever.
        if !self.pipe.closed.swap(true, Ordering::Relaxed) {
            self.pipe.ring_writer(&mut self.pipe.state());
        }
    }

    /// Collects until `deadline`, blocking. `None`: not complete by then, or cut.
    pub(crate) fn collect_until(mut self, deadline: Instant) -> Option<Vec<u8>> {
        let (mut body, mut bytes) = (Vec::new(), Vec::new());
        self.pipe.state().reader = Some(Ear::Thread(thread::current()));
        loop {
            let end = self.poll(&mut bytes);
            self.set_unsent_bytes(0);
            body.append(&mut bytes);
            match end {
                Some(End::Complete) => return Some(body),
                Some(End::Cut) => return None,
                None => thread::park_timeout(deadline.checked_duration_since(Instant::now())?),
            }
        }
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.used == self.taken.len() && !out.is_empty() {
            let mut bytes = mem::take(&mut self.taken);
            bytes.clear();
            self.used = 0;
            let end = self.poll(&mut bytes);
            self.taken = bytes;
            self.set_unsent_bytes(0);
            if !self.taken.is_empty() {
                break;
            }
            match end {
                Some(End::Complete) => return Ok(0),
                Some(End::Cut) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the body was cut off")),
                None => {
                    let mut state = self.pipe.state();
                    state.reader = Some(Ear::Thread(thread::current()));
                    // Rung since it was polled: the ear that was there then may have been another thread's.
                    if !state.reader_rung {
                        drop(state);
                        thread::park();
                    }
                }
            }
        }
        let left = self.taken.get(self.used..).unwrap_or_default();
        let count = left.len().min(out.len());
        let (out, left) = (out.split_at_mut(count).0, left.split_at(count).0);
        out.copy_from_slice(left);
        self.used += count;
        Ok(count)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.pipe.closed.store(true, Ordering::Relaxed);
        let mut state = self.pipe.state();
        state.reader = None;
        state.bytes = Vec::new();
        state.end = state.end.or(Some(End::Cut));
        self.pipe.queued_bytes.store(0, Ordering::Relaxed);
        self.pipe.unsent_bytes.store(0, Ordering::Relaxed);
        self.pipe.ring_writer(&mut state);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("length", &self.length).finish_non_exhaustive()
    }
}
