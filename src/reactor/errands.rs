//! What a protocol may ask of its own loop during any call: messages to other connections of the loop, and new
//! connections to elsewhere.
//!
//! Both are *errands*: they wait in a queue that no other thread sees, and are done later in the same turn, before its
//! output is flushed. What is more than a turn's share, and what errands themselves cause, is done in the next turn,
//! which begins at once: neither a message to ten thousand connections nor two that keep writing to each other hold up
//! the rest.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use super::Protocol;
use super::connections::{ConnId, Ids};
use super::server::Handle;

/// Something to be done between two calls of a protocol.
pub(crate) enum Errand<P: Protocol> {
    Message(ConnId, P::Message),
    Connect(Box<Connect<P::Connection>>),
}

/// A connection to be opened.
pub(crate) struct Connect<C> {
    pub id: ConnId,
    pub to: SocketAddr,
    pub state: C,
    pub deadline: Instant,
}

/// The loop as its protocol sees it during a call.
///
/// A protocol bounds what it asks for: the queue of errands grows as long as it is written on.
pub struct LoopControl<'a, P: Protocol> {
    pub(super) now: Instant,
    pub(super) draining: bool,
    pub(super) handle: &'a Handle<P::Message>,
    pub(super) ids: &'a mut Ids,
    pub(super) errands: &'a mut VecDeque<Errand<P>>,
    pub(super) alarm: &'a mut Option<Instant>,
}

impl<P: Protocol> fmt::Debug for LoopControl<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (draining, errands) = (self.draining, self.errands.len());
        f.debug_struct("LoopControl").field("draining", &draining).field("errands", &errands).finish_non_exhaustive()
    }
}

impl<P: Protocol> LoopControl<'_, P> {
    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Whether the server is ending.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// The way for messages from other threads to this loop.
    pub fn handle(&self) -> &Handle<P::Message> {
        self.handle
    }

    /// When to call [`Protocol::on_alarm`], in place of what was set before.
    pub fn set_alarm(&mut self, at: Option<Instant>) {
        *self.alarm = at;
    }

    /// Leaves a message for a connection of this loop: no lock, no system call. If it has gone, nobody gets it.
    pub fn send(&mut self, to: ConnId, message: P::Message) {
        self.errands.push_back(Errand::Message(to, message));
    }

    /// Opens a TCP connection that lives on this loop. [`Protocol::on_connected`] follows, or
    /// [`Protocol::on_connect_failed`]: with `TimedOut` when neither has happened at `deadline`.
    ///
    /// Connections opened here are not counted against [`Config::connections_max`](super::Config::connections_max).
    pub fn connect(&mut self, to: SocketAddr, state: P::Connection, deadline: Instant) -> ConnId {
        let id = self.ids.reserve();
        self.errands.push_back(Errand::Connect(Box::new(Connect { id, to, state, deadline })));
        id
    }
}
