//! Joins the h1 machine to the reactor: the one place where both are known.
//!
//! One request of a connection is worked on at a time. While its answer is still to come, the requests behind it stay
//! in the input, so that answers keep their order (RFC 9112 §9.3.2) and nothing queues up without a bound. A body that is
//! fed to its handler goes on arriving meanwhile.
//!
//! ```text
//! Reading ──later──▶ Waiting ──whole answer──▶ Reading
//!    │                  └──stream──▶ Streaming ──end──▶ Reading
//!    └──stream, or another protocol──────▲
//! ```
//! `inbound` turns input into requests and bodies, `outbound` turns replies into output.

mod inbound;
mod listeners;
mod outbound;
#[cfg(test)]
mod simulation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use self::listeners::Listeners;
use super::broadcast::Hub;
use super::budget::Budget;
use super::client;
use super::date::DateLine;
use super::h1::connection::Connection;
use super::h1::encode::{self, Exchange, Framing};
use super::h1::head::Slots;
use super::http_loop::HttpLoop;
use super::limits::{HalfClose, Limits};
use super::middleware::catch_panic;
use super::news::News;
use super::pipe::{Body, Stream};
use super::reply::{Later, OnEnd};
use super::responder::Pending;
use super::router::{Refusal, Router};
use super::types::{Status, Version};
use crate::reactor::{ConnId, Handle, Io, Output};

/// HTTP/1.1 as one loop speaks it.
pub(crate) struct Http1 {
    router: Arc<Router>,
    limits: Limits,
    /// Shared by all loops: the memory for buffered bodies.
    budget: Arc<Budget>,
    date: DateLine,
    /// Requests handled; written by this loop only.
    requests: Arc<AtomicU64>,
    refusal: Vec<u8>,
    /// Bytes on their way from a pipe to the output, kept for their memory.
    scratch: Vec<u8>,
    /// Room for the header lines of the request at hand, kept so that it need not be cleared for each.
    slots: Option<Box<Slots>>,
    listeners: Listeners,
    /// What handlers ask other servers with.
    caller: Option<client::Client>,
}

/// One client.
pub(crate) struct Client {
    peer: SocketAddr,
    h1: Connection,
    stage: Stage,
    /// Where the body of the current request goes as it arrives; without, nobody wants it.
    feed: Option<Stream>,
    requests: u64,
    /// Of the shared memory for buffered bodies.
    held_bytes: usize,
}

/// Where the answer to the current request stands.
enum Stage {
    Reading,
    Waiting(Box<Waiting>),
    Streaming(Box<Streaming>),
}

/// An answer that a responder will give.
struct Waiting {
    pending: Pending,
    later: Later,
    exchange: Exchange,
    /// A 504 is sent then.
    deadline: Option<Instant>,
}

/// An answer that has begun, and whose body comes through a pipe.
struct Streaming {
    source: Source,
    framing: Framing,
    ping: Option<&'static [u8]>,
    exchange: Exchange,
    sent_bytes: u64,
    on_end: OnEnd,
    /// The connection has left HTTP.
    tunnel: bool,
}

/// Where a streamed body comes from.
enum Source {
    Pipe(Body),
    Events(Arc<Hub>),
}

impl Waiting {
    /// Tells whoever was to answer, and whoever waits for that, that `status` is sent instead, if anything.
    fn abandon(self, status: Status) {
        let Waiting { pending, later, .. } = self;
        drop(pending);
        if let Err(message) = catch_panic(|| later.abandon(status)) {
            log::error!("a hook for the end of an answer panicked: {message}");
        }
    }
}

type LoopIo<'a> = Io<'a, HttpLoop>;

impl Http1 {
    pub fn new(router: Arc<Router>, limits: Limits, budget: Arc<Budget>, requests: Arc<AtomicU64>) -> Http1 {
        let reason = "too many connections";
        let full = router.refuse(&Refusal { status: Status::SERVICE_UNAVAILABLE, reason, request: None });
        let mut refusal = Output::default();
        let exchange = Exchange { version: Version::Http11, head_only: false, persistent: false };
        encode::whole(&mut refusal, &full.header("Retry-After", "1"), exchange, &DateLine::new());
        let refusal = refusal.take_bytes().unwrap_or_default();
        Http1 {
            router,
            limits,
            budget,
            date: DateLine::new(),
            requests,
            refusal,
            scratch: Vec::new(),
            slots: None,
            listeners: Listeners::default(),
            caller: None,
        }
    }

    /// Gives handlers a client, once.
    pub fn set_caller(&mut self, make: impl FnOnce() -> client::Client) {
        self.caller.get_or_insert_with(make);
    }

