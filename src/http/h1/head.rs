//! The head of a request: its line and its header lines, read once, from the first byte on.
//!
//! Knows bytes only, no body and no connection. The first byte that is wrong decides, and nothing behind it is looked at:
//! so the outcome is the same wherever the head was cut on its way here, and what is wrong is said before the rest has come.
//!
//! ```text
//! request line (here, target) ─▶ header lines (lines) ─▶ what they say of the message (fields)
//! ```

use super::bytes::{TOKEN, text_run};
use super::fields::Fields;
use super::lines::Lines;
use super::target::{self, Target};
use super::violation::Violation;
use crate::http::limits::Limits;
use crate::http::types::{Method, Version};

pub(crate) use super::lines::Slots;

/// A method longer than this is not waited for. Those that are known have at most 7 bytes, the longest registered one 17.
const METHOD_BYTES_MAX: usize = 32;

/// Up to here, reading a head costs less than receiving a packet.
const SMALL_HEAD_BYTES: usize = 1024;

/// A complete, valid head.
#[derive(Debug)]
pub(crate) struct Head<'b> {
    pub method: Method,
    pub version: Version,
    /// Path and query; `*` for `OPTIONS *`.
    pub target: &'b str,
    /// In order. An absolute target has put its authority in the place of Host's value (§3.2.2).
    pub headers: Lines<'b>,
    pub framing: Framing,
    /// Whether the client would have the connection stay open (§9.3).
    pub persistent: bool,
    pub expects_continue: bool,
    /// Bytes of the head, its empty line included.
    pub len: usize,
}

/// How long the body is (§6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// Why reading went no further.
pub(super) enum Stop {
    Partial,
    Violation(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Violation(violation)
    }
}

impl<'b> Head<'b> {
    /// Whether `input` is worth reading when its first `scanned` bytes were read already, and were not a complete head.
    ///
    /// A small head is read again whenever more of it comes. A larger one must have gained a line or an eighth, so that
    /// the time it takes stays in proportion to its size, however it is cut.
    pub fn is_due(input: &[u8], scanned: usize, limits: &Limits) -> bool {
        let news = input.get(scanned..).unwrap_or_default();
        let due = if scanned < SMALL_HEAD_BYTES { scanned } else { scanned + scanned / 8 };
        input.len() > due || input.len() >= limits.head_bytes_max || text_run(news) < news.len()
    }

    /// Reads a head from the front of `input`; `None` when it is not complete.
    pub fn parse(input: &'b [u8], slots: &'b mut Slots, limits: &Limits) -> Result<Option<Head<'b>>, Violation> {
        let head_bytes_max = limits.head_bytes_max.min(u32::MAX as usize);
        let bytes = input.get(..head_bytes_max).unwrap_or(input);
        match Head::read(bytes, slots, limits) {
            Ok(head) => Ok(Some(head)),
            Err(Stop::Violation(violation)) => Err(violation),
            Err(Stop::Partial) if bytes.len() == head_bytes_max => Err(Violation::HeadTooLarge),
            Err(Stop::Partial) => Ok(None),
        }
    }

    fn read(bytes: &'b [u8], slots: &'b mut Slots, limits: &Limits) -> Result<Head<'b>, Stop> {
        let line = RequestLine::read(bytes, limits)?;
        let mut fields = Fields::new(line.version);
        let (count, len) =
            slots.read(bytes, line.len, limits.headers_max, |number, name, value| fields.note(number, name, value))?;
        if fields.host.is_none() && line.version == Version::Http11 {
            return Err(Violation::HostMissing.into());
        }
        if let (Some(authority), Some(number)) = (line.target.authority, fields.host) {
            slots.set_value(number, authority);
        }
        Ok(Head {
            method: line.method,
            version: line.version,
            target: line.target.path,
            headers: slots.lines(bytes, count),
            framing: fields.framing()?,
            persistent: fields.persistent(),
            expects_continue: fields.expects_continue,
            len,
        })
    }
}

/// `method SP request-target SP HTTP-version CRLF` (§3)
struct RequestLine<'b> {
    method: Method,
    target: Target<'b>,
    version: Version,
    len: usize,
}

