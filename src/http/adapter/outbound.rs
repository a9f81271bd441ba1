//! From replies to output.

use std::borrow::Cow;
use std::mem;

use super::{Client, Http1, LoopIo, Source, Stage, Streaming, Waiting, tell};
use crate::http::h1::encode::{self, Exchange, Framing};
use crate::http::h1::violation::Violation;
use crate::http::middleware::catch_panic;
use crate::http::pipe::{End, pipe};
use crate::http::reply::{Content, Later, OnEnd, Reply};
use crate::http::responder::Answer;
use crate::http::router::Refusal;
use crate::http::types::{Status, Version};
use crate::http::upgrade::{Upgrade, Upgraded};

/// Bodies of less are copied behind their head: one piece of memory for the kernel.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// The answer to what is no request: the connection ends with it.
pub(super) fn refused_exchange() -> Exchange {
    Exchange { version: Version::Http11, head_only: false, persistent: false }
}

impl Http1 {
    /// Sends a reply, or begins to wait for it.
    pub fn answer(&mut self, client: &mut Client, reply: Reply, mut exchange: Exchange, io: &mut LoopIo<'_>) {
        let last = client.requests >= self.limits.requests_per_connection_max;
        exchange.persistent &= !last && !io.draining();
        // What most answers are: no step that they do not need.
        if reply.is_plain() && reply.body().len() < COPIED_BYTES_MAX && !client.h1.is_feeding() {
            encode::whole(io.output, &reply, exchange, &self.date);
            return self.finish(client, exchange, io);
        }
        match reply.into_ready() {
            Ok(reply) => self.send(client, reply, exchange, io),
            Err((pending, later)) => {
                pending.listen(io.handle().clone(), io.id());
                let deadline = later.within().map(|within| io.now + within);
                client.stage = Stage::Waiting(Box::new(Waiting { pending, later, exchange, deadline }));
                self.collect(client, io);
            }
        }
    }

    /// Sends a reply that is there, or begins to.
    fn send(&mut self, client: &mut Client, reply: Reply, mut exchange: Exchange, io: &mut LoopIo<'_>) {
        // Whoever reads the body may go on doing so; if nobody does, a long rest costs the connection.
        if client.h1.is_feeding() && client.feed.as_ref().is_none_or(|stream| stream.is_closed()) {
            client.feed = None;
            exchange.persistent &= client.h1.decline_body();
        }
        let date = &self.date;
        let body_bytes = reply.body_bytes();
        let (head, content, on_end) = reply.into_parts();
        match content {
            Content::Whole(_) | Content::Shared(_) | Content::File(_) => {
                let body_bytes = body_bytes.unwrap_or_default();
                let has_body = encode::whole_head(io.output, &head, body_bytes, exchange, date);
                match content {
                    _ if !has_body => {}
                    Content::Whole(Cow::Borrowed(bytes)) => io.output.push_shared(bytes),
                    Content::Whole(Cow::Owned(bytes)) => io.output.push_shared(bytes),
                    Content::Shared(bytes) => io.output.push_shared(bytes),
                    Content::File(range) => io.output.push_file(range),
                    _ => {}
                }
                tell(on_end, if has_body { body_bytes } else { 0 }, true);
                self.finish(client, exchange, io);
            }
            Content::Stream { body, ping } => {
                let framing = encode::stream_head(io.output, &head, body.length(), &mut exchange, date);
                if framing == Framing::NoBody {
                    // The producer is told, by the body that goes.
                    tell(on_end, 0, true);
                    return self.finish(client, exchange, io);
                }
                body.listen(io.handle().clone(), io.id());
                let source = Source::Pipe(*body);
                let streaming = Streaming { source, framing, ping, exchange, sent_bytes: 0, on_end, tunnel: false };
                client.stage = Stage::Streaming(Box::new(streaming));
                self.collect(client, io);
            }
            Content::Events { hub, ping } => {
                let framing = encode::stream_head(io.output, &head, None, &mut exchange, date);
                if framing == Framing::NoBody {
                    tell(on_end, 0, true);
                    return self.finish(client, exchange, io);
                }
                let open = self.listeners.enter(&hub, io.id(), io.handle());
                let (source, ping) = (Source::Events(hub), Some(ping));
                let streaming = Streaming { source, framing, ping, exchange, sent_bytes: 0, on_end, tunnel: false };
                client.stage = Stage::Streaming(Box::new(streaming));
                if !open {
                    self.end_stream(client, End::Complete, io);
                }
            }
            Content::Upgrade(upgrade) => self.leave_http(client, &head, upgrade, on_end, exchange, io),
            Content::Later(_) => self.answer_nothing(client, Later::default(), exchange, io),
        }
    }

    /// Done with a request.
    fn finish(&mut self, client: &mut Client, exchange: Exchange, io: &mut LoopIo<'_>) {
        client.stage = Stage::Reading;
        client.h1.on_answered(io.now);
        if !exchange.persistent {
            client.feed = None;
            // A client that does not know yet that this was its last request may have begun another.
            match client.h1.is_ended() {
                true => io.close(),
                false => io.close_lingering(),
            }
        }
    }