    fn count_request(&mut self, client: &mut Client) {
        client.requests += 1;
        self.requests.store(self.requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn set_deadline(&self, client: &Client, io: &mut LoopIo<'_>) {
        let answer = match &client.stage {
            Stage::Reading => None,
            Stage::Waiting(waiting) => waiting.deadline,
            Stage::Streaming(streaming) => streaming.ping.map(|_| io.now + self.limits.sse_ping),
        };
        let request = match client.stage {
            Stage::Waiting(_) | Stage::Streaming(_) if !client.h1.is_feeding() => None,
            _ => client.h1.deadline(&self.limits),
        };
        io.set_deadline([answer, request].into_iter().flatten().min());
    }

    /// Tells the producer of an answer that its client has probably gone.
    fn notice_end(&self, client: &Client, io: &LoopIo<'_>) {
        if !io.hung_up() || self.limits.half_close == HalfClose::Waits {
            return;
        }
        match &client.stage {
            Stage::Reading => {}
            Stage::Waiting(waiting) => waiting.pending.set_closed(),
            Stage::Streaming(streaming) if streaming.tunnel => {}
            Stage::Streaming(streaming) => {
                if let Source::Pipe(body) = &streaming.source {
                    body.set_closed();
                }
            }
        }
    }
}

/// Tells whoever waits for an answer's end; what they do about it is no business of the connection.
fn tell(on_end: OnEnd, body_bytes: u64, complete: bool) {
    if let Err(message) = catch_panic(|| on_end.tell(body_bytes, complete)) {
        log::error!("a hook for the end of an answer panicked: {message}");
    }
}

/// The calls of the loop for one client.
impl Http1 {
    pub fn on_open(&mut self, peer: SocketAddr, now: Instant) -> Client {
        Client { peer, h1: Connection::new(now), stage: Stage::Reading, feed: None, requests: 0, held_bytes: 0 }
    }

    pub fn on_ready(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        self.set_deadline(client, io);
    }

    pub fn on_readable(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        self.progress(client, io);
        self.notice_end(client, io);
    }

    pub fn on_message(&mut self, client: &mut Client, news: News, io: &mut LoopIo<'_>) {
        match news {
            News::Changed => self.collect(client, io),
            News::Events => self.pass_on(client, io),
            News::Issue(_) => {}
        }
        self.progress(client, io);
        self.notice_end(client, io);
    }

    pub fn on_deadline(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        let in_time = |deadline: Option<Instant>| deadline.is_none_or(|deadline| io.now < deadline);
        match &client.stage {
            // It is busy with its answers, and what it sends meanwhile may not even be looked at. It has the time of a
            // stall for each part that it takes.
            Stage::Reading if !client.h1.is_feeding() && !io.output.is_empty() => client.h1.restart_clock(io.now),
            Stage::Waiting(waiting) if !in_time(waiting.deadline) => self.give_up_waiting(client, io),
            Stage::Waiting(_) | Stage::Streaming(_) if !client.h1.is_feeding() => self.ping(client, io),
            _ if in_time(client.h1.deadline(&self.limits)) => self.ping(client, io),
            _ => return self.out_of_time(client, io),
        }
        self.set_deadline(client, io);
    }

    pub fn on_flushed(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        match &client.stage {
            Stage::Streaming(streaming) => {
                if let Source::Pipe(body) = &streaming.source {
                    body.set_unsent_bytes(io.output.len());
                }
            }
            // Requests that were left alone while too much output waited.
            Stage::Reading if io.output.is_empty() && (!io.input.is_empty() || io.input_ended()) => {
                self.progress(client, io);
            }
            Stage::Reading | Stage::Waiting(_) => {}
        }
    }

    pub fn on_drain(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        match &mut client.stage {
            Stage::Reading if client.h1.is_idle() && io.input.is_empty() => io.close(),
            Stage::Reading => {}
            Stage::Waiting(waiting) => waiting.exchange.persistent = false,
            Stage::Streaming(streaming) => streaming.exchange.persistent = false,
        }
    }

    pub fn on_close(&mut self, id: ConnId, mut client: Client, handle: &Handle<News>) {
        self.budget.resize(&mut client.held_bytes, 0);
        match client.stage {
            Stage::Reading => {}
            Stage::Waiting(waiting) => waiting.abandon(Status::CLIENT_CLOSED_REQUEST),
            Stage::Streaming(streaming) => {
                let Streaming { source, on_end, sent_bytes, .. } = *streaming;
                match source {
                    Source::Pipe(body) => drop(body),
                    Source::Events(hub) => self.listeners.leave(&hub, id, handle),
                }
                tell(on_end, sent_bytes, false);
            }
        }
    }

    pub fn on_turn(&mut self, _: Instant) {
        self.date.set(SystemTime::now());
    }

    pub fn refusal(&self) -> &[u8] {
        &self.refusal
    }
}
