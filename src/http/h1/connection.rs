//! The reading side of one connection: bytes and the time in, requests out, one after the other.
//!
//! ```text
//! Head ──whole request in the input──▶ Head ─ … ─▶ Ended     (the request was the last)
//!   │ └──body still to come──▶ Body ──complete──▶ Head
//!   └──────────┴──violation or time──▶ Failed
//! ```
//! A request that is whole in the input is borrowed from it. One whose body is still to come, or in chunks, is copied
//! out as it arrives, within the limits and never more than has arrived. `Failed` and `Ended` stay.

use std::mem;
use std::time::{Duration, Instant};

use super::decode::Decoder;
use super::encode::Exchange;
use super::head::{Framing, Head, Slots};
use super::violation::Violation;
use crate::http::limits::Limits;
use crate::http::request::Request;
use crate::http::types::Method;

#[derive(Debug)]
pub(crate) struct Connection {
    inbound: Inbound,
}

#[derive(Debug)]
enum Inbound {
    Head {
        /// Bytes of the input that hold no complete head.
        scanned: usize,
        /// Since the first byte of the head, or since the last answer.
        since: Instant,
    },
    Body {
        upload: Upload,
        decoder: Decoder,
        since: Instant,
    },
    Failed(Violation),
    Ended,
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
    More {
        used: usize,
    },
    /// The client waits for 100 Continue before it sends the body.
    Continue {
        used: usize,
    },
    Request {
        request: Request<'b>,
        exchange: Exchange,
        used: usize,
    },
    Uploaded {
        upload: Upload,
        used: usize,
    },
    /// The request is refused; nothing after it is read.
    Refused(Violation),
    /// The last request has been taken.
    Ended,
}

impl Connection {
    pub fn new(now: Instant) -> Connection {
        Connection { inbound: Inbound::Head { scanned: 0, since: now } }
    }

