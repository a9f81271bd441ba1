//! A loop for one connection without socket, thread or clock: tests drive a protocol through any timing with it.
//!
//! Knows no protocol. Keeps what the event loop promises, in the same order: what is called when, when input that was
//! left over is offered again, how much is read and written in a turn, and how a connection ends. The peer's side is a
//! [`Wire`], whose both ends the test holds.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::{Poll, Waker};

use super::buffer::Pool;
use super::connections::{ConnId, Ids};
use super::entry::Close;
use super::errands::{Errand, LoopControl};
use super::event_loop::WAKE;
use super::mailbox::Mailbox;
use super::output::{Output, Sink, Written};
use super::server::{Config, Handle, Letter};
use super::{Buffer, Io, Protocol, Wish};

const READS_PER_TURN: usize = 4;
const WRITE_BYTES_PER_TURN: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What the kernels hold between a loop and its peer.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Sent by the peer and not read yet.
    pub to_loop: Vec<u8>,
    /// The peer will send no more.
    pub peer_ended: bool,
    /// The peer has thrown the connection away.
    pub peer_reset: bool,
    /// Sent by the loop and not taken by the peer yet.
    pub to_peer: Vec<u8>,
    /// How much of that fits.
    pub room_bytes: usize,
    /// How the loop has ended its side.
    pub end: Option<WireEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireEnd {
    Orderly,
    Reset,
}

impl Wire {
    fn share(&self, len: usize) -> io::Result<usize> {
        match self.room_bytes.saturating_sub(self.to_peer.len()).min(len) {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Sink for Wire {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.share(bytes.len())?;
        self.to_peer.send(&bytes[..count])
    }

    fn send_parts(&mut self, parts: &[IoSlice<'_>], _: bool) -> io::Result<usize> {
        // As with a socket, a write may end inside any part.
        let first = parts.iter().find(|part| !part.is_empty()).ok_or(ErrorKind::WriteZero)?;
        self.send(first)
    }

    fn send_file(&mut self, file: &std::fs::File, offset: u64, len: usize) -> io::Result<usize> {
        let count = self.share(len)?;
        self.to_peer.send_file(file, offset, count)
    }
}

#[derive(Debug)]
enum Phase {
    Open,
    Flushing(Close),
    Lingering { until: Instant },
    Aborted,
    Gone,
}

/// One connection on its loop.
pub(crate) struct Rehearsal<P: Protocol> {
    pub protocol: P,
    pub wire: Wire,
    pub output: Output,
    connection: Option<P::Connection>,
    id: ConnId,
    phase: Phase,
    input: Buffer,
    ended: bool,
    yielded: bool,
    /// Something has arrived since the loop last looked.
    arrived: bool,
    /// The kernel had no room for all of the output.
    blocked: bool,
    again: bool,
    dirty: bool,
    deadline: Option<Instant>,
    stall_deadline: Option<Instant>,
    draining: bool,
    alarm: Option<Instant>,
    pool: Pool,
    handle: Handle<P::Message>,
    ids: Ids,
    errands: VecDeque<Errand<P>>,
    config: Config,
    /// Keeps the waker's other end open.
    _poll: Poll,
}

impl<P: Protocol> Rehearsal<P> {
    /// A client has connected.
    pub fn new(mut protocol: P, config: Config, room_bytes: usize, now: Instant) -> Rehearsal<P> {
        let poll = Poll::new().unwrap();
        let mailbox = Mailbox::new(Waker::new(poll.registry(), WAKE).unwrap());
        let mut ids = Ids::default();
        let id = ids.reserve();
        let connection = protocol.on_open(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), now);
        let mut rehearsal = Rehearsal {
            protocol,
            wire: Wire { room_bytes, ..Wire::default() },
            output: Output::default(),
            connection: Some(connection),
            id,
            phase: Phase::Open,
            input: Buffer::default(),
            ended: false,
            yielded: false,
            arrived: false,
            blocked: false,
            again: false,
            dirty: false,
            deadline: None,
            stall_deadline: None,
            draining: false,
            alarm: None,
            pool: Pool::default(),
            handle: Handle::new(mailbox),
            ids,
            errands: VecDeque::new(),
            config,
            _poll: poll,
        };
        rehearsal.call(now, P::on_ready);
        rehearsal
    }

    /// Whether the protocol still sees this connection.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// When the loop has something to do, as long as nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open => [self.deadline, self.stall_deadline].into_iter().flatten().min(),
            Phase::Lingering { until } => Some(until),
            Phase::Flushing(_) | Phase::Aborted => self.stall_deadline,
            Phase::Gone => None,
        }
    }

