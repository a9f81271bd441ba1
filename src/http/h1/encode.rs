//! Answers as bytes. Framing is decided here and nowhere else: a reply cannot set it.

use crate::http::reply::Reply;
use crate::http::types::{Status, Version};
use crate::reactor::Output;

/// What an answer must know about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub version: Version,
    /// The request was HEAD: the head of the answer only.
    pub head_only: bool,
    /// The connection stays open afterwards.
    pub persistent: bool,
}

/// The interim answer to `Expect: 100-continue` (RFC 9110 §10.1.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The end of a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How the pieces of a streamed body are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The producer keeps to the length that it declared.
    Length(u64),
    Chunked,
    /// HTTP/1.0: the body ends with the connection.
    UntilClose,
    /// The answer has no body, whatever its producer says.
    NoBody,
}

/// A whole answer: head, and body if this answer has one. Gives the bytes of the body that are sent. `date` is the whole
/// line. Bytes are copied: for small bodies, which most are.
pub(crate) fn whole(out: &mut Output, reply: &Reply, exchange: Exchange, date: &[u8]) -> usize {
    let body = reply.body();
    if !whole_head(out, reply, body.len() as u64, exchange, date) {
        return 0;
    }
    out.push(body);
    body.len()
}

/// The head of a whole answer. Gives whether its body follows.
pub(crate) fn whole_head(out: &mut Output, reply: &Reply, body_bytes: u64, exchange: Exchange, date: &[u8]) -> bool {
    start(out, reply, date);
    // RFC 9110 §15.3.6: a 205 has no body, and says so by its length.
    let empty = reply.status() == Status::RESET_CONTENT;
    if reply.status().has_body() {
        content_length(out, if empty { 0 } else { body_bytes });
    }
    end_of_head(out, exchange);
    reply.status().has_body() && !empty && !exchange.head_only
}

/// The head of a streamed answer, and how its pieces are framed.
pub(crate) fn stream_head(
    out: &mut Output,
    head: &Reply,
    length: Option<u64>,
    exchange: &mut Exchange,
    date: &[u8],
) -> Framing {
    start(out, head, date);
    let framing = match (length, exchange.version) {
        _ if !head.status().has_body() => Framing::NoBody,
        _ if head.status() == Status::RESET_CONTENT => {
            content_length(out, 0);
            Framing::NoBody
        }
        (Some(length), _) => {
            content_length(out, length);
            Framing::Length(length)
        }
        (None, Version::Http10) => {
            exchange.persistent &= exchange.head_only;
            Framing::UntilClose
        }
        (None, Version::Http11) => {
            out.push(b"Transfer-Encoding: chunked\r\n");
            Framing::Chunked
        }
    };
    end_of_head(out, *exchange);
    if exchange.head_only { Framing::NoBody } else { framing }
}

/// The head of an answer after which the connection speaks another protocol (RFC 9110 §15.2.2).
pub(crate) fn switching_head(out: &mut Output, head: &Reply, date: &[u8]) {
    start(out, head, date);
    out.push(b"Connection: Upgrade\r\n\r\n");
}

/// One piece of a streamed body. An empty one is nothing: as a chunk it would end the body.
pub(crate) fn piece(out: &mut Output, piece: &[u8], framing: Framing) {
    match framing {
        _ if piece.is_empty() => {}
        Framing::NoBody => {}
        Framing::Length(_) | Framing::UntilClose => out.push(piece),
        Framing::Chunked => {
            hexadecimal(out, piece.len());
            out.push(b"\r\n");
            out.push(piece);
            out.push(b"\r\n");
        }
    }
}

fn start(out: &mut Output, reply: &Reply, date: &[u8]) {
    match reply.status().line() {
        Some(line) => out.push(line),
        None => {
            // §4: the space after the code is there even without a reason.
            out.push(b"HTTP/1.1 ");
            push_digits::<10>(out, u64::from(reply.status().code()));
            out.push(b" \r\n");
        }
    }
    out.push(date);
    if !reply.content_type().is_empty() {
        out.push(b"Content-Type: ");
        out.push(reply.content_type().as_bytes());
        out.push(b"\r\n");
    }
    out.push(reply.header_lines().as_bytes());
}

