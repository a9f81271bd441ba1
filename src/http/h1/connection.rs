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
        /// Bytes of the input that were read and hold no complete head.
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
    pub fn poll<'b>(&mut self, input: &'b [u8], slots: &'b mut Slots, limits: &Limits, now: Instant) -> Poll<'b> {
        let polled = match &self.inbound {
            Inbound::Head { .. } => self.poll_head(input, slots, limits, now),
            Inbound::Body { .. } => self.poll_body(input, 0, now),
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
        slots: &'b mut Slots,
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
        if *scanned == 0 {
            *since = now;
        }
        if !Head::is_due(input, *scanned, limits) {
            return Ok(Poll::More { used: blank });
        }
        let Some(head) = Head::parse(input, slots, limits)? else {
            *scanned = input.len();
            return Ok(Poll::More { used: blank });
        };

        let (body_bytes, decoder) = match head.framing {
            Framing::Length(length) => (usize::try_from(length).ok(), Decoder::Length { left: length }),
            Framing::Chunked => (None, Decoder::chunked(limits.body_bytes_max, limits.chunk_overhead_bytes_max)),
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
            return Ok(Poll::Continue { used });
        }
        self.poll_body(&input[head.len..], used, now)
    }

    /// Takes the body from the front of `input`, behind `before` bytes that are used already.
    fn poll_body<'b>(&mut self, input: &[u8], before: usize, now: Instant) -> Result<Poll<'b>, Violation> {
        let Inbound::Body { upload, decoder, .. } = &mut self.inbound else { return Ok(Poll::Ended) };
        let (used, complete) = decoder.decode(input, &mut upload.body)?;
        let used = before + used;
        if !complete {
            return Ok(Poll::More { used });
        }
        let upload = mem::take(upload);
        self.inbound = next_head(upload.persistent, now);
        Ok(Poll::Uploaded { upload, used })
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
    pub fn request<'b>(&'b self, slots: &'b mut Slots, limits: &Limits) -> Result<(Request<'b>, Exchange), Violation> {
        let head = Head::parse(&self.head, slots, limits)?.ok_or(Violation::BadHead)?;
        let exchange = head.exchange();
        Ok((head.into_request().with_body(&self.body), exchange))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::corpus::{self, Case};
    use std::collections::HashSet;

    /// Small ones, which the corpus counts on.
    fn limits() -> Limits {
        Limits {
            target_bytes_max: 200,
            head_bytes_max: 1000,
            headers_max: 30,
            body_bytes_max: 100,
            chunk_overhead_bytes_max: 500,
            ..Limits::default()
        }
    }

    /// A connection with the input that a test has given it.
    struct Driver {
        connection: Connection,
        input: Vec<u8>,
        events: Vec<String>,
        now: Instant,
    }

    impl Driver {
        fn new() -> Driver {
            let now = Instant::now();
            Driver { connection: Connection::new(now), input: Vec::new(), events: Vec::new(), now }
        }

        fn receive(&mut self, bytes: &[u8]) {
            self.input.extend_from_slice(bytes);
            loop {
                let (mut slots, mut again) = (Slots::new(), Slots::new());
                let used = match self.connection.poll(&self.input, &mut slots, &limits(), self.now) {
                    Poll::More { used } => {
                        self.input.drain(..used);
                        return;
                    }
                    Poll::Continue { used } => {
                        self.events.push("continue".into());
                        used
                    }
                    Poll::Request { request, exchange, used } => {
                        self.events.push(describe(&request, exchange));
                        used
                    }
                    Poll::Uploaded { upload, used } => {
                        let (request, exchange) = upload.request(&mut again, &limits()).unwrap();
                        self.events.push(describe(&request, exchange));
                        used
                    }
                    Poll::Refused(violation) => {
                        let refused = format!("{} {violation:?}", violation.status().code());
                        // A violation stays, so it is noted once.
                        if self.events.last() != Some(&refused) {
                            self.events.push(refused);
                        }
                        return;
                    }
                    Poll::Ended => return,
                };
                self.input.drain(..used);
            }
        }
    }

    fn describe(request: &Request<'_>, exchange: Exchange) -> String {
        let query = request.query_string().map_or(String::new(), |query| format!("?{query}"));
        let body = str::from_utf8(request.body()).unwrap();
        let close = if exchange.persistent { "" } else { " close" };
        format!("{} {}{query} {body:?}{close}", request.method(), request.path())
    }

    #[track_caller]
    fn check(name: &str, input: &[u8], expected: &[String]) {
        for at in 0..=input.len() {
            let mut driver = Driver::new();
            driver.receive(&input[..at]);
            driver.receive(&input[at..]);
            assert_eq!(driver.events, expected, "{name}, split at {at}");
        }
        let mut driver = Driver::new();
        input.iter().for_each(|byte| driver.receive(&[*byte]));
        assert_eq!(driver.events, expected, "{name}, byte by byte");
    }

    /// What comes out when the input comes at once.
    fn events(input: &[u8]) -> Vec<String> {
        let mut driver = Driver::new();
        driver.receive(input);
        driver.events
    }

    /// What the corpus holds is true wherever a case is cut; what is cut off gives no more than the whole; and a case
    /// that has ended its connection is not followed by anything.
    #[test]
    fn the_corpus_at_every_split() {
        let directory = format!("{}/tests/data/h1", env!("CARGO_MANIFEST_DIR"));
        let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut names = HashSet::new();
        for file in ["valid.txt", "refused.txt", "limits.txt"] {
            for Case { name, rule, input, events: expected } in corpus::read(&directory, file) {
                check(&name, &input, &expected);
                for length in 0..input.len() {
                    let seen = events(&input[..length]);
                    assert!(expected.starts_with(&seen), "{name}, cut off at {length}: {seen:?}");
                }
                let last = expected.last().map_or("", String::as_str);
                let closes = last.ends_with(" close") || last.starts_with(|c: char| c.is_ascii_digit());
                assert!(closes || file != "refused.txt", "{name} is not refused");
                if closes {
                    assert_eq!(events(&[&input[..], next].concat()), expected, "{name}, with a request behind it");
                }
                assert!(rule.starts_with("RFC "), "{name} has no rule");
                assert!(names.insert(name.clone()), "two cases are called {name}");
            }
        }
        assert!(names.len() > 300, "only {} cases were found", names.len());
    }

    #[test]
    fn a_client_that_waits_is_told_to_continue_and_one_that_does_not_is_not() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
        let mut waits = Driver::new();
        waits.receive(head);
        assert_eq!(waits.events, ["continue"]);
        waits.receive(b"ok");
        assert_eq!(waits.events, ["continue", "POST / \"ok\""]);
        for behind in ["o", "ok"] {
            let mut driver = Driver::new();
            driver.receive(&[head, behind.as_bytes()].concat());
            driver.receive(&b"ok"[behind.len()..]);
            assert_eq!(driver.events, ["POST / \"ok\""]);
        }
    }

    #[test]
    fn every_stage_has_its_deadline() {
        let limits = limits();
        let mut driver = Driver::new();
        let start = driver.now;
        let deadline = |driver: &Driver| driver.connection.deadline(&limits).map(|at| at - start);
        assert_eq!(deadline(&driver), Some(limits.idle_timeout));

        driver.now += Duration::from_secs(5);
        driver.receive(b"GET / HT");
        driver.now += Duration::from_secs(5);
        driver.receive(b"TP/1.1\r\nHost: a\r\nX");
        assert_eq!(deadline(&driver), Some(Duration::from_secs(5) + limits.head_timeout), "from the first byte on");

        driver.receive(b": y\r\n\r\n");
        assert_eq!(deadline(&driver), Some(Duration::from_secs(10) + limits.idle_timeout));
        driver.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
        assert_eq!(deadline(&driver), Some(Duration::from_secs(10) + limits.body_grace));
        driver.receive(&[b'x'; 64]);
        let earned = Duration::from_millis(250);
        assert_eq!(deadline(&driver), Some(Duration::from_secs(10) + limits.body_grace + earned), "64 bytes at 256/s");

        assert_eq!(driver.connection.on_deadline(), Some(Violation::BodyTimeout));
        driver.receive(b"x");
        assert_eq!(driver.events.last().unwrap(), "408 BodyTimeout");
        assert_eq!(deadline(&driver), None);
    }

    #[test]
    fn an_idle_connection_ends_without_a_word() {
        let mut driver = Driver::new();
        driver.receive(b"\r\n\r");
        assert!(driver.connection.is_idle());
        assert_eq!(driver.connection.on_deadline(), None);
        driver.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(driver.events, Vec::<String>::new());
    }
}
