//! Gzip for answers that are text (feature `compression`; RFC 9110 §8.4, RFC 1952).
//!
//! It works on the event loop, so only on bodies that are in memory and of moderate size; streams, files and everything
//! larger pass as they are. There is no `deflate`: clients disagree on what that is (RFC 9110 §8.4.1.2), and all of them
//! know gzip.
//!
//! Where an answer over TLS holds a secret *and* text that a stranger can choose, its compressed length gives the secret
//! away bit by bit (BREACH). Such answers say `Cache-Control: no-transform` and pass as they are.

use std::cell::RefCell;

use flate2::{Compress, Crc, FlushCompress, Status as Progress};

use crate::http::content_coding::{self, Coding};
use crate::http::middleware::Next;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::types::Status;

/// 120 to 160 MB/s, and within 2 to 4 % of the plain size of what level 6 reaches at a quarter of that speed (JSON and
/// source text, one core of a Zen 5). Level 1 is a third faster and leaves 6 to 10 % more.
const LEVEL: u32 = 2;

/// Which bodies are worth it.
#[derive(Clone, Copy, Debug)]
pub struct Compression {
    /// Shorter ones stay as they are: with its head such an answer fits one segment anyhow. Default 1 KiB.
    pub bytes_min: usize,
    /// Longer ones stay as they are, since the loop's other clients wait meanwhile: 2 ms for the default of 256 KiB.
    pub bytes_max: usize,
}

impl Default for Compression {
    fn default() -> Compression {
        Compression { bytes_min: 1 << 10, bytes_max: 256 << 10 }
    }
}

/// Compresses the answers that are text for clients that take gzip.
///
/// All such answers say `Vary: Accept-Encoding`. In a compressed one a strong `ETag` becomes weak, since its bytes are
/// not those that the tag was made of, and `Accept-Ranges` goes. HEAD gets the head of GET.
///
/// ```
/// use sconce::http::layers::{Compression, compression};
/// use sconce::http::{Method, Request, Router};
///
/// let router = Router::new()
///     .layer(compression(Compression::default()))
///     .get("/", |_: &Request<'_>| "all work and no play ".repeat(100));
/// let reply = router.handle(Request::new(Method::Get, "/").with_header("Accept-Encoding", "gzip, br"));
/// assert_eq!(reply.header_value("content-encoding"), Some("gzip"));
/// assert!(reply.body().len() < 100);
/// ```
pub fn compression(config: Compression) -> impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static {
    move |request, next| {
        let coding = content_coding::choose(request, [Coding::Gzip]);
        let if_none_match = request.header("if-none-match").filter(|known| known.contains("W/")).map(String::from);
        next.run(request).map(move |reply| match reply.status() {
            Status::NOT_MODIFIED => not_modified(reply, if_none_match.as_deref()),
            _ if !is_compressible(&reply) => reply,
            _ => encoded(with_vary(reply), coding, config),
        })
    }
}

/// Whether some client might get this answer compressed.
fn is_compressible(reply: &Reply) -> bool {
    reply.status().has_body()
        && reply.status() != Status::PARTIAL_CONTENT
        && reply.header_value("content-encoding").is_none()
        && !lists(reply, "cache-control", "no-transform")
        && is_text(reply.content_type())
}

/// Whether `word` is in one of the header lines of this name, which are lists.
fn lists(reply: &Reply, name: &str, word: &str) -> bool {
    let lines = reply.header_lines().split("\r\n").filter_map(|line| line.split_once(':'));
    let values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).flat_map(|(_, values)| values.split(','));
    values.into_iter().any(|value| value.trim().eq_ignore_ascii_case(word))
}

/// Types that are text in all but name. Event streams are not: each event must leave at once.
fn is_text(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("text", subtype)) => subtype != "event-stream",
        Some(("application", subtype)) => {
            matches!(subtype, "json" | "javascript" | "xml" | "wasm" | "x-ndjson" | "manifest+json")
                || subtype.ends_with("+json")
                || subtype.ends_with("+xml")
        }
        Some(("image", subtype)) => subtype == "svg+xml",
        _ => false,
    }
}

fn with_vary(reply: Reply) -> Reply {
    match lists(&reply, "vary", "accept-encoding") || lists(&reply, "vary", "*") {
        true => reply,
        false => reply.header("Vary", "Accept-Encoding"),
    }
}

