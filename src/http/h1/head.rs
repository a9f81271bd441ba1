//! The head of a request: what httparse leaves to its caller, which is all the meaning.
//!
//! Knows bytes only. httparse splits lines; the rules of RFC 9112 on line ends, targets, Host and framing are here, in
//! their strict reading: where recipients might disagree about where a message ends, the message is refused (§11.2).

use std::mem::MaybeUninit;

use super::violation::Violation;
use crate::http::limits::Limits;
use crate::http::types::{Method, Version};

/// The most header lines of one head.
pub(crate) const HEADERS_MAX: usize = 100;

/// Room for header lines on the stack, uninitialised until httparse fills it.
pub(crate) struct Slots<'b>([MaybeUninit<httparse::Header<'b>>; HEADERS_MAX]);

impl Slots<'_> {
    pub fn new() -> Self {
        Slots([const { MaybeUninit::uninit() }; HEADERS_MAX])
    }
}

/// A complete, valid head.
#[derive(Debug)]
pub(crate) struct Head<'b> {
    pub method: Method,
    pub version: Version,
    /// Path and query; `*` for `OPTIONS *`.
    pub target: &'b str,
    pub headers: &'b [httparse::Header<'b>],
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

impl<'b> Head<'b> {
    /// Reads a head from the front of `input`; `None` when it is not complete.
    pub fn parse(input: &'b [u8], slots: &'b mut Slots<'b>, limits: &Limits) -> Result<Option<Head<'b>>, Violation> {
        let mut parsed = httparse::Request::new(&mut []);
        let len = match parsed.parse_with_uninit_headers(input, &mut slots.0) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Violation::TooManyHeaders),
            // Which of the two answers it deserves shows at the end of the line.
            Err(httparse::Error::Version) if !input.contains(&b'\n') => return Ok(None),
            Err(httparse::Error::Version) => return Err(version_violation(input)),
            Err(_) => return Err(Violation::BadHead),
        };
        let bytes = input.get(..len).ok_or(Violation::BadHead)?;
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Violation::BadHead);
        };
        check_line_ends(bytes)?;
        if target.len() > limits.target_bytes_max {
            return Err(Violation::TargetTooLong);
        }
        if len > limits.head_bytes_max {
            return Err(Violation::HeadTooLarge);
        }
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let fields = Fields::read(parsed.headers, version)?;
        let method = Method::from_name(method).filter(|m| *m != Method::Connect).ok_or(Violation::MethodUnknown)?;
        Ok(Some(Head {
            method,
            version,
            target: origin_form(method, target)?,
            headers: parsed.headers,
            framing: fields.framing()?,
            persistent: fields.persistent(),
            expects_continue: fields.expects_continue,
            len,
        }))
    }
}

/// httparse also takes LF alone as a line end; a proxy in front may not, so that the two would see different lines.
fn check_line_ends(head: &[u8]) -> Result<(), Violation> {
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    let bare = pairs.filter(|(before, byte)| **byte == b'\n' && **before != b'\r').count();
    if bare > 0 || head.first() == Some(&b'\n') { Err(Violation::BadLineEnd) } else { Ok(()) }
}

/// 505 for a version that HTTP could have, 400 for a line that is wrong in another way.
fn version_violation(input: &[u8]) -> Violation {
    let line = input.split(|b| *b == b'\r' || *b == b'\n').find(|line| !line.is_empty()).unwrap_or_default();
    match line.splitn(3, |b| *b == b' ').nth(2) {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Violation::BadVersion
        }
        _ => Violation::BadHead,
    }
}

