//! The writing end of a pipe.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{BACKLOG_BYTES_MAX, BACKLOG_HIGH_WATER_BYTES, Ear, End, Pipe};

/// The writing end: pieces go out as they are written, from any thread.
///
/// Closing consumes it, so nothing can be written behind the end:
///
/// ```compile_fail,E0382
/// let (stream, _body) = sconce::http::Body::channel(None);
/// stream.close();
/// stream.write(b"more");
/// ```
///
/// [`close`](Stream::close) ends it well. Dropped without, the connection is cut, so that the client does not take what
/// it got for the whole.
#[must_use = "dropping a stream before `close` cuts it"]
pub struct Stream {
    pipe: Arc<Pipe>,
}

impl Stream {
    pub(super) fn new(pipe: Arc<Pipe>) -> Stream {
        Stream { pipe }
    }

    /// Sends a piece, without blocking. Pieces written before the other end has looked leave together.
    ///
    /// # Errors
    /// [`StreamError::Gone`] when nobody reads any more, and for a producer that ignored [`is_behind`](Stream::is_behind)
    /// up to [`BACKLOG_BYTES_MAX`]; [`StreamError::TooLong`] past the declared length.
    pub fn write(&self, piece: &[u8]) -> Result<(), StreamError> {
        self.write_with(|bytes| bytes.extend_from_slice(piece))
    }

    /// Sends what `render` appends, without a copy of its own.
    pub(crate) fn write_with(&self, render: impl FnOnce(&mut Vec<u8>)) -> Result<(), StreamError> {
        let overrun = self.pipe.backlog_bytes() > BACKLOG_BYTES_MAX;
        self.pipe.post(|state| {
            if state.end.is_some() {
                return Err(StreamError::Gone);
            }
            if overrun {
                state.end = Some(End::Cut);
                self.pipe.closed.store(true, Ordering::Relaxed);
                return Err(StreamError::Gone);
            }
            let before = state.bytes.len();
            render(&mut state.bytes);
            if let Some(left) = &mut state.length_left {
                let Some(rest) = left.checked_sub((state.bytes.len() - before) as u64) else {
                    state.bytes.truncate(before);
                    return Err(StreamError::TooLong);
                };
                *left = rest;
            }
            Ok(())
        })
    }

    /// Ends the stream well.
    ///
    /// # Errors
    /// [`StreamError::TooShort`] before the declared length: then the connection is cut instead.
    pub fn close(self) -> Result<(), StreamError> {
        self.pipe.post(|state| {
            let short = state.length_left.is_some_and(|left| left > 0);
            let end = if short { End::Cut } else { End::Complete };
            state.end = state.end.or(Some(end));
            if short { Err(StreamError::TooShort) } else { Ok(()) }
        })
    }

    /// Whether nobody reads any more: the client has gone, or the stream was cut because its reader fell too far behind.
    /// One atomic read.
    pub fn is_closed(&self) -> bool {
        self.pipe.closed.load(Ordering::Relaxed)
    }

    /// Bytes written but not yet taken by the kernel.
    pub fn backlog_bytes(&self) -> usize {
        self.pipe.backlog_bytes()
    }

    /// Whether the reader lags so far that the producer should pause ([`BACKLOG_HIGH_WATER_BYTES`]).
    pub fn is_behind(&self) -> bool {
        self.backlog_bytes() > BACKLOG_HIGH_WATER_BYTES
    }

    /// Blocks while the reader lags, for producers on threads of their own. `false`: nobody reads any more, or it still
    /// lags after `timeout`.
    pub fn wait_until_ready(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.waits_for_reader(|| Ear::Thread(thread::current())) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            thread::park_timeout(left);
        }
        !self.is_closed()
    }

    /// Whether the reader lags; if so, `ear` is rung when it has caught up or gone.
    pub(crate) fn waits_for_reader(&self, ear: impl FnOnce() -> Ear) -> bool {
        if !self.is_behind() || self.is_closed() {
            return false;
        }
        let mut state = self.pipe.state();
        // Looked at again under the lock: whoever takes the last bytes does so under it, and rings then.
        let waits = self.is_behind() && !self.is_closed();
        if waits {
            state.writer = Some(ear());
            state.writer_waits = true;
        }
        waits
    }

    /// Rings `ear` also when nobody reads any more, whether somebody writes or not.
    pub(crate) fn watch_reader(&self, ear: Ear) {
        self.pipe.state().writer = Some(ear);
    }

    /// Marks the reader as gone, while what is written would still be delivered.
    pub(crate) fn set_closed(&self) {
        self.pipe.closed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.pipe.post(|state| state.end = state.end.or(Some(End::Cut)));
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("closed", &self.is_closed())
            .field("backlog_bytes", &self.backlog_bytes())
            .finish()
    }
}

/// Why a piece was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Nobody reads any more: the client has gone, or was cut off because it read too slowly.
    Gone,
    /// More than the length that was declared. Nothing of the piece is sent.
    TooLong,
    /// Closed before the declared length was reached; the connection is cut, so that the client sees it.
    TooShort,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StreamError::Gone => "nobody reads this stream any more",
            StreamError::TooLong => "the piece exceeds the length that was declared for this stream",
            StreamError::TooShort => "the stream was closed before the length that was declared for it",
        })
    }
}

impl std::error::Error for StreamError {}