fn content_length(out: &mut Output, length: u64) {
    out.push(b"Content-Length: ");
    push_digits::<10>(out, length);
    out.push(b"\r\n");
}

fn end_of_head(out: &mut Output, exchange: Exchange) {
    out.push(match (exchange.persistent, exchange.version) {
        (false, _) => b"Connection: close\r\n\r\n",
        (true, Version::Http10) => b"Connection: keep-alive\r\n\r\n",
        (true, Version::Http11) => b"\r\n",
    });
}

fn hexadecimal(out: &mut Output, number: usize) {
    push_digits::<16>(out, number as u64);
}

fn push_digits<const BASE: u64>(out: &mut Output, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b"0123456789abcdef"[(number % BASE) as usize];
        first -= 1;
        number /= BASE;
        if number == 0 {
            break;
        }
    }
    out.push(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    const DATE: &[u8] = b"Date: D\r\n";

    fn exchange(version: Version, head_only: bool, persistent: bool) -> Exchange {
        Exchange { version, head_only, persistent }
    }

    #[track_caller]
    fn check(answer: &Reply, exchange: Exchange, expected: &str) {
        let mut out = Output::default();
        whole(&mut out, answer, exchange, DATE);
        assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), expected);
    }

    #[test]
    fn whole_answers() {
        use Version::*;
        let text = Reply::bytes(Status::OK, "a/b", &b"hello"[..]).header("x-first", "1").header("x-own", "2");
        let head = "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: a/b\r\nx-first: 1\r\nx-own: 2\r\nContent-Length: 5\r\n";
        check(&text, exchange(Http11, false, true), &format!("{head}\r\nhello"));
        check(&text, exchange(Http11, false, false), &format!("{head}Connection: close\r\n\r\nhello"));
        check(&text, exchange(Http11, true, true), &format!("{head}\r\n"));
        check(&text, exchange(Http10, false, true), &format!("{head}Connection: keep-alive\r\n\r\nhello"));
        let none = "HTTP/1.1 204 No Content\r\nDate: D\r\n\r\n";
        check(&Reply::empty(Status::NO_CONTENT), exchange(Http11, false, true), none);
        let odd = "HTTP/1.1 299 \r\nDate: D\r\nContent-Length: 0\r\n\r\n";
        check(&Reply::empty(Status::from_code(299).unwrap()), exchange(Http11, false, true), odd);
        let reset = "HTTP/1.1 205 Reset Content\r\nDate: D\r\nContent-Length: 0\r\n\r\n";
        check(&Reply::bytes(Status::RESET_CONTENT, "", &b"no"[..]), exchange(Http11, false, true), reset);
    }

    #[test]
    fn streams() {
        use Version::*;
        for (length, request, framing, expected) in [
            (
                None,
                exchange(Http11, false, true),
                Framing::Chunked,
                "Transfer-Encoding: chunked\r\n\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n",
            ),
            (
                None,
                exchange(Http10, false, true),
                Framing::UntilClose,
                "Connection: close\r\n\r\nabcdefghijklmnopqrstuvwxyz",
            ),
            (None, exchange(Http11, true, true), Framing::NoBody, "Transfer-Encoding: chunked\r\n\r\n"),
            (
                Some(26),
                exchange(Http11, false, true),
                Framing::Length(26),
                "Content-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz",
            ),
            (
                Some(26),
                exchange(Http10, true, true),
                Framing::NoBody,
                "Content-Length: 26\r\nConnection: keep-alive\r\n\r\n",
            ),
        ] {
            let (mut out, mut request) = (Output::default(), request);
            let seen = stream_head(&mut out, &Reply::empty(Status::OK), length, &mut request, DATE);
            assert_eq!(seen, framing);
            piece(&mut out, b"", framing);
            piece(&mut out, b"abcdefghijklmnopqrstuvwxyz", framing);
            let expected = format!("HTTP/1.1 200 OK\r\nDate: D\r\n{expected}");
            assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 15, 16, 255, 4096, u64::MAX] {
            let mut out = Output::default();
            push_digits::<10>(&mut out, number);
            out.push(b" ");
            push_digits::<16>(&mut out, number);
            assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), format!("{number} {number:x}"));
        }
    }
}
