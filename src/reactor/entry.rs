//! What one connection is to its loop: its transport, the protocol's state, its stage of life and its deadlines.
//!
//! ```text
//! Open ──close()──▶ Flushing ──output empty, something unread──▶ Lingering ──peer's end, or time──▶ gone
//!   │                  └───────output empty, nothing unread──▶ gone
//!   └────abort()──▶ Aborted ──▶ gone
//! ```
//! Closing in these stages lets the last answer arrive: closing a socket with unread bytes makes the kernel send a
//! reset, which would destroy it on its way (RFC 9112 §9.6). With nothing unread there is nothing to wait for.

use std::time::{Duration, Instant};

use super::addresses::Seat;
use super::timers::Tick;
use super::transport::Transport;

/// How long a closed connection waits for the peer's end, and how often it reads meanwhile.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_READS_MAX: u32 = 1024;

pub(crate) struct Entry<C> {
    pub transport: Transport,
    pub state: C,
    pub phase: Phase,
    /// When the protocol wants to be called.
    pub deadline: Option<Instant>,
    /// When a client that takes none of its output is given up.
    pub stall_deadline: Option<Instant>,
    /// The timer that counts, and when it fires; others of this connection are stale.
    pub armed: Option<(Tick, Instant)>,
    /// On the loop's list of connections to flush.
    pub dirty: bool,
    /// On the loop's list of connections to read again.
    pub again: bool,
    /// The protocol wants to be called in the next turn, whether there is something to read or not.
    pub yielded: bool,
    pub origin: Origin,
}

/// Who began a connection.
pub(crate) enum Origin {
    /// A client, with its seat where connections per address are counted.
    Accepted { _seat: Option<Seat> },
    /// The protocol.
    Connected,
}

pub(crate) enum Phase {
    /// On its way to a peer; only its deadline counts.
    Connecting,
    Open,
    /// The rest of the output, then our end.
    Flushing(Close),
    /// Our end is sent; waits for the peer's.
    Lingering {
        until: Instant,
        reads_left: u32,
    },
    /// Nothing more, at once.
    Aborted,
}

/// How a connection ends once its output has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// At once, unless something is known to be unread.
    Direct,
    /// When the peer has ended too: it may still be sending.
    Lingering,
}

/// Whose time has come.
pub(crate) enum Expired {
    Nobody,
    Protocol,
    Connection,
    Connect,
}

impl<C> Entry<C> {
    pub fn new(transport: Transport, state: C, origin: Origin) -> Entry<C> {
        Entry {
            transport,
            state,
            phase: Phase::Open,
            deadline: None,
            stall_deadline: None,
            armed: None,
            dirty: false,
            again: false,
            yielded: false,
            origin,
        }
    }

    /// Begins to wait for the peer's end. What it still sends is read and forgotten.
    pub fn linger(&mut self, now: Instant) {
        self.phase = Phase::Lingering { until: now + LINGER, reads_left: LINGER_READS_MAX };
        self.transport.input = Default::default();
        self.transport.readable = true;
    }

    /// The peer's clock of progress: `before` bytes of output became `after`.
    pub fn on_flushed(&mut self, before: usize, after: usize, now: Instant, stall_timeout: Duration) {
        if after == 0 {
            self.stall_deadline = None;
        } else if after < before || self.stall_deadline.is_none() {
            self.stall_deadline = Some(now + stall_timeout);
        }
    }

    /// Whether the next turn should see to this connection without waiting for an event.
    pub fn wants_turn(&self, input_bytes_max: usize) -> bool {
        match self.phase {
            Phase::Open => self.yielded || self.transport.can_fill(input_bytes_max),
            Phase::Lingering { .. } => self.transport.readable,
            Phase::Connecting | Phase::Flushing(_) | Phase::Aborted => false,
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting => self.deadline,
            Phase::Open => [self.deadline, self.stall_deadline].into_iter().flatten().min(),
            Phase::Lingering { until, .. } => Some(until),
            Phase::Flushing(_) | Phase::Aborted => self.stall_deadline,
        }
    }

    pub fn expired(&self, now: Instant) -> Expired {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        match self.phase {
            Phase::Lingering { until, .. } if until <= now => Expired::Connection,
            Phase::Connecting if passed(self.deadline) => Expired::Connect,
            _ if passed(self.stall_deadline) => Expired::Connection,
            Phase::Open if passed(self.deadline) => Expired::Protocol,
            _ => Expired::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection costs its loop, beside the protocol's own state: a slot, and a timer or two.
    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Option<Entry<()>>>() <= 240, "{}", size_of::<Option<Entry<()>>>());
    }
}
