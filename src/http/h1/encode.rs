//! Answers as bytes. Framing is decided here and nowhere else: a reply cannot set it.

use crate::http::reply::Reply;
use crate::http::types::Version;
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
pub(crate) enum StreamFraming {
    Chunked,
    /// HTTP/1.0: the body ends with the connection.
    UntilClose,
    /// The answer has no body, whatever its producer says.
    NoBody,
}

/// A whole answer. `lines` are header lines in front of the reply's own; `date` is the whole line.
pub(crate) fn reply(out: &mut Output, reply: &Reply, lines: &str, exchange: Exchange, date: &[u8]) {
    start(out, reply, lines, date);
    if reply.status().has_body() {
        out.push(b"Content-Length: ");
        decimal(out, reply.body().len());
        out.push(b"\r\n");
    }
    end_of_head(out, exchange);
    if reply.status().has_body() && !exchange.head_only {
        out.push(reply.body());
    }
}

/// The head of a streamed answer, and how its pieces are framed.
pub(crate) fn stream_head(
    out: &mut Output,
    head: &Reply,
    lines: &str,
    exchange: &mut Exchange,
    date: &[u8],
) -> StreamFraming {
    start(out, head, lines, date);
    let framing = match exchange.version {
        _ if !head.status().has_body() => StreamFraming::NoBody,
        Version::Http10 => {
            exchange.persistent = false;
            StreamFraming::UntilClose
        }
        Version::Http11 => {
            out.push(b"Transfer-Encoding: chunked\r\n");
            StreamFraming::Chunked
        }
    };
    end_of_head(out, *exchange);
    if exchange.head_only { StreamFraming::NoBody } else { framing }
}

/// One piece of a streamed body. An empty one is nothing: as a chunk it would end the body.
pub(crate) fn piece(out: &mut Output, piece: &[u8], framing: StreamFraming) {
    match framing {
        _ if piece.is_empty() => {}
        StreamFraming::NoBody => {}
        StreamFraming::UntilClose => out.push(piece),
        StreamFraming::Chunked => {
            hexadecimal(out, piece.len());
            out.push(b"\r\n");
            out.push(piece);
            out.push(b"\r\n");
        }
    }
}

fn start(out: &mut Output, reply: &Reply, lines: &str, date: &[u8]) {
    match reply.status().line() {
        Some(line) => out.push(line),
        None => {
            // §4: the space after the code is there even without a reason.
            out.push(b"HTTP/1.1 ");
            decimal(out, usize::from(reply.status().code()));
            out.push(b" \r\n");
        }
    }
    out.push(date);
    if !reply.content_type().is_empty() {
        out.push(b"Content-Type: ");
        out.push(reply.content_type().as_bytes());
        out.push(b"\r\n");
    }
    out.push(lines.as_bytes());
    out.push(reply.header_lines().as_bytes());
}

fn end_of_head(out: &mut Output, exchange: Exchange) {
    out.push(match (exchange.persistent, exchange.version) {
        (false, _) => b"Connection: close\r\n\r\n",
        (true, Version::Http10) => b"Connection: keep-alive\r\n\r\n",
        (true, Version::Http11) => b"\r\n",
    });
}

fn decimal(out: &mut Output, number: usize) {
    push_digits::<10>(out, number);
}

fn hexadecimal(out: &mut Output, number: usize) {
    push_digits::<16>(out, number);
}

fn push_digits<const BASE: usize>(out: &mut Output, mut number: usize) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b"0123456789abcdef"[number % BASE];
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
    use crate::http::Status;

    const DATE: &[u8] = b"Date: D\r\n";

    fn exchange(version: Version, head_only: bool, persistent: bool) -> Exchange {
        Exchange { version, head_only, persistent }
    }

    #[track_caller]
    fn check(answer: &Reply, exchange: Exchange, expected: &str) {
        let mut out = Output::default();
        reply(&mut out, answer, "x-first: 1\r\n", exchange, DATE);
        assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), expected);
    }

    #[test]
    fn whole_answers() {
        use Version::*;
        let text = Reply::bytes(Status::OK, "a/b", &b"hello"[..]).header("x-own", "2");
        let head = "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: a/b\r\nx-first: 1\r\nx-own: 2\r\nContent-Length: 5\r\n";
        check(&text, exchange(Http11, false, true), &format!("{head}\r\nhello"));
        check(&text, exchange(Http11, false, false), &format!("{head}Connection: close\r\n\r\nhello"));
        check(&text, exchange(Http11, true, true), &format!("{head}\r\n"));
        check(&text, exchange(Http10, false, true), &format!("{head}Connection: keep-alive\r\n\r\nhello"));
        let none = "HTTP/1.1 204 No Content\r\nDate: D\r\nx-first: 1\r\n\r\n";
        check(&Reply::empty(Status::NO_CONTENT), exchange(Http11, false, true), none);
        let odd = "HTTP/1.1 299 \r\nDate: D\r\nx-first: 1\r\nContent-Length: 0\r\n\r\n";
        check(&Reply::empty(Status::from_code(299).unwrap()), exchange(Http11, false, true), odd);
    }

    #[test]
    fn streams() {
        use Version::*;
        for (request, framing, expected) in [
            (
                exchange(Http11, false, true),
                StreamFraming::Chunked,
                "Transfer-Encoding: chunked\r\n\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n",
            ),
            (
                exchange(Http10, false, true),
                StreamFraming::UntilClose,
                "Connection: close\r\n\r\nabcdefghijklmnopqrstuvwxyz",
            ),
            (exchange(Http11, true, true), StreamFraming::NoBody, "Transfer-Encoding: chunked\r\n\r\n"),
        ] {
            let (mut out, mut request) = (Output::default(), request);
            let seen = stream_head(&mut out, &Reply::empty(Status::OK), "", &mut request, DATE);
            assert_eq!(seen, framing);
            piece(&mut out, b"", framing);
            piece(&mut out, b"abcdefghijklmnopqrstuvwxyz", framing);
            let expected = format!("HTTP/1.1 200 OK\r\nDate: D\r\n{expected}");
            assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 15, 16, 255, 4096, usize::MAX] {
            let mut out = Output::default();
            decimal(&mut out, number);
            out.push(b" ");
            hexadecimal(&mut out, number);
            assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), format!("{number} {number:x}"));
        }
    }
}
