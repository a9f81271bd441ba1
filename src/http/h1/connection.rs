//! The reading side of one connection: bytes and the time in, requests out, one after the other.
//!
//! ```text
//! Head ──whole request in the input──▶ Head ─ … ─▶ Ended     (the request was the last)
//!   │ └─body still to come─▶ Announced ─┬─▶ Buffering ─┬─complete─▶ Head
//!   │                                   └─▶ Feeding ───┘    └─ leaves HTTP ─▶ Tunnel
//!   └──────────────────violation or time──────────────────▶ Failed
//! ```
//! A request that is whole in the input is borrowed from it. One whose body is still to come is announced, so that it can
//! be refused before its body is read; then the body is buffered, or fed on piece by piece, as the caller says. Either way
//! it is decoded as it arrives, within the limits, and nothing is reserved for what a client only promises. `Failed`,
//! `Tunnel`, `Ended` and `Deaf` stay.

use std::mem;
use std::time::{Duration, Instant};

use super::decode::Decoder;
use super::encode::Exchange;
use super::head::{Framing, Head, Slots};
use super::violation::Violation;
use crate::http::limits::Limits;
use crate::http::request::Request;
use crate::http::types::Method;

/// The rest of a body that nobody wants is read and forgotten up to this length; a longer one costs the connection.
const DISCARDED_BYTES_MAX: u64 = 64 << 10;

/// Empty lines before a request are no way to keep a connection busy.
const BLANK_BYTES_MAX: usize = 32;

#[derive(Debug)]
pub(crate) struct Connection {
    inbound: Inbound,
}

#[derive(Debug)]
enum Inbound {
    Head {
        /// Bytes of empty lines before it, which are used.
        blank: usize,
        /// Bytes of the input that were read and hold no complete head.
        scanned: usize,
        /// Since the first byte of the head, or since the last answer.
        since: Instant,
    },
    /// The head has been announced, and the caller says what becomes of the body before it polls again.
    Announced {
        decoder: Decoder,
        persistent: bool,
        expects_continue: bool,
        since: Instant,
    },
    Buffering {
        upload: Upload,
        decoder: Decoder,
        since: Instant,
    },
    Feeding {
        decoder: Decoder,
        persistent: bool,
        pace: Pace,
    },
    /// Bytes of another protocol, to the end.
    Tunnel,
    Failed(Violation),
    /// The client has said that this was its last request.
    Ended,
    /// We read no more, though the client may go on.
    Deaf,
}

/// How fast a body must come: bytes so far, in a time that stands still while we are the ones who don't read.
#[derive(Clone, Copy, Debug)]
struct Pace {
    since: Instant,
    bytes: u64,
    paused: Option<Instant>,
}

/// A request that was put together from several reads.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    head: Vec<u8>,
    body: Vec<u8>,
    persistent: bool,
}

/// What the input holds. In each case the caller consumes `used` bytes of it, for a request after its use.
#[derive(Debug)]
pub(crate) enum Poll<'b> {
    /// Nothing complete yet.
    More { used: usize },
    /// A request with its body, all in the input.
    Request { request: Request<'b>, exchange: Exchange, used: usize },
    /// A request whose body is still to come; one of [`buffer_body`](Connection::buffer_body),
    /// [`feed_body`](Connection::feed_body) and [`decline_body`](Connection::decline_body) must follow.
    Announced { request: Request<'b>, exchange: Exchange, body: Announced, used: usize },
    /// A request whose body was buffered.
    Uploaded { upload: Upload, used: usize },
    /// The request is refused; nothing after it is read.
    Refused(Violation),
    /// The last request has been taken.
    Ended,
}

/// A body that is still to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    /// In bytes, where it was declared.
    pub length: Option<u64>,
    /// The client waits for 100 Continue before it sends the body, and has not sent any of it.
    pub expects_continue: bool,
}

