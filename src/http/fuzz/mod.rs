//! What must hold for any bytes whatever, as functions that panic where it does not: the targets of `fuzz/`, and of the
//! seeded runs in `cargo test`.
//!
//! The first bytes of an input choose where the rest is cut and which limits hold. What comes out must not depend on the
//! cuts, nothing may come out after a violation, and naive readers must agree.

#[cfg(test)]
mod smoke;

use std::path::{Component, Path};
use std::time::Instant;

use super::client::encode::BodyFraming;
use super::client::exchange::{Event, Exchange as ClientExchange, Polled, Terms, Timeouts};
use super::files::path::{Hidden, SafePath};
use super::h1::connection::{Connection, Poll};
use super::h1::decode::Decoder;
use super::h1::encode::Exchange;
use super::h1::head::{Framing, Slots};
use super::h1::naive;
use super::h1::violation::Violation;
use super::limits::Limits;
use super::request::Request;
use super::route_tree::{self, RouteTree};
use super::types::Method;

/// An input with its first two bytes as places to cut it.
struct Cuts<'d> {
    input: &'d [u8],
    places: [usize; 2],
}

impl<'d> Cuts<'d> {
    fn of(data: &'d [u8]) -> Option<Cuts<'d>> {
        let ([one, two], input) = data.split_first_chunk::<2>()?;
        let place = |byte: u8| usize::from(byte) * (input.len() + 1) / 256;
        let (one, two) = (place(*one), place(*two));
        Some(Cuts { input, places: [one.min(two), one.max(two)] })
    }

    /// The same input: cut in two, in three, and in single bytes if there are not too many.
    fn each(&self) -> Vec<Vec<&'d [u8]>> {
        let [one, two] = self.places;
        let (start, end) = self.input.split_at(two);
        let (first, second) = start.split_at(one);
        let mut all = vec![vec![start, end], vec![first, second, end]];
        if self.input.len() <= 600 {
            all.push(self.input.chunks(1).collect());
        }
        all
    }
}

/// What follows an input: a line that has not ended is not looked at again for each byte of it, so what is wrong with it
/// may show at its end only.
const LINE_END: &[u8] = b"\r\n\r\n";

/// The limits of the corpus, or the default ones.
fn limits(small: bool) -> Limits {
    match small {
        false => Limits::default(),
        true => Limits {
            target_bytes_max: 200,
            head_bytes_max: 1000,
            headers_max: 30,
            body_bytes_max: 100,
            chunk_overhead_bytes_max: 500,
            ..Limits::default()
        },
    }
}

/// Requests come out the same however their bytes arrive, whether their bodies are buffered or fed; a head that is taken
/// means what a naive reader makes of it.
pub fn requests(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let Some(cuts) = Cuts::of(data) else { return };
    let limits = limits(flags & 1 == 1);
    let whole = read_requests(&[cuts.input, LINE_END], &limits, false);
    for mut parts in cuts.each() {
        parts.push(LINE_END);
        for fed in [false, true] {
            let cut = read_requests(&parts, &limits, fed);
            assert_eq!(whole, cut, "cut at {:?}, fed: {fed}: {}", cuts.places, cuts.input.escape_ascii());
        }
    }
    check_head(cuts.input);
}

fn check_head(input: &[u8]) {
    let naive = naive::head(input);
    match naive::read(input) {
        Ok(Some(said)) => assert_eq!(Some(said), naive, "{}", input.escape_ascii()),
        Ok(None) => assert_eq!(naive, None, "{}", input.escape_ascii()),
        Err(Violation::TargetTooLong | Violation::HeadTooLarge | Violation::TooManyHeaders) => {}
        Err(violation) => assert_eq!(naive, None, "{violation:?}: {}", input.escape_ascii()),
    }
}

/// The requests in `parts`, and how they end.
fn read_requests(parts: &[&[u8]], limits: &Limits, fed: bool) -> Vec<String> {
    let now = Instant::now();
    let (mut connection, mut held, mut events) = (Connection::new(now), Vec::new(), Vec::<String>::new());
    let (mut line, mut body, mut over) = (String::new(), Vec::new(), false);
    for part in parts {
        held.extend_from_slice(part);
        loop {
            let (mut slots, mut again) = (Slots::default(), Slots::default());
            if connection.is_feeding() {
                match connection.poll_body(&held, &mut body, now) {
                    Ok((used, complete)) => {
                        held.drain(..used);
                        if !complete {
                            break;
                        }
                        events.push(format!("{line} {}", std::mem::take(&mut body).escape_ascii()));
                    }
                    // It stays, and shows at the next look.
                    Err(_) => body.clear(),
                }
            }
            let used = match connection.poll(&held, &mut slots, limits, now) {
                Poll::More { used } => {
                    held.drain(..used);
                    break;
                }
                Poll::Announced { request, exchange, used, .. } => {
                    assert!(!over, "a request behind the end: {events:?}");
                    line = describe(&request, exchange);
                    let _shows_at_the_next_look = match fed {
                        true => connection.feed_body(limits.body_bytes_max as u64),
                        false => connection.buffer_body(&held[..used], limits.body_bytes_max),
                    };
                    used
                }
                Poll::Request { request, exchange, used } => {
                    assert!(!over, "a request behind the end: {events:?}");
                    if request.body().len() > limits.body_bytes_max {
                        // The router's business where the body is there at once; the connection's where it is to come.
                        events.push(format!("{:?}", Violation::BodyTooLarge));
                        return events;
                    }
                    events.push(format!("{} {}", describe(&request, exchange), request.body().escape_ascii()));
                    used
                }
                Poll::Uploaded { upload, used } => {
                    let (request, exchange) = upload.request(&mut again, limits).expect("it was valid before");
                    assert!(request.body().len() <= limits.body_bytes_max);
                    events.push(format!("{} {}", describe(&request, exchange), request.body().escape_ascii()));
                    used
                }
                Poll::Refused(violation) => {
                    let violation = format!("{violation:?}");
                    assert!(!over || events.last() == Some(&violation), "{events:?}, then {violation}");
                    if !std::mem::replace(&mut over, true) {
                        events.push(violation);
                    }
                    break;
                }
                Poll::Ended => {
                    over = true;
                    break;
                }
            };
            held.drain(..used);
        }
    }
    events
}

