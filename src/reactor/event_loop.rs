//! One event loop: one thread, its connections, and one turn after another.
//!
//! ```text
//! wait ─▶ deliver events ─▶ mailbox ─▶ expired timers ─▶ errands ─▶ flush what became dirty, once
//! ```
//!
//! Nothing else touches what the loop owns. A connection that has more to read than its share of a turn, or whose
//! protocol left room in its input, goes on the `again` list, and the loop does not sleep while a list is not empty.
//!
//! How connections begin stands in `accepting` and `connecting`, how their output leaves and they end in `flushing`.

mod accepting;
mod connecting;
mod flushing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem};

use mio::{Events, Interest, Poll, Token};

use super::buffer::Pool;
use super::connections::{ConnId, Connections};
use super::counters::{Counters, Tally};
use super::entry::{Entry, Expired, Origin, Phase};
use super::errands::{Errand, LoopControl};
use super::listener::Acceptor;
use super::server::{Config, Handle, Letter};
use super::timers::{Tick, Timers};
use super::transport::Filled;
use super::{Io, Protocol, Wish};

pub(crate) const WAKE: Token = Token(usize::MAX);
const LISTEN: Token = Token(usize::MAX - 1);

/// Events taken from the kernel at once.
const EVENTS_PER_TURN: usize = 1024;

/// Stale timers kept beside those that count: what short connections leave behind is swept out above that.
const STALE_TIMERS_MAX: usize = 10_000;

/// Reads for one connection in one turn.
const READS_PER_TURN: usize = 4;

/// Errands done in one turn: some milliseconds, when each of them ends in a write.
const ERRANDS_PER_TURN: usize = 128;

