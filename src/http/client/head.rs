//! The head of an answer: status line, header lines, and how its body is framed (RFC 9112 §4 and §6.3).
//!
//! Knows no connection. As strict as the server's side: what two readers might take for different messages is a fault.

use std::time::Duration;

use super::error::AnswerFault;
use super::headers::Headers;
use crate::http::types::{Method, Status, Version};

/// Lines of a head.
const LINES_MAX: usize = 100;

/// The head of an answer, read from the front of the input.
#[derive(Debug)]
pub(crate) struct Head {
    pub kind: Kind,
    /// Bytes of the head, its empty line included.
    pub len: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// 1xx: another head follows (RFC 9110 §15.2).
    Interim,
    Final(AnswerHead),
}

/// A final answer without its body.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub status: Status,
    pub version: Version,
    pub headers: Headers,
    pub framing: Framing,
    /// Whether the server would have the connection stay open (§9.3).
    pub persistent: bool,
    /// How long the server says that it keeps an idle connection (`Keep-Alive: timeout=5`).
    pub keep_alive: Option<Duration>,
}

/// How long the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    /// Reads a head from the front of `input`, the answer to a request with `method`; `None` when it is not complete.
    pub fn parse(input: &[u8], method: Method, bytes_max: usize) -> Result<Option<Head>, AnswerFault> {
        // httparse skips empty lines, and looks at the version late: what is no HTTP at all is better known at once.
        if !b"HTTP/1.".iter().zip(input).all(|(expected, byte)| expected == byte) {
            return Err(AnswerFault::BadHead);
        }
        let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
        let mut parsed = httparse::Response::new(&mut lines);
        let len = match parsed.parse(input) {
            Ok(httparse::Status::Complete(len)) if len <= bytes_max => len,
            Ok(httparse::Status::Partial) if input.len() <= bytes_max => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(AnswerFault::HeadTooLarge),
            Err(_) => return Err(AnswerFault::BadHead),
        };
        check_line_ends(input.get(..len).unwrap_or_default())?;
        let (Some(version), Some(code)) = (parsed.version, parsed.code) else { return Err(AnswerFault::BadHead) };
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let kind = match code {
            101 => return Err(AnswerFault::Switched),
            100..=199 => Kind::Interim,
            _ => {
                let status = Status::from_code(code).ok_or(AnswerFault::BadHead)?;
                Kind::Final(Fields::read(parsed.headers).answer(
                    status,
                    version,
                    method,
                    Headers::of(parsed.headers),
                )?)
            }
        };
        Ok(Some(Head { kind, len }))
    }
}

/// httparse also takes LF alone as a line end, where another reader may see one line.
fn check_line_ends(head: &[u8]) -> Result<(), AnswerFault> {
    let bare = head.iter().zip(head.iter().skip(1)).any(|(before, byte)| *byte == b'\n' && *before != b'\r');
    if bare { Err(AnswerFault::BadLineEnd) } else { Ok(()) }
}

/// The header lines that concern the connection itself.
#[derive(Default)]
struct Fields<'b> {
    lengths: Vec<&'b [u8]>,
    codings: Vec<&'b [u8]>,
    close: bool,
    keep_alive: bool,
    timeout: Option<Duration>,
}

