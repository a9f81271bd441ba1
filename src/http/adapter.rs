//! Joins the h1 machine to the reactor: the one place where both are known.
//!
//! One request of a connection is worked on at a time. While its answer is still to come, the requests behind it stay
//! in the input, so that answers keep their order (RFC 9112 §9.3.2) and nothing queues up without a bound.
//!
//! ```text
//! Reading ──later──▶ Waiting ──whole answer──▶ Reading
//!                       └──stream──▶ Streaming ──end──▶ Reading
//! ```

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::date::DateLine;
use super::h1::connection::{Connection, Poll};
use super::h1::encode::{self, Exchange, StreamFraming};
use super::h1::head::Slots;
use super::h1::violation::Violation;
use super::limits::{HalfClose, Limits};
use super::reply::Reply;
use super::request::Request;
use super::responder::{End, News, Pending, Start};
use super::router::{Refusal, Router};
use super::types::{Status, Version};
use crate::reactor::{Io, Output, Protocol};

/// HTTP/1.1 as one loop speaks it.
pub(crate) struct Http1 {
    router: Arc<Router>,
    limits: Limits,
    date: DateLine,
    /// Requests handled; written by this loop only.
    requests: Arc<AtomicU64>,
    refusal: Vec<u8>,
    /// Bytes on their way from a link to the output, kept for their memory.
    scratch: Vec<u8>,
}

/// One client.
pub(crate) struct Client {
    peer: SocketAddr,
    h1: Connection,
    stage: Stage,
}

/// Where the current request stands.
enum Stage {
    Reading,
    Waiting { pending: Pending, lines: String, exchange: Exchange },
    Streaming { pending: Pending, framing: StreamFraming, ping: Option<&'static [u8]>, exchange: Exchange },
}

type LoopIo<'a> = Io<'a, Http1>;

impl Http1 {
    pub fn new(router: Arc<Router>, limits: Limits, requests: Arc<AtomicU64>) -> Http1 {
        let reason = "too many connections";
        let full = router.refuse(&Refusal { status: Status::SERVICE_UNAVAILABLE, reason, request: None });
        let mut refusal = Output::default();
        let exchange = Exchange { version: Version::Http11, head_only: false, persistent: false };
        encode::reply(&mut refusal, &full, "Retry-After: 1\r\n", exchange, b"");
        let refusal = refusal.take_bytes().unwrap_or_default();
        Http1 { router, limits, date: DateLine::new(), requests, refusal, scratch: Vec::new() }
    }

    /// Handles the requests in the input, as far as they are complete and may be answered now.
    fn progress(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        while matches!(client.stage, Stage::Reading) && io.output.len() <= self.limits.output_high_water_bytes {
            let mut slots = Slots::new();
            match client.h1.poll(io.input.as_slice(), &mut slots, &self.limits, io.now) {
                Poll::More { used } => {
                    io.input.consume(used);
                    if io.input_ended() {
                        return io.close();
                    }
                    break;
                }
                Poll::Continue { used } => {
                    io.input.consume(used);
                    io.output.push(encode::CONTINUE);
                }
                Poll::Request { request, exchange, used } => {
                    let reply = self.handle(request.with_peer(client.peer));
                    io.input.consume(used);
                    self.answer(client, reply, exchange, io);
                }
                Poll::Uploaded { upload, used } => {
                    io.input.consume(used);
                    let mut slots = Slots::new();
                    match upload.request(&mut slots, &self.limits) {
                        Ok((request, exchange)) => {
                            let reply = self.handle(request.with_peer(client.peer));
                            self.answer(client, reply, exchange, io);
                        }
                        Err(violation) => return self.refuse(violation, io),
                    }
                }
                Poll::Refused(violation) => return self.refuse(violation, io),
                Poll::Ended => return io.close(),
            }
        }
        self.set_deadline(client, io);
    }

