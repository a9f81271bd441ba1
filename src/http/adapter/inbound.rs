//! From input to requests and bodies.

use super::outbound::refused_exchange;
use super::{Client, Http1, LoopIo, Stage};
use crate::http::h1::connection::{Announced, Connection, Poll};
use crate::http::h1::encode::{self, Exchange, Framing};
use crate::http::h1::head::Slots;
use crate::http::h1::violation::Violation;
use crate::http::pipe::{Ear, Stream, pipe};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::router::{Admission, Refusal};
use crate::http::types::Status;

/// Whether there may be more to do with what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Taken,
    /// More input, room in the output, or a reader's attention is needed.
    Waits,
    /// The connection is closing.
    Closes,
}

/// What was decided about a request whose body is still to come.
enum Admitted {
    Not(Reply),
    Buffered,
    Streamed(Stream, Reply),
}

impl Http1 {
    /// Handles the requests and bodies in the input, as far as they are there and may be handled now.
    pub fn progress(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        // Out of their place, since handlers are called with what is in them.
        let mut slots = self.slots.take().unwrap_or_default();
        self.take_steps(client, &mut slots, io);
        self.slots = Some(slots);
    }

    fn take_steps(&mut self, client: &mut Client, slots: &mut Slots, io: &mut LoopIo<'_>) {
        let mut requests_left = self.limits.requests_per_turn_max.max(1);
        while !io.is_closing() {
            let ready =
                matches!(client.stage, Stage::Reading) && io.output.len() <= self.limits.output_high_water_bytes;
            let step = match client.h1.is_feeding() {
                true => self.feed(client, io),
                false if !ready => Step::Waits,
                // The other connections of this loop have waited long enough.
                false if requests_left == 0 => {
                    io.yield_now();
                    Step::Waits
                }
                false => {
                    requests_left -= 1;
                    self.next_request(client, slots, io)
                }
            };
            match step {
                Step::Taken => {}
                Step::Waits => break,
                Step::Closes => return,
            }
        }
        // The rest of a body that nobody wanted was all that was under way.
        if io.draining() && matches!(client.stage, Stage::Reading) && client.h1.is_idle() && io.input.is_empty() {
            io.close();
        }
        self.set_deadline(client, io);
    }

    fn next_request(&mut self, client: &mut Client, slots: &mut Slots, io: &mut LoopIo<'_>) -> Step {
        match client.h1.poll(io.input.as_slice(), slots, &self.limits, io.now) {
            Poll::More { used } => {
                io.input.consume(used);
                if !self.budget.resize(&mut client.held_bytes, client.h1.buffered_bytes()) {
                    self.refuse_for_memory(client, io);
                } else if io.input_ended() {
                    io.close();
                } else {
                    return Step::Waits;
                }
                Step::Closes
            }
            Poll::Request { mut request, exchange, used } => {
                self.count_request(client);
                request.set_origin(client.peer, self.caller.as_ref());
                let reply = self.router.answer(&mut request, self.limits.body_bytes_max);
                io.input.consume(used);
                self.answer(client, reply, exchange, io);
                Step::Taken
            }
            Poll::Announced { mut request, exchange, body, used } => {
                request.set_origin(client.peer, self.caller.as_ref());
                let head = io.input.as_slice().get(..used).unwrap_or_default();
                let admitted = self.admit(&mut client.h1, request, head, body);
                io.input.consume(used);
                self.begin_body(client, admitted, exchange, body, io)
            }
            Poll::Uploaded { upload, used } => {
                io.input.consume(used);
                match upload.request(slots, &self.limits) {
                    Ok((mut request, exchange)) => {
                        request.set_origin(client.peer, self.caller.as_ref());
                        let reply = self.router.answer_admitted(&mut request);
                        self.answer(client, reply, exchange, io);
                    }
                    Err(violation) => {
                        self.refuse(client, violation, io);
                        return Step::Closes;
                    }
                }
                self.budget.resize(&mut client.held_bytes, 0);
                Step::Taken
            }
            Poll::Refused(violation) => {
                self.refuse(client, violation, io);
                Step::Closes
            }
            Poll::Ended => {
                match client.h1.is_ended() {
                    true => io.close(),
                    false => io.close_lingering(),
                }
                Step::Closes
            }
        }
    }

    /// Decides about a request whose head has arrived and whose body is still to come.
    fn admit(
        &self,
        h1: &mut Connection,
        request: Request<'_>,
        head: &[u8],
        announced: Announced,
    ) -> Result<Admitted, Violation> {
        Ok(match self.router.admit(&request, announced.length, self.limits.body_bytes_max) {
            Admission::Refused(reply) => Admitted::Not(reply),
            Admission::Buffer { bytes_max } => {
                h1.buffer_body(head, bytes_max)?;
                Admitted::Buffered
            }
            Admission::Stream { bytes_max } => {
                h1.feed_body(bytes_max)?;
                let (stream, body) = pipe(announced.length);
                Admitted::Streamed(stream, self.router.answer_admitted(&mut request.with_stream(body)))
            }
        })
    }