pub(crate) struct EventLoop<P: Protocol> {
    poll: Poll,
    protocol: P,
    handle: Handle<P::Message>,
    /// The mailboxes of all loops, by number, for the connections that this loop accepts for them.
    others: Vec<Handle<P::Message>>,
    acceptor: Option<Acceptor>,
    counters: Arc<Counters>,
    tally: Tally,
    config: Config,
    connections: Connections<Entry<P::Connection>>,
    timers: Timers<ConnId>,
    pool: Pool,
    errands: VecDeque<Errand<P>>,
    dirty: Vec<ConnId>,
    /// Became dirty by being flushed: its turn is the next one.
    late: Vec<ConnId>,
    again: Vec<ConnId>,
    /// The memory of the one of these three lists that is being worked off.
    spare: Vec<ConnId>,
    /// Running answers may finish until then.
    drain_deadline: Option<Instant>,
    /// When the protocol wants to be called for no connection in particular.
    alarm: Option<Instant>,
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
            tally: Tally::default(),
            config,
            connections: Connections::new(),
            timers: Timers::new(now),
            pool: Pool::default(),
            errands: VecDeque::new(),
            dirty: Vec::new(),
            late: Vec::new(),
            again: Vec::new(),
            spare: Vec::new(),
            drain_deadline: None,
            alarm: None,
            now,
        }
    }

    /// Makes this the loop that accepts.
    pub fn listen(&mut self, mut acceptor: Acceptor) -> io::Result<()> {
        self.poll.registry().register(acceptor.socket(), LISTEN, Interest::READABLE)?;
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
        let mut turn_end = self.now;
        loop {
            match self.poll.poll(&mut events, self.sleep(turn_end)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    turn_end = Instant::now();
                    continue;
                }
                result => result?,
            }
            self.now = Instant::now();
            self.counters.on_turn_begin(self.now);
            self.protocol.on_turn(self.now);

            self.deliver(&events);
            if !self.open_mail(&mut letters) {
                return Ok(());
            }
            self.expire(&mut due);
            self.accept();
            self.do_errands();
            self.flush();

            turn_end = Instant::now();
            self.counters.on_turn_end(turn_end - self.now, &mem::take(&mut self.tally));
            if let Some(deadline) = self.drain_deadline
                && (self.connections.is_empty() || self.now >= deadline)
            {
                return Ok(());
            }
        }
    }

    /// How long the wait that begins at `now` may be; `None` is until something happens.
    fn sleep(&self, now: Instant) -> Option<Duration> {
        if !(self.again.is_empty() && self.dirty.is_empty() && self.late.is_empty() && self.errands.is_empty()) {
            return Some(Duration::ZERO);
        }
        let accept = self.acceptor.as_ref().and_then(|acceptor| acceptor.next_turn(self.now));
        let next = [self.timers.next(), self.drain_deadline, self.alarm, accept].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    fn deliver(&mut self, events: &Events) {
        self.dirty.append(&mut self.late);
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
                    let writable = event.is_writable() || event.is_write_closed() || event.is_error();
                    match entry.phase {
                        Phase::Connecting => self.on_connect_event(id),
                        _ if writable && !entry.transport.output.is_empty() => self.mark_dirty(id),
                        _ => {}
                    }
                    self.read(id);
                    self.flush_if_many();
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
                Phase::Open => {
                    let yielded = mem::take(&mut entry.yielded);
                    match entry.transport.fill(self.config.input_bytes_max, &mut self.pool) {
                        Ok(Filled::Nothing) if !yielded && (called || entry.transport.input.is_empty()) => return,
                        Ok(filled) => {
                            if let Filled::Some(count) = filled {
                                self.tally.bytes_in += count as u64;
                            }
                            if !self.call(id, P::on_readable) {
                                break;
                            }
                        }
                        Err(e) => {
                            log::debug!("a connection broke while reading: {e}");
                            return self.remove(id);
                        }
                    }
                }
                Phase::Connecting | Phase::Flushing(_) | Phase::Aborted => return,
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

    /// Calls the protocol with a connection's buffers, then sees to what it left behind. Whether it may be called again
    /// in this turn.
    fn call(&mut self, id: ConnId, act: impl FnOnce(&mut P, &mut P::Connection, &mut Io<'_, P>)) -> bool {
        let (Some(entry), ids) = self.connections.get_with_ids(id) else { return false };
        if !matches!(entry.phase, Phase::Open) {
            return false;
        }
        self.pool.lend(entry.transport.output.buffer());
        let unsent = entry.transport.output.len();
        let draining = self.drain_deadline.is_some();
        let mut io = Io {
            now: self.now,
            id,
            control: LoopControl {
                now: self.now,
                draining,
                handle: &self.handle,
                ids,
                errands: &mut self.errands,
                alarm: &mut self.alarm,
            },
            input: &mut entry.transport.input,
            output: &mut entry.transport.output,
            input_ended: entry.transport.ended,
            hung_up: entry.transport.ended || entry.transport.hung_up,
            deadline: &mut entry.deadline,
            wish: Wish::None,
        };
        act(&mut self.protocol, &mut entry.state, &mut io);
        match io.wish {
            Wish::None => {}
            Wish::Yield => entry.yielded = true,
            Wish::Close(close) => (entry.phase, entry.deadline) = (Phase::Flushing(close), None),
            Wish::Abort => (entry.phase, entry.deadline) = (Phase::Aborted, None),
        }
        self.pool.settle(&mut entry.transport.input);
        self.pool.take_back(entry.transport.output.buffer());
        let (open, yielded) = (matches!(entry.phase, Phase::Open), entry.yielded);
        // Only what is new: trying again what the kernel has just refused would keep the loop awake.
        if entry.transport.output.len() > unsent || !open {
            self.mark_dirty(id);
        }
        if yielded {
            self.run_again(id);
        }
        self.arm(id);
        open && !yielded
    }

    /// Calls the protocol for no connection in particular.
    fn call_loop(&mut self, act: impl FnOnce(&mut P, &mut LoopControl<'_, P>)) {
        let mut control = LoopControl {
            now: self.now,
            draining: self.drain_deadline.is_some(),
            handle: &self.handle,
            ids: self.connections.ids_mut(),
            errands: &mut self.errands,
            alarm: &mut self.alarm,
        };
        act(&mut self.protocol, &mut control);
    }

    /// Opens the mail. `false` when the loop is to end at once.
    fn open_mail(&mut self, letters: &mut Vec<Letter<P::Message>>) -> bool {
        self.handle.take_letters(letters);
        for letter in letters.drain(..) {
            match letter {
                Letter::Message(id, message) => self.hand_over(id, message),
                Letter::LoopMessage(message) => {
                    self.call_loop(|protocol, control| protocol.on_loop_message(message, control));
                }
                Letter::Adopt(newcomer) => self.adopt(newcomer),
                Letter::Drain(deadline) => self.drain(deadline),
                Letter::Stop => {
                    self.acceptor = None;
                    return false;
                }
            }
        }
        true
    }

    fn do_errands(&mut self) {
        for _ in 0..self.errands.len().min(ERRANDS_PER_TURN) {
            let Some(errand) = self.errands.pop_front() else { return };
            match errand {
                Errand::Message(id, message) => self.hand_over(id, message),
                Errand::Connect(connect) => self.connect(*connect),
            }
        }
    }

    /// Gives a connection its message.
    fn hand_over(&mut self, id: ConnId, message: P::Message) {
        self.call(id, |protocol, state, io| protocol.on_message(state, message, io));
        self.run_again(id);
        self.flush_if_many();
    }

    fn expire(&mut self, due: &mut Vec<(Tick, ConnId)>) {
        if self.alarm.is_some_and(|alarm| alarm <= self.now) {
            self.alarm = None;
            self.call_loop(P::on_alarm);
        }
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
                Expired::Connect => self.fail_connect(id, io::ErrorKind::TimedOut.into()),
                Expired::Protocol => {
                    entry.deadline = None;
                    self.call(id, P::on_deadline);
                    self.run_again(id);
                    self.flush_if_many();
                }
            }
        }
        if self.timers.len() > STALE_TIMERS_MAX + 2 * self.connections.len() {
            let connections = &mut self.connections;
            let counts = |entry: &mut Entry<_>, tick| entry.armed.is_some_and(|(armed, _)| armed == tick);
            self.timers.retain(|tick, id| connections.get_mut(id).is_some_and(|entry| counts(entry, tick)));
        }
    }

    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(entry) = self.connections.get_mut(id)
            && !mem::replace(&mut entry.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// Puts a connection on the list for the next turn when its protocol asked for that, or when there is something to
    /// read and room for it.
    fn run_again(&mut self, id: ConnId) {
        let Some(entry) = self.connections.get_mut(id) else { return };
        if entry.wants_turn(self.config.input_bytes_max) && !mem::replace(&mut entry.again, true) {
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
        let Some(entry) = self.connections.remove(id) else { return };
        match entry.origin {
            Origin::Accepted { .. } => self.counters.on_closed(),
            Origin::Connected => self.counters.on_disconnected(),
        }
        self.call_loop(|protocol, control| protocol.on_close(id, entry.state, control));
    }
}
