//! One line for each answer, when it has left or its client has.
//!
//! ```text
//! 192.0.2.7:51234 "GET /items?limit=5 HTTP/1.1" 0c5a… 200 1532 843us
//! peer, request line, request id or -, status, bytes of the body, time; and `cut` when it is incomplete
//! ```
//!
//! The peer is the other end of the connection: behind a proxy that is the proxy. Time runs from the moment when the
//! request is there with its body (with its head, for streamed routes) to the end of its answer. A later answer whose
//! client left before it began has the status 499. What passes no layer has no line: bytes that are not HTTP.

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request_id::REQUEST_ID;
use crate::http::middleware::Next;
use crate::http::reply::{Done, Reply};
use crate::http::request::Request;
use crate::http::types::Version;

/// How many lines a thread keeps for their memory; more are in work only while many answers are still to come.
const SPARE_LINES_MAX: usize = 64;

/// A line that grew larger than this is not kept.
const SPARE_LINE_BYTES_MAX: usize = 4 << 10;

/// Writes a line for each answer to the log, target `access`, level info. Nothing is done while that is off.
///
/// The layer added first is the outermost: this goes in front of those whose answers it should see. What a client sent
/// is in the line in a form that cannot break it: control characters, `"`, `\` and bytes over 0x7e as `\xHH`.
pub fn access_log() -> impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static {
    let layer = access_log_to(|line| log::info!(target: "access", "{line}"));
    move |request, next| match log::log_enabled!(target: "access", log::Level::Info) {
        true => layer(request, next),
        false => next.run(request),
    }
}

/// Gives each line, without a line break, to `sink`: on the event loop, so it should not wait.
///
/// ```
/// use sconce::http::layers::access_log_to;
/// use sconce::http::{Request, Router};
///
/// let router = Router::new().layer(access_log_to(|line| println!("{line}"))).get("/", |_: &Request<'_>| "hello");
/// ```
pub fn access_log_to(
    sink: impl Fn(&str) + Send + Sync + 'static,
) -> impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static {
    let sink = Arc::new(sink);
    move |request, next| {
        let start = Instant::now();
        let mut line = Line::new();
        line.push_request(request);
        let reply = next.run(request);
        // The layer that gives ids may be within this one or around it.
        line.push_id(reply.header_value(REQUEST_ID).or_else(|| request.header(REQUEST_ID)));
        let sink = Arc::clone(&sink);
        reply.on_done(move |done| {
            line.push_answer(done, start.elapsed());
            sink(&line.0);
        })
    }
}

thread_local! {
    static SPARE_LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A line in the making. Its memory comes from the thread that begins it, and goes to the one that ends it: for an event
/// loop that is the same.
struct Line(String);

impl Line {
    fn new() -> Line {
        Line(SPARE_LINES.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    fn push_request(&mut self, request: &Request<'_>) {
        let version = match request.version() {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        };
        // Writing to a string does not fail.
        let _ = write!(self.0, "{} \"{} ", request.peer(), request.method());
        self.push_escaped(request.path());
        if let Some(query) = request.query_string() {
            self.0.push('?');
            self.push_escaped(query);
        }
        let _ = write!(self.0, " {version}\"");
    }

    fn push_id(&mut self, id: Option<&str>) {
        self.0.push(' ');
        self.push_escaped(id.filter(|id| !id.is_empty()).unwrap_or("-"));
    }

    fn push_answer(&mut self, done: &Done, took: Duration) {
        let _ = write!(self.0, " {} {} {}us", done.status.code(), done.body_bytes, took.as_micros());
        if !done.complete {
            self.0.push_str(" cut");
        }
    }

    /// Bytes that could end the line or the quotes, or mean something to a terminal, as `\xHH`.
    fn push_escaped(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                b' '..=b'~' if byte != b'"' && byte != b'\\' => self.0.push(char::from(byte)),
                _ => {
                    let _ = write!(self.0, "\\x{byte:02x}");
                }
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut line = std::mem::take(&mut self.0);
        if line.capacity() > SPARE_LINE_BYTES_MAX {
            return;
        }
        line.clear();
        // A thread that ends has no place for it any more.
        let _ = SPARE_LINES.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_LINES_MAX {
                spare.push(line);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Method, Status};

    #[track_caller]
    fn check(request: &Request<'_>, id: Option<&str>, done: Done, expected: &str) {
        let mut line = Line::new();
        line.push_request(request);
        line.push_id(id);
        line.push_answer(&done, Duration::from_micros(843));
        assert_eq!(line.0, expected);
    }

    fn done(status: Status, body_bytes: u64, complete: bool) -> Done {
        Done { status, body_bytes, complete }
    }

    #[test]
    fn lines() {
        let request = Request::new(Method::Get, "/items?limit=5").with_peer("[::1]:80".parse().unwrap());
        let ok = done(Status::OK, 1532, true);
        check(&request, Some("0c5a"), ok, "[::1]:80 \"GET /items?limit=5 HTTP/1.1\" 0c5a 200 1532 843us");
        let cut = done(Status::OK, 7, false);
        check(&request, None, cut, "[::1]:80 \"GET /items?limit=5 HTTP/1.1\" - 200 7 843us cut");
        let old = Request::new(Method::Head, "/").with_version(Version::Http10);
        let gone = done(Status::CLIENT_CLOSED_REQUEST, 0, false);
        check(&old, Some(""), gone, "127.0.0.1:0 \"HEAD / HTTP/1.0\" - 499 0 843us cut");
    }

    #[test]
    fn nothing_that_a_client_sends_breaks_the_line() {
        let request = Request::new(Method::Get, "/a\r\n\"\\\x1b[2Jé?\0\u{85}");
        let expected =
            r#"127.0.0.1:0 "GET /a\x0d\x0a\x22\x5c\x1b[2J\xc3\xa9?\x00\xc2\x85 HTTP/1.1" a\x0ab 404 0 843us"#;
        check(&request, Some("a\nb"), done(Status::NOT_FOUND, 0, true), expected);
    }

    #[test]
    fn lines_keep_their_memory_within_bounds() {
        let spare = || SPARE_LINES.with_borrow(Vec::len);
        let many: Vec<Line> = (0..2 * SPARE_LINES_MAX).map(|_| Line(String::with_capacity(100))).collect();
        drop(many);
        assert_eq!(spare(), SPARE_LINES_MAX);
        let line = Line::new();
        assert_eq!((spare(), line.0.as_str(), line.0.capacity()), (SPARE_LINES_MAX - 1, "", 100));
        drop(Line(String::with_capacity(SPARE_LINE_BYTES_MAX + 1)));
        assert_eq!(spare(), SPARE_LINES_MAX - 1);
    }
}
