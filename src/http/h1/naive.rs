//! Naive readers, for tests and fuzzing: they split whole texts at their line ends and know nothing of speed, of limits, or
//! of input that has not come yet.

use super::head::{Framing, Head, Slots};
use super::violation::Violation;
use crate::http::limits::Limits;
use crate::http::types::{Method, Version};

/// What a head says, in a form that does not depend on who has read it.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub method: Method,
    pub version: Version,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub framing: Framing,
    pub persistent: bool,
    pub expects_continue: bool,
    pub len: usize,
}

pub fn read(input: &[u8]) -> Result<Option<Said>, Violation> {
    let mut slots = Slots::default();
    let head = Head::parse(input, &mut slots, &Limits::default())?;
    Ok(head.map(|head| Said {
        method: head.method,
        version: head.version,
        target: head.target.into(),
        headers: head.headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        framing: head.framing,
        persistent: head.persistent,
        expects_continue: head.expects_continue,
        len: head.len,
    }))
}

/// The naive reader: `None` for a head that is not complete or not valid.
pub fn head(input: &[u8]) -> Option<Said> {
    let len = input.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    // Bytes of obs-text become letters of another alphabet, and are compared as such.
    let text: String = input[..len - 4].iter().map(|byte| char::from(*byte)).collect();
    let bytes = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
    let mut lines = text.split("\r\n");
    let request: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, target, version] = request[..] else { return None };
    let method = Method::from_name(method).filter(|method| *method != Method::Connect)?;
    let digits = version.strip_prefix("HTTP/1.")?;
    let version = match digits.parse::<u8>() {
        Ok(0) if digits.len() == 1 => Version::Http10,
        Ok(1..=9) if digits.len() == 1 && !digits.starts_with('+') => Version::Http11,
        _ => return None,
    };
    if target.is_empty() || target.chars().any(|c| !c.is_ascii_graphic() || "#\"<>\\".contains(c)) {
        return None;
    }
    for escape in target.split('%').skip(1) {
        let code = u8::from_str_radix(escape.get(..2)?, 16).ok().filter(|_| !escape.starts_with('+'))?;
        if code == 0 {
            return None;
        }
    }

    let token = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c))
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if !token(name) || value.chars().any(|c| c != '\t' && (c < ' ' || c == '\x7f')) {
            return None;
        }
        headers.push((name.into(), value.trim_matches([' ', '\t']).into()));
    }
    let called = |wanted: &str| -> Vec<String> {
        headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.to_ascii_lowercase())
            .collect()
    };
    let elements = |wanted: &str| -> Vec<String> {
        let all = called(wanted).join(",");
        all.split(',').map(|element| element.trim_matches([' ', '\t']).to_string()).collect()
    };
    let hosts = called("host");
    if hosts.len() > 1 || (hosts.is_empty() && version == Version::Http11) || !hosts.iter().all(|host| is_host(host)) {
        return None;
    }
    let lengths = called("content-length");
    let framing = match (lengths.len(), called("transfer-encoding").is_empty()) {
        (0, true) => Framing::Length(0),
        (1, true) if lengths[0].chars().all(|c| c.is_ascii_digit()) => Framing::Length(lengths[0].parse().ok()?),
        (0, false) if version == Version::Http11 && elements("transfer-encoding") == ["chunked"] => Framing::Chunked,
        _ => return None,
    };
    let expectations: Vec<String> = elements("expect").into_iter().filter(|one| !one.is_empty()).collect();
    let expects_continue = version == Version::Http11 && !expectations.is_empty();
    if expects_continue && expectations.iter().any(|one| one != "100-continue") {
        return None;
    }
    let options = elements("connection");
    let has = |option: &str| options.iter().any(|one| one == option);
    let persistent = !has("close") && (version == Version::Http11 || has("keep-alive"));

    let lower = target.to_ascii_lowercase();
    let path = if target.starts_with('/') || (target == "*" && method == Method::Options) {
        target.to_string()
    } else {
        let rest = &target[lower.strip_prefix("http://").map(|_| 7)?..];
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        if end == 0 || !is_host(&rest[..end]) {
            return None;
        }
        if let Some((_, host)) = headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("host")) {
            *host = rest[..end].into();
        }
        match &rest[end..] {
            "" if method == Method::Options => "*".into(),
            "" => "/".into(),
            path => path.into(),
        }
    };
    let headers = headers.iter().map(|(name, value)| (name.clone(), bytes(value))).collect();
    Some(Said { method, version, target: path, headers, framing, persistent, expects_continue, len })
}

fn is_host(host: &str) -> bool {
    let port =
        |port: &str| port.is_empty() || (port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok());
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, rest)| {
            address.parse::<core::net::Ipv6Addr>().is_ok()
                && (rest.is_empty() || rest.strip_prefix(':').is_some_and(port))
        });
    }
    let (name, tail) = host.split_once(':').map_or((host, None), |(name, tail)| (name, Some(tail)));
    let escapes = name.split('%').skip(1);
    let mut escapes =
        escapes.map(|escape| escape.get(..2).is_some_and(|two| two.chars().all(|c| c.is_ascii_hexdigit())));
    name.chars().all(|c| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=".contains(c))
        && escapes.all(|valid| valid)
        && tail.is_none_or(|tail| !name.is_empty() && port(tail))
}

/// The naive decoder: the body and the bytes that it takes, `None` when it is not complete or not valid.
pub fn chunks(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |at: usize| -> Option<(String, usize)> {
        let end = at + input[at..].windows(2).position(|end| end == b"\r\n")?;
        let text: String = input[at..end].iter().map(|byte| char::from(*byte)).collect();
        (!text.chars().any(|c| c != '\t' && (c < ' ' || c == '\x7f'))).then_some((text, end + 2))
    };
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (text, data_at) = line(at)?;
        let size = match text.split_once(';') {
            Some((size, _)) => size.trim_end_matches([' ', '\t']),
            None => &text,
        };
        if size.len() > 16 || !size.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(size, 16).ok()?;
        at = data_at;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        body.extend_from_slice(input.get(at..end)?);
        at = end + input[end..].strip_prefix(b"\r\n").map(|_| 2)?;
    }
    loop {
        let (text, next) = line(at)?;
        at = next;
        if text.is_empty() {
            return Some((body, at));
        }
        let (name, _) = text.split_once(':')?;
        if name.is_empty() || name.chars().any(|c| !c.is_ascii_graphic() || "\"(),/:;<=>?@[\\]{}".contains(c)) {
            return None;
        }
    }
}
