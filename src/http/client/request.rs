//! A request to be sent: a value. Its framing is the client's, so that no caller can break a connection for the next one.

use std::mem;
use std::sync::Arc;

use super::encode::{self, BodyFraming};
use super::exchange::Timeouts;
use super::headers::{is_hop_by_hop, lists};
use super::url::{BadUrl, Origin, Url};
use crate::http::pipe::Body;
use crate::http::reply::{InvalidHeader, check_header};
use crate::http::request::Request;
use crate::http::types::Method;

/// A request to another server.
#[derive(Debug)]
#[must_use = "a request does nothing until a client sends it"]
pub struct ClientRequest {
    method: Method,
    url: Url,
    /// What the Host header says instead of the URL.
    host: Option<Origin>,
    /// Rendered lines, `name: value\r\n` each, checked when they were added.
    lines: Vec<u8>,
    content: Content,
    timeouts: Option<Timeouts>,
    answer_bytes_max: u64,
}

/// What follows the head.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it, so that it can be sent again.
    Whole(Arc<[u8]>),
    Stream(Body),
}

impl ClientRequest {
    /// A request for an absolute `http://` URL.
    ///
    /// # Errors
    /// A URL that cannot be asked; [`BadUrl`] says what is wrong with it. CONNECT is refused.
    pub fn new(method: Method, url: &str) -> Result<ClientRequest, BadUrl> {
        if method == Method::Connect {
            return Err(BadUrl::Connect);
        }
        Ok(ClientRequest {
            method,
            url: Url::parse(url)?,
            host: None,
            lines: Vec::new(),
            content: Content::Whole(Arc::default()),
            timeouts: None,
            answer_bytes_max: u64::MAX,
        })
    }

    /// Adds a header line. `Host` replaces the one that is made from the URL.
    ///
    /// # Errors
    /// The name is no token, or belongs to the framing of the message or to the connection (`Content-Length`, `Connection`,
    /// `Transfer-Encoding`, `Expect`, …), or the value has a control character in it. Nothing is added then.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Result<ClientRequest, InvalidHeader> {
        let value = value.as_ref().trim_ascii();
        check_header(name, value)?;
        if name.eq_ignore_ascii_case("host") {
            self.host = Some(Origin::parse(value).map_err(|_| InvalidHeader::Value)?);
        } else if is_ours(name) {
            return Err(InvalidHeader::Framing);
        } else {
            self.push_line(name, value.as_bytes());
        }
        Ok(self)
    }

    /// Adds the header lines of a request that was received, for one that is passed on: all but those about the
    /// connection on which it came (RFC 9110 §7.6.1), and but `Host`.
    pub fn headers_of(mut self, request: &Request<'_>) -> ClientRequest {
        let connection = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
        let nominated: Vec<&str> = connection.filter_map(|(_, value)| str::from_utf8(value).ok()).collect();
        for (name, value) in request.headers() {
            if !name.eq_ignore_ascii_case("host") && !is_ours(name) && !lists(&nominated, name) {
                self.push_line(name, value);
            }
        }
        self
    }

    fn push_line(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }

    /// The body, with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> ClientRequest {
        self.content = Content::Whole(body.into().into());
        self
    }

    /// A body that is sent as it arrives: with its length where that was declared, else in chunks. If it is cut off, so is
    /// the request.
    pub fn body_stream(mut self, body: Body) -> ClientRequest {
        self.content = match body.length() {
            // Nothing is there already, and can be sent again.
            Some(0) => Content::Whole(Arc::default()),
            _ => Content::Stream(body),
        };
        self
    }

    /// How long things may take, instead of what the client was configured with.
    pub fn timeouts(mut self, timeouts: Timeouts) -> ClientRequest {
        self.timeouts = Some(timeouts);
        self
    }

    /// The longest body of an answer, decoded from its chunks, in bytes. Default: no bound, since it is never held as a
    /// whole unless you collect it.
    pub fn answer_bytes_max(mut self, bytes_max: u64) -> ClientRequest {
        self.answer_bytes_max = bytes_max;
        self
    }

    /// The method it will be sent with.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Where it goes.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn own_timeouts(&self) -> Option<&Timeouts> {
        self.timeouts.as_ref()
    }

    pub(crate) fn body_bytes_max(&self) -> u64 {
        self.answer_bytes_max
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Takes a body that is sent as it arrives.
    pub(crate) fn take_stream(&mut self) -> Option<Body> {
        match mem::replace(&mut self.content, Content::Whole(Arc::default())) {
            Content::Stream(body) => Some(body),
            whole => {
                self.content = whole;
                None
            }
        }
    }

    /// Writes the head.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> BodyFraming {
        let framing = match &self.content {
            Content::Whole(bytes) if bytes.is_empty() => BodyFraming::Empty,
            Content::Whole(bytes) => BodyFraming::Length(bytes.len() as u64),
            Content::Stream(body) => body.length().map_or(BodyFraming::Chunked, BodyFraming::Length),
        };
        let host = self.host.as_ref().unwrap_or(self.url.origin());
        encode::head(out, self.method, self.url.target(), host, &self.lines, framing);
        framing
    }
}