fn encoded(reply: Reply, coding: Option<Coding>, config: Compression) -> Reply {
    let length = reply.body().len();
    if coding.is_none() || length < config.bytes_min.max(1) || length > config.bytes_max {
        return reply;
    }
    match gzip(reply.body()) {
        Some(body) => {
            weakened(reply).without_header("accept-ranges").header("Content-Encoding", "gzip").with_body(body)
        }
        None => reply,
    }
}

/// A client that holds the compressed form knows its tag as a weak one, and must find it again in a 304
/// (RFC 9110 §15.4.5).
fn not_modified(reply: Reply, if_none_match: Option<&str>) -> Reply {
    let is_known_weak = |tag: &str| if_none_match.is_some_and(|known| known.contains(&format!("W/{tag}")));
    match reply.header_value("etag").is_some_and(is_known_weak) {
        true => weakened(with_vary(reply)),
        false => reply,
    }
}

/// With a strong tag made weak (RFC 9110 §8.8.1).
fn weakened(reply: Reply) -> Reply {
    match reply.header_value("etag").filter(|tag| tag.starts_with('"')).map(|tag| format!("W/{tag}")) {
        Some(weak) => reply.without_header("etag").header("ETag", weak),
        None => reply,
    }
}

/// `body` as one gzip member; `None` when that is not shorter.
fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    /// No name, no time, no particular system (RFC 1952 §2.3.1).
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    const TRAILER_BYTES: usize = 8;
    thread_local! {
        /// Its tables are some 300 KiB, and making them anew costs more than compressing a short body.
        static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(flate2::Compression::new(LEVEL), false));
    }
    let mut out = Vec::with_capacity(body.len());
    out.extend_from_slice(&HEAD);
    // It fills the capacity and no more, so what would be longer than the body does not come to its end.
    let progress = DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        deflate.compress_vec(body, &mut out, FlushCompress::Finish)
    });
    if !matches!(progress, Ok(Progress::StreamEnd)) || out.len() + TRAILER_BYTES >= body.len() {
        return None;
    }
    let mut crc = Crc::new();
    crc.update(body);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::http::{Method, Router};

    const TEXT: &str = "all work and no play makes jack a dull boy. ";

    fn decoded(body: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(body).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn types() {
        for text in [
            "text/html; charset=utf-8",
            "TEXT/plain",
            "text/css",
            "text/javascript",
            "application/json",
            "application/problem+json",
            "application/javascript",
            "application/xhtml+xml",
            "image/svg+xml",
            "application/wasm",
        ] {
            assert!(is_text(text), "{text}");
        }
        for other in
            ["", "text", "text/event-stream", "Text/Event-Stream; a=b", "image/png", "application/octet-stream"]
        {
            assert!(!is_text(other), "{other}");
        }
    }

    /// Whether a reply is compressed for a client that takes gzip; whatever it is, its body must be the same.
    #[track_caller]
    fn check(make: impl Fn() -> Reply + Send + Sync + 'static, is_compressed: bool, vary: Option<&str>) {
        drop(checked(make, is_compressed, vary));
    }

    /// As `check`, and gives the reply.
    #[track_caller]
    fn checked(make: impl Fn() -> Reply + Send + Sync + 'static, is_compressed: bool, vary: Option<&str>) -> Reply {
        let plain = make();
        let router = Router::new().layer(compression(Compression::default())).get("/", move |_: &Request<'_>| make());
        let reply = router.handle(Request::new(Method::Get, "/").with_header("Accept-Encoding", "gzip"));
        assert_eq!(reply.header_value("vary"), vary);
        assert_eq!(reply.header_value("content-encoding") == Some("gzip"), is_compressed);
        match is_compressed {
            true => assert_eq!(decoded(reply.body()), plain.body()),
            false => assert_eq!(reply.body(), plain.body()),
        }
        reply
    }

    #[test]
    fn which_replies() {
        let long = || TEXT.repeat(30);
        let bytes =
            |status, content_type: &'static str| Reply::bytes(status, content_type, TEXT.repeat(30).into_bytes());
        let own = Some("Accept-Encoding");
        check(move || Reply::text(long()), true, own);
        check(move || bytes(Status::NOT_FOUND, "application/json"), true, own);
        check(move || Reply::text(long()).header("Vary", "Origin"), true, Some("Origin"));
        check(
            move || Reply::text(long()).header("Vary", "origin, accept-encoding"),
            true,
            Some("origin, accept-encoding"),
        );
        check(move || Reply::text(long()).header("Cache-Control", "no-store, No-Transform"), false, None);
        let twice =
            move || Reply::text(long()).header("Cache-Control", "private").header("cache-control", "no-transform");
        check(twice, false, None);
        check(move || Reply::text(long()).header("Content-Encoding", "br"), false, None);
        check(move || bytes(Status::PARTIAL_CONTENT, "text/plain"), false, None);
        check(move || bytes(Status::OK, "image/png"), false, None);
        check(move || bytes(Status::OK, "text/event-stream"), false, None);
        check(|| Reply::text("x".repeat(1023)), false, own);
        check(|| Reply::text("x".repeat(1024)), true, own);
        check(|| Reply::text("x".repeat(256 << 10)), true, own);
        check(|| Reply::text("x".repeat((256 << 10) + 1)), false, own);
        check(|| Reply::empty(Status::NO_CONTENT), false, None);
        check(|| Reply::text(""), false, own);
    }

    #[test]
    fn what_does_not_shrink_stays() {
        // A linear congruential generator's high bytes are noise to a compressor.
        let mut state = 7_u64;
        let noise: Vec<u8> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        check(move || Reply::bytes(Status::OK, "text/plain", noise.clone()), false, Some("Accept-Encoding"));
    }

    #[test]
    fn gzip_round_trips_at_every_length() {
        let text = TEXT.repeat(60);
        for length in (0..text.len()).step_by(7) {
            let body = &text.as_bytes()[..length];
            match gzip(body) {
                Some(short) => assert!(short.len() < length && decoded(&short) == body),
                None => assert!(length < 100, "{length}"),
            }
        }
    }

    #[test]
    fn tags_become_weak_and_ranges_go() {
        let reply = move || Reply::text(TEXT.repeat(30)).header("ETag", "\"a\"").header("Accept-Ranges", "bytes");
        let compressed = checked(reply, true, Some("Accept-Encoding"));
        assert_eq!(
            (compressed.header_value("etag"), compressed.header_value("accept-ranges")),
            (Some("W/\"a\""), None)
        );
        let weak = checked(|| Reply::text(TEXT.repeat(30)).header("ETag", "W/\"a\""), true, Some("Accept-Encoding"));
        assert_eq!(weak.header_value("etag"), Some("W/\"a\""));
        let plain = checked(|| Reply::text("short").header("ETag", "\"a\""), false, Some("Accept-Encoding"));
        assert_eq!(plain.header_value("etag"), Some("\"a\""));
    }

    #[test]
    fn a_304_names_the_tag_as_the_client_knows_it() {
        let router = Router::new()
            .layer(compression(Compression::default()))
            .get("/", |_: &Request<'_>| Reply::empty(Status::NOT_MODIFIED).header("ETag", "\"a\""));
        for (known, expected) in
            [("W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\""), ("\"x\", W/\"a\"", "W/\"a\""), ("*", "\"a\"")]
        {
            let reply = router.handle(Request::new(Method::Get, "/").with_header("If-None-Match", known));
            assert_eq!(reply.header_value("etag"), Some(expected), "{known}");
        }
    }

    #[test]
    fn head_gets_the_head_of_get() {
        let router =
            Router::new().layer(compression(Compression::default())).get("/", |_: &Request<'_>| TEXT.repeat(30));
        let ask = |method| router.handle(Request::new(method, "/").with_header("Accept-Encoding", "gzip"));
        let (get, head) = (ask(Method::Get), ask(Method::Head));
        assert_eq!((get.header_lines(), get.body().len()), (head.header_lines(), head.body().len()));
    }

    #[test]
    fn later_answers_too() {
        let router = Router::new().layer(compression(Compression::default())).get("/", |_: &Request<'_>| {
            let (reply, responder) = Reply::later();
            responder.send(Reply::text(TEXT.repeat(30)));
            reply
        });
        let request = Request::new(Method::Get, "/").with_header("Accept-Encoding", "gzip");
        let reply = router.handle(request).wait(Duration::from_secs(10)).unwrap();
        assert_eq!(reply.header_value("content-encoding"), Some("gzip"));
        assert_eq!(decoded(reply.body()), TEXT.repeat(30).as_bytes());
    }
}
