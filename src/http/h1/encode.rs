//! Answers as bytes. Framing is decided here and nowhere else: a reply cannot set it.

use crate::http::date::DateLine;
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

/// A whole answer: head, and body if this answer has one. Bytes are copied: for small bodies, which most are.
pub(crate) fn whole(out: &mut Output, reply: &Reply, exchange: Exchange, date: &DateLine) {
    let body = reply.body();
    let mut head = Head { room: room(out, reply, body.len()), len: 0 };
    head.start(reply, date);
    if head.end_whole(reply, body.len() as u64, exchange) {
        head.put(body);
    }
    let len = head.len;
    out.commit(len);
}

/// The head of a whole answer. Gives whether its body follows.
pub(crate) fn whole_head(
    out: &mut Output,
    reply: &Reply,
    body_bytes: u64,
    exchange: Exchange,
    date: &DateLine,
) -> bool {
    let mut head = Head { room: room(out, reply, 0), len: 0 };
    head.start(reply, date);
    let has_body = head.end_whole(reply, body_bytes, exchange);
    let len = head.len;
    out.commit(len);
    has_body
}

/// The head of a streamed answer, and how its pieces are framed.
pub(crate) fn stream_head(
    out: &mut Output,
    reply: &Reply,
    length: Option<u64>,
    exchange: &mut Exchange,
    date: &DateLine,
) -> Framing {
    let mut head = Head { room: room(out, reply, 0), len: 0 };
    head.start(reply, date);
    let framing = match (length, exchange.version) {
        _ if !reply.status().has_body() => Framing::NoBody,
        _ if reply.status() == Status::RESET_CONTENT => {
            head.put_length(0);
            Framing::NoBody
        }
        (Some(length), _) => {
            head.put_length(length);
            Framing::Length(length)
        }
        (None, Version::Http10) => {
            exchange.persistent &= exchange.head_only;
            Framing::UntilClose
        }
        (None, Version::Http11) => {
            head.put(b"Transfer-Encoding: chunked\r\n");
            Framing::Chunked
        }
    };
    head.end(*exchange);
    let len = head.len;
    out.commit(len);
    if exchange.head_only { Framing::NoBody } else { framing }
}

/// The head of an answer after which the connection speaks another protocol (RFC 9110 §15.2.2).
pub(crate) fn switching_head(out: &mut Output, reply: &Reply, date: &DateLine) {
    let mut head = Head { room: room(out, reply, 0), len: 0 };
    head.start(reply, date);
    head.put(b"Connection: Upgrade\r\n\r\n");
    let len = head.len;
    out.commit(len);
}

/// One piece of a streamed body. An empty one is nothing: as a chunk it would end the body.
pub(crate) fn piece(out: &mut Output, piece: &[u8], framing: Framing) {
    match framing {
        _ if piece.is_empty() => {}
        Framing::NoBody => {}
        Framing::Length(_) | Framing::UntilClose => out.push(piece),
        Framing::Chunked => {
            push_hexadecimal(out, piece.len());
            out.push(b"\r\n");
            out.push(piece);
            out.push(b"\r\n");
        }
    }
}

/// What a head may have besides the reply's own lines and type: status line, date, framing.
const FIXED_BYTES_MAX: usize = 256;

/// Room for the head of `reply`, and for `behind` bytes of its body.
#[inline]
fn room<'o>(out: &'o mut Output, reply: &Reply, behind: usize) -> &'o mut [u8] {
    out.room(FIXED_BYTES_MAX + reply.content_type().len() + reply.header_lines().len() + behind)
}

/// A head being written into room that was made for all of it: a check and a copy for each part, and nothing else.
struct Head<'o> {
    room: &'o mut [u8],
    len: usize,
}

