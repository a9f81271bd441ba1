//! A request as bytes. Framing is decided here and nowhere else: a caller's header lines cannot set it.

use std::fmt::Display;
use std::io::Write;

use crate::http::types::Method;

/// The end of a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How the body of a request is framed (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// There is none.
    Empty,
    Length(u64),
    Chunked,
}

/// Writes the head of a request. `lines` are rendered header lines, `name: value\r\n` each.
pub(crate) fn head(
    out: &mut Vec<u8>,
    method: Method,
    target: &str,
    host: impl Display,
    lines: &[u8],
    framing: BodyFraming,
) {
    let expects_body = matches!(method, Method::Post | Method::Put | Method::Patch);
    // Writing to memory cannot fail.
    let _ = write!(out, "{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    out.extend_from_slice(lines);
    let _ = match framing {
        // RFC 9110 §8.6: a method that has a meaning for a body says so when there is none.
        BodyFraming::Empty if expects_body => out.write_all(b"Content-Length: 0\r\n"),
        BodyFraming::Empty => Ok(()),
        BodyFraming::Length(bytes) => write!(out, "Content-Length: {bytes}\r\n"),
        BodyFraming::Chunked => out.write_all(b"Transfer-Encoding: chunked\r\n"),
    };
    out.extend_from_slice(b"\r\n");
}

/// Writes one chunk. An empty one would end the body, so it is nothing.
pub(crate) fn chunk(out: &mut Vec<u8>, piece: &[u8]) {
    if !piece.is_empty() {
        let _ = write!(out, "{:x}\r\n", piece.len());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client::url::Url;

    #[track_caller]
    fn check(method: Method, url: &str, lines: &str, framing: BodyFraming, expected: &str) {
        let (mut out, url) = (Vec::new(), Url::parse(url).unwrap());
        head(&mut out, method, url.target(), url.origin(), lines.as_bytes(), framing);
        assert_eq!(str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn heads() {
        use BodyFraming::*;
        check(Method::Get, "http://a", "", Empty, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        check(Method::Head, "http://a:81/b?c", "", Empty, "HEAD /b?c HTTP/1.1\r\nHost: a:81\r\n\r\n");
        check(Method::Post, "http://[::1]/", "", Empty, "POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\n\r\n");
        check(Method::Put, "http://a", "", Length(7), "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n");
        check(Method::Delete, "http://a", "X: y\r\n", Empty, "DELETE / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
        check(
            Method::Patch,
            "http://a",
            "X: y\r\n",
            Chunked,
            "PATCH / HTTP/1.1\r\nHost: a\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
    }

    #[test]
    fn chunks() {
        let mut out = Vec::new();
        for piece in [&b"hello"[..], b"", &[b'x'; 26]] {
            chunk(&mut out, piece);
        }
        assert_eq!(out, [b"5\r\nhello\r\n1a\r\n", &[b'x'; 26][..], b"\r\n"].concat());
    }
}
