//! A request as handlers see it: a view into the connection's read buffer.
//!
//! Knows no socket and no framing. For most routes the body is there, complete and within the limits, by the time their
//! handler is called; a guard, and the handler of a streamed route, see the head alone. Nothing is copied or allocated to
//! make a request; look-ups walk the header lines, of which there are at most a hundred.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use super::client::Client;
use super::h1::lines::Lines;
use super::pipe::Body;
use super::route_tree;
use super::types::{Method, Version};

/// One request, complete with its body.
///
/// It borrows the read buffer, so a handler that answers later takes what it needs out of it first.
/// Tests make one without a socket: `Request::new(Method::Post, "/generate").with_body(b"{}")`.
pub struct Request<'a> {
    method: Method,
    version: Version,
    path: &'a str,
    query: Option<&'a str>,
    headers: Headers<'a>,
    body: &'a [u8],
    peer: SocketAddr,
    /// The pattern of the route that the path has led to.
    route: Option<&'a str>,
    /// The body as it arrives, for the handler of a streamed route to take.
    stream: Cell<Option<Box<Body>>>,
    /// What the loop that received it asks other servers with.
    client: Option<&'a Client>,
}

/// Header lines, where they are: in the buffer of the connection that parsed them, or put together by hand.
#[derive(Clone, Debug)]
enum Headers<'a> {
    Parsed(Lines<'a>),
    Built(Vec<(&'a str, &'a [u8])>),
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// A request for `target` (`/path?query`) without headers and body, for tests and for calls inside the process.
    pub fn new(method: Method, target: &'a str) -> Self {
        Request::received(method, Version::Http11, target, Lines::NONE, &[])
    }

    /// A request as it was read.
    #[inline]
    pub(crate) fn received(
        method: Method,
        version: Version,
        target: &'a str,
        lines: Lines<'a>,
        body: &'a [u8],
    ) -> Request<'a> {
        // A plain loop: targets are short, and a search would have to be set up.
        let (path, query) = match target.bytes().position(|b| b == b'?') {
            Some(at) => (&target[..at], Some(&target[at + 1..])),
            None => (target, None),
        };
        Self {
            method,
            version,
            path: if path.is_empty() { "/" } else { path },
            query,
            headers: Headers::Parsed(lines),
            body,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            route: None,
            stream: Cell::new(None),
            client: None,
        }
    }

    /// The same request without its body.
    pub(crate) fn head(&self) -> Request<'_> {
        Request {
            method: self.method,
            version: self.version,
            path: self.path,
            query: self.query,
            headers: self.headers.clone(),
            body: &[],
            peer: self.peer,
            route: self.route,
            stream: Cell::new(None),
            client: self.client,
        }
    }

    /// Adds a header line.
    pub fn with_header(mut self, name: &'a str, value: &'a str) -> Self {
        let mut lines: Vec<_> = match self.headers {
            Headers::Parsed(lines) => lines.iter().collect(),
            Headers::Built(lines) => lines,
        };
        lines.push((name, value.as_bytes()));
        self.headers = Headers::Built(lines);
        self
    }

    /// Gives the request its body, as it would be after decoding.
    pub fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// Says who is at the other end; without, 127.0.0.1 and port 0.
    pub fn with_peer(mut self, peer: SocketAddr) -> Self {
        self.peer = peer;
        self
    }

    /// Says which pattern the path has led to, as the router does when a route matches.
    pub fn with_route(mut self, pattern: &'a str) -> Self {
        self.route = Some(pattern);
        self
    }

    /// Gives a streamed route its body, for tests and for calls inside the process.
    pub fn with_stream(self, body: Body) -> Self {
        self.stream.set(Some(Box::new(body)));
        self
    }

    /// The body as it arrives: once, for the handler of a streamed route.
    pub(crate) fn take_stream(&self) -> Option<Body> {
        self.stream.take().map(|body| *body)
    }

    /// Says where the request came from, and with what to ask other servers.
    pub(crate) fn set_origin(&mut self, peer: SocketAddr, client: Option<&'a Client>) {
        (self.peer, self.client) = (peer, client);
    }

    /// The same as [`with_route`](Request::with_route), in place.
    pub(crate) fn set_route(&mut self, pattern: &'a str) {
        self.route = Some(pattern);
    }

    /// The client of the event loop that received this request, to ask other servers with. Costs one counter.
    ///
    /// One of a request that was made by hand refuses everything, with [`Stopped`](super::client::ErrorKind::Stopped).
    pub fn client(&self) -> Client {
        self.client.cloned().unwrap_or_else(Client::of_nobody)
    }

    #[cfg(test)]
    pub(crate) fn with_version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// The same request with these header lines and no others.
    pub(crate) fn with_headers(mut self, lines: Vec<(&'a str, &'a [u8])>) -> Self {
        self.headers = Headers::Built(lines);
        self
    }

    /// The method (RFC 9110 §9).
    pub fn method(&self) -> Method {
        self.method
    }

    /// The version that the client speaks. A later one of HTTP/1, such as HTTP/1.2, counts as 1.1 (RFC 9110 §2.5).
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path as sent, percent-encoded, without the query. `*` for `OPTIONS *`.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The query as sent, without its `?`.
    pub fn query_string(&self) -> Option<&'a str> {
        self.query
    }

    /// Host and port of the server that is asked for, as sent: those of an absolute target, else the value of `Host`
    /// (RFC 9112 §3.2.2), which an absolute target replaces in [`headers`](Request::headers) too. Empty when the client
    /// names none.
    pub fn host(&self) -> &str {
        self.header("host").unwrap_or_default()
    }

    /// The first value of `name` in the query, decoded as forms are (`+` is a space). A name without `=` has an empty value.
    pub fn query(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decoded(key, true) == name).then(|| percent_decoded(value, true))
        })
    }

    /// The first value of a header, trimmed; names compare without case. `None` also when the value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = match &self.headers {
            Headers::Parsed(lines) => lines.get(name),
            Headers::Built(lines) => {
                lines.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
            }
        };
        value.and_then(|value| str::from_utf8(value).ok())
    }

    /// All header lines in order, as sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (parsed, built) = match &self.headers {
            Headers::Parsed(lines) => (*lines, &[][..]),
            Headers::Built(lines) => (Lines::NONE, &lines[..]),
        };
        parsed.iter().chain(built.iter().copied())
    }

    /// The path parameter that the route calls `{name}`, percent-decoded; bytes that are not UTF-8 become U+FFFD.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        self.raw_param(name).map(|raw| percent_decoded(raw, false))
    }

    /// The same, as it was sent: an encoded slash in it is still told from one between segments.
    pub fn raw_param(&self, name: &str) -> Option<&'a str> {
        route_tree::param(self.route?, self.path, name)
    }

    /// The pattern of the route that the path has led to, such as `/items/{id}`: one label for all its paths.
    pub fn route(&self) -> Option<&'a str> {
        self.route
    }

    /// The protocol that the client would leave HTTP for (RFC 9110 §7.8), as it names it: `websocket`, say. `None` also
    /// from an HTTP/1.0 client, whose wish must be ignored.
    pub fn upgrade(&self) -> Option<&str> {
        let connection = self.headers().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
        let mut options = connection.flat_map(|(_, value)| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii);
        let wanted = self.version == Version::Http11 && options.any(|o| o.eq_ignore_ascii_case(b"upgrade"));
        if wanted { self.header("upgrade") } else { None }
    }

    /// The id of the last event that a returning [`Sse`](super::Sse) client has seen.
    pub fn last_event_id(&self) -> Option<&str> {
        self.header("last-event-id")
    }

    /// The whole body, decoded from its chunks. Empty when there was none, and for streamed routes.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Who is at the other end of the connection.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// `text` with each `%XX` replaced by its byte; a `%` that is followed by anything else stays as it is.