    /// Hands the connection over to another protocol.
    fn leave_http(
        &mut self,
        client: &mut Client,
        head: &Reply,
        upgrade: Upgrade,
        on_end: OnEnd,
        exchange: Exchange,
        io: &mut LoopIo<'_>,
    ) {
        if !client.h1.may_leave_http() {
            log::error!("an upgrade was granted to a request whose body is still arriving");
            return self.answer_nothing(client, on_end.into_later(head), exchange, io);
        }
        encode::switching_head(io.output, head, &self.date);
        client.h1.leave_http();
        let (feed, input) = pipe(None);
        let (output, body) = pipe(None);
        body.listen(io.handle().clone(), io.id());
        client.feed = Some(feed);
        let framing = Framing::UntilClose;
        let exchange = Exchange { persistent: false, ..exchange };
        let source = Source::Pipe(body);
        let streaming = Streaming { source, framing, ping: None, exchange, sent_bytes: 0, on_end, tunnel: true };
        client.stage = Stage::Streaming(Box::new(streaming));
        if let Err(message) = catch_panic(|| (upgrade.take_over)(Upgraded { input, output })) {
            log::error!("the handler of an upgrade panicked: {message}");
        }
        self.collect(client, io);
    }

    /// Answers a violation and closes.
    pub fn refuse(&mut self, client: &mut Client, violation: Violation, io: &mut LoopIo<'_>) {
        let refusal = Refusal { status: violation.status(), reason: violation.reason(), request: None };
        let reply = self.router.refuse(&refusal);
        client.h1.end();
        if let Stage::Waiting(waiting) = mem::replace(&mut client.stage, Stage::Reading) {
            waiting.abandon(violation.status());
        }
        // An answer that is to come later would be no answer.
        match reply.into_ready() {
            Ok(reply) => self.send(client, reply, refused_exchange(), io),
            Err(_) => self.send(client, Reply::empty(violation.status()), refused_exchange(), io),
        }
    }

    /// Takes what has arrived for a later or streamed answer, and sends it.
    pub fn collect(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        if let Stage::Waiting(waiting) = &client.stage
            && let Some(answer) = waiting.pending.poll()
            && let Stage::Waiting(waiting) = mem::replace(&mut client.stage, Stage::Reading)
        {
            let Waiting { later, exchange, .. } = *waiting;
            match answer {
                Answer::Reply(reply) => self.complete(client, later, reply, exchange, io),
                Answer::Never => self.answer_nothing(client, later, exchange, io),
            }
        }
        if let Stage::Streaming(streaming) = &mut client.stage
            && let Source::Pipe(body) = &mut streaming.source
        {
            self.scratch.clear();
            let end = body.poll(&mut self.scratch);
            encode::piece(io.output, &self.scratch, streaming.framing);
            streaming.sent_bytes += self.scratch.len() as u64;
            body.set_unsent_bytes(io.output.len());
            if let Some(end) = end {
                self.end_stream(client, end, io);
            }
        }
    }

    pub(super) fn end_stream(&mut self, client: &mut Client, end: End, io: &mut LoopIo<'_>) {
        let Stage::Streaming(streaming) = mem::replace(&mut client.stage, Stage::Reading) else { return };
        let Streaming { source, framing, exchange, sent_bytes, on_end, .. } = *streaming;
        match source {
            Source::Pipe(body) => drop(body),
            Source::Events(hub) => self.listeners.leave(&hub, io.id(), io.handle()),
        }
        tell(on_end, sent_bytes, end == End::Complete);
        match end {
            End::Complete => {
                if framing == Framing::Chunked {
                    io.output.push(encode::LAST_CHUNK);
                }
                self.finish(client, exchange, io);
            }
            // Without its last chunk, or the length that was promised, a client sees that the body is cut; where the end of
            // the connection is the end of the body, a reset tells it.
            End::Cut if framing == Framing::UntilClose => io.abort(),
            End::Cut => io.close(),
        }
    }

    /// Sends an answer that came later.
    fn complete(&mut self, client: &mut Client, later: Later, answer: Reply, exchange: Exchange, io: &mut LoopIo<'_>) {
        let answer = self.router.shape(answer, None);
        let reply = catch_panic(|| later.complete(answer)).unwrap_or_else(|message| {
            log::error!("a change of a later answer panicked: {message}");
            self.failed(Status::INTERNAL_SERVER_ERROR, "the answer could not be completed")
        });
        self.send(client, reply, exchange, io);
    }

    /// A handler that gave no answer.
    fn answer_nothing(&mut self, client: &mut Client, later: Later, exchange: Exchange, io: &mut LoopIo<'_>) {
        let reply = self.failed(Status::INTERNAL_SERVER_ERROR, "the handler gave no answer");
        self.complete(client, later, reply, exchange, io);
    }

    /// A handler that took longer than it was given.
    pub fn give_up_waiting(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        let Stage::Waiting(waiting) = mem::replace(&mut client.stage, Stage::Reading) else { return };
        let Waiting { pending, later, exchange, .. } = *waiting;
        drop(pending);
        let reply = self.failed(Status::GATEWAY_TIMEOUT, "the answer took too long");
        self.complete(client, later, reply, exchange, io);
        self.progress(client, io);
    }

    /// A whole reply, whatever the error hook makes of it.
    fn failed(&self, status: Status, reason: &str) -> Reply {
        let reply = self.router.refuse(&Refusal { status, reason, request: None });
        if reply.is_later() { Reply::empty(status) } else { reply }
    }

    /// Sends a sign of life in a stream that is quiet. A client that does not take what it has got needs none.
    pub fn ping(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        if let Stage::Streaming(streaming) = &client.stage
            && let Some(ping) = streaming.ping
            && io.output.is_empty()
        {
            encode::piece(io.output, ping, streaming.framing);
        }
    }
}
