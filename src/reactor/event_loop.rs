//! One event loop: one thread, its connections, and one turn after another.
//!
//! ```text
//! wait ─▶ deliver events ─▶ mailbox ─▶ expired timers ─▶ flush what became dirty, once
//! ```
//!
//! Nothing else touches what the loop owns. A connection that has more to read than its share of a turn, or whose
//! protocol left room in its input, goes on the `again` list, and the loop does not sleep while that list is not empty.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem};

use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use super::buffer::Pool;
use super::connections::{ConnId, Connections};
use super::entry::{Entry, Expired, Phase};
use super::listener::{Accepted, Acceptor};
use super::server::{Config, Counters, Handle, Letter};
use super::timers::{Tick, Timers};
use super::transport::{Filled, Transport};
use super::{Io, Protocol, Wish};

pub(crate) const WAKE: Token = Token(usize::MAX);
const LISTEN: Token = Token(usize::MAX - 1);

/// Events taken from the kernel at once.
const EVENTS_PER_TURN: usize = 1024;

/// Stale timers kept beside those that count: what short connections leave behind is swept out above that.
const STALE_TIMERS_MAX: usize = 10_000;

/// Reads for one connection in one turn.
const READS_PER_TURN: usize = 4;

pub(crate) struct EventLoop<P: Protocol> {
    poll: Poll,
    protocol: P,
    handle: Handle<P::Message>,
    /// The mailboxes of all loops, by number, for the connections that this loop accepts for them.
    others: Vec<Handle<P::Message>>,
    acceptor: Option<Acceptor>,
    counters: Arc<Counters>,
    config: Config,
    connections: Connections<Entry<P::Connection>>,
    timers: Timers<ConnId>,
    pool: Pool,
    dirty: Vec<ConnId>,
    again: Vec<ConnId>,
    /// The memory of the one of these lists that is being worked off.
    spare: Vec<ConnId>,
    /// Running answers may finish until then.
    drain_deadline: Option<Instant>,
    now: Instant,
}

impl<P: Protocol> EventLoop<P> {
    pub fn new(
        poll: Poll,
        protocol: P,
        index: usize,
        others: Vec<Handle<P::Message>>,
        counters: Arc<Counters>,
        config: Config,
    ) -> EventLoop<P> {
        let now = Instant::now();
        EventLoop {
            poll,
            protocol,
            handle: others[index].clone(),
            others,
            acceptor: None,
            counters,
            config,
            connections: Connections::new(),
            timers: Timers::new(now),
            pool: Pool::default(),
            dirty: Vec::new(),
            again: Vec::new(),
            spare: Vec::new(),
            drain_deadline: None,
            now,
        }
    }

    /// Makes this the loop that accepts.
    pub fn listen(&mut self, mut acceptor: Acceptor) -> io::Result<()> {
        self.poll.registry().register(acceptor.socket(), LISTEN, mio::Interest::READABLE)?;
        self.acceptor = Some(acceptor);
        Ok(())
    }