/// Headers that the client writes itself, and those about the connection. `Expect` is one of them: nobody here would wait
/// for the interim answer.
fn is_ours(name: &str) -> bool {
    is_hop_by_hop(name) || name.eq_ignore_ascii_case("expect")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> ClientRequest {
        ClientRequest::new(Method::Get, "http://a/").unwrap()
    }

    fn sent(request: &ClientRequest) -> String {
        let mut out = Vec::new();
        request.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn headers_that_cannot_be_sent_are_refused() {
        for (name, value, expected) in [
            ("", "x", InvalidHeader::Name),
            ("a b", "x", InvalidHeader::Name),
            ("a:", "x", InvalidHeader::Name),
            ("a\r\nb", "x", InvalidHeader::Name),
            ("é", "x", InvalidHeader::Name),
            ("a", "x\r\nb: c", InvalidHeader::Value),
            ("a", "x\ny", InvalidHeader::Value),
            ("a", "x\0y", InvalidHeader::Value),
            ("date", "x", InvalidHeader::Framing),
            ("Host", "a b", InvalidHeader::Value),
            ("Host", "", InvalidHeader::Value),
            ("Content-Length", "1", InvalidHeader::Framing),
            ("TRANSFER-ENCODING", "chunked", InvalidHeader::Framing),
            ("Connection", "close", InvalidHeader::Framing),
            ("Upgrade", "x", InvalidHeader::Framing),
            ("Expect", "100-continue", InvalidHeader::Framing),
        ] {
            assert_eq!(get().header(name, value).unwrap_err(), expected, "{name:?}: {value:?}");
        }
    }

    #[test]
    fn headers_that_can_are_sent_in_order() {
        let request = get().header("A", " b\tc ").unwrap().header("HOST", "x:81").unwrap().header("a", "é").unwrap();
        assert_eq!(sent(&request), "GET / HTTP/1.1\r\nHost: x:81\r\nA: b\tc\r\na: é\r\n\r\n");
    }

    #[test]
    fn a_request_that_is_passed_on_leaves_its_connection_behind() {
        let received = Request::new(Method::Get, "/")
            .with_header("Host", "front")
            .with_header("Accept", "*/*")
            .with_header("Connection", "keep-alive, X-Hop")
            .with_header("x-hop", "1")
            .with_header("Transfer-Encoding", "chunked")
            .with_header("Content-Length", "5")
            .with_header("Expect", "100-continue")
            .with_header("TE", "trailers")
            .with_header("Cookie", "a=b");
        let request = get().headers_of(&received);
        assert_eq!(sent(&request), "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: a=b\r\n\r\n");
    }

    #[test]
    fn a_body_is_framed_by_what_is_known_of_it() {
        for (request, framing) in [
            (get(), BodyFraming::Empty),
            (get().body(""), BodyFraming::Empty),
            (get().body("hello"), BodyFraming::Length(5)),
            (get().body_stream(Body::whole("hello")), BodyFraming::Length(5)),
            (get().body_stream(Body::channel(Some(0)).1), BodyFraming::Empty),
            (get().body_stream(Body::channel(None).1), BodyFraming::Chunked),
        ] {
            assert_eq!(request.encode(&mut Vec::new()), framing);
        }
    }

    #[test]
    fn connect_opens_no_tunnel() {
        assert_eq!(ClientRequest::new(Method::Connect, "http://a/").unwrap_err(), BadUrl::Connect);
    }
}