impl Connection {
    pub fn new(now: Instant) -> Connection {
        Connection { inbound: Inbound::Head { blank: 0, scanned: 0, since: now } }
    }

    /// Looks for the next request at the front of `input`, which is all that was received and not consumed.
    pub fn poll<'b>(&mut self, input: &'b [u8], slots: &'b mut Slots, limits: &Limits, now: Instant) -> Poll<'b> {
        match &mut self.inbound {
            Inbound::Head { .. } => self.poll_head(input, slots, limits, now),
            Inbound::Buffering { upload, decoder, .. } => match decoder.decode(input, &mut upload.body) {
                Ok((used, false)) => Poll::More { used },
                Ok((used, true)) => {
                    let upload = mem::take(upload);
                    self.inbound = next_head(upload.persistent, now);
                    Poll::Uploaded { upload, used }
                }
                Err(violation) => self.fail(violation),
            },
            Inbound::Failed(violation) => Poll::Refused(*violation),
            Inbound::Announced { .. } | Inbound::Feeding { .. } | Inbound::Tunnel => Poll::More { used: 0 },
            Inbound::Ended | Inbound::Deaf => Poll::Ended,
        }
    }

    fn fail<'b>(&mut self, violation: Violation) -> Poll<'b> {
        self.inbound = Inbound::Failed(violation);
        Poll::Refused(violation)
    }

    #[inline]
    fn poll_head<'b>(&mut self, input: &'b [u8], slots: &'b mut Slots, limits: &Limits, now: Instant) -> Poll<'b> {
        let Inbound::Head { blank: blank_before, scanned, since } = &mut self.inbound else { return Poll::Ended };
        // §2.2: empty lines before a request are ignored, as old clients end a body with one.
        let blank = blank_bytes(input);
        *blank_before += blank;
        if *blank_before > BLANK_BYTES_MAX {
            return self.fail(Violation::BadHead);
        }
        let input = &input[blank..];
        if input.is_empty() || (*scanned == 0 && input == b"\r") {
            return Poll::More { used: blank };
        }
        if *scanned == 0 {
            *since = now;
        }
        if !Head::is_due(input, *scanned, limits) {
            return Poll::More { used: blank };
        }
        let head = match Head::parse(input, slots, limits) {
            Ok(Some(head)) => head,
            Ok(None) => {
                *scanned = input.len();
                return Poll::More { used: blank };
            }
            Err(violation) => return self.fail(violation),
        };

        let length = match head.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        let exchange = head.exchange();
        let used = blank + head.len;
        let body_bytes = length.and_then(|length| usize::try_from(length).ok());
        if let Some(body) = body_bytes.and_then(|bytes| input.get(head.len..head.len.checked_add(bytes)?)) {
            self.inbound = next_head(exchange.persistent, now);
            return Poll::Request { request: head.request(body), exchange, used: used + body.len() };
        }
        // A client that sends the body at once is not waiting, whatever it says.
        let expects_continue = head.expects_continue && input.len() == head.len;
        let decoder = Decoder::new(head.framing, limits.chunk_overhead_bytes_max);
        self.inbound = Inbound::Announced { decoder, persistent: head.persistent, expects_continue, since: now };
        let body = Announced { length, expects_continue };
        Poll::Announced { request: head.request(&[]), exchange, body, used }
    }

    /// The announced body is to be put together with its `head`, all that was used of the input, up to `bytes_max`.
    pub fn buffer_body(&mut self, head: &[u8], bytes_max: usize) -> Result<(), Violation> {
        let Inbound::Announced { decoder, persistent, since, .. } = self.inbound else { return Ok(()) };
        let decoder = self.limited(decoder, bytes_max as u64)?;
        let head = head.split_at(blank_bytes(head)).1.to_vec();
        let upload = Upload { head, body: Vec::new(), persistent };
        self.inbound = Inbound::Buffering { upload, decoder, since };
        Ok(())
    }

