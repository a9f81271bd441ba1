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

/// The same corpus comes out of a connection that is fed its bodies.
fn fed(input: &[u8], at: usize) -> Vec<String> {
    let now = Instant::now();
    let (mut connection, mut held, mut events) = (Connection::new(now), Vec::new(), Vec::<String>::new());
    let mut line = String::new();
    let mut body = Vec::new();
    for part in [&input[..at], &input[at..]] {
        held.extend_from_slice(part);
        loop {
            if connection.is_feeding() {
                let polled = connection.poll_body(&held, &mut body, now);
                let (used, complete) = match polled {
                    Ok(polled) => polled,
                    Err(_) => continue,
                };
                held.drain(..used);
                if !complete {
                    break;
                }
                let text = String::from_utf8(mem::take(&mut body)).unwrap();
                events.push(mem::take(&mut line).replace("\"\"", &format!("{text:?}")));
            }
            let mut slots = Slots::default();
            let used = match connection.poll(&held, &mut slots, &limits(), now) {
                Poll::More { used } => {
                    held.drain(..used);
                    break;
                }
                Poll::Announced { request, exchange, used, .. } => {
                    line = describe(&request, exchange);
                    let _ = connection.feed_body(limits().body_bytes_max as u64);
                    used
                }
                Poll::Request { request, exchange, used } => {
                    events.push(describe(&request, exchange));
                    used
                }
                Poll::Refused(violation) => {
                    let refused = format!("{} {violation:?}", violation.status().code());
                    if events.last() != Some(&refused) {
                        events.push(refused);
                    }
                    break;
                }
                Poll::Uploaded { .. } | Poll::Ended => break,
            };
            held.drain(..used);
        }
    }
    events
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
            let (mut slots, mut again) = (Slots::default(), Slots::default());
            let used = match self.connection.poll(&self.input, &mut slots, &limits(), self.now) {
                Poll::More { used } => {
                    self.input.drain(..used);
                    return;
                }
                Poll::Announced { body, used, .. } => {
                    if body.expects_continue {
                        self.events.push("continue".into());
                    }
                    // What the body is refused for shows at the next look.
                    let _ = self.connection.buffer_body(&self.input[..used], limits().body_bytes_max);
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
        assert_eq!(fed(input, at), expected, "{name}, fed, split at {at}");
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
            let refused = last.starts_with(|first: char| first.is_ascii_digit());
            if refused || last.ends_with(" close") {
                assert_eq!(events(&[&input[..], next].concat()), expected, "{name}, with a request behind it");
            }
            assert!(refused || file != "refused.txt", "{name} is not refused");
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
