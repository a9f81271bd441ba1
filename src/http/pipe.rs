//! A byte pipe with a bound: from a thread to a connection, from a connection to a thread, or between two connections.
//!
//! The writing end is a [`Stream`], the reading end a [`Body`]. Bytes wait in between until they are taken. Each end is
//! rung when the other has news for it, once, and not again until it has looked. Dropping an end tells the other: a
//! dropped `Body` means that nobody wants the bytes, a dropped `Stream` that the rest will never come.
//!
//! Invariants: no byte is lost or doubled; a `Stream` that is dropped before [`close`](Stream::close) never reads as a
//! complete body; at most [`BACKLOG_BYTES_MAX`] bytes and one piece wait.

use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use super::news::News;
use crate::reactor::{ConnId, Handle};

/// Above this many unsent bytes [`Stream::is_behind`] asks the producer to pause.
pub const BACKLOG_HIGH_WATER_BYTES: usize = 256 << 10;

/// A producer that goes on regardless loses its stream at this many unsent bytes: memory stays bounded.
pub const BACKLOG_BYTES_MAX: usize = 4 * BACKLOG_HIGH_WATER_BYTES;

/// A producer that paused is told to go on when no more than this many bytes are left.
const BACKLOG_LOW_WATER_BYTES: usize = BACKLOG_HIGH_WATER_BYTES / 4;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    /// The producer was dropped, fell too far behind, or broke its own promise of a length: nobody must take the body
    /// for complete.
    Cut,
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

/// Who wants to know when something happens at the other end.
pub(crate) enum Ear {
    Connection(Handle<News>, ConnId),
    Thread(Thread),
}

impl Ear {
    pub fn ring(&self) {
        match self {
            Ear::Connection(handle, id) => handle.send(*id, News::Changed),
            Ear::Thread(thread) => thread.unpark(),
        }
    }
}

/// What both ends share.
struct Pipe {
    /// Nobody reads any more.
    closed: AtomicBool,
    /// Bytes that wait here.
    queued_bytes: AtomicUsize,
    /// Bytes that the reading connection has taken, but its kernel has not.
    unsent_bytes: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    end: Option<End>,
    /// Bytes that the declared length still allows.
    length_left: Option<u64>,
    reader: Option<Ear>,
    reader_rung: bool,
    writer: Option<Ear>,
    writer_waits: bool,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the reader sees, and rings it.
    fn post<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let outcome = change(&mut state);
        self.queued_bytes.store(state.bytes.len(), Ordering::Relaxed);
        if !mem::replace(&mut state.reader_rung, true)
            && let Some(ear) = &state.reader
        {
            ear.ring();
        }
        outcome
    }

    fn backlog_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed) + self.unsent_bytes.load(Ordering::Relaxed)
    }

    /// Tells a producer that paused to go on, and any that nobody reads any more.
    fn ring_writer(&self, state: &mut State) {
        let closed = self.closed.load(Ordering::Relaxed);
        let may_go_on = self.backlog_bytes() <= BACKLOG_LOW_WATER_BYTES && mem::replace(&mut state.writer_waits, false);
        if (closed || may_go_on)
            && let Some(ear) = &state.writer
        {
            ear.ring();
        }
    }
}

/// A new pipe. With a `length`, exactly as many bytes must be written.
pub(crate) fn pipe(length: Option<u64>) -> (Stream, Body) {
    let state = State { length_left: length, ..State::default() };
    let pipe = Arc::new(Pipe {
        closed: AtomicBool::new(false),
        queued_bytes: AtomicUsize::new(0),
        unsent_bytes: AtomicUsize::new(0),
        state: Mutex::new(state),
    });
    (Stream { pipe: Arc::clone(&pipe) }, Body { pipe, taken: Vec::new(), used: 0, length })
}

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

