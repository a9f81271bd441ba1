//! One request on one connection: what goes out, what comes back, and until when (RFC 9112).
//!
//! Knows no socket and no clock: bytes and the time are arguments. The two directions are machines of their own, since an
//! answer may come while the request is still on its way.
//!
//! ```text
//! outbound:  Streaming ──last piece──▶ Sent
//! inbound:   Head ──final head──▶ Body ──complete──▶ Done
//!              └──────────┴── fault, or time ──▶ Failed
//! ```
//! `Failed` stays. A connection may take the next request only when both have come to their end, and nothing is left over.

use std::mem;
use std::time::{Duration, Instant};

use super::body::{BodyDecoder, Decoded};
use super::encode::{self, BodyFraming};
use super::error::{AnswerFault, ErrorKind, Phase};
use super::head::{AnswerHead, Head, Kind};
use crate::http::types::Method;

/// Interim answers in front of the final one.
const INTERIM_MAX: u8 = 16;

/// How long things may take. Each phase ends with an error of its own ([`Phase`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The look-up of the name, the connection to each address of it, and the wait for a connection that is free:
    /// each of them. Default 5 s.
    pub connect: Duration,
    /// From the last byte of the request to the end of the answer's head. Default 60 s.
    pub first_byte: Duration,
    /// Between two pieces of the answer, or of the request as the server takes it; not while the answer's own reader
    /// lags, or the request's producer. Default 60 s.
    pub idle: Duration,
    /// From the call to the end of the answer. Default none: a stream may last.
    pub total: Option<Duration>,
}

/// Longer times are taken for this one, so that no sum overflows: ten years.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Timeouts {
    pub(crate) fn bounded(self) -> Timeouts {
        Timeouts {
            connect: self.connect.min(FOREVER),
            first_byte: self.first_byte.min(FOREVER),
            idle: self.idle.min(FOREVER),
            total: self.total.map(|total| total.min(FOREVER)),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let minute = Duration::from_secs(60);
        Timeouts { connect: Duration::from_secs(5), first_byte: minute, idle: minute, total: None }
    }
}

/// What an exchange must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub method: Method,
    /// The body that follows what is written at the beginning.
    pub body_to_come: BodyFraming,
    pub timeouts: Timeouts,
    /// When all must be over.
    pub end: Option<Instant>,
    pub head_bytes_max: usize,
    pub body_bytes_max: u64,
    /// The connection has served a request before, and may have been closed meanwhile by a server that grew tired of it.
    pub reused: bool,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    terms: Terms,
    outbound: Outbound,
    inbound: Inbound,
    /// When bytes last moved.
    moved: Instant,
    /// Bytes of the request that the kernel has not taken.
    unsent_bytes: usize,
    /// The reader of the answer lags: nothing is taken from the server meanwhile.
    paused: bool,
    /// The server has sent something.
    heard: bool,
}

#[derive(Debug)]
enum Outbound {
    /// More of the body is to come; with a declared length, so many bytes.
    Streaming {
        left: Option<u64>,
    },
    Sent,
}

#[derive(Debug)]
enum Inbound {
    Head {
        /// Bytes of the input that hold no complete head.
        scanned: usize,
        interim: u8,
    },
    Body {
        decoder: BodyDecoder,
        persistent: bool,
    },
    Done {
        persistent: bool,
    },
    Failed(ErrorKind),
}

/// What the input held. The caller consumes `used` bytes of it in each case.
#[derive(Debug)]
pub(crate) struct Polled {
    pub used: usize,
    pub event: Event,
}

#[derive(Debug)]
pub(crate) enum Event {
    /// Nothing complete yet.
    More,
    Head(AnswerHead),
    /// Bytes were added to the body.
    Data,
    /// The body is complete; what was added to it is the last.
    End,
}

/// Up to here, reading a head costs less than receiving a packet.
const SMALL_HEAD_BYTES: usize = 1024;