    fn handle(&mut self, request: Request<'_>) -> Reply {
        self.requests.store(self.requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.router.handle(request)
    }

    /// Sends a reply, or begins to wait for it.
    fn answer(&mut self, client: &mut Client, reply: Reply, mut exchange: Exchange, io: &mut LoopIo<'_>) {
        exchange.persistent &= !io.draining();
        match reply.into_answer() {
            Ok(reply) => self.send(client, &reply, "", exchange, io),
            Err((lines, pending)) => {
                pending.listen(io.handle().clone(), io.id());
                client.stage = Stage::Waiting { pending, lines, exchange };
                self.collect(client, io);
            }
        }
    }

    /// Sends a whole reply and is done with its request.
    fn send(&mut self, client: &mut Client, reply: &Reply, lines: &str, exchange: Exchange, io: &mut LoopIo<'_>) {
        encode::reply(io.output, reply, lines, exchange, self.date.as_bytes());
        self.finish(client, exchange, io);
    }

    fn finish(&mut self, client: &mut Client, exchange: Exchange, io: &mut LoopIo<'_>) {
        client.stage = Stage::Reading;
        client.h1.on_answered(io.now);
        match (exchange.persistent, io.draining()) {
            (true, _) => {}
            // The client does not know yet, and may have begun its next request.
            (false, true) => io.close_lingering(),
            (false, false) => io.close(),
        }
    }

    /// Answers a violation and closes.
    fn refuse(&mut self, violation: Violation, io: &mut LoopIo<'_>) {
        let refusal = Refusal { status: violation.status(), reason: violation.reason(), request: None };
        let reply = self.router.refuse(&refusal);
        let exchange = Exchange { version: Version::Http11, head_only: false, persistent: false };
        encode::reply(io.output, &reply, "", exchange, self.date.as_bytes());
        io.close_lingering();
    }

    /// Takes what has arrived for a later answer, and sends it.
    fn collect(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        let (Stage::Waiting { pending, .. } | Stage::Streaming { pending, .. }) = &client.stage else { return };
        let mut bytes = mem::take(&mut self.scratch);
        let arrived = pending.take(&mut bytes);
        if let Some(start) = arrived.start {
            self.start(client, start, io);
        }
        match &client.stage {
            // A whole answer, or one that never began.
            Stage::Reading => {}
            Stage::Waiting { exchange, .. } if arrived.end.is_some() => {
                let exchange = *exchange;
                let reason = "the handler gave no answer";
                let status = Status::INTERNAL_SERVER_ERROR;
                let reply = self.router.refuse(&Refusal { status, reason, request: None });
                self.send(client, &reply, "", exchange, io);
            }
            Stage::Waiting { .. } => {}
            Stage::Streaming { pending, framing, exchange, .. } => {
                let (framing, exchange) = (*framing, *exchange);
                encode::piece(io.output, &bytes, framing);
                pending.set_unsent_bytes(io.output.len());
                match arrived.end {
                    None => {}
                    Some(End::Complete) => {
                        if framing == StreamFraming::Chunked {
                            io.output.push(encode::LAST_CHUNK);
                        }
                        self.finish(client, exchange, io);
                    }
                    // Without its last chunk a client sees that the body is cut; without chunks, a reset tells it.
                    Some(End::Cut) if framing == StreamFraming::UntilClose => io.abort(),
                    Some(End::Cut) => io.close(),
                }
            }
        }
        bytes.clear();
        self.scratch = bytes;
    }

    fn start(&mut self, client: &mut Client, start: Start, io: &mut LoopIo<'_>) {
        match (mem::replace(&mut client.stage, Stage::Reading), start) {
            (Stage::Waiting { lines, exchange, .. }, Start::Whole(reply)) => {
                self.send(client, &reply, &lines, exchange, io);
            }
            (Stage::Waiting { pending, lines, mut exchange }, Start::Stream { head, ping }) => {
                let framing = encode::stream_head(io.output, &head, &lines, &mut exchange, self.date.as_bytes());
                client.stage = Stage::Streaming { pending, framing, ping, exchange };
            }
            (stage, _) => client.stage = stage,
        }
    }

    fn set_deadline(&self, client: &Client, io: &mut LoopIo<'_>) {
        let deadline = match &client.stage {
            Stage::Reading => client.h1.deadline(&self.limits),
            Stage::Waiting { .. } => None,
            Stage::Streaming { ping, .. } => ping.map(|_| io.now + self.limits.sse_ping),
        };
        io.set_deadline(deadline);
    }

    /// Tells the producer of an answer that its client has probably gone.
    fn notice_end(&self, client: &Client, io: &LoopIo<'_>) {
        if let Stage::Waiting { pending, .. } | Stage::Streaming { pending, .. } = &client.stage
            && io.input_ended()
            && self.limits.half_close == HalfClose::Gone
        {
            pending.set_closed();
        }
    }
}

impl Protocol for Http1 {
    type Connection = Client;
    type Message = News;

    fn on_open(&mut self, peer: SocketAddr, now: Instant) -> Client {
        Client { peer, h1: Connection::new(now), stage: Stage::Reading }
    }

    fn on_ready(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        self.set_deadline(client, io);
    }

    fn on_readable(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        self.progress(client, io);
        self.notice_end(client, io);
    }

    fn on_message(&mut self, client: &mut Client, _: News, io: &mut LoopIo<'_>) {
        self.collect(client, io);
        self.progress(client, io);
        self.notice_end(client, io);
    }

    fn on_deadline(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        match &client.stage {
            Stage::Reading => match client.h1.on_deadline() {
                Some(violation) => return self.refuse(violation, io),
                None => return io.close(),
            },
            // A client that does not take what it has got needs no ping.
            Stage::Streaming { framing, ping: Some(ping), .. } if io.output.is_empty() => {
                encode::piece(io.output, ping, *framing);
            }
            Stage::Waiting { .. } | Stage::Streaming { .. } => {}
        }
        self.set_deadline(client, io);
    }

    fn on_flushed(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        match &client.stage {
            Stage::Streaming { pending, .. } => pending.set_unsent_bytes(io.output.len()),
            // Requests that were left alone while too much output waited.
            Stage::Reading if io.output.is_empty() && (!io.input.is_empty() || io.input_ended()) => {
                self.progress(client, io);
            }
            Stage::Reading | Stage::Waiting { .. } => {}
        }
    }

    fn on_drain(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        match &mut client.stage {
            Stage::Reading if client.h1.is_idle() && io.input.is_empty() => io.close(),
            Stage::Reading => {}
            Stage::Waiting { exchange, .. } | Stage::Streaming { exchange, .. } => exchange.persistent = false,
        }
    }

    fn on_turn(&mut self, _: Instant) {
        self.date.set(SystemTime::now());
    }

    fn refusal(&self) -> &[u8] {
        &self.refusal
    }
}
