//! The client of one loop: which request goes where and when, and what becomes of it after a failure.
//!
//! Every request that is not waiting in the pool's queue holds a place in its host's share of connections, from the
//! moment when it may connect to the end of its answer; whoever gives a place back sees to the next request in the queue.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::call::Call;
use super::config::ClientConfig;
use super::encode::BodyFraming;
use super::error::{ErrorKind, Phase};
use super::exchange::{Exchange, Terms};
use super::inbox::Inbox;
use super::pool::{Acquired, Pool, Released};
use super::request::Content;
use super::resolver::{Addresses, LookUp, OnResolved, Resolver};
use super::upstream::{self, Active, Attempt, ClientLoop, Progress, Stage, Upstream, ear};
use super::url::{Host, Origin};
use super::waiting::{CallId, Waiting};
use crate::http::news::News;
use crate::reactor::{ConnId, Io, LoopControl};

pub(crate) struct Agent {
    config: ClientConfig,
    pool: Pool<ConnId, CallId>,
    resolver: Resolver<CallId>,
    waiting: Waiting<Box<Call>>,
    /// Requests for connections that were idle and have not heard of it yet.
    assigned: HashMap<ConnId, Box<Call>>,
    inbox: Arc<Inbox>,
    scratch: Vec<u8>,
}

impl Agent {
    pub fn new(config: ClientConfig) -> Agent {
        let config = config.bounded();
        Agent {
            pool: Pool::new(config.pool_limits()),
            resolver: Resolver::new(config.resolve_ttl),
            config,
            waiting: Waiting::new(),
            assigned: HashMap::new(),
            inbox: Arc::default(),
            scratch: Vec::new(),
        }
    }

    /// Where other threads leave what this agent is to do; it looks when its loop gets a message.
    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Sees to what other threads have left.
    pub fn open_inbox<P: ClientLoop>(&mut self, control: &mut LoopControl<'_, P>) {
        self.inbox.set_thread();
        let mail = self.inbox.take();
        for (name, found) in mail.resolved {
            self.on_resolved(name, &found, control);
        }
        for call in mail.calls {
            self.begin(call, control);
        }
    }

    /// Takes a request on.
    fn begin<P: ClientLoop>(&mut self, call: Box<Call>, control: &mut LoopControl<'_, P>) {
        let id = self.waiting.name();
        match self.pool.acquire(call.origin(), id, control.now()) {
            Acquired::Reuse(connection) => {
                self.assigned.insert(connection, call);
                control.send(connection, News::Changed);
            }
            Acquired::Connect => self.dial(call, control),
            Acquired::Queued => self.wait(id, call, Phase::Queue, control),
            Acquired::Busy => call.fail(ErrorKind::Busy),
        }
    }

    fn wait<P: ClientLoop>(&mut self, id: CallId, call: Box<Call>, phase: Phase, control: &mut LoopControl<'_, P>) {
        let until = call.connect_deadline(control.now());
        self.waiting.add(id, call, phase, until);
        control.set_alarm(self.waiting.next_deadline());
    }

    fn take_waiting<P: ClientLoop>(&mut self, id: CallId, control: &mut LoopControl<'_, P>) -> Option<Box<Call>> {
        let call = self.waiting.take(id)?;
        control.set_alarm(self.waiting.next_deadline());
        Some(call)
    }

    /// Gives up on requests that have waited too long.
    pub fn on_alarm<P: ClientLoop>(&mut self, control: &mut LoopControl<'_, P>) {
        while let Some((id, call, phase)) = self.waiting.take_late(control.now()) {
            let origin = call.origin().clone();
            let late = call.is_late(control.now());
            call.fail(ErrorKind::Timeout(if late { Phase::Total } else { phase }));
            match phase {
                Phase::Queue => self.pool.cancel(&origin, &id),
                _ => self.give_place_back(&origin, control),
            }
        }
        control.set_alarm(self.waiting.next_deadline());
    }

    /// Sees to a connection for a request that holds a place, and for those that get its place if it fails at once.
    fn dial<P: ClientLoop>(&mut self, call: Box<Call>, control: &mut LoopControl<'_, P>) {
        let mut next = Some(call);
        while let Some(call) = next {
            let origin = call.origin().clone();
            next = match self.try_dial(call, &origin, control) {
                Ok(()) => None,
                Err((call, kind)) => {
                    call.fail(kind);
                    self.next_in_queue(&origin, control)
                }
            };
        }
    }

    fn try_dial<P: ClientLoop>(
        &mut self,
        call: Box<Call>,
        origin: &Origin,
        control: &mut LoopControl<'_, P>,
    ) -> Result<(), (Box<Call>, ErrorKind)> {
        if call.is_abandoned() {
            return Err((call, ErrorKind::Abandoned));
        }
        let name = match &origin.host {
            Host::Address(address) => {
                upstream::connect(call, origin, &[*address], control);
                return Ok(());
            }
            Host::Name(name) => name,
        };
        let id = self.waiting.name();
        let on_resolved = || {
            let (inbox, handle) = (Arc::clone(&self.inbox), control.handle().clone());
            Arc::new(move |name, found| {
                inbox.put_resolved(name, found);
                handle.send_to_loop(News::Changed);
            }) as Arc<OnResolved>
        };
        match self.resolver.look_up(name, id, control.now(), on_resolved) {
            LookUp::Known(addresses) => upstream::connect(call, origin, &addresses, control),
            LookUp::Asked => self.wait(id, call, Phase::Resolve, control),
            LookUp::Busy => return Err((call, ErrorKind::Busy)),
        }
        Ok(())
    }