    /// The announced body is to come through [`poll_body`](Connection::poll_body), up to `bytes_max`.
    pub fn feed_body(&mut self, bytes_max: u64) -> Result<(), Violation> {
        let Inbound::Announced { decoder, persistent, since, .. } = self.inbound else { return Ok(()) };
        let decoder = self.limited(decoder, bytes_max)?;
        self.inbound = Inbound::Feeding { decoder, persistent, pace: Pace { since, bytes: 0, paused: None } };
        Ok(())
    }

    fn limited(&mut self, decoder: Decoder, bytes_max: u64) -> Result<Decoder, Violation> {
        decoder.limited(bytes_max).inspect_err(|violation| self.inbound = Inbound::Failed(*violation))
    }

    /// Nobody wants the announced body, or the rest of one that is being fed. `true`: it is short, and will be read and
    /// forgotten. `false`: nothing more is read, and the connection must close after its answer (RFC 9112 §9.3).
    pub fn decline_body(&mut self) -> bool {
        let fits = match self.inbound {
            // Whether a client that waits sends its body after a final answer cannot be known (RFC 9110 §10.1.1).
            Inbound::Announced { decoder: Decoder::Length { left }, expects_continue: false, .. } => {
                left <= DISCARDED_BYTES_MAX && self.feed_body(DISCARDED_BYTES_MAX).is_ok()
            }
            Inbound::Feeding { decoder: Decoder::Length { left }, .. } => left <= DISCARDED_BYTES_MAX,
            Inbound::Announced { .. } | Inbound::Feeding { .. } => false,
            _ => return true,
        };
        if !fits {
            self.inbound = Inbound::Deaf;
        }
        fits
    }

    /// Decodes the front of `input` to the end of `out`, while a body is being fed. Gives the bytes used, and whether the
    /// body is complete.
    pub fn poll_body(&mut self, input: &[u8], out: &mut Vec<u8>, now: Instant) -> Result<(usize, bool), Violation> {
        let (decoder, persistent, pace) = match &mut self.inbound {
            Inbound::Feeding { decoder, persistent, pace } => (decoder, *persistent, pace),
            Inbound::Tunnel => {
                out.extend_from_slice(input);
                return Ok((input.len(), false));
            }
            _ => return Ok((0, false)),
        };
        let before = out.len();
        match decoder.decode(input, out) {
            Ok((used, complete)) => {
                pace.bytes += (out.len() - before) as u64;
                if complete {
                    self.inbound = next_head(persistent, now);
                }
                Ok((used, complete))
            }
            Err(violation) => {
                self.inbound = Inbound::Failed(violation);
                Err(violation)
            }
        }
    }

    /// Whether [`poll_body`](Connection::poll_body) is the one to call.
    pub fn is_feeding(&self) -> bool {
        matches!(self.inbound, Inbound::Feeding { .. } | Inbound::Tunnel)
    }

    /// Nobody takes the fed body at the moment, or somebody does again: the client is not to blame for a pause.
    pub fn pause_body(&mut self, paused: bool, now: Instant) {
        if let Inbound::Feeding { pace, .. } = &mut self.inbound {
            match (paused, pace.paused) {
                (true, None) => pace.paused = Some(now),
                (false, Some(at)) => {
                    pace.since += now.saturating_duration_since(at);
                    pace.paused = None;
                }
                _ => {}
            }
        }
    }

    /// Whether the last request has come to its end, so that what follows may belong to another protocol.
    pub fn may_leave_http(&self) -> bool {
        matches!(self.inbound, Inbound::Head { .. } | Inbound::Ended)
    }

    /// Everything from here on belongs to another protocol.
    pub fn leave_http(&mut self) {
        self.inbound = Inbound::Tunnel;
    }

    /// Nothing more is read, whatever the client may send.
    pub fn end(&mut self) {
        self.inbound = Inbound::Deaf;
    }

