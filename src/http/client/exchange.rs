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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn terms(method: Method, framing: BodyFraming) -> Terms {
        let timeouts = Timeouts { connect: SECOND, first_byte: 2 * SECOND, idle: 3 * SECOND, total: None };
        Terms {
            method,
            body_to_come: framing,
            timeouts,
            end: None,
            head_bytes_max: 1000,
            body_bytes_max: 100,
            reused: true,
        }
    }

    /// A connection that has sent its request, with the input that a test has given it.
    struct Driver {
        exchange: Exchange,
        input: Vec<u8>,
        seen: String,
        now: Instant,
    }

    impl Driver {
        fn new(terms: Terms) -> Driver {
            let now = Instant::now();
            let mut exchange = Exchange::new(terms, 10, now);
            exchange.on_flushed(0, now);
            Driver { exchange, input: Vec::new(), seen: String::new(), now }
        }

        /// Notes what comes of `bytes`: `200`, the body, then `end`, `end close` or the error.
        fn receive(&mut self, bytes: &[u8], ended: bool) {
            self.input.extend_from_slice(bytes);
            loop {
                let mut body = Vec::new();
                let polled = self.exchange.poll(&self.input, ended, &mut body, self.now);
                self.seen.push_str(str::from_utf8(&body).unwrap());
                match polled {
                    Ok(Polled { used, event }) => {
                        self.input.drain(..used);
                        match event {
                            Event::More => return,
                            Event::Data => {}
                            Event::Head(head) => self.seen.push_str(&format!("{} ", head.status.code())),
                            Event::End if self.seen.ends_with(['!', '?']) => return,
                            Event::End if self.exchange.is_reusable() => self.seen.push('!'),
                            Event::End => self.seen.push('?'),
                        }
                    }
                    Err(kind) => {
                        let error = format!(" {kind:?}");
                        if !self.seen.ends_with(&error) {
                            self.seen.push_str(&error);
                        }
                        return;
                    }
                }
            }
        }
    }

    /// `!` is an end after which the connection may be used again, `?` one after which it may not.
    #[track_caller]
    fn check(terms: &Terms, input: &[u8], expected: &str) {
        for at in 0..=input.len() {
            let mut driver = Driver::new(terms.clone());
            driver.receive(&input[..at], false);
            driver.receive(&input[at..], false);
            driver.receive(b"", true);
            assert_eq!(driver.seen, expected, "{:?} split at {at}", String::from_utf8_lossy(input));
        }
        let mut driver = Driver::new(terms.clone());
        input.iter().for_each(|byte| driver.receive(&[*byte], false));
        driver.receive(b"", true);
        assert_eq!(driver.seen, expected, "{:?} byte by byte", String::from_utf8_lossy(input));
    }

    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n";
    const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nhello";

    #[test]
    fn answers_at_every_split() {
        let get = terms(Method::Get, BodyFraming::Empty);
        let continued = |count| "HTTP/1.1 100 Continue\r\n\r\n".repeat(count);
        for (input, expected) in [
            (LENGTH.into(), "200 hello!"),
            (CHUNKED.into(), "200 hello!"),
            (UNTIL_CLOSE.into(), "200 hello?"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(), "200 !"),
            ("HTTP/1.1 204 No Content\r\n\r\n".into(), "204 !"),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".into(), "304 !"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".into(), "200 hi?"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".into(), "200 hi?"),
            (continued(16) + LENGTH, "200 hello!"),
            (continued(17) + LENGTH, " Protocol(TooManyInterim)"),
            (continued(1), " Closed"),
            ("".into(), " Closed"),
            ("\x16\x03\x01".into(), " Protocol(BadHead)"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n".into(), " TooLarge { bytes_max: 100 }"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\nX".into(), "200 a Protocol(BadChunk)"),
        ] {
            check(&get, input.as_bytes(), expected);
        }
        check(&terms(Method::Head, BodyFraming::Empty), &LENGTH.as_bytes()[..LENGTH.len() - 5], "200 !");
    }

    /// What is left behind an answer was not asked for: it stays in the input, and the caller sees it there.
    #[test]
    fn bytes_behind_an_answer_are_left_alone() {
        for answer in [LENGTH, CHUNKED] {
            let mut driver = Driver::new(terms(Method::Get, BodyFraming::Empty));
            driver.receive(&[answer, "HTTP/1.1 200"].concat().into_bytes(), false);
            assert_eq!((&*driver.seen, &*driver.input), ("200 hello!", &b"HTTP/1.1 200"[..]));
        }
    }

    #[test]
    fn an_answer_that_is_cut_is_never_complete() {
        for answer in [LENGTH, CHUNKED] {
            for at in 0..answer.len() {
                let mut driver = Driver::new(terms(Method::Get, BodyFraming::Empty));
                driver.receive(&answer.as_bytes()[..at], true);
                assert!(driver.seen.ends_with(" Closed"), "{at}: {}", driver.seen);
            }
        }
    }

    /// Whatever bytes come, and however they are cut, the outcome is the same and the body stays within its bound.
    #[test]
    fn mutated_answers_have_one_outcome() {
        let mut ends = 0;
        for seed in 1..4000u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |bound: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as usize % bound
            };
            let mut input = [LENGTH, CHUNKED, UNTIL_CLOSE][next(3)].as_bytes().to_vec();
            for _ in 0..1 + next(3) {
                let at = next(input.len().max(1));
                match next(4) {
                    _ if input.is_empty() => {}
                    0 => input[at] = b"\r\n \t:;,0159afZ\0\x7f-"[next(17)],
                    1 => input.insert(at, b"\r\n 0:,"[next(6)]),
                    2 => drop(input.remove(at)),
                    _ => input.truncate(at + 1),
                }
            }
            let get = terms(Method::Get, BodyFraming::Empty);
            let mut whole = Driver::new(get.clone());
            whole.receive(&input, false);
            whole.receive(b"", true);
            let mut cut = Driver::new(get);
            let mut rest = &input[..];
            while !rest.is_empty() {
                let (part, after) = rest.split_at(1 + next(rest.len()));
                cut.receive(part, false);
                rest = after;
            }
            cut.receive(b"", true);
            assert_eq!(whole.seen, cut.seen, "seed {seed}: {:?}", String::from_utf8_lossy(&input));
            assert!(whole.seen.len() < 200, "seed {seed}: {}", whole.seen);
            ends += u32::from(whole.seen.ends_with(['!', '?']));
        }
        assert!(ends > 100, "only {ends} answers survived: the test tests little");
    }

    #[test]
    fn request_bodies_keep_their_length() {
        for (framing, pieces, expected) in [
            (BodyFraming::Chunked, &["he", "", "llo"][..], Ok("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")),
            (BodyFraming::Chunked, &[], Ok("0\r\n\r\n")),
            (BodyFraming::Length(5), &["he", "", "llo"], Ok("hello")),
            (BodyFraming::Length(5), &["he", "ll"], Err(ErrorKind::RequestBody)),
            (BodyFraming::Length(5), &["hello", "!"], Err(ErrorKind::RequestBody)),
            (BodyFraming::Length(5), &["hello!"], Err(ErrorKind::RequestBody)),
            (BodyFraming::Length(0), &[], Ok("")),
            (BodyFraming::Length(0), &["x"], Err(ErrorKind::RequestBody)),
        ] {
            let (mut driver, mut out) = (Driver::new(terms(Method::Post, framing)), Vec::new());
            let sent = pieces.iter().try_for_each(|piece| driver.exchange.send_piece(piece.as_bytes(), &mut out));
            let sent = sent.and_then(|()| driver.exchange.send_end(&mut out)).map(|()| str::from_utf8(&out).unwrap());
            assert_eq!(sent, expected, "{framing:?} {pieces:?}");
            assert!(expected.is_err() || matches!(driver.exchange.outbound, Outbound::Sent));
        }
    }

    #[test]
    fn an_answer_before_the_end_of_the_request_ends_the_connection() {
        let mut driver = Driver::new(terms(Method::Post, BodyFraming::Chunked));
        driver.receive(LENGTH.as_bytes(), false);
        assert_eq!(driver.seen, "200 hello?");
        let mut driver = Driver::new(terms(Method::Post, BodyFraming::Length(1)));
        driver.exchange.send_piece(b"x", &mut Vec::new()).unwrap();
        driver.receive(LENGTH.as_bytes(), false);
        assert_eq!(driver.seen, "200 hello?", "the kernel has not taken the request");
    }

    #[test]
    fn only_what_is_safe_is_retried() {
        let cases = [
            (Method::Get, true, "", ErrorKind::Closed, true),
            (Method::Put, true, "", ErrorKind::Closed, true),
            (Method::Delete, true, "", ErrorKind::Closed, true),
            (Method::Post, true, "", ErrorKind::Closed, false),
            (Method::Patch, true, "", ErrorKind::Closed, false),
            (Method::Get, false, "", ErrorKind::Closed, false),
            (Method::Get, true, "H", ErrorKind::Closed, false),
            (Method::Get, true, "HTTP/1.1 100 x\r\n\r\n", ErrorKind::Closed, false),
            (Method::Get, true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ErrorKind::Closed, false),
            (Method::Get, true, "", ErrorKind::Timeout(Phase::FirstByte), false),
        ];
        for (method, reused, input, kind, expected) in cases {
            let mut driver = Driver::new(Terms { reused, ..terms(method, BodyFraming::Empty) });
            driver.receive(input.as_bytes(), false);
            driver.receive(b"", true);
            assert_eq!(driver.exchange.may_retry(&kind), expected, "{method} {reused} {input:?} {kind:?}");
        }
    }

    #[test]
    fn each_phase_has_its_time() {
        let start = Instant::now();
        let at = |seconds| start + seconds * SECOND;
        let timeout = |phase| Some(ErrorKind::Timeout(phase));

        // Nothing is taken, then a part, then all, then nothing comes.
        let mut exchange = Exchange::new(terms(Method::Get, BodyFraming::Empty), 10, start);
        assert_eq!(exchange.deadline(), Some(at(3)));
        exchange.on_flushed(5, at(1));
        exchange.on_flushed(5, at(2));
        assert_eq!(exchange.deadline(), Some(at(4)));
        assert_eq!(exchange.on_deadline(at(3)), None);
        exchange.on_flushed(0, at(2));
        assert_eq!(exchange.deadline(), Some(at(4)));
        assert_eq!(exchange.on_deadline(at(4)), timeout(Phase::FirstByte));
        assert_eq!((exchange.deadline(), exchange.on_deadline(at(9))), (None, None));
        assert!(exchange.poll(LENGTH.as_bytes(), false, &mut Vec::new(), at(9)).is_err(), "a failure stays");

        let mut stuck = Exchange::new(terms(Method::Get, BodyFraming::Empty), 10, start);
        assert_eq!(stuck.on_deadline(at(3)), timeout(Phase::Send));

        // The producer of the request is slow, the reader of the answer too, then the server.
        let mut exchange = Exchange::new(terms(Method::Post, BodyFraming::Chunked), 10, start);
        exchange.on_flushed(0, at(1));
        assert_eq!(exchange.deadline(), None);
        exchange.send_piece(b"x", &mut Vec::new()).unwrap();
        exchange.on_flushed(0, at(10));
        exchange.send_end(&mut Vec::new()).unwrap();
        exchange.on_flushed(0, at(20));
        assert_eq!(exchange.deadline(), Some(at(22)));
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert!(exchange.poll(head, false, &mut Vec::new(), at(21)).is_ok());
        assert_eq!(exchange.deadline(), Some(at(24)));
        exchange.set_paused(true, at(22));
        assert_eq!(exchange.deadline(), None);
        exchange.set_paused(false, at(50));
        assert_eq!(exchange.deadline(), Some(at(53)));
        assert!(exchange.poll(b"he", false, &mut Vec::new(), at(51)).is_ok());
        assert_eq!(exchange.on_deadline(at(53)), None);
        assert_eq!(exchange.on_deadline(at(54)), timeout(Phase::Idle));

        // All of it together.
        let total = Terms { end: Some(at(5)), ..terms(Method::Post, BodyFraming::Chunked) };
        let mut exchange = Exchange::new(total, 10, start);
        exchange.on_flushed(0, at(1));
        assert_eq!(exchange.deadline(), Some(at(5)));
        assert_eq!(exchange.on_deadline(at(5)), timeout(Phase::Total));
    }
}
