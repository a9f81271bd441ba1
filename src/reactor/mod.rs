//! Event loops: sockets, buffers, timers and threads. Knows no protocol; everything about HTTP is elsewhere.
//!
//! N loops, one thread each. A loop owns its connections; the only door from outside is its mailbox, which a
//! [`Handle`] leads to. The first loop accepts and gives each new connection to the loop with the fewest.
//!
//! A [`Protocol`] is what one loop speaks. It gets bytes and time through an [`Io`], leaves bytes there, and never
//! blocks. All calls for one connection come from one thread, one after the other.

mod buffer;
mod connections;
mod entry;
mod event_loop;
mod listener;
mod mailbox;
mod server;
mod timers;
mod transport;

use std::net::SocketAddr;
use std::time::Instant;

pub use buffer::Buffer;
pub use connections::ConnId;
pub use listener::Listener;
pub use server::{Config, Control, Counters, Handle, Loops, start};

/// What a loop speaks: one value for each loop, one `Connection` for each client.
///
/// Order of calls for a connection: `on_open`, `on_ready`, then any of the others, `on_close` last and exactly once.
pub trait Protocol: Send + 'static {
    /// The state of one connection. It never leaves its loop.
    type Connection: 'static;
    /// What other threads may send to a connection. A protocol bounds how many are under way.
    type Message: Send + 'static;

    /// A client has connected.
    fn on_open(&mut self, peer: SocketAddr, now: Instant) -> Self::Connection;

    /// The connection is in its place: a deadline may be set, a greeting sent.
    fn on_ready(&mut self, _connection: &mut Self::Connection, _io: &mut Io<'_, Self::Message>) {}

    /// There may be more input, or the input has ended ([`Io::input_ended`]). Also called again while input is left over.
    fn on_readable(&mut self, connection: &mut Self::Connection, io: &mut Io<'_, Self::Message>);

    /// Another thread has sent a message.
    fn on_message(&mut self, _c: &mut Self::Connection, _message: Self::Message, _io: &mut Io<'_, Self::Message>) {}

    /// The deadline has passed; it is set no more.
    fn on_deadline(&mut self, _connection: &mut Self::Connection, _io: &mut Io<'_, Self::Message>) {}

    /// Output was written; what the kernel did not take is still there.
    fn on_flushed(&mut self, _connection: &mut Self::Connection, _io: &mut Io<'_, Self::Message>) {}

    /// The server is ending: finish what is under way and close. An idle connection closes now.
    fn on_drain(&mut self, _connection: &mut Self::Connection, io: &mut Io<'_, Self::Message>) {
        io.close();
    }

    /// The connection has gone, for whatever reason.
    fn on_close(&mut self, _connection: Self::Connection) {}

    /// A turn of the loop begins.
    fn on_turn(&mut self, _now: Instant) {}

    /// What a client is told when there are too many connections, before it is cut off.
    fn refusal(&self) -> &[u8] {
        b""
    }
}

/// One connection as its protocol sees it during a call.
pub struct Io<'a, M> {
    /// The time of this turn.
    pub now: Instant,
    /// Bytes that arrived; the protocol consumes what it understood.
    pub input: &'a mut Buffer,
    /// Bytes to send; the loop writes them at the end of the turn.
    pub output: &'a mut Buffer,
    id: ConnId,
    handle: &'a Handle<M>,
    input_ended: bool,
    draining: bool,
    deadline: &'a mut Option<Instant>,
    wish: Wish,
}

/// What the protocol wants to become of its connection.
enum Wish {
    None,
    Again,
    Close,
    Abort,
}

impl<M> Io<'_, M> {
    /// The name of this connection for messages.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The way for messages to this connection's loop.
    pub fn handle(&self) -> &Handle<M> {
        self.handle
    }

    /// Whether the peer has finished sending, and `input` holds the last of it.
    pub fn input_ended(&self) -> bool {
        self.input_ended
    }

    /// Whether the server is ending.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// When to call [`Protocol::on_deadline`], in place of what was set before.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        *self.deadline = deadline;
    }

    /// Gives the other connections their turn: `on_readable` is called again in the next one.
    pub fn yield_now(&mut self) {
        self.wish = Wish::Again;
    }

    /// Sends what is in `output`, then closes, in stages, so that it arrives. No calls but `on_close` follow.
    pub fn close(&mut self) {
        self.wish = Wish::Close;
    }

    /// Closes at once with a reset, which the peer cannot take for an orderly end.
    pub fn abort(&mut self) {
        self.wish = Wish::Abort;
    }
}