/// The reading end: a request body that is still arriving, or an answer's.
///
/// [`Read`] blocks until something arrives, so it is for threads other than the event loops: there a body is passed on
/// ([`Reply::stream`](super::Reply::stream)), not read. A body that was cut reads as an error of kind
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
    /// A body that is complete from the start.
    pub fn whole(bytes: impl Into<Vec<u8>>) -> Body {
        let bytes = bytes.into();
        let (stream, body) = pipe(Some(bytes.len() as u64));
        body.pipe.queued_bytes.store(bytes.len(), Ordering::Relaxed);
        {
            let mut state = stream.pipe.state();
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

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn bytes_cross_threads_whole_and_in_order() {
        let (stream, mut body) = pipe(None);
        let text = (0..=250).collect::<Vec<u8>>().repeat(if cfg!(miri) { 2_000 } else { 12_000 });
        let sent = text.clone();
        let writer = thread::spawn(move || {
            for piece in sent.chunks(7_001) {
                assert!(stream.wait_until_ready(SOON));
                stream.write(piece).unwrap();
            }
            stream.close().unwrap();
        });
        let mut read = Vec::new();
        body.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert!(read == text);
    }

    #[test]
    fn a_stream_is_complete_only_when_closed() {
        for close in [true, false] {
            let (stream, body) = pipe(None);
            stream.write(b"half").unwrap();
            if close {
                stream.close().unwrap()
            } else {
                drop(stream)
            }
            match body.collect(100) {
                Ok(bytes) => assert!(close && bytes == b"half"),
                Err(e) => assert!(!close && e.kind() == ErrorKind::UnexpectedEof),
            }
        }
    }

    /// A client that has ended its side is thought to have gone, yet may wait: what it is sent must be whole.
    #[test]
    fn a_reader_that_seems_gone_loses_nothing() {
        let (stream, body) = pipe(None);
        stream.set_closed();
        assert!(stream.is_closed());
        stream.write(b"before anybody has looked").unwrap();
        stream.close().unwrap();
        assert_eq!(body.collect(100).unwrap(), b"before anybody has looked");
    }

    #[test]
    fn a_declared_length_is_kept() {
        let (stream, body) = pipe(Some(5));
        assert_eq!(stream.write(b"hello!"), Err(StreamError::TooLong));
        stream.write(b"hello").unwrap();
        stream.close().unwrap();
        assert_eq!((body.length(), body.collect(10).unwrap()), (Some(5), b"hello".to_vec()));

        let (stream, body) = pipe(Some(5));
        stream.write(b"hell").unwrap();
        assert_eq!(stream.close(), Err(StreamError::TooShort));
        assert_eq!(body.collect(10).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_backlog_is_bounded() {
        let (stream, body) = pipe(None);
        let piece = [b'x'; 64 << 10];
        let mut written = 0;
        while stream.write(&piece).is_ok() {
            assert_eq!(stream.is_behind(), written + piece.len() > BACKLOG_HIGH_WATER_BYTES);
            written += piece.len();
            assert!(written <= BACKLOG_BYTES_MAX + 2 * piece.len());
        }
        assert!(stream.is_closed());
        assert!(body.collect(usize::MAX - 1).is_err(), "a stream that was cut is not complete");
    }

    #[test]
    fn a_reader_that_goes_frees_the_writer() {
        let (stream, body) = pipe(None);
        while !stream.is_behind() {
            stream.write(&[0; 64 << 10]).unwrap();
        }
        let writer = thread::spawn(move || (stream.wait_until_ready(SOON), stream.write(b"x"), stream.backlog_bytes()));
        drop(body);
        assert_eq!(writer.join().unwrap(), (false, Err(StreamError::Gone), 0));
    }

    #[test]
    fn a_reader_that_goes_wakes_a_writer_that_has_nothing_to_write() {
        for leave in [|body: Body| drop(body), |body: Body| body.set_closed()] {
            let (stream, body) = pipe(None);
            let (ready, watches) = std::sync::mpsc::channel();
            let writer = thread::spawn(move || {
                stream.watch_reader(Ear::Thread(thread::current()));
                ready.send(()).unwrap();
                let deadline = Instant::now() + SOON;
                while !stream.is_closed() && Instant::now() < deadline {
                    thread::park_timeout(SOON);
                }
                Instant::now() < deadline
            });
            watches.recv().unwrap();
            leave(body);
            assert!(writer.join().unwrap());
        }
    }

    #[test]
    fn a_body_has_a_bound_for_its_collector() {
        assert_eq!(Body::whole("hello").collect(5).unwrap(), b"hello");
        assert_eq!(Body::whole("hello").collect(4).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