fn describe(request: &Request<'_>, exchange: Exchange) -> String {
    let headers: Vec<String> =
        request.headers().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect();
    let (path, query) = (request.path(), request.query_string());
    format!("{} {path} {query:?} {headers:?} {exchange:?}", request.method())
}

/// A chunked body is the same however it arrives, and the one that a naive decoder finds.
pub fn chunks(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let Some(cuts) = Cuts::of(data) else { return };
    let (body_bytes_max, overhead_bytes_max) = if flags & 1 == 1 { (20, 30) } else { (1 << 30, 1 << 30) };
    let decode = |parts: &[&[u8]]| -> Result<Option<(Vec<u8>, usize)>, Violation> {
        let mut decoder = Decoder::new(Framing::Chunked, overhead_bytes_max).limited(body_bytes_max)?;
        let (mut body, mut used) = (Vec::new(), 0);
        for part in parts {
            let (count, complete) = decoder.decode(part, &mut body)?;
            used += count;
            assert!(body.len() as u64 <= body_bytes_max);
            if complete {
                return Ok(Some((body, used)));
            }
            assert_eq!(count, part.len(), "bytes left over in the middle of a body");
        }
        Ok(None)
    };
    let (whole, shown) = (decode(&[cuts.input]), cuts.input.escape_ascii());
    for parts in cuts.each() {
        assert_eq!(whole, decode(&parts), "cut at {:?}: {shown}", cuts.places);
    }
    let naive = naive::chunks(cuts.input);
    match whole {
        Ok(decoded) => assert_eq!(decoded, naive, "{shown}"),
        Err(Violation::BodyTooLarge | Violation::ChunkOverhead) => {}
        Err(violation) => assert_eq!(naive, None, "{violation:?}: {shown}"),
    }
}

/// A path leads where trying every pattern would lead, with the same parameters. The input is text: lines that are
/// patterns, an empty line, lines that are paths.
pub fn routes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (patterns, paths) = text.split_once("\n\n").unwrap_or((&text, ""));
    let (mut tree, mut known) = (RouteTree::<String>::default(), Vec::<&str>::new());
    for pattern in patterns.lines() {
        if let Ok(value) = tree.entry(pattern) {
            if value.is_empty() {
                known.push(pattern);
            }
            *value = pattern.to_string();
        }
    }
    for path in paths.lines() {
        let mut matching: Vec<&str> = known.iter().copied().filter(|pattern| matches(pattern, path)).collect();
        matching.sort_by_key(|pattern| rank(pattern));
        // What is wanted is a property of the value, as the methods of a path are.
        for wanted in [|_: &str| true, |pattern: &str| pattern.len().is_multiple_of(2)] {
            let naive = matching.iter().find(|pattern| wanted(pattern)).or(matching.first()).copied();
            let found = tree.find(path, |value| wanted(value)).map(String::as_str);
            assert_eq!(found, naive, "{path:?} among {known:?}");
            for name in known.iter().flat_map(|pattern| pattern.split('/')).filter_map(param_name) {
                let raw = found.and_then(|pattern| route_tree::param(pattern, path, name));
                assert_eq!(raw, found.and_then(|pattern| naive_param(pattern, path, name)), "{name} of {path:?}");
            }
        }
        let _decoded = Request::new(Method::Get, path).query("a");
    }
    let entries = tree.into_entries();
    assert_eq!(entries.iter().filter(|(_, value)| !value.is_empty()).count(), known.len());
}

fn param_name(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    Some(name.strip_prefix('*').unwrap_or(name))
}

fn is_rest(segment: &str) -> bool {
    segment.starts_with("{*") && segment.ends_with('}')
}

fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, Some(path)) = (&pattern[1..], path.strip_prefix('/')) else { return false };
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(_)) if is_rest(wanted) => return true,
            (Some(wanted), Some(given)) if param_name(wanted).is_some() && !given.is_empty() => {}
            (Some(wanted), Some(given)) if wanted == given && param_name(wanted).is_none() => {}
            _ => return false,
        }
    }
}