    /// The peer sends.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.wire.to_loop.extend_from_slice(bytes);
        self.arrived = true;
    }

    /// The peer ends its side.
    pub fn receive_end(&mut self) {
        (self.wire.peer_ended, self.arrived) = (true, true);
    }

    /// The peer throws the connection away.
    pub fn receive_reset(&mut self) {
        (self.wire.peer_reset, self.arrived) = (true, true);
    }

    /// The server begins to end.
    pub fn drain(&mut self, now: Instant) {
        self.draining = true;
        self.call(now, P::on_drain);
    }

    /// Whether a turn would do something before time passes or the peer acts.
    pub fn wants_turn(&self) -> bool {
        let writable = self.blocked && self.wire.to_peer.len() < self.wire.room_bytes;
        !self.is_gone() && (self.arrived || self.again || self.dirty || writable || self.handle.has_letters())
    }

    /// One turn of the loop: events, mailbox, timers, errands, output.
    pub fn turn(&mut self, now: Instant) {
        self.protocol.on_turn(now);
        if self.blocked && self.wire.to_peer.len() < self.wire.room_bytes {
            (self.blocked, self.dirty) = (false, true);
        }
        if mem::take(&mut self.again) | mem::take(&mut self.arrived) {
            self.read(now);
        }
        let mut letters = Vec::new();
        self.handle.take_letters(&mut letters);
        for letter in letters {
            if let Letter::Message(_, message) = letter {
                self.hand_over(message, now);
            }
        }
        self.expire(now);
        for errand in mem::take(&mut self.errands) {
            if let Errand::Message(_, message) = errand {
                self.hand_over(message, now);
            }
        }
        if mem::take(&mut self.dirty) {
            self.flush(now);
        }
    }

    fn hand_over(&mut self, message: P::Message, now: Instant) {
        self.call(now, |protocol, connection, io| protocol.on_message(connection, message, io));
        self.run_again();
    }

    fn readable(&self) -> bool {
        !self.wire.to_loop.is_empty() || (self.wire.peer_ended && !self.ended)
    }

    fn can_fill(&self) -> bool {
        self.readable() && !self.ended && self.input.len() < self.config.input_bytes_max
    }

    fn read(&mut self, now: Instant) {
        if self.wire.peer_reset {
            return self.remove(now, WireEnd::Reset);
        }
        let mut called = false;
        for _ in 0..READS_PER_TURN {
            match self.phase {
                Phase::Open => {
                    let yielded = mem::take(&mut self.yielded);
                    if !self.fill() && !yielded && (called || self.input.is_empty()) {
                        return;
                    }
                    if !self.call(now, P::on_readable) {
                        break;
                    }
                }
                Phase::Lingering { .. } => {
                    self.wire.to_loop.clear();
                    if self.wire.peer_ended {
                        self.remove(now, WireEnd::Orderly);
                    }
                    return;
                }
                Phase::Flushing(_) | Phase::Aborted | Phase::Gone => return,
            }
            called = true;
        }
        self.run_again();
    }

    /// Whether bytes, or the end, have come in.
    fn fill(&mut self) -> bool {
        if !self.can_fill() {
            return false;
        }
        self.pool.lend(&mut self.input);
        let room = self.input.room(self.config.input_bytes_max);
        let count = room.len().min(self.wire.to_loop.len());
        room[..count].copy_from_slice(&self.wire.to_loop[..count]);
        self.input.commit(count);
        self.wire.to_loop.drain(..count);
        self.ended = count == 0;
        self.pool.take_back(&mut self.input);
        true
    }

    fn call(&mut self, now: Instant, act: impl FnOnce(&mut P, &mut P::Connection, &mut Io<'_, P>)) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        if !matches!(self.phase, Phase::Open) {
            return false;
        }
        self.pool.lend(self.output.buffer());
        let output_bytes = self.output.len();
        let (handle, ids, errands) = (&self.handle, &mut self.ids, &mut self.errands);
        let mut io = Io {
            now,
            id: self.id,
            control: LoopControl { now, draining: self.draining, handle, ids, errands, alarm: &mut self.alarm },
            input: &mut self.input,
            output: &mut self.output,
            input_ended: self.ended,
            hung_up: self.ended,
            deadline: &mut self.deadline,
            wish: Wish::None,
        };
        act(&mut self.protocol, connection, &mut io);
        match io.wish {
            Wish::None => {}
            Wish::Yield => self.yielded = true,
            Wish::Close(close) => (self.phase, self.deadline) = (Phase::Flushing(close), None),
            Wish::Abort => (self.phase, self.deadline) = (Phase::Aborted, None),
        }
        self.pool.settle(&mut self.input);
        self.pool.take_back(self.output.buffer());
        self.dirty |= self.output.len() > output_bytes || !self.is_open();
        self.again |= self.yielded;
        self.is_open() && !self.yielded
    }

    fn run_again(&mut self) {
        self.again |= match self.phase {
            Phase::Open => self.yielded || self.can_fill(),
            Phase::Lingering { .. } => self.readable(),
            Phase::Flushing(_) | Phase::Aborted | Phase::Gone => false,
        };
    }

    fn expire(&mut self, now: Instant) {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        match self.phase {
            Phase::Lingering { until } if until <= now => self.remove(now, WireEnd::Orderly),
            _ if passed(self.stall_deadline) => self.remove(now, WireEnd::Reset),
            Phase::Open if passed(self.deadline) => {
                self.deadline = None;
                self.call(now, P::on_deadline);
                self.run_again();
            }
            _ => {}
        }
    }

    fn flush(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Aborted) || self.wire.peer_reset {
            return self.remove(now, WireEnd::Reset);
        }
        let before = self.output.len();
        match self.output.write_to(&mut self.wire, WRITE_BYTES_PER_TURN) {
            Ok(written) => {
                self.blocked = written == Written::Blocked;
                self.dirty |= written == Written::Share;
            }
            Err(_) => return self.remove(now, WireEnd::Reset),
        }
        self.pool.take_back(self.output.buffer());
        let after = self.output.len();
        if after == 0 {
            self.stall_deadline = None;
        } else if after < before || self.stall_deadline.is_none() {
            self.stall_deadline = Some(now + self.config.write_stall_timeout);
        }
        match self.phase {
            Phase::Open => {
                self.call(now, P::on_flushed);
                self.run_again();
            }
            Phase::Flushing(close) if after == 0 => self.finish(close, now),
            _ => {}
        }
    }

    fn finish(&mut self, close: Close, now: Instant) {
        let drained = self.ended || (self.input.is_empty() && !self.readable());
        if self.ended || (close == Close::Direct && drained) {
            return self.remove(now, WireEnd::Orderly);
        }
        self.wire.end = Some(WireEnd::Orderly);
        self.phase = Phase::Lingering { until: now + LINGER };
        self.input = Buffer::default();
        self.run_again();
    }

    fn remove(&mut self, now: Instant, end: WireEnd) {
        self.phase = Phase::Gone;
        self.wire.end = self.wire.end.or(Some(end));
        self.output = Output::default();
        let Some(connection) = self.connection.take() else { return };
        let (handle, ids, errands) = (&self.handle, &mut self.ids, &mut self.errands);
        let alarm = &mut self.alarm;
        let mut control = LoopControl { now, draining: self.draining, handle, ids, errands, alarm };
        self.protocol.on_close(self.id, connection, &mut control);
    }
}
