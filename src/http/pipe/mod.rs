//! A byte pipe with a bound: from a thread to a connection, from a connection to a thread, or between two connections.
//!
//! The writing end is a [`Stream`], the reading end a [`Body`]. Bytes wait in between until they are taken. Each end is
//! rung when the other has news for it, once, and not again until it has looked. Dropping an end tells the other: a
//! dropped `Body` means that nobody wants the bytes, a dropped `Stream` that the rest will never come.
//!
//! Invariants: no byte is lost or doubled; a `Stream` that is dropped before [`close`](Stream::close) never reads as a
//! complete body; at most [`BACKLOG_BYTES_MAX`] bytes and one piece wait.

mod body;
mod stream;

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use super::news::News;
use crate::reactor::{ConnId, Handle};

pub use body::Body;
pub use stream::{Stream, StreamError};

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
    (Stream::new(Arc::clone(&pipe)), Body::new(pipe, length))
}

#[cfg(test)]
mod tests;