/// Fixed before parameter before rest, segment by segment.
fn rank(pattern: &str) -> Vec<u8> {
    let class = |segment: &str| if is_rest(segment) { 2 } else { u8::from(param_name(segment).is_some()) };
    pattern[1..].split('/').map(class).collect()
}

fn naive_param<'p>(pattern: &str, path: &'p str, name: &str) -> Option<&'p str> {
    let index = pattern[1..].split('/').position(|segment| param_name(segment) == Some(name))?;
    let from = path.match_indices('/').nth(index)?.0 + 1;
    let end = match is_rest(pattern[1..].split('/').nth(index)?) {
        true => path.len(),
        false => path[from..].find('/').map_or(path.len(), |at| from + at),
    };
    path.get(from..end)
}

/// A path of a URL leads to a file below the directory, or nowhere.
pub fn paths(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    let (shown, all) = (SafePath::parse(&raw, Hidden::Refused), SafePath::parse(&raw, Hidden::Served));
    assert!(shown.is_none() || shown == all, "{raw:?}: {shown:?}, {all:?}");
    assert_eq!(all.as_ref().map(|path| path.name.to_string()), naive_path(&raw), "{raw:?}");
    let Some(path) = all else { return };
    let name = &*path.name;
    assert!(!name.contains(['\0', '\\']) && !name.starts_with('/'), "{raw:?}: {name:?}");
    let mut below = Path::new(name).components();
    assert!(below.all(|component| matches!(component, Component::Normal(_))), "{raw:?}: {name:?}");
    assert_eq!(Path::new("/root").join(name).components().count(), 2 + Path::new(name).components().count());
    if let Some(path) = shown {
        let mut names = path.name.split('/').skip(usize::from(path.name.starts_with(".well-known")));
        assert!(!names.any(|name| name.starts_with('.')), "{raw:?}: {path:?}");
    }
}

/// The names that a path is made of, if each is one that a file may have.
fn naive_path(raw: &str) -> Option<String> {
    let names = raw.strip_suffix('/').unwrap_or(raw);
    if raw.is_empty() {
        return Some(String::new());
    }
    let decoded: Option<Vec<String>> = names.split('/').map(naive_decoded).collect();
    let decoded = decoded?;
    let is_name = |name: &String| {
        let drive = name.len() > 1 && name.as_bytes()[0].is_ascii_alphabetic() && name.as_bytes()[1] == b':';
        !["", ".", ".."].contains(&name.as_str())
            && name.len() <= 255
            && !drive
            && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\')
    };
    let path = decoded.join("/");
    (decoded.iter().all(is_name) && path.len() <= 1024).then_some(path)
}

fn naive_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// An answer that our client gets is the same however it arrives, and nothing follows its end or its fault.
pub fn answers(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let Some(cuts) = Cuts::of(data) else { return };
    let method = if flags & 1 == 1 { Method::Head } else { Method::Get };
    let ends = flags & 2 == 2;
    let whole = read_answer(&[cuts.input, LINE_END], method, ends);
    for mut parts in cuts.each() {
        parts.push(LINE_END);
        let cut = read_answer(&parts, method, ends);
        assert_eq!(whole, cut, "cut at {:?}: {}", cuts.places, cuts.input.escape_ascii());
    }
}

fn read_answer(parts: &[&[u8]], method: Method, ends: bool) -> String {
    let now = Instant::now();
    let terms = Terms {
        method,
        body_to_come: BodyFraming::Empty,
        timeouts: Timeouts::default(),
        end: None,
        head_bytes_max: 1000,
        body_bytes_max: 100,
        reused: false,
    };
    let mut exchange = ClientExchange::new(terms, 0, now);
    let (mut held, mut body, mut seen, mut over) = (Vec::new(), Vec::new(), String::new(), None);
    for n in 0..=parts.len() {
        held.extend_from_slice(parts.get(n).copied().unwrap_or_default());
        let ended = n == parts.len() && ends;
        loop {
            let before = body.len();
            match exchange.poll(&held, ended, &mut body, now) {
                Ok(Polled { used, event }) => {
                    assert!(over.is_none() || matches!(event, Event::End), "something behind the end");
                    held.drain(..used);
                    match event {
                        Event::More => break,
                        Event::Data => assert!(body.len() > before || used > 0),
                        Event::Head(head) => seen = format!("{head:?}"),
                        Event::End => {
                            over = Some(format!("end, reusable {}", exchange.is_reusable()));
                            break;
                        }
                    }
                }
                Err(kind) => {
                    let kind = format!("{kind:?}");
                    assert!(over.as_ref().is_none_or(|over| *over == kind), "{kind} behind {over:?}");
                    over = Some(kind);
                    // How much of a bad body was there before depends on the cuts.
                    body.clear();
                    break;
                }
            }
        }
    }
    assert!(body.len() <= 100, "{} bytes of body", body.len());
    format!("{seen} {} {over:?}", body.escape_ascii())
}