    /// A name was looked up.
    fn on_resolved<P: ClientLoop>(&mut self, name: String, found: &Addresses, control: &mut LoopControl<'_, P>) {
        for id in self.resolver.on_resolved(name, found, control.now()) {
            let Some(call) = self.take_waiting(id, control) else { continue };
            let origin = call.origin().clone();
            match found {
                Ok(addresses) => upstream::connect(call, &origin, addresses, control),
                Err(reason) => {
                    call.fail(ErrorKind::Resolve(reason.clone()));
                    self.give_place_back(&origin, control);
                }
            }
        }
    }

    /// A place of a host is free: the request that gets it.
    fn next_in_queue<P: ClientLoop>(&mut self, origin: &Origin, control: &mut LoopControl<'_, P>) -> Option<Box<Call>> {
        match self.pool.release(origin, None, control.now(), Duration::ZERO) {
            Released::Next { waiter, .. } => self.take_waiting(waiter, control),
            Released::Idle { .. } | Released::Gone => None,
        }
    }

    fn give_place_back<P: ClientLoop>(&mut self, origin: &Origin, control: &mut LoopControl<'_, P>) {
        if let Some(call) = self.next_in_queue(origin, control) {
            self.dial(call, control);
        }
    }

    /// A connection has not come about: the next address is tried.
    pub fn on_connect_failed<P: ClientLoop>(
        &mut self,
        upstream: &mut Upstream,
        error: &io::Error,
        control: &mut LoopControl<'_, P>,
    ) {
        let Stage::Connecting(attempt) = mem::replace(&mut upstream.stage, Stage::Closed) else { return };
        let Attempt { call, addr, others } = *attempt;
        log::debug!("no connection to {addr}: {error}");
        let late = call.is_late(control.now());
        if !others.is_empty() && !late && !call.is_abandoned() {
            return upstream::connect_next(call, &upstream.origin, others, control);
        }
        call.fail(match error.kind() {
            _ if late => ErrorKind::Timeout(Phase::Total),
            io::ErrorKind::TimedOut => ErrorKind::Timeout(Phase::Connect),
            _ => ErrorKind::Connect { addr, reason: error.to_string() },
        });
        self.give_place_back(&upstream.origin, control);
    }