    /// Turns until it is stopped, or drained; then cuts what is left.
    pub fn run(mut self) -> io::Result<()> {
        let outcome = self.turns();
        for id in self.connections.ids() {
            self.remove(id);
        }
        outcome
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let (mut letters, mut due) = (Vec::new(), Vec::new());
        loop {
            match self.poll.poll(&mut events, self.sleep()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            self.now = Instant::now();
            self.protocol.on_turn(self.now);

            self.deliver(&events);
            if !self.open_mail(&mut letters) {
                return Ok(());
            }
            self.expire(&mut due);
            self.accept();
            self.flush();

            self.counters.on_turn_end(self.now.elapsed());
            if let Some(deadline) = self.drain_deadline
                && (self.connections.is_empty() || self.now >= deadline)
            {
                return Ok(());
            }
        }
    }

    /// How long the next wait may be; `None` is until something happens.
    fn sleep(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        let accept = self.acceptor.as_ref().and_then(|acceptor| acceptor.next_turn(self.now));
        let next = [self.timers.next(), self.drain_deadline, accept].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn deliver(&mut self, events: &Events) {
        let mut again = mem::replace(&mut self.again, mem::take(&mut self.spare));
        for id in again.drain(..) {
            if let Some(entry) = self.connections.get_mut(id) {
                entry.again = false;
                self.read(id);
            }
        }
        self.spare = again;
        for event in events {
            match event.token() {
                WAKE => {}
                LISTEN => {
                    if let Some(acceptor) = &mut self.acceptor {
                        acceptor.on_ready();
                    }
                }
                token => {
                    let id = ConnId::from_token(token);
                    let Some(entry) = self.connections.get_mut(id) else { continue };
                    let hung_up = event.is_read_closed() || event.is_error();
                    entry.transport.hung_up |= hung_up;
                    entry.transport.readable |= event.is_readable() || hung_up;
                    if event.is_writable() || event.is_write_closed() || event.is_error() {
                        self.mark_dirty(id);
                    }
                    self.read(id);
                }
            }
        }
    }

    /// Reads this turn's share of one connection and gives it to the protocol.
    fn read(&mut self, id: ConnId) {
        // The protocol may have stopped with bytes left over, so it is called even when nothing new came.
        let mut called = false;
        for _ in 0..READS_PER_TURN {
            let Some(entry) = self.connections.get_mut(id) else { return };
            match &mut entry.phase {
                Phase::Open => match entry.transport.fill(self.config.input_bytes_max, &mut self.pool) {
                    Ok(Filled::Some) => self.call(id, P::on_readable),
                    Ok(Filled::Nothing) if called || entry.transport.input.is_empty() => return,
                    Ok(Filled::Nothing) => self.call(id, P::on_readable),
                    Err(e) => {
                        log::debug!("a connection broke while reading: {e}");
                        return self.remove(id);
                    }
                },
                Phase::Flushing | Phase::Aborted => return,
                Phase::Lingering { reads_left, .. } => {
                    *reads_left = reads_left.saturating_sub(1);
                    let spent = *reads_left == 0;
                    match entry.transport.discard() {
                        Ok(false) if !spent && entry.transport.readable => {}
                        Ok(false) if !spent => return,
                        _ => return self.remove(id),
                    }
                }
            }
            called = true;
        }
        self.run_again(id);
    }

    /// Calls the protocol with a connection's buffers, then sees to what it left behind.
    fn call(&mut self, id: ConnId, act: impl FnOnce(&mut P, &mut P::Connection, &mut Io<'_, P::Message>)) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        if !matches!(entry.phase, Phase::Open) {
            return;
        }
        self.pool.lend(&mut entry.transport.output);
        let mut io = Io {
            now: self.now,
            id,
            handle: &self.handle,
            input: &mut entry.transport.input,
            output: &mut entry.transport.output,
            input_ended: entry.transport.ended,
            draining: self.drain_deadline.is_some(),
            deadline: &mut entry.deadline,
            wish: Wish::None,
        };
        act(&mut self.protocol, &mut entry.state, &mut io);
        match io.wish {
            Wish::None => {}
            Wish::Again => {
                if !mem::replace(&mut entry.again, true) {
                    self.again.push(id);
                }
            }
            Wish::Close => (entry.phase, entry.deadline) = (Phase::Flushing, None),
            Wish::Abort => (entry.phase, entry.deadline) = (Phase::Aborted, None),
        }
        self.pool.take_back(&mut entry.transport.input);
        self.pool.take_back(&mut entry.transport.output);
        if !entry.transport.output.is_empty() || !matches!(entry.phase, Phase::Open) {
            self.mark_dirty(id);
        }
        self.arm(id);
    }

    /// Opens the mail. `false` when the loop is to end at once.
    fn open_mail(&mut self, letters: &mut Vec<Letter<P::Message>>) -> bool {
        self.handle.take_letters(letters);
        for letter in letters.drain(..) {
            match letter {
                Letter::Message(id, message) => {
                    self.call(id, |protocol, state, io| protocol.on_message(state, message, io));
                    self.run_again(id);
                }
                Letter::Adopt(socket, peer) => self.adopt(socket, peer),
                Letter::Drain(deadline) => self.drain(deadline),
                Letter::Stop => {
                    self.acceptor = None;
                    return false;
                }
            }
        }
        true
    }

    fn expire(&mut self, due: &mut Vec<(Tick, ConnId)>) {
        self.timers.expire(self.now, due);
        for (tick, id) in due.drain(..) {
            let Some(entry) = self.connections.get_mut(id) else { continue };
            if entry.armed.is_none_or(|(armed, _)| armed != tick) {
                continue;
            }
            entry.armed = None;
            match entry.expired(self.now) {
                Expired::Nobody => self.arm(id),
                Expired::Connection => self.remove(id),
                Expired::Protocol => {
                    entry.deadline = None;
                    self.call(id, P::on_deadline);
                    self.run_again(id);
                }
            }
        }
        if self.timers.len() > STALE_TIMERS_MAX + 2 * self.connections.len() {
            let connections = &mut self.connections;
            let counts = |entry: &mut Entry<_>, tick| entry.armed.is_some_and(|(armed, _)| armed == tick);
            self.timers.retain(|tick, id| connections.get_mut(id).is_some_and(|entry| counts(entry, tick)));
        }
    }

    fn accept(&mut self) {
        let Some(mut acceptor) = self.acceptor.take() else { return };
        acceptor.accept(self.now, |accepted| self.place(accepted));
        self.acceptor = Some(acceptor);
    }

    /// Gives a new connection to its loop.
    fn place(&mut self, accepted: Accepted) {
        match accepted {
            Accepted::For(index, socket, peer) => match self.others.get(index) {
                Some(other) if !other.is(&self.handle) => other.post(Letter::Adopt(socket, peer)),
                _ => self.adopt(socket, peer),
            },
            Accepted::TooMany(mut socket) => {
                self.counters.on_refused();
                // One attempt: a client that is not even taken in gets no buffer.
                if let Err(e) = socket.write(self.protocol.refusal()) {
                    log::debug!("cannot refuse a connection: {e}");
                }
            }
        }
    }

    fn adopt(&mut self, socket: TcpStream, peer: SocketAddr) {
        if let Err(e) = socket.set_nodelay(true) {
            log::debug!("cannot set TCP_NODELAY: {e}");
        }
        let (registry, protocol, now) = (self.poll.registry(), &mut self.protocol, self.now);
        let inserted = self.connections.try_insert_with(|id| {
            let mut transport = Transport::new(socket);
            transport.register(registry, id.to_token())?;
            Ok::<_, io::Error>(Entry::new(transport, protocol.on_open(peer, now)))
        });
        match inserted {
            Ok(id) => {
                self.counters.on_opened();
                self.call(id, P::on_ready);
            }
            Err(e) => {
                log::warn!("cannot watch a new connection: {e}");
                self.counters.on_closed();
            }
        }
    }

    /// Stops accepting, and tells every connection.
    fn drain(&mut self, deadline: Instant) {
        if let Some(mut acceptor) = self.acceptor.take() {
            // Who is in the kernel's queue already has a connection and may have sent a request: closing the listener
            // would reset it. The other loops are told after they got theirs.
            acceptor.on_ready();
            while acceptor.next_turn(self.now).is_some_and(|turn| turn <= self.now) {
                acceptor.accept(self.now, |accepted| self.place(accepted));
            }
            for other in self.others.iter().filter(|other| !other.is(&self.handle)) {
                other.post(Letter::Drain(deadline));
            }
        }
        self.drain_deadline = Some(self.drain_deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        for id in self.connections.ids() {
            self.call(id, P::on_drain);
        }
    }

    /// Writes what became dirty since the last turn. Protocols that go on now are flushed in the next one.
    fn flush(&mut self) {
        let mut dirty = mem::replace(&mut self.dirty, mem::take(&mut self.spare));
        for id in dirty.drain(..) {
            self.flush_one(id);
        }
        self.spare = dirty;
    }

    fn flush_one(&mut self, id: ConnId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        entry.dirty = false;
        if matches!(entry.phase, Phase::Aborted) {
            entry.transport.reset_on_close();
            return self.remove(id);
        }
        let before = entry.transport.output.len();
        if let Err(e) = entry.transport.flush(self.poll.registry(), id.to_token(), &mut self.pool) {
            log::debug!("a connection broke while writing: {e}");
            return self.remove(id);
        }
        let after = entry.transport.output.len();
        entry.on_flushed(before, after, self.now, self.config.write_stall_timeout);
        match entry.phase {
            Phase::Open => {
                self.call(id, P::on_flushed);
                self.run_again(id);
            }
            Phase::Flushing if after == 0 => self.finish(id),
            Phase::Flushing | Phase::Lingering { .. } | Phase::Aborted => self.arm(id),
        }
    }

    /// Sends our end and waits for the peer's, unless it has come.
    fn finish(&mut self, id: ConnId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        if entry.transport.ended || entry.transport.finish().is_err() {
            return self.remove(id);
        }
        entry.linger(self.now);
        self.arm(id);
        self.run_again(id);
    }

    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(entry) = self.connections.get_mut(id)
            && !mem::replace(&mut entry.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// Puts a connection on the list for the next turn when there is something to read and room for it.
    fn run_again(&mut self, id: ConnId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        if entry.wants_read(self.config.input_bytes_max) && !mem::replace(&mut entry.again, true) {
            self.again.push(id);
        }
    }

    /// Sees that a timer fires no later than the earliest deadline of a connection.
    fn arm(&mut self, id: ConnId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        let Some(deadline) = entry.next_deadline() else { return };
        if entry.armed.is_none_or(|(_, fires)| deadline < fires) {
            let tick = self.timers.tick_of(deadline);
            entry.armed = Some((tick, deadline));
            self.timers.add(tick, id);
        }
    }

    fn remove(&mut self, id: ConnId) {
        if let Some(entry) = self.connections.remove(id) {
            self.protocol.on_close(entry.state);
            self.counters.on_closed();
        }
    }
}
