//! Request targets and authorities: which resource, on which host (RFC 9112 §3.2, RFC 9110 §4.2 and §7.2).
//!
//! Knows no header lines. What is accepted is what every recipient on the way reads alike; for hosts that is the grammar of
//! RFC 3986 with nothing of it skipped.

use core::net::Ipv6Addr;

use super::bytes::{REG_NAME, TARGET, reg_name_run};
use super::head::Stop;
use super::lines::Span;
use super::violation::Violation;
use crate::http::types::Method;

/// Where a request goes.
pub(super) struct Target<'b> {
    /// Where host and port are in the head; only an absolute target has them.
    pub authority: Option<Span>,
    /// Path and query, `*` for the server itself.
    pub path: &'b str,
}

/// How long the target at the front of `bytes` is. It ends with a space; each of its characters is checked.
#[inline]
pub(super) fn target_len(bytes: &[u8], target_bytes_max: usize) -> Result<usize, Stop> {
    // One byte more than the limit shows that it is passed.
    let bytes = bytes.get(..=target_bytes_max).unwrap_or(bytes);
    let at_end = || if bytes.len() > target_bytes_max { Violation::TargetTooLong.into() } else { Stop::Partial };
    let mut len = 0;
    loop {
        len += TARGET.run(bytes.get(len..).unwrap_or_default());
        match bytes.get(len..).unwrap_or_default() {
            [b' ', ..] if len > 0 => return Ok(len),
            // A NUL ends strings for those who decode the path and hand it to their system.
            [b'%', b'0', b'0', ..] => return Err(Violation::TargetInvalid.into()),
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => len += 3,
            [] | [b'%'] => return Err(at_end()),
            [b'%', high] if high.is_ascii_hexdigit() => return Err(at_end()),
            // A second space, or no version: the line is not one of HTTP/1.
            [b' ' | b'\r' | b'\n', ..] => return Err(Violation::BadHead.into()),
            _ => return Err(Violation::TargetInvalid.into()),
        }
    }
}

/// The forms of target that a server which is no proxy must take, for a target whose characters are valid and which begins
/// at `at` in the head.
#[inline]
pub(super) fn read(method: Method, target: &str, at: usize) -> Result<Target<'_>, Violation> {
    match target.as_bytes() {
        [b'/', ..] => Ok(Target { authority: None, path: target }),
        b"*" if method == Method::Options => Ok(Target { authority: None, path: target }),
        _ => absolute_form(method, target, at),
    }
}

/// §3.2.2: its authority counts, whatever Host says.
fn absolute_form(method: Method, target: &str, at: usize) -> Result<Target<'_>, Violation> {
    let (scheme, rest) = target.split_once("://").ok_or(Violation::TargetInvalid)?;
    if scheme.eq_ignore_ascii_case("https") {
        // What was asked for over TLS must not be given without it (RFC 9110 §7.4).
        return Err(Violation::Misdirected);
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Violation::TargetInvalid);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(Violation::TargetInvalid);
    }
    let path = match path {
        // §3.2.4
        "" if method == Method::Options => "*",
        "" => "/",
        path => path,
    };
    let authority = Span::new(at + scheme.len() + "://".len(), authority.len());
    Ok(Target { authority: Some(authority), path })
}

/// `uri-host [":" port]` without user information (RFC 9110 §4.2.4). An http URI without a host is none (§4.2.1), but a
/// Host line may be empty, where the target has no authority (§7.2).
#[inline]
pub(super) fn is_authority(value: &[u8]) -> bool {
    match value {
        [] => true,
        [b'[', rest @ ..] => is_ip_literal(rest),
        _ => {
            let (host, port) = value.split_at(reg_name_run(value));
            match port {
                [] => true,
                [b':', port @ ..] => !host.is_empty() && is_port(port),
                _ => has_escapes(value),
            }
        }
    }
}

/// A registered name with `%XX` in it, and its port.
fn has_escapes(value: &[u8]) -> bool {
    let mut rest = value;
    loop {
        rest = match rest.split_at(REG_NAME.run(rest)).1 {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [b':', port @ ..] => return is_port(port),
            _ => return false,
        };
    }
}

/// What follows a `[`. The address formats of the future (`v1.…`) are not known (RFC 3986 §3.2.2), and zones mean
/// something on the client's machine only.
fn is_ip_literal(rest: &[u8]) -> bool {
    let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
    let (address, port) = rest.split_at(end);
    let address = str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    address
        && match port {
            [b']'] => true,
            [b']', b':', port @ ..] => is_port(port),
            _ => false,
        }
}

/// Digits that are a port of TCP, or none (RFC 3986 §3.2.3).
fn is_port(digits: &[u8]) -> bool {
    let mut port = 0;
    digits.iter().all(|byte| {
        let digit = u32::from(byte.wrapping_sub(b'0'));
        port = port * 10 + digit;
        digit < 10 && port <= u32::from(u16::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_target_says_where_its_host_is() {
        let head = b"GET HTTP://[::1]:80/p?q HTTP/1.1";
        let target = str::from_utf8(&head[4..23]).unwrap();
        let read = read(Method::Get, target, 4).ok().unwrap();
        assert_eq!(read.path, "/p?q");
        assert_eq!(read.authority.unwrap().of(head), b"[::1]:80");
    }
}