    /// A connection is there: its request is sent.
    pub fn on_connected<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        if let Stage::Connecting(attempt) = mem::replace(&mut upstream.stage, Stage::Idle) {
            self.start(upstream, attempt.call, false, io);
        }
    }

    fn start<P: ClientLoop>(&mut self, upstream: &mut Upstream, mut call: Box<Call>, reused: bool, io: &mut Io<'_, P>) {
        self.scratch.clear();
        let framing = call.request.encode(&mut self.scratch);
        io.output.push(&self.scratch);
        if let Content::Whole(bytes) = call.request.content() {
            io.output.push_shared(Arc::clone(bytes));
        }
        let upload = call.request.take_stream();
        let terms = Terms {
            method: call.request.method(),
            body_to_come: if upload.is_some() { framing } else { BodyFraming::Empty },
            timeouts: call.timeouts.clone(),
            end: call.end,
            head_bytes_max: self.config.head_bytes_max,
            body_bytes_max: call.request.body_bytes_max(),
            reused,
        };
        call.watch_caller(ear(io));
        if let Some(upload) = &upload {
            upload.listen(io.handle().clone(), io.id());
        }
        let active = Active::new(Exchange::new(terms, io.output.len(), io.now), call, upload);
        upstream.stage = Stage::Busy(Box::new(active));
        self.advance(upstream, io);
    }

    /// Moves what can be moved on a connection.
    fn advance<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        let Stage::Busy(active) = &mut upstream.stage else { return };
        match active.advance(io, &mut self.scratch) {
            Ok(Progress::Waits) => {
                let deadline = active.exchange.deadline();
                io.set_deadline(deadline);
            }
            Ok(Progress::Complete) => self.complete(upstream, io),
            Err(kind) => self.cut(upstream, kind, io),
        }
    }

    /// An answer is complete: its connection goes to the next request, or is kept, or closed.
    fn complete<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        let Stage::Busy(active) = mem::replace(&mut upstream.stage, Stage::Closed) else { return };
        // Bytes that nobody asked for belong to no answer.
        let clean = io.input.is_empty() && !io.input_ended() && !io.draining();
        if !(clean && active.exchange.is_reusable()) {
            if active.exchange.is_sent() {
                io.close()
            } else {
                io.abort()
            }
            return self.give_place_back(&upstream.origin, io.control());
        }
        // Shortly before the server closes it, a connection is no longer used: a request might cross its end.
        let promised = active.keep_alive.map(|time| time.saturating_sub(Duration::from_secs(1)));
        let idle_timeout = self.config.idle_timeout.min(promised.unwrap_or(Duration::MAX));
        upstream.stage = Stage::Idle;
        match self.pool.release(&upstream.origin, Some(io.id()), io.now, idle_timeout) {
            Released::Next { waiter, .. } => {
                if let Some(call) = self.take_waiting(waiter, io.control()) {
                    self.start(upstream, call, true, io);
                }
            }
            Released::Idle { excess } if excess == Some(io.id()) => {
                upstream.stage = Stage::Closed;
                io.close();
            }
            Released::Idle { excess } => {
                io.set_deadline(Some(io.now + idle_timeout));
                if let Some(other) = excess {
                    io.control().send(other, News::Changed);
                }
            }
            Released::Gone => {}
        }
    }

    /// Ends a connection in the middle of something.
    fn cut<P: ClientLoop>(&mut self, upstream: &mut Upstream, kind: ErrorKind, io: &mut Io<'_, P>) {
        io.abort();
        self.fail(upstream, kind, io.control());
    }

    /// What becomes of the request when its connection is of no use any more.
    fn fail<P: ClientLoop>(&mut self, upstream: &mut Upstream, kind: ErrorKind, control: &mut LoopControl<'_, P>) {
        let Stage::Busy(active) = mem::replace(&mut upstream.stage, Stage::Closed) else { return };
        match active.into_retry(&kind) {
            Ok(call) => return self.dial(call, control),
            Err(Some(call)) => call.fail(kind),
            // The reader sees that the body is cut; why, it cannot see.
            Err(None) => log::debug!("the answer of {} was cut off: {kind}", upstream.origin),
        }
        self.give_place_back(&upstream.origin, control);
    }

    pub fn on_readable<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        match &upstream.stage {
            Stage::Busy(_) => self.advance(upstream, io),
            // The server closes, or says something that nobody asked for.
            Stage::Idle => self.retire(upstream, io),
            Stage::Connecting(_) | Stage::Closed => {}
        }
    }

    /// A pipe has moved, or the pool has decided something.
    pub fn on_message<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        match &upstream.stage {
            Stage::Busy(_) => self.advance(upstream, io),
            Stage::Idle if !io.input.is_empty() || io.input_ended() => self.retire(upstream, io),
            Stage::Idle => match self.assigned.remove(&io.id()) {
                Some(call) => self.start(upstream, call, true, io),
                None if !self.pool.is_idle(&upstream.origin, io.id()) => self.retire(upstream, io),
                None => {}
            },
            Stage::Connecting(_) | Stage::Closed => {}
        }
    }

    pub fn on_flushed<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        if let Stage::Busy(active) = &mut upstream.stage {
            active.exchange.on_flushed(io.output.len(), io.now);
            self.advance(upstream, io);
        }
    }

    pub fn on_deadline<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        match &mut upstream.stage {
            Stage::Busy(active) => match active.exchange.on_deadline(io.now) {
                Some(kind) => self.cut(upstream, kind, io),
                None => {
                    let deadline = active.exchange.deadline();
                    io.set_deadline(deadline);
                }
            },
            Stage::Idle if self.assigned.contains_key(&io.id()) => {}
            Stage::Idle => self.retire(upstream, io),
            Stage::Connecting(_) | Stage::Closed => {}
        }
    }

    /// The loop is ending: what runs may finish.
    pub fn on_drain<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        if matches!(upstream.stage, Stage::Idle) && !self.assigned.contains_key(&io.id()) {
            self.retire(upstream, io);
        }
    }

    /// Closes an idle connection. A request that was on its way to it has not been sent, so that it can be sent elsewhere.
    fn retire<P: ClientLoop>(&mut self, upstream: &mut Upstream, io: &mut Io<'_, P>) {
        upstream.stage = Stage::Closed;
        io.close();
        self.leave(&upstream.origin, io.id(), io.control());
    }

    fn leave<P: ClientLoop>(&mut self, origin: &Origin, id: ConnId, control: &mut LoopControl<'_, P>) {
        match self.assigned.remove(&id) {
            Some(call) => self.dial(call, control),
            None => self.pool.forget(origin, id),
        }
    }

    pub fn on_close<P: ClientLoop>(&mut self, id: ConnId, mut upstream: Upstream, control: &mut LoopControl<'_, P>) {
        match &upstream.stage {
            Stage::Busy(_) => self.fail(&mut upstream, ErrorKind::Closed, control),
            Stage::Idle => self.leave(&upstream.origin, id, control),
            // Told by `on_connect_failed`, unless the loop has ended: then its call tells that.
            Stage::Connecting(_) | Stage::Closed => {}
        }
    }
}

/// Who still waits is told that the loop has ended, and who comes later too.
impl Drop for Agent {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