    /// Looks for the next request at the front of `input`, which is all that was received and not consumed.
    pub fn poll<'b>(&mut self, input: &'b [u8], slots: &'b mut Slots<'b>, limits: &Limits, now: Instant) -> Poll<'b> {
        let polled = match &mut self.inbound {
            Inbound::Head { .. } => self.poll_head(input, slots, limits, now),
            Inbound::Body { upload, decoder, .. } => match decoder.decode(input, &mut upload.body) {
                Ok((used, false)) => Ok(Poll::More { used }),
                Ok((used, true)) => {
                    let upload = mem::take(upload);
                    self.inbound = next_head(upload.persistent, now);
                    Ok(Poll::Uploaded { upload, used })
                }
                Err(violation) => Err(violation),
            },
            Inbound::Failed(violation) => Err(*violation),
            Inbound::Ended => Ok(Poll::Ended),
        };
        polled.unwrap_or_else(|violation| {
            self.inbound = Inbound::Failed(violation);
            Poll::Refused(violation)
        })
    }

    fn poll_head<'b>(
        &mut self,
        input: &'b [u8],
        slots: &'b mut Slots<'b>,
        limits: &Limits,
        now: Instant,
    ) -> Result<Poll<'b>, Violation> {
        let Inbound::Head { scanned, since } = &mut self.inbound else { return Ok(Poll::Ended) };
        // §2.2: empty lines before a request are ignored.
        let blank = input.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
        let input = &input[blank..];
        if input.is_empty() || (*scanned == 0 && input == b"\r") {
            return Ok(Poll::More { used: blank });
        }
        // Every line but the last has been looked at: parsing again before another one ends would find the same.
        let news = input.get(*scanned..).unwrap_or_default();
        let head = if *scanned == 0 || news.contains(&b'\n') { Head::parse(input, slots, limits)? } else { None };
        let Some(head) = head else {
            if input.len() > limits.head_bytes_max {
                return Err(Violation::HeadTooLarge);
            }
            if input.len() > limits.target_bytes_max && !input.contains(&b'\n') {
                return Err(Violation::TargetTooLong);
            }
            if *scanned == 0 {
                *since = now;
            }
            *scanned = input.len();
            return Ok(Poll::More { used: blank });
        };

        let (body_bytes, decoder) = match head.framing {
            Framing::Length(length) => (usize::try_from(length).ok(), Decoder::Length { left: length }),
            Framing::Chunked => (None, Decoder::chunked(limits.body_bytes_max)),
        };
        if let Framing::Length(length) = head.framing
            && length > limits.body_bytes_max as u64
        {
            return Err(Violation::BodyTooLarge);
        }
        let used = blank + head.len;
        let body = body_bytes.and_then(|bytes| input.get(head.len..head.len.checked_add(bytes)?));
        if let Some(body) = body {
            let exchange = head.exchange();
            self.inbound = next_head(exchange.persistent, now);
            let used = used + body.len();
            return Ok(Poll::Request { request: head.into_request().with_body(body), exchange, used });
        }
        let upload = Upload { head: input[..head.len].to_vec(), body: Vec::new(), persistent: head.persistent };
        self.inbound = Inbound::Body { upload, decoder, since: now };
        if head.expects_continue && input.len() == head.len {
            Ok(Poll::Continue { used })
        } else {
            Ok(Poll::More { used })
        }
    }

    /// The answer to the last request has been given: the idle time begins.
    pub fn on_answered(&mut self, now: Instant) {
        if let Inbound::Head { scanned: 0, since } = &mut self.inbound {
            *since = now;
        }
    }

    /// Whether nothing of a request has been received.
    pub fn is_idle(&self) -> bool {
        matches!(self.inbound, Inbound::Head { scanned: 0, .. })
    }

    /// When [`on_deadline`](Connection::on_deadline) has something to say, as long as nothing else comes.
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match &self.inbound {
            Inbound::Head { scanned: 0, since } => Some(*since + limits.idle_timeout),
            Inbound::Head { since, .. } => Some(*since + limits.head_timeout),
            Inbound::Body { upload, since, .. } => {
                let earned = upload.body.len() as f64 / f64::from(limits.body_bytes_per_second_min.max(1));
                Some(*since + limits.body_grace + Duration::from_secs_f64(earned))
            }
            Inbound::Failed(_) | Inbound::Ended => None,
        }
    }

    /// What the client did too slowly; `None` when it did nothing at all, which deserves no answer.
    pub fn on_deadline(&mut self) -> Option<Violation> {
        let violation = match self.inbound {
            Inbound::Head { scanned: 0, .. } | Inbound::Failed(_) | Inbound::Ended => None,
            Inbound::Head { .. } => Some(Violation::HeadTimeout),
            Inbound::Body { .. } => Some(Violation::BodyTimeout),
        };
        self.inbound = violation.map_or(Inbound::Ended, Inbound::Failed);
        violation
    }
}

/// §9.6: after a request that ends the connection nothing more is processed.
fn next_head(persistent: bool, now: Instant) -> Inbound {
    if persistent { Inbound::Head { scanned: 0, since: now } } else { Inbound::Ended }
}

impl<'b> Head<'b> {
    fn exchange(&self) -> Exchange {
        Exchange { version: self.version, head_only: self.method == Method::Head, persistent: self.persistent }
    }

    fn into_request(self) -> Request<'b> {
        Request::new(self.method, self.target).with_version(self.version).with_headers(self.headers)
    }
}

impl Upload {
    /// The request, from the head that was valid when its body began to arrive.
    pub fn request<'b>(
        &'b self,
        slots: &'b mut Slots<'b>,
        limits: &Limits,
    ) -> Result<(Request<'b>, Exchange), Violation> {
        let head = Head::parse(&self.head, slots, limits)?.ok_or(Violation::BadHead)?;
        let exchange = head.exchange();
        Ok((head.into_request().with_body(&self.body), exchange))
    }
}
