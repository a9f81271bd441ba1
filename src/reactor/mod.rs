//! Event loops: sockets, buffers, timers and threads. Knows no protocol; everything about HTTP is elsewhere.
//!
//! N loops, one thread each. A loop owns its connections; the only door from outside is its mailbox, which a
//! [`Handle`] leads to. The first loop accepts and gives each new connection to the least loaded one; or each accepts
//! for itself ([`Listener::bind_reuse_port`]).
//!
//! A [`Protocol`] is what one loop speaks. It gets bytes and time through an [`Io`], leaves bytes there, and never
//! blocks. All calls for one connection come from one thread, one after the other, so nothing in it needs a lock.
//!
//! # A protocol
//!
//! This one answers each line with the line in upper case:
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::net::{SocketAddr, TcpStream};
//! use std::time::{Duration, Instant};
//! use sconce::reactor::{self, Config, Io, Listener, Protocol};
//!
//! const LINE_BYTES_MAX: usize = 1024;
//! const OUTPUT_BYTES_MAX: usize = 64 << 10;
//! const IDLE: Duration = Duration::from_secs(60);
//!
//! struct Upper;
//!
//! impl Protocol for Upper {
//!     type Connection = (); // what it remembers of each client
//!     type Message = (); // what other threads may send to it
//!
//!     fn on_open(&mut self, _: SocketAddr, _: Instant) {}
//!
//!     fn on_ready(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
//!         io.set_deadline(Some(io.now + IDLE));
//!     }
//!
//!     fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
//!         // A client that does not read its answers gets no more of them: its lines stay in the input.
//!         while io.output.len() < OUTPUT_BYTES_MAX
//!             && let Some(end) = io.input.as_slice().iter().position(|b| *b == b'\n')
//!         {
//!             let line = io.input.as_slice()[..=end].to_ascii_uppercase();
//!             io.output.push(&line);
//!             io.input.consume(end + 1);
//!             io.set_deadline(Some(io.now + IDLE));
//!         }
//!         let has_line = io.input.as_slice().contains(&b'\n');
//!         if !has_line && (io.input_ended() || io.input.len() > LINE_BYTES_MAX) {
//!             io.close();
//!         }
//!     }
//!
//!     fn on_flushed(&mut self, connection: &mut (), io: &mut Io<'_, Self>) {
//!         self.on_readable(connection, io);
//!     }
//!
//!     fn on_deadline(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
//!         io.close();
//!     }
//! }
//!
//! let listener = Listener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr();
//! let loops = reactor::start(listener, &Config::default(), |_| Upper)?;
//!
//! let mut client = BufReader::new(TcpStream::connect(addr)?);
//! client.get_mut().write_all(b"hello\n")?;
//! let mut line = String::new();
//! client.read_line(&mut line)?;
//! assert_eq!(line, "HELLO\n");
//!
//! loops.control().drain(Duration::from_secs(1));
//! loops.join()?;
//! # std::io::Result::Ok(())
//! ```
//!
//! # The order of calls
//!
//! ```text
//! a client's    on_open ─▶ on_ready ───────────┐
//! its own       connect() ─▶ on_connected ──────┼─▶ any of the others ─▶ on_close
//!                         └▶ on_connect_failed ────────────────────────▲
//! ```
//!
//! A turn of the loop is: wait for events, deliver them, take the mail, call what is due, do errands, write. What a
//! protocol left in [`Io::output`] during the turn leaves at its end, in one write where the kernel takes it. After
//! [`Io::close`] and [`Io::abort`] only `on_close` is called, exactly once.
//!
//! # Input and output
//!
//! [`Io::input`] holds what has arrived and was not consumed. It stays there until it is, up to
//! [`Config::input_bytes_max`]; then reading pauses, and TCP slows the peer down. [`Output`] is a queue of three kinds of
//! pieces: bytes copied into a buffer, bytes sent from where they lie ([`SharedBytes`]), and parts of files
//! ([`FileRange`]), which the kernel sends itself where it can. It has no bound of its own: a protocol looks at
//! [`Output::len`] and stops producing. A peer that takes nothing for [`Config::write_stall_timeout`] is cut off.
//!
//! An idle connection holds no buffer: the loop lends memory to those that have bytes, and takes it back.
//!
//! # Messages, errands and connections of its own
//!
//! Another thread reaches a connection with [`Handle::send`] and its [`ConnId`], which never means another client, even
//! after the first has gone. Inside the loop, [`Io::control`] does the same without a lock or a system call
//! ([`LoopControl::send`]), and opens connections to elsewhere ([`LoopControl::connect`]), which then live on this loop
//! like any other. Both are *errands*: they are done after the call that asked for them, so a protocol is never called
//! inside itself.