    /// Whether the client has sent all that it said it would.
    pub fn is_ended(&self) -> bool {
        matches!(self.inbound, Inbound::Ended)
    }

    /// The answer to the last request has been given: the idle time begins.
    pub fn on_answered(&mut self, now: Instant) {
        if let Inbound::Head { scanned: 0, since, .. } = &mut self.inbound {
            *since = now;
        }
    }

    /// The client is given its time anew: it was kept from sending, or from being heard.
    pub fn restart_clock(&mut self, now: Instant) {
        if let Inbound::Head { since, .. } | Inbound::Buffering { since, .. } = &mut self.inbound {
            *since = now;
        }
    }

    /// Whether nothing of a request has been received.
    pub fn is_idle(&self) -> bool {
        matches!(self.inbound, Inbound::Head { scanned: 0, .. })
    }

    /// Bytes of a request that this connection holds besides its input.
    pub fn buffered_bytes(&self) -> usize {
        match &self.inbound {
            Inbound::Buffering { upload, .. } => upload.head.len() + upload.body.len(),
            _ => 0,
        }
    }

    /// When [`on_deadline`](Connection::on_deadline) has something to say, as long as nothing else comes.
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let body = |since: Instant, bytes: u64| {
            let earned = bytes as f64 / f64::from(limits.body_bytes_per_second_min.max(1));
            Some(since + limits.body_grace + Duration::from_secs_f64(earned))
        };
        match &self.inbound {
            Inbound::Head { scanned: 0, since, .. } => Some(*since + limits.idle_timeout),
            Inbound::Head { since, .. } => Some(*since + limits.head_timeout),
            Inbound::Buffering { upload, since, .. } => body(*since, upload.body.len() as u64),
            Inbound::Feeding { pace: Pace { since, bytes, paused: None }, .. } => body(*since, *bytes),
            Inbound::Announced { since, .. } => body(*since, 0),
            Inbound::Feeding { .. } | Inbound::Tunnel | Inbound::Failed(_) | Inbound::Ended | Inbound::Deaf => None,
        }
    }

    /// What the client did too slowly; `None` when it did nothing at all, which deserves no answer.
    pub fn on_deadline(&mut self) -> Option<Violation> {
        let violation = match self.inbound {
            Inbound::Head { scanned: 0, .. }
            | Inbound::Failed(_)
            | Inbound::Tunnel
            | Inbound::Ended
            | Inbound::Deaf => None,
            Inbound::Head { .. } => Some(Violation::HeadTimeout),
            Inbound::Announced { .. } | Inbound::Buffering { .. } | Inbound::Feeding { .. } => {
                Some(Violation::BodyTimeout)
            }
        };
        self.inbound = violation.map_or(Inbound::Deaf, Inbound::Failed);
        violation
    }
}

/// §2.2: empty lines before a request are ignored.
fn blank_bytes(input: &[u8]) -> usize {
    input.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

/// §9.6: after a request that ends the connection nothing more is processed.
fn next_head(persistent: bool, now: Instant) -> Inbound {
    if persistent { Inbound::Head { blank: 0, scanned: 0, since: now } } else { Inbound::Ended }
}

impl<'b> Head<'b> {
    fn exchange(&self) -> Exchange {
        Exchange { version: self.version, head_only: self.method == Method::Head, persistent: self.persistent }
    }

    #[inline]
    fn request(&self, body: &'b [u8]) -> Request<'b> {
        Request::received(self.method, self.version, self.target, self.headers, body)
    }
}

impl Upload {
    /// The request, from the head that was valid when its body began to arrive.
    pub fn request<'b>(&'b self, slots: &'b mut Slots, limits: &Limits) -> Result<(Request<'b>, Exchange), Violation> {
        let head = Head::parse(&self.head, slots, limits)?.ok_or(Violation::BadHead)?;
        let exchange = head.exchange();
        Ok((head.request(&self.body), exchange))
    }
}

#[cfg(test)]
mod tests;