/// The few header lines that concern the connection itself.
struct Fields<'b> {
    version: Version,
    length: Option<&'b [u8]>,
    coding: Option<&'b [u8]>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'b> Fields<'b> {
    fn read(headers: &[httparse::Header<'b>], version: Version) -> Result<Fields<'b>, Violation> {
        let mut fields =
            Fields { version, length: None, coding: None, close: false, keep_alive: false, expects_continue: false };
        let mut host = None;
        for header in headers {
            let (name, value) = (header.name, header.value);
            // The length is compared first: most lines are none of these.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    check_host(value)?;
                    set_once(&mut host, value, Violation::HostTwice)?;
                }
                6 if version == Version::Http11 && name.eq_ignore_ascii_case("expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Violation::ExpectationUnknown);
                    }
                    fields.expects_continue = true;
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                        fields.close |= option.eq_ignore_ascii_case(b"close");
                        fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    // Equal ones might be merged (RFC 9110 §8.6), but no client has a reason to send two.
                    set_once(&mut fields.length, value, Violation::LengthTwice)?;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    set_once(&mut fields.coding, value, Violation::CodingInvalid)?;
                }
                _ => {}
            }
        }
        if host.is_none() && version == Version::Http11 {
            return Err(Violation::HostMissing);
        }
        Ok(fields)
    }

    /// §6.3, with every doubtful case refused.
    fn framing(&self) -> Result<Framing, Violation> {
        match (self.length, self.coding) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(length), None) => content_length(length).map(Framing::Length),
            (Some(_), Some(_)) => Err(Violation::LengthAndCoding),
            (None, Some(_)) if self.version == Version::Http10 => Err(Violation::CodingInHttp10),
            (None, Some(coding)) => check_coding(coding).map(|()| Framing::Chunked),
        }
    }

    fn persistent(&self) -> bool {
        !self.close && (self.version == Version::Http11 || self.keep_alive)
    }
}

fn set_once<'b>(field: &mut Option<&'b [u8]>, value: &'b [u8], otherwise: Violation) -> Result<(), Violation> {
    if field.replace(value).is_some() { Err(otherwise) } else { Ok(()) }
}

/// Digits only: no sign, no list, no space, and no more than 64 bits.
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.ok_or(Violation::LengthInvalid)
}

/// Chunked alone is understood. It must come last and once (§6.1); any other coding is answered with 501.
fn check_coding(value: &[u8]) -> Result<(), Violation> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let is_token =
        |coding: &&[u8]| !coding.is_empty() && coding.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    let codings: Vec<&[u8]> = value.split(|b| *b == b',').map(trim_blank).collect();
    let chunked_before_last = codings.iter().rev().skip(1).any(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if !codings.iter().all(is_token) || chunked_before_last {
        Err(Violation::CodingInvalid)
    } else {
        Err(Violation::CodingUnknown)
    }
}

/// Without spaces and tabs around it; other white space is no white space to HTTP.
fn trim_blank(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or_default()
}

/// `uri-host [":" port]` (§3.2), by its characters. Empty is allowed: a target may have no authority.
fn check_host(value: &[u8]) -> Result<(), Violation> {
    let (host, port) = match value.iter().rposition(|b| *b == b':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some(colon) if !value.ends_with(b"]") => (&value[..colon], &value[colon + 1..]),
        _ => (value, &[][..]),
    };
    let literal = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let valid = match literal {
        Some(address) => address.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b)) && !address.is_empty(),
        None => host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b)),
    };
    if valid && port.iter().all(u8::is_ascii_digit) { Ok(()) } else { Err(Violation::HostInvalid) }
}

/// Path and query of any form of target that a server which is no proxy must take (§3.2).
fn origin_form(method: Method, target: &str) -> Result<&str, Violation> {
    let target = match target.as_bytes() {
        [b'/', ..] => target,
        b"*" if method == Method::Options => return Ok(target),
        _ => {
            // §3.2.2: the authority of the target counts, and Host is ignored. Only plain HTTP is served here.
            let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
            let rest = scheme.and_then(|scheme| target.get(scheme.len()..)).ok_or(Violation::TargetInvalid)?;
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if authority.is_empty() || check_host(authority.as_bytes()).is_err() {
                return Err(Violation::TargetInvalid);
            }
            match path {
                "" if method == Method::Options => "*",
                "" => "/",
                path => path,
            }
        }
    };
    if valid_target(target.as_bytes()) { Ok(target) } else { Err(Violation::TargetInvalid) }
}

/// No fragment, no quotes or angle brackets, no backslash, ASCII only, and each `%` followed by two digits that are not
/// `00`. Characters that browsers leave unescaped in queries (`|`, `{`, `^` …) pass.
fn valid_target(mut target: &[u8]) -> bool {
    while let Some((&byte, rest)) = target.split_first() {
        target = match (byte, rest) {
            (b'%', [b'0', b'0', ..]) => return false,
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
            (b'%' | b'#' | b'"' | b'<' | b'>' | b'\\', _) => return false,
            _ if byte.is_ascii_graphic() => rest,
            _ => return false,
        };
    }
    true
}
