//! The few header lines that concern the connection itself: Host, Expect, Connection and the two that frame the body.
//!
//! Knows names and values, no line and no buffer. Where two recipients might disagree about where a message ends, the
//! message is refused (RFC 9112 §11.2).

use super::bytes::{TOKEN, trim_blank};
use super::head::Framing;
use super::target::is_authority;
use super::violation::Violation;
use crate::http::types::Version;

/// What the lines read so far say.
pub(super) struct Fields {
    version: Version,
    /// The number of the Host line.
    pub host: Option<usize>,
    length: Option<u64>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    pub expects_continue: bool,
}

/// The transfer codings, in the order in which they were applied; several lines are one list (RFC 9110 §5.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Absent,
    Chunked,
    /// One that is not known here, and nothing after it yet.
    Unknown,
    UnknownThenChunked,
}

impl Fields {
    pub fn new(version: Version) -> Fields {
        Fields {
            version,
            host: None,
            length: None,
            coding: Coding::Absent,
            close: false,
            keep_alive: false,
            expects_continue: false,
        }
    }

    /// Takes note of a line. Most lines are of no concern, and show it by the length of their name.
    #[inline]
    pub fn note(&mut self, number: usize, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        match name.len() {
            4 if is_named(name, b"host") => {
                if self.host.replace(number).is_some() {
                    return Err(Violation::HostTwice);
                }
                if !is_authority(value) {
                    return Err(Violation::HostInvalid);
                }
            }
            6 if is_named(name, b"expect") => self.note_expectations(value)?,
            10 if is_named(name, b"connection") => {
                for option in elements(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is_named(name, b"content-length") => {
                let length = content_length(value)?;
                // Equal ones might be merged (RFC 9110 §8.6), but no client has a reason to send two.
                if self.length.replace(length).is_some() {
                    return Err(Violation::LengthTwice);
                }
            }
            17 if is_named(name, b"transfer-encoding") => {
                // An empty element is no reason to refuse other lists, but where a body ends hangs on this one.
                self.coding = value.split(|byte| *byte == b',').map(trim_blank).try_fold(self.coding, Coding::then)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9110 §10.1.1: those of an HTTP/1.0 client are ignored, unknown ones refused.
    fn note_expectations(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.version == Version::Http10 {
            return Ok(());
        }
        for expectation in elements(value) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Violation::ExpectationUnknown);
            }
            self.expects_continue = true;
        }
        Ok(())
    }

    /// How long the body is, once all lines are read (§6.3).
    pub fn framing(&self) -> Result<Framing, Violation> {
        match (self.coding, self.length) {
            (Coding::Absent, length) => Ok(Framing::Length(length.unwrap_or(0))),
            (_, Some(_)) => Err(Violation::LengthAndCoding),
            (_, None) if self.version == Version::Http10 => Err(Violation::CodingInHttp10),
            (Coding::Chunked, None) => Ok(Framing::Chunked),
            // Without chunked at the end nobody knows where the body ends; otherwise it is only not understood.
            (Coding::Unknown, None) => Err(Violation::CodingInvalid),
            (Coding::UnknownThenChunked, None) => Err(Violation::CodingUnknown),
        }
    }

    /// Whether the client would have the connection stay open (§9.3).
    pub fn persistent(&self) -> bool {
        !self.close && (self.version == Version::Http11 || self.keep_alive)
    }
}

impl Coding {
    /// With one coding more. Chunked must come last and once (§6.1).
    fn then(self, coding: &[u8]) -> Result<Coding, Violation> {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        match self {
            Coding::Absent if is_chunked => Ok(Coding::Chunked),
            Coding::Unknown if is_chunked => Ok(Coding::UnknownThenChunked),
            Coding::Absent | Coding::Unknown if !coding.is_empty() && TOKEN.run(coding) == coding.len() => {
                Ok(Coding::Unknown)
            }
            _ => Err(Violation::CodingInvalid),
        }
    }
}

/// Whether a token is `lower` in letters of any case. Of the bytes that a token may have, only the capital of a letter and
/// the letter itself become that letter, and only a dash becomes a dash.
#[inline]
fn is_named<const LEN: usize>(name: &[u8], lower: &[u8; LEN]) -> bool {
    name.first_chunk().is_some_and(|name: &[u8; LEN]| name.map(|byte| byte | 0x20) == *lower)
}

/// The elements of a list; empty ones are ignored (RFC 9110 §5.6.1.2).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim_blank).filter(|element| !element.is_empty())
}

/// Digits only: no sign, no list, no space, and no more than 64 bits.
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.ok_or(Violation::LengthInvalid)
}