impl Exchange {
    /// Begins when the head of the request, and what else is there of it, waits in the output with so many bytes.
    pub fn new(terms: Terms, unsent_bytes: usize, now: Instant) -> Exchange {
        let outbound = match terms.body_to_come {
            BodyFraming::Chunked => Outbound::Streaming { left: None },
            BodyFraming::Length(bytes @ 1..) => Outbound::Streaming { left: Some(bytes) },
            BodyFraming::Length(0) | BodyFraming::Empty => Outbound::Sent,
        };
        let inbound = Inbound::Head { scanned: 0, interim: 0 };
        Exchange { terms, outbound, inbound, moved: now, unsent_bytes, paused: false, heard: false }
    }

    /// Writes a piece of the request's body to `out`.
    ///
    /// # Errors
    /// The piece goes past the declared length. The server must not take the request for complete: close.
    pub fn send_piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), ErrorKind> {
        let before = out.len();
        match &mut self.outbound {
            _ if piece.is_empty() => {}
            Outbound::Streaming { left: None } => encode::chunk(out, piece),
            Outbound::Streaming { left: Some(left) } if piece.len() as u64 <= *left => {
                *left -= piece.len() as u64;
                out.extend_from_slice(piece);
                if *left == 0 {
                    self.outbound = Outbound::Sent;
                }
            }
            Outbound::Streaming { .. } | Outbound::Sent => return Err(self.fail(ErrorKind::RequestBody)),
        }
        self.unsent_bytes += out.len() - before;
        Ok(())
    }

    /// Ends the request's body.
    ///
    /// # Errors
    /// Less was sent than was declared. The server must not take the request for complete: close.
    pub fn send_end(&mut self, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
        match &self.outbound {
            Outbound::Streaming { left: None } => {
                out.extend_from_slice(encode::LAST_CHUNK);
                self.outbound = Outbound::Sent;
                self.unsent_bytes += encode::LAST_CHUNK.len();
                Ok(())
            }
            Outbound::Streaming { left: Some(_) } => Err(self.fail(ErrorKind::RequestBody)),
            Outbound::Sent => Ok(()),
        }
    }

    fn fail(&mut self, kind: ErrorKind) -> ErrorKind {
        self.inbound = Inbound::Failed(kind.clone());
        kind
    }

    /// The kernel has taken all of the output but so many bytes.
    pub fn on_flushed(&mut self, unsent_bytes: usize, now: Instant) {
        if unsent_bytes < self.unsent_bytes {
            self.moved = now;
        }
        self.unsent_bytes = unsent_bytes;
    }

    /// The reader of the answer lags, or does so no longer: meanwhile no time counts against the server.
    pub fn set_paused(&mut self, paused: bool, now: Instant) {
        if mem::replace(&mut self.paused, paused) && !paused {
            self.moved = now;
        }
    }

    /// Reads the front of `input`, which is all that was received and not consumed; `ended` is whether the server has
    /// finished sending. Decoded bytes go to the end of `body`. To be called again until it gives
    /// [`More`](Event::More) or [`End`](Event::End).
    pub fn poll(&mut self, input: &[u8], ended: bool, body: &mut Vec<u8>, now: Instant) -> Result<Polled, ErrorKind> {
        self.heard |= !input.is_empty();
        let polled = match &self.inbound {
            Inbound::Head { .. } => self.poll_head(input, ended, now),
            Inbound::Body { .. } => self.poll_body(input, ended, body, now),
            Inbound::Done { .. } => Ok(Polled { used: 0, event: Event::End }),
            Inbound::Failed(kind) => Err(kind.clone()),
        };
        polled.map_err(|kind| self.fail(kind))
    }

    fn poll_head(&mut self, input: &[u8], ended: bool, now: Instant) -> Result<Polled, ErrorKind> {
        let Inbound::Head { scanned, interim } = &mut self.inbound else { return Err(ErrorKind::Closed) };
        // A small head is read again whenever more of it comes, so that what is wrong is known at once. Of a large one every
        // line but the last has been looked at: before another one ends there is little to find.
        let news = input.get(*scanned..).unwrap_or_default();
        let small = input.len() <= SMALL_HEAD_BYTES;
        let look = small || news.contains(&b'\n') || input.len() > self.terms.head_bytes_max || ended;
        let head = if look && !input.is_empty() {
            Head::parse(input, self.terms.method, self.terms.head_bytes_max).map_err(ErrorKind::Protocol)?
        } else {
            None
        };
        match head {
            None if ended => Err(ErrorKind::Closed),
            None => {
                *scanned = input.len();
                Ok(Polled { used: 0, event: Event::More })
            }
            Some(Head { kind: Kind::Interim, len }) => {
                (*scanned, *interim) = (0, *interim + 1);
                if *interim > INTERIM_MAX {
                    return Err(ErrorKind::Protocol(AnswerFault::TooManyInterim));
                }
                self.moved = now;
                let rest = input.get(len..).unwrap_or_default();
                let polled = self.poll_head(rest, ended, now)?;
                Ok(Polled { used: len + polled.used, event: polled.event })
            }
            Some(Head { kind: Kind::Final(head), len }) => {
                let decoder = BodyDecoder::new(head.framing, self.terms.body_bytes_max)?;
                self.inbound = Inbound::Body { decoder, persistent: head.persistent };
                self.moved = now;
                Ok(Polled { used: len, event: Event::Head(head) })
            }
        }
    }

    fn poll_body(&mut self, input: &[u8], ended: bool, body: &mut Vec<u8>, now: Instant) -> Result<Polled, ErrorKind> {
        let Inbound::Body { decoder, persistent } = &mut self.inbound else { return Err(ErrorKind::Closed) };
        let Decoded { used, complete } = decoder.decode(input, ended, body)?;
        if used > 0 {
            self.moved = now;
        }
        let event = match (complete, used) {
            (true, _) => {
                self.inbound = Inbound::Done { persistent: *persistent };
                Event::End
            }
            (false, 0) => Event::More,
            (false, _) => Event::Data,
        };
        Ok(Polled { used, event })
    }

    /// Whether the connection may take another request, given that nothing is left of its input and it has not ended.
    pub fn is_reusable(&self) -> bool {
        matches!(self.inbound, Inbound::Done { persistent: true }) && self.is_sent()
    }

    /// Whether the whole request has gone out.
    pub fn is_sent(&self) -> bool {
        matches!(self.outbound, Outbound::Sent) && self.unsent_bytes == 0
    }

    /// Whether the same request may be sent again on a fresh connection after this failure: the server closed an old
    /// connection without a byte of an answer, and doing it twice is the same as doing it once (RFC 9110 §9.2.2).
    pub fn may_retry(&self, failure: &ErrorKind) -> bool {
        self.terms.reused && !self.heard && *failure == ErrorKind::Closed && is_idempotent(self.terms.method)
    }

    /// When [`on_deadline`](Exchange::on_deadline) has something to say, as long as nothing moves.
    pub fn deadline(&self) -> Option<Instant> {
        let phase = self.waits_for().map(|(_, time)| self.moved + time);
        [phase, self.terms.end].into_iter().flatten().min()
    }

    /// What took too long at `now`; `None` when the deadline has moved meanwhile.
    pub fn on_deadline(&mut self, now: Instant) -> Option<ErrorKind> {
        let phase = match self.waits_for() {
            _ if self.terms.end.is_some_and(|end| end <= now) => Phase::Total,
            Some((phase, time)) if self.moved + time <= now => phase,
            _ => return None,
        };
        Some(self.fail(ErrorKind::Timeout(phase)))
    }

    /// What the server is to do next, and how long it may take; `None` when it is our turn.
    fn waits_for(&self) -> Option<(Phase, Duration)> {
        match (&self.inbound, &self.outbound) {
            (Inbound::Done { .. } | Inbound::Failed(_), _) => None,
            (Inbound::Body { .. }, _) if self.paused => None,
            (_, _) if self.unsent_bytes > 0 => Some((Phase::Send, self.terms.timeouts.idle)),
            // The server may well wait for the rest of the request.
            (_, Outbound::Streaming { .. }) => None,
            (Inbound::Head { .. }, Outbound::Sent) => Some((Phase::FirstByte, self.terms.timeouts.first_byte)),
            (Inbound::Body { .. }, Outbound::Sent) => Some((Phase::Idle, self.terms.timeouts.idle)),
        }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: Method) -> bool {
    !matches!(method, Method::Post | Method::Patch | Method::Connect)
}

#[cfg(test)]
mod tests;