impl<'b> RequestLine<'b> {
    #[inline]
    fn read(bytes: &'b [u8], limits: &Limits) -> Result<RequestLine<'b>, Stop> {
        let name_len = TOKEN.run(bytes.get(..=METHOD_BYTES_MAX).unwrap_or(bytes));
        let (name, rest) = bytes.split_at(name_len);
        let rest = match rest {
            _ if name_len > METHOD_BYTES_MAX => return Err(Violation::MethodUnknown.into()),
            [b' ', rest @ ..] if name_len > 0 => rest,
            [] => return Err(Stop::Partial),
            _ => return Err(Violation::BadHead.into()),
        };
        let (target, rest) = rest.split_at(target::target_len(rest, limits.target_bytes_max)?);
        let version = version(rest)?;

        let method = Method::from_bytes(name).filter(|method| *method != Method::Connect);
        let method = method.ok_or(Violation::MethodUnknown)?;
        let target_at = name_len + 1;
        let len = target_at + target.len() + VERSION.len();
        let target = str::from_utf8(target).map_err(|_| Violation::TargetInvalid)?;
        Ok(RequestLine { method, target: target::read(method, target, target_at)?, version, len })
    }
}

/// What stands behind the target; `?` is a digit.
const VERSION: &[u8] = b" HTTP/?.?\r\n";

/// Later minor versions are read as the one that is known (RFC 9110 §2.5); other major ones have another framing.
#[inline]
fn version(rest: &[u8]) -> Result<Version, Stop> {
    match rest {
        [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Ok(if *minor == b'0' { Version::Http10 } else { Version::Http11 })
        }
        _ => Err(not_a_version(rest)),
    }
}

#[cold]
fn not_a_version(rest: &[u8]) -> Stop {
    for (at, expected) in VERSION.iter().enumerate() {
        match (rest.get(at), expected) {
            (None, _) => return Stop::Partial,
            (Some(byte), b'?') if byte.is_ascii_digit() => {}
            (Some(byte), _) if byte == expected => {}
            (Some(b'\n'), b'\r') | (Some(_), b'\n') => return Violation::BadLineEnd.into(),
            (Some(_), _) => return Violation::BadHead.into(),
        }
    }
    Violation::BadVersion.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::lines::HEADERS_MAX;

    /// The value of a header line.
    fn value(input: &str, name: &str) -> Option<Vec<u8>> {
        let mut slots = Slots::default();
        let head = Head::parse(input.as_bytes(), &mut slots, &Limits::default()).unwrap().unwrap();
        head.headers.get(name).map(<[u8]>::to_vec)
    }

    #[test]
    fn an_absolute_target_takes_the_place_of_host() {
        let check = |target: &str, host: &[u8]| {
            let head = format!("GET {target} HTTP/1.1\r\nX: y\r\nHost: front\r\nZ: z\r\n\r\n");
            assert_eq!(value(&head, "hOST").as_deref(), Some(host), "{target}");
            assert_eq!(value(&head, "z").as_deref(), Some(&b"z"[..]), "{target}");
        };
        check("/", b"front");
        check("/?http://a/", b"front");
        check("http://back:8080/", b"back:8080");
        check("HTTP://[::1]?q", b"[::1]");
        assert_eq!(value("GET http://a/ HTTP/1.0\r\n\r\n", "host"), None);
    }

    #[test]
    fn bounds_may_be_larger_than_lines_usually_are() {
        let limits = Limits { head_bytes_max: 1 << 20, headers_max: usize::MAX, ..Limits::default() };
        let (mut slots, mut again) = (Slots::default(), Slots::default());
        let name = "x".repeat(70_000);
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: {name}\r\n\r\n");
        let head = Head::parse(long.as_bytes(), &mut slots, &limits).unwrap().unwrap();
        assert_eq!(head.headers.get(&name), Some(name.as_bytes()));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(HEADERS_MAX));
        assert_eq!(Head::parse(many.as_bytes(), &mut again, &limits).err(), Some(Violation::TooManyHeaders));
    }

    /// However a head is cut, reading it costs no more than a few times its size, and what is wrong is seen soon.
    #[test]
    fn a_head_that_comes_byte_by_byte_is_not_read_over_and_over() {
        let limits = Limits::default();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(30_000));
        let (mut scanned, mut bytes_read) = (0, 0);
        for length in 1..=head.len() {
            if Head::is_due(&head.as_bytes()[..length], scanned, &limits) {
                bytes_read += length;
                scanned = length;
            }
            assert!(length < SMALL_HEAD_BYTES || length - scanned <= length / 8);
        }
        assert!(bytes_read < 30 * head.len(), "{bytes_read}");
        assert!(Head::is_due(format!("{head}\r").as_bytes(), head.len(), &limits), "a line has ended");
    }
}