    /// Sees to the decision about a request whose body is still to come.
    fn begin_body(
        &mut self,
        client: &mut Client,
        admitted: Result<Admitted, Violation>,
        mut exchange: Exchange,
        announced: Announced,
        io: &mut LoopIo<'_>,
    ) -> Step {
        self.count_request(client);
        match admitted {
            Ok(Admitted::Not(reply)) => {
                exchange.persistent &= client.h1.decline_body();
                self.answer(client, reply, exchange, io);
            }
            Ok(Admitted::Buffered) => {
                if announced.expects_continue {
                    io.output.push(encode::CONTINUE);
                }
            }
            Ok(Admitted::Streamed(stream, reply)) => {
                if !stream.is_closed() {
                    if announced.expects_continue {
                        io.output.push(encode::CONTINUE);
                    }
                    client.feed = Some(stream);
                } else if announced.expects_continue {
                    // Answered without a look at the body. Whether a client that waits still sends it cannot be known.
                    exchange.persistent = false;
                    client.h1.end();
                }
                self.answer(client, reply, exchange, io);
            }
            Err(violation) => {
                self.refuse(client, violation, io);
                return Step::Closes;
            }
        }
        Step::Taken
    }

    /// Passes on what has arrived of a body.
    fn feed(&mut self, client: &mut Client, io: &mut LoopIo<'_>) -> Step {
        if client.feed.as_ref().is_some_and(|stream| stream.is_closed()) {
            client.feed = None;
            if !client.h1.decline_body() {
                return Step::Taken;
            }
        }
        let ear = || Ear::Connection(io.handle().clone(), io.id());
        let waits = client.feed.as_ref().is_some_and(|stream| stream.waits_for_reader(ear));
        client.h1.pause_body(waits, io.now);
        if waits {
            return Step::Waits;
        }
        let (h1, input, now) = (&mut client.h1, io.input.as_slice(), io.now);
        let polled = match &client.feed {
            Some(_) if input.is_empty() => Ok((0, false)),
            Some(stream) => {
                let mut polled = Ok((0, false));
                // Gone meanwhile: seen at the next step.
                let _gone = stream.write_with(|out| polled = h1.poll_body(input, out, now)).is_err();
                polled
            }
            None => {
                self.scratch.clear();
                h1.poll_body(input, &mut self.scratch, now)
            }
        };
        match polled {
            Ok((used, complete)) => {
                io.input.consume(used);
                if complete {
                    self.end_feed(client);
                    Step::Taken
                } else if io.input_ended() {
                    self.on_body_cut(client, io)
                } else {
                    Step::Waits
                }
            }
            Err(violation) => {
                self.fail_body(client, violation, io);
                Step::Closes
            }
        }
    }

    fn end_feed(&mut self, client: &mut Client) {
        if let Some(Err(e)) = client.feed.take().map(|stream| stream.close()) {
            log::debug!("the end of a request body reached nobody: {e}");
        }
    }

    /// The client has ended its side in the middle of a body, or at the end of what it had to say in another protocol.
    fn on_body_cut(&mut self, client: &mut Client, io: &mut LoopIo<'_>) -> Step {
        match &client.stage {
            Stage::Streaming(streaming) if streaming.tunnel => {
                self.end_feed(client);
                client.h1.end();
                Step::Waits
            }
            Stage::Reading => {
                client.feed = None;
                io.close();
                Step::Closes
            }
            // Its reader sees the cut, and may still answer.
            Stage::Waiting(_) | Stage::Streaming(_) => {
                client.feed = None;
                client.h1.end();
                Step::Waits
            }
        }
    }

    /// Answers a client that sent too slowly, or nothing at all.
    pub fn out_of_time(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        let feeding = client.h1.is_feeding();
        match client.h1.on_deadline() {
            Some(violation) if feeding => self.fail_body(client, violation, io),
            Some(violation) => self.refuse(client, violation, io),
            None => io.close(),
        }
    }

    /// A violation in a body that is being fed: answered if nothing has been, else the connection is cut.
    fn fail_body(&mut self, client: &mut Client, violation: Violation, io: &mut LoopIo<'_>) {
        client.feed = None;
        match &client.stage {
            Stage::Waiting(_) => self.refuse(client, violation, io),
            Stage::Streaming(streaming) if streaming.framing == Framing::UntilClose => io.abort(),
            // Its framing says that the answer is cut; a reset would take those before it along.
            Stage::Streaming(_) => io.close_lingering(),
            // The answer has been given, and nobody wanted the rest of the body.
            Stage::Reading => io.close_lingering(),
        }
    }

    fn refuse_for_memory(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        let reason = "the server holds too many request bodies";
        let reply = self.router.refuse(&Refusal { status: Status::SERVICE_UNAVAILABLE, reason, request: None });
        client.h1.end();
        self.answer(client, reply.header("Retry-After", "1"), refused_exchange(), io);
    }
}