#![warn(missing_docs, missing_debug_implementations)]

mod addresses;
mod balance;
mod buffer;
mod connections;
mod copy_file;
mod counters;
mod entry;
mod errands;
mod event_loop;
mod listener;
mod mailbox;
mod output;
#[cfg(test)]
mod rehearsal;
#[cfg(target_os = "linux")]
mod sendfile;
mod server;
mod timers;
mod transport;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

pub use buffer::Buffer;
pub use connections::ConnId;
pub use counters::Counters;
use entry::Close;
pub use errands::LoopControl;
pub use listener::Listener;
pub use output::{FileRange, Output, SharedBytes};
#[cfg(test)]
pub(crate) use rehearsal::{Rehearsal, WireEnd};
pub use server::{Config, Control, Handle, Loops, start};

/// What a loop speaks: one value for each loop, one `Connection` for each client.
///
/// Order of calls for a client: `on_open`, `on_ready`, then any of the others, `on_close` last and exactly once. For a
/// connection that the protocol opened itself ([`LoopControl::connect`]): `on_connected`, then any of the others, or
/// `on_connect_failed`; `on_close` last and exactly once.
pub trait Protocol: Sized + Send + 'static {
    /// The state of one connection. It never leaves its loop.
    type Connection: 'static;
    /// What other threads, and other connections of the loop, may send to a connection or to the loop. A protocol
    /// bounds how many are under way.
    type Message: Send + 'static;

    /// A client has connected.
    fn on_open(&mut self, peer: SocketAddr, now: Instant) -> Self::Connection;

    /// The connection is in its place: a deadline may be set, a greeting sent.
    fn on_ready(&mut self, _connection: &mut Self::Connection, _io: &mut Io<'_, Self>) {}

    /// There may be more input, or the input has ended ([`Io::input_ended`]). Also called again while input is left over.
    fn on_readable(&mut self, connection: &mut Self::Connection, io: &mut Io<'_, Self>);

    /// A connection that this protocol opened is there: output may be written.
    fn on_connected(&mut self, _connection: &mut Self::Connection, _io: &mut Io<'_, Self>) {}

    /// A connection that this protocol opened has not come about: it was refused, cannot be reached, or its deadline
    /// has passed (`TimedOut`). Only `on_close` follows.
    fn on_connect_failed(&mut self, _c: &mut Self::Connection, _error: io::Error, _loop: &mut LoopControl<'_, Self>) {}

    /// Another thread has sent a message, or another connection of this loop.
    fn on_message(&mut self, _c: &mut Self::Connection, _message: Self::Message, _io: &mut Io<'_, Self>) {}

    /// The deadline has passed; it is set no more.
    fn on_deadline(&mut self, _connection: &mut Self::Connection, _io: &mut Io<'_, Self>) {}

    /// Output was written; what the kernel did not take is still there.
    fn on_flushed(&mut self, _connection: &mut Self::Connection, _io: &mut Io<'_, Self>) {}

    /// The server is ending: finish what is under way and close. An idle connection closes now.
    fn on_drain(&mut self, _connection: &mut Self::Connection, io: &mut Io<'_, Self>) {
        io.close();
    }

    /// The connection has gone, for whatever reason, and its id finds nobody any more.
    fn on_close(&mut self, _id: ConnId, _connection: Self::Connection, _loop: &mut LoopControl<'_, Self>) {}

    /// Another thread has sent a message to the loop as a whole.
    fn on_loop_message(&mut self, _message: Self::Message, _loop: &mut LoopControl<'_, Self>) {}

    /// The time of [`LoopControl::set_alarm`] has come; it is set no more.
    fn on_alarm(&mut self, _loop: &mut LoopControl<'_, Self>) {}

    /// A turn of the loop begins.
    fn on_turn(&mut self, _now: Instant) {}

    /// What a client is told when there are too many connections, before it is cut off.
    fn refusal(&self) -> &[u8] {
        b""
    }
}

/// One connection as its protocol sees it during a call.
pub struct Io<'a, P: Protocol> {
    /// The time of this turn.
    pub now: Instant,
    /// Bytes that arrived; the protocol consumes what it understood.
    pub input: &'a mut Buffer,
    /// Bytes to send; the loop writes them at the end of the turn.
    pub output: &'a mut Output,
    id: ConnId,
    control: LoopControl<'a, P>,
    input_ended: bool,
    hung_up: bool,
    deadline: &'a mut Option<Instant>,
    wish: Wish,
}

impl<P: Protocol> fmt::Debug for Io<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("id", &self.id)
            .field("input_bytes", &self.input.len())
            .field("output_bytes", &self.output.len())
            .finish_non_exhaustive()
    }
}

/// What the protocol wants to become of its connection.
enum Wish {
    None,
    Yield,
    Close(Close),
    Abort,
}

impl<'a, P: Protocol> Io<'a, P> {
    /// The name of this connection for messages.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The way for messages to this connection's loop, from other threads.
    pub fn handle(&self) -> &Handle<P::Message> {
        self.control.handle()
    }

    /// What concerns the loop as a whole: messages to its other connections, and new connections.
    pub fn control(&mut self) -> &mut LoopControl<'a, P> {
        &mut self.control
    }

    /// Whether the peer has finished sending, and `input` holds the last of it.
    pub fn input_ended(&self) -> bool {
        self.input_ended
    }

    /// Whether the peer has finished sending, or the connection is broken, though not everything may have been read: an
    /// `input` that is full hides the end behind it.
    pub fn hung_up(&self) -> bool {
        self.hung_up
    }

    /// Whether the server is ending.
    pub fn draining(&self) -> bool {
        self.control.draining()
    }

    /// When to call [`Protocol::on_deadline`], in place of what was set before.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        *self.deadline = deadline;
    }

    /// Asks for [`Protocol::on_readable`] in the next turn, even if nothing more arrives: for a protocol that leaves
    /// input on purpose, to let others have their turn.
    pub fn yield_now(&mut self) {
        if matches!(self.wish, Wish::None) {
            self.wish = Wish::Yield;
        }
    }

    /// Sends what is in `output`, then closes. For a peer that has said all it will say: when nothing that it sent is
    /// unread, the connection is gone at once; else this is [`close_lingering`](Io::close_lingering).
    /// No calls but `on_close` follow.
    pub fn close(&mut self) {
        if !self.is_closing() {
            self.wish = Wish::Close(Close::Direct);
        }
    }

    /// Sends what is in `output`, then our end, and reads on for up to two seconds until the peer's. For a peer that
    /// may still be sending: bytes that arrive at a closed socket cause a reset, which can destroy what the peer has
    /// not read yet (RFC 9112 §9.6). No calls but `on_close` follow.
    pub fn close_lingering(&mut self) {
        if !matches!(self.wish, Wish::Abort) {
            self.wish = Wish::Close(Close::Lingering);
        }
    }

    /// Whether one of the ways to close was chosen in this call.
    pub fn is_closing(&self) -> bool {
        matches!(self.wish, Wish::Close(_) | Wish::Abort)
    }

    /// Closes at once with a reset, which the peer cannot take for an orderly end.
    pub fn abort(&mut self) {
        self.wish = Wish::Abort;
    }
}
