//! A name for each request, the same in the answer, in the log and in the calls that it causes.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::middleware::Next;
use crate::http::reply::Reply;
use crate::http::request::Request;

/// The header line that carries the id, in requests and answers.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The longest id that is taken from a client.
const LENGTH_MAX: usize = 128;

/// Whose word for the id of a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundId {
    /// An id that a client sends is kept: what stands in front of this server has given it, or it does no harm.
    Kept,
    /// Every request gets an id of our own.
    Replaced,
}

/// Gives every request an id and every answer the line `x-request-id`.
///
/// The handler and the layers within see the request with that line, whatever the client sent: [`RequestId::of`] reads
/// it. The layer added first is the outermost, so this one goes early.
///
/// ```
/// use sconce::http::layers::{InboundId, RequestId, request_id};
/// use sconce::http::{Method, Request, Router};
///
/// let router = Router::new()
///     .layer(request_id(InboundId::Kept))
///     .get("/", |request: &Request<'_>| format!("this is {}", RequestId::of(request).unwrap()));
/// let reply = router.handle(Request::new(Method::Get, "/").with_header("X-Request-Id", "a-7"));
/// assert_eq!((reply.body(), reply.header_value("x-request-id")), (&b"this is a-7"[..], Some("a-7")));
/// ```
pub fn request_id(inbound: InboundId) -> impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static {
    move |request, next| {
        if inbound == InboundId::Kept
            && let Some(id) = RequestId::of(request)
        {
            return next.run(request).header(REQUEST_ID, id.as_str());
        }
        let id = RequestId::fresh();
        let others = request.headers().filter(|(name, _)| !name.eq_ignore_ascii_case(REQUEST_ID));
        let lines = others.chain([(REQUEST_ID, id.as_str().as_bytes())]).collect();
        let mut named = request.head().with_headers(lines).with_body(request.body());
        if let Some(body) = request.take_stream() {
            named = named.with_stream(body);
        }
        next.run(&named).header(REQUEST_ID, id.as_str())
    }
}

/// The id of a request: 1 to 128 of `[A-Za-z0-9._-]`, which is safe in a header, a log line and a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// The id that a request carries, if it is a sane one. Behind [`request_id`] every request has one.
    pub fn of(request: &Request<'_>) -> Option<RequestId> {
        request.header(REQUEST_ID).filter(|id| is_sane(id)).map(|id| RequestId(id.to_string()))
    }

    /// A new id: 32 hexadecimal digits. It is a counter hashed under keys that the system drew at the start, so that
    /// ids neither repeat nor tell how many there were.
    pub fn fresh() -> RequestId {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [high, low] = KEYS.each_ref().map(|keys| keys.hash_one(number));
        RequestId(format!("{high:016x}{low:016x}"))
    }

    /// The id as it stands in the header line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_sane(id: &str) -> bool {
    (1..=LENGTH_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::http::{Method, Router};

    /// What the client sends, and what the handler and the client then see; `None` is an id of our own.
    #[track_caller]
    fn check(inbound: InboundId, sent: &[&str], expected: Option<&str>) {
        let router = Router::new().layer(request_id(inbound)).get("/", |request: &Request<'_>| {
            let lines = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case(REQUEST_ID)).count();
            format!("{} {lines} {}", RequestId::of(request).unwrap(), request.header("x-other").unwrap_or("-"))
        });
        let request = Request::new(Method::Get, "/").with_header("X-Other", "kept");
        let request = sent.iter().fold(request, |request, id| request.with_header("X-Request-ID", id));
        let reply = router.handle(request);
        let id = reply.header_value("x-request-id").unwrap();
        match expected {
            Some(expected) => assert_eq!(id, expected),
            None => {
                assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id} for {sent:?}");
                assert_eq!(str::from_utf8(reply.body()).unwrap(), format!("{id} 1 kept"));
            }
        }
        assert!(reply.body().starts_with(id.as_bytes()));
    }

    #[test]
    fn sane_ids_are_kept_where_they_count() {
        let longest = "x".repeat(128);
        for id in ["a", "7f.x_Y-9", &longest] {
            check(InboundId::Kept, &[id], Some(id));
            check(InboundId::Replaced, &[id], None);
        }
        check(InboundId::Kept, &["first", "second"], Some("first"));
    }

    #[test]
    fn others_are_replaced_for_the_handler_too() {
        for id in ["", "a b", "a\r\nx: y", "ä", &"x".repeat(129)] {
            check(InboundId::Kept, &[id], None);
        }
        check(InboundId::Kept, &[], None);
        check(InboundId::Kept, &["not sane", "second"], None);
    }

    #[test]
    fn fresh_ids_differ() {
        let ids: HashSet<RequestId> = (0..1000).map(|_| RequestId::fresh()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