pub(crate) fn percent_decoded(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || (plus_is_space && b == b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match (byte, after) {
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = tail;
                hex_value(*high) << 4 | hex_value(*low)
            }
            (b'+', _) if plus_is_space => b' ',
            _ => byte,
        });
    }
    Cow::Owned(String::from_utf8(decoded).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// The value of a hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_decoded_and_the_first_one_wins() {
        let request = Request::new(Method::Get, "/a%20b?x=1&x=2&na%6De=a+b%26c&flag&bad=%zz%4");
        assert_eq!(request.path(), "/a%20b");
        for (name, expected) in
            [("x", Some("1")), ("name", Some("a b&c")), ("flag", Some("")), ("bad", Some("%zz%4")), ("none", None)]
        {
            assert_eq!(request.query(name).as_deref(), expected, "{name}");
        }
        assert_eq!(Request::new(Method::Get, "/").query("x"), None);
    }

    #[test]
    fn headers_compare_without_case() {
        let request = Request::new(Method::Get, "/").with_header("X-One", "1").with_header("x-one", "2");
        assert_eq!(request.header("x-ONE"), Some("1"));
        assert_eq!(request.header("x-two"), None);
    }

    #[test]
    fn params_are_percent_decoded_but_plus_stays() {
        let request = Request::new(Method::Get, "/a%2Fb+c%ff").with_route("/{id}");
        assert_eq!(request.param("id").as_deref(), Some("a/b+c\u{fffd}"));
        assert_eq!(request.param("other"), None);
    }
}