impl<'b> Fields<'b> {
    fn read(lines: &[httparse::Header<'b>]) -> Fields<'b> {
        let mut fields = Fields::default();
        for line in lines {
            let options = line.value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            match line.name.len() {
                10 if line.name.eq_ignore_ascii_case("connection") => options.for_each(|option| {
                    fields.close |= option.eq_ignore_ascii_case(b"close");
                    fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }),
                10 if line.name.eq_ignore_ascii_case("keep-alive") => {
                    let seconds = options.into_iter().find_map(|option| number(option.strip_prefix(b"timeout=")?));
                    fields.timeout = seconds.map(Duration::from_secs);
                }
                14 if line.name.eq_ignore_ascii_case("content-length") => fields.lengths.extend(options),
                17 if line.name.eq_ignore_ascii_case("transfer-encoding") => fields.codings.push(line.value),
                _ => {}
            }
        }
        fields
    }

    fn answer(
        self,
        status: Status,
        version: Version,
        method: Method,
        headers: Headers,
    ) -> Result<AnswerHead, AnswerFault> {
        let framing =
            if method == Method::Head || !status.has_body() { Framing::Empty } else { self.framing(version)? };
        let stays = !self.close && (version == Version::Http11 || self.keep_alive);
        // A body that 204 must not have would be read as the next answer.
        let odd = status == Status::NO_CONTENT && !(self.lengths.is_empty() && self.codings.is_empty());
        let persistent = stays && framing != Framing::UntilClose && !odd;
        Ok(AnswerHead { status, version, headers, framing, persistent, keep_alive: self.timeout })
    }

    /// §6.3, with every doubtful case refused.
    fn framing(&self, version: Version) -> Result<Framing, AnswerFault> {
        match (&*self.lengths, &*self.codings) {
            ([], []) => Ok(Framing::UntilClose),
            ([first, rest @ ..], []) => {
                let length = number(first).filter(|_| rest.iter().all(|other| other == first));
                length.map(Framing::Length).ok_or(AnswerFault::LengthInvalid)
            }
            ([_, ..], [_, ..]) => Err(AnswerFault::LengthAndCoding),
            ([], _) if version == Version::Http10 => Err(AnswerFault::CodingInHttp10),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            ([], _) => Err(AnswerFault::CodingUnknown),
        }
    }
}

/// Digits only: no sign, no space, and no more than 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    let text =
        str::from_utf8(digits).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 4096;

    /// What a head is read as: `status framing[ close][ timeout]`, or the fault.
    fn describe(input: &str, method: Method) -> String {
        match Head::parse(input.as_bytes(), method, BYTES_MAX) {
            Ok(None) => "more".into(),
            Ok(Some(Head { kind: Kind::Interim, .. })) => "interim".into(),
            Ok(Some(Head { kind: Kind::Final(head), len })) => {
                assert_eq!(len, input.len());
                let close = if head.persistent { "" } else { " close" };
                let timeout = head.keep_alive.map_or(String::new(), |time| format!(" {time:?}"));
                format!("{} {:?}{close}{timeout}", head.status.code(), head.framing)
            }
            Err(fault) => format!("{fault:?}"),
        }
    }

    /// The same for the whole head; and no shorter part of it is a head.
    #[track_caller]
    fn check(head: &str, expected: &str) {
        let input = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        assert_eq!(describe(&input, Method::Get), expected, "{head:?}");
        for at in 0..input.len() {
            let part = describe(&input[..at], Method::Get);
            assert!(
                part == "more" || part == expected && !part.starts_with(char::is_numeric),
                "{head:?} at {at}: {part}"
            );
        }
    }

    #[test]
    fn framing_of_answers() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\nContent-Length: 5", "200 Length(5)"),
            ("HTTP/1.1 200 OK\ncontent-length: 0", "200 Length(0)"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5", "200 Length(5)"),
            ("HTTP/1.1 200 OK\nContent-Length: 5, 5 ,5", "200 Length(5)"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nConnection: x, Close", "200 Length(5) close"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked", "200 Chunked"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nConnection: close", "200 Chunked close"),
            ("HTTP/1.1 200 OK", "200 UntilClose close"),
            ("HTTP/1.1 200", "200 UntilClose close"),
            ("HTTP/1.1 200 ", "200 UntilClose close"),
            ("HTTP/1.1 299 Made up\nContent-Length: 1", "299 Length(1)"),
            ("HTTP/1.0 200 OK\nContent-Length: 5", "200 Length(5) close"),
            ("HTTP/1.0 200 OK\nContent-Length: 5\nConnection: Keep-Alive", "200 Length(5)"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nKeep-Alive: max=3, timeout=7", "200 Length(5) 7s"),
            ("HTTP/1.1 204 No Content", "204 Empty"),
            ("HTTP/1.1 204 No Content\nContent-Length: 5", "204 Empty close"),
            ("HTTP/1.1 304 Not Modified\nContent-Length: 5", "304 Empty"),
            ("HTTP/1.1 100 Continue", "interim"),
            ("HTTP/1.1 103 Early Hints\nLink: </x>", "interim"),
            ("HTTP/1.1 101 Switching Protocols\nUpgrade: x", "Switched"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked", "LengthAndCoding"),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nContent-Length: 5, 6", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nContent-Length: 5, 05", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nContent-Length:", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nContent-Length: +5", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nContent-Length: 5 5", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nContent-Length: 0x5", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nContent-Length: 18446744073709551616", "LengthInvalid"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked", "CodingUnknown"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked, identity", "CodingUnknown"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: xchunked", "CodingUnknown"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked", "CodingUnknown"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding:", "CodingUnknown"),
            ("HTTP/1.0 200 OK\nTransfer-Encoding: chunked", "CodingInHttp10"),
            ("HTTP/1.1 600 Odd", "BadHead"),
            ("HTTP/1.1 099 Odd", "BadHead"),
            ("HTTP/1.1 20 OK", "BadHead"),
            ("HTTP/1.1 2000 OK", "BadHead"),
            ("HTTP/1.1  200 OK", "BadHead"),
            ("HTTP/1.2 200 OK", "BadHead"),
            ("HTTP/2 200 OK", "BadHead"),
            ("http/1.1 200 OK", "BadHead"),
            ("SSH-2.0-x", "BadHead"),
            ("HTTP/1.1 200 OK\nContent-Length : 5", "BadHead"),
            ("HTTP/1.1 200 OK\n Content-Length: 5", "BadHead"),
            ("HTTP/1.1 200 OK\nA: b\n c", "BadHead"),
            ("HTTP/1.1 200 OK\nA: b\0c", "BadHead"),
            ("HTTP/1.1 200 OK\nA", "BadHead"),
            ("HTTP/1.1 200 OK\n: x", "BadHead"),
        ] {
            check(head, expected);
        }
    }

    #[test]
    fn answers_to_head_have_no_body_whatever_they_say() {
        for framing in
            ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 6", "A: b"]
        {
            let input = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
            assert_eq!(describe(&input, Method::Head), "200 Empty", "{framing}");
        }
    }

    #[test]
    fn line_ends_are_both_or_a_fault() {
        for input in ["HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n\n"]
        {
            assert_eq!(describe(input, Method::Get), "BadLineEnd", "{input:?}");
        }
        for input in ["\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n"] {
            assert_eq!(describe(input, Method::Get), "BadHead", "{input:?}");
        }
    }

    #[test]
    fn heads_have_bounds() {
        let lines = |count: usize, value: usize| {
            format!("HTTP/1.1 204 x\r\n{}\r\n", format!("A: {}\r\n", "x".repeat(value)).repeat(count))
        };
        assert_eq!(describe(&lines(100, 1), Method::Get), "204 Empty");
        assert_eq!(describe(&lines(101, 1), Method::Get), "HeadTooLarge");
        assert_eq!(describe(&lines(1, BYTES_MAX), Method::Get), "HeadTooLarge");
        assert_eq!(describe(&lines(1, BYTES_MAX)[..BYTES_MAX + 1], Method::Get), "HeadTooLarge");
        assert_eq!(describe(&lines(1, BYTES_MAX)[..BYTES_MAX], Method::Get), "more");
    }
}