impl Head<'_> {
    /// Status line, date, type and the reply's own lines.
    #[inline]
    fn start(&mut self, reply: &Reply, date: &DateLine) {
        match reply.status() {
            Status::OK => self.put(date.with_ok()),
            status => self.put_status(status, date),
        }
        if !reply.content_type().is_empty() {
            self.put(b"Content-Type: ");
            self.put(reply.content_type().as_bytes());
            self.put(b"\r\n");
        }
        if !reply.header_lines().is_empty() {
            self.put(reply.header_lines().as_bytes());
        }
    }

    fn put_status(&mut self, status: Status, date: &DateLine) {
        match status.line() {
            Some(line) => self.put(line),
            None => {
                // §4: the space after the code is there even without a reason.
                self.put(b"HTTP/1.1 ");
                self.put_decimal(u64::from(status.code()));
                self.put(b" \r\n");
            }
        }
        self.put(date.as_bytes());
    }

    /// The rest of a whole answer's head; gives whether its body follows.
    #[inline]
    fn end_whole(&mut self, reply: &Reply, body_bytes: u64, exchange: Exchange) -> bool {
        // RFC 9110 §15.3.6: a 205 has no body, and says so by its length.
        let empty = reply.status() == Status::RESET_CONTENT;
        if reply.status().has_body() {
            self.put_length(if empty { 0 } else { body_bytes });
        }
        self.end(exchange);
        reply.status().has_body() && !empty && !exchange.head_only
    }

    #[inline]
    fn put_length(&mut self, length: u64) {
        self.put(b"Content-Length: ");
        self.put_decimal(length);
        self.put(b"\r\n");
    }

    #[inline]
    fn end(&mut self, exchange: Exchange) {
        match (exchange.persistent, exchange.version) {
            (true, Version::Http11) => self.put(b"\r\n"),
            (true, Version::Http10) => self.put(b"Connection: keep-alive\r\n\r\n"),
            (false, _) => self.put(b"Connection: close\r\n\r\n"),
        }
    }

    #[inline]
    fn put_decimal(&mut self, mut number: u64) {
        // Most bodies are short.
        let digits = match number {
            0..10 => 1,
            10..100 => 2,
            100..1000 => 3,
            1000..10_000 => 4,
            _ => number.ilog10() as usize + 1,
        };
        for slot in self.room[self.len..self.len + digits].iter_mut().rev() {
            *slot = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.len += digits;
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.room[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// The size of a chunk, in hexadecimal digits.
fn push_hexadecimal(out: &mut Output, number: usize) {
    let digits = number.checked_ilog2().unwrap_or(0) as usize / 4 + 1;
    for place in (0..digits).rev() {
        out.push(&[b"0123456789abcdef"[number >> (4 * place) & 0xf]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn date() -> DateLine {
        let mut date = DateLine::new();
        date.set(std::time::SystemTime::UNIX_EPOCH);
        date
    }

    const DATE: &str = "Date: Thu, 01 Jan 1970 00:00:00 GMT";

    fn exchange(version: Version, head_only: bool, persistent: bool) -> Exchange {
        Exchange { version, head_only, persistent }
    }

    #[track_caller]
    fn check(answer: &Reply, exchange: Exchange, expected: &str) {
        let mut out = Output::default();
        whole(&mut out, answer, exchange, &date());
        assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), expected.replace("Date: D", DATE));
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
            let seen = stream_head(&mut out, &Reply::empty(Status::OK), length, &mut request, &date());
            assert_eq!(seen, framing);
            piece(&mut out, b"", framing);
            piece(&mut out, b"abcdefghijklmnopqrstuvwxyz", framing);
            let expected = format!("HTTP/1.1 200 OK\r\nDate: D\r\n{expected}");
            assert_eq!(String::from_utf8(out.take_bytes().unwrap()).unwrap(), expected.replace("Date: D", DATE));
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 15, 16, 99, 100, 255, 4096, usize::MAX] {
            let (mut out, mut room) = (Output::default(), [0; 20]);
            let mut head = Head { room: &mut room, len: 0 };
            head.put_decimal(number as u64);
            let len = head.len;
            push_hexadecimal(&mut out, number);
            assert_eq!(&room[..len], number.to_string().as_bytes());
            assert_eq!(out.take_bytes().unwrap(), format!("{number:x}").as_bytes());
        }
    }
}
