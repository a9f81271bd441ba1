//! Conditional requests (RFC 9110 §13): whether a request goes on, by what its client already has.
//!
//! Knows no file: a representation is its two validators here. Pure; `now` is an argument and means seconds since 1970.

use crate::http::date;
use crate::http::request::Request;
use crate::http::types::Method;

/// What tells one version of a representation from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    /// The entity tag as it is sent, `"…"` or `W/"…"`.
    pub tag: &'a str,
    /// Seconds since 1970, as it is sent.
    pub last_modified: Option<u64>,
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    /// 304: the client's copy is good.
    NotModified,
    /// 412: the client meant another version.
    PreconditionFailed,
}

/// Weighs the conditions in the order of §13.2.2. `If-Range` comes after them: [`range_applies`].
pub(crate) fn evaluate(request: &Request<'_>, current: &Validators<'_>, now: u64) -> Verdict {
    let reads = matches!(request.method(), Method::Get | Method::Head);
    let date = |name| only(request, name).and_then(|value| date::parse(value, now));

    if let Some(listed) = any_tag(request, "if-match", current.tag, strong_match) {
        if !listed {
            return Verdict::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (date("if-unmodified-since"), current.last_modified)
        && modified > since
    {
        return Verdict::PreconditionFailed;
    }

    match any_tag(request, "if-none-match", current.tag, weak_match) {
        Some(true) if reads => Verdict::NotModified,
        Some(true) => Verdict::PreconditionFailed,
        Some(false) => Verdict::Proceed,
        None => match (date("if-modified-since"), current.last_modified) {
            (Some(since), Some(modified)) if reads && modified <= since => Verdict::NotModified,
            _ => Verdict::Proceed,
        },
    }
}

/// Whether `Range` counts: there is no `If-Range`, or it names this very version (§13.1.5).
///
/// A date does so only if it is exactly ours, and its second is over: until then another change could share it (§8.8.2.2).
pub(crate) fn range_applies(request: &Request<'_>, current: &Validators<'_>, now: u64) -> bool {
    if lines(request, "if-range").next().is_none() {
        return true;
    }
    let Some(value) = only(request, "if-range") else { return false };
    match (Tags(value).next(), current.last_modified) {
        (Some(tag), _) => strong_match(tag, current.tag),
        (None, Some(modified)) => modified < now && date::parse(value, now) == Some(modified),
        (None, None) => false,
    }
}

/// Whether the list of tags in all lines of this name has the current one, or is `*`. `None` without such a line.
fn any_tag(request: &Request<'_>, name: &str, current: &str, matches: fn(&[u8], &str) -> bool) -> Option<bool> {
    let mut values = lines(request, name).peekable();
    values.peek()?;
    Some(values.any(|value| value == b"*" || Tags(value).any(|tag| matches(tag, current))))
}

/// Neither is weak, and they are the same (§8.8.3.2).
fn strong_match(tag: &[u8], current: &str) -> bool {
    !tag.starts_with(b"W/") && tag == current.as_bytes()
}

/// They are the same, weak or not.
fn weak_match(tag: &[u8], current: &str) -> bool {
    let current = current.as_bytes();
    tag.strip_prefix(b"W/").unwrap_or(tag) == current.strip_prefix(b"W/").unwrap_or(current)
}

/// The values of all lines with this name, which stand for one list (§5.3).
pub(crate) fn lines<'a>(request: &'a Request<'_>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = request.headers().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim_ascii())
}

/// The value of a field that may stand in one line only.
pub(crate) fn only<'a>(request: &'a Request<'_>, name: &'a str) -> Option<&'a [u8]> {
    let mut values = lines(request, name);
    values.next().filter(|_| values.next().is_none())
}

/// The entity tags of a list, as they stand there. A tag may contain commas, so quotes are followed; the list ends where
/// it stops being one.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
        let list = &self.0[start..];
        let opening = if list.starts_with(b"W/\"") { 3 } else { 1 };
        let closing = match list.starts_with(b"\"") || opening == 3 {
            true => list[opening..].iter().position(|byte| *byte == b'"'),
            false => None,
        };
        let Some(closing) = closing else {
            self.0 = &[];
            return None;
        };
        let (tag, rest) = list.split_at(opening + closing + 1);
        self.0 = rest;
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::*;

    /// 1994-11-06 08:49:37, and an hour later.
    const MODIFIED: u64 = 784_111_777;
    const NOW: u64 = MODIFIED + 3600;
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const EXACT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn request<'a>(method: Method, lines: &[(&'a str, &'a str)]) -> Request<'a> {
        lines.iter().fold(Request::new(method, "/"), |request, (name, value)| request.with_header(name, value))
    }

    #[track_caller]
    fn check(tag: &str, lines: &[(&str, &str)], expected: Verdict) {
        let current = Validators { tag, last_modified: Some(MODIFIED) };
        for method in [Method::Get, Method::Head] {
            assert_eq!(evaluate(&request(method, lines), &current, NOW), expected, "{method} {lines:?}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for (value, expected) in [
            ("\"a\"", NotModified),
            ("W/\"a\"", NotModified),
            ("\"x\", \"a\"", NotModified),
            ("\"x\",,\t W/\"a\" ,", NotModified),
            ("\"x, \\\", \"a\"", NotModified),
            ("*", NotModified),
            ("\"b\"", Proceed),
            ("\"x,\"a\"\"", Proceed),
            ("\"A\"", Proceed),
            ("w/\"a\"", Proceed),
            ("a", Proceed),
            ("\"a", Proceed),
            ("\"b\", *", Proceed),
            ("", Proceed),
        ] {
            check("\"a\"", &[("If-None-Match", value)], expected);
        }
        check("W/\"a\"", &[("If-None-Match", "\"a\"")], NotModified);
        check("\"a,b\"", &[("If-None-Match", "\"a,b\"")], NotModified);
        check("\"a\"", &[("If-None-Match", "\"x\""), ("if-none-match", "\"a\"")], NotModified);
    }

    #[test]
    fn if_match_compares_strongly() {
        for (tag, value, expected) in [
            ("\"a\"", "\"a\"", Proceed),
            ("\"a\"", "\"x\", \"a\"", Proceed),
            ("\"a\"", "*", Proceed),
            ("W/\"a\"", "*", Proceed),
            ("\"a\"", "W/\"a\"", PreconditionFailed),
            ("W/\"a\"", "W/\"a\"", PreconditionFailed),
            ("W/\"a\"", "\"a\"", PreconditionFailed),
            ("\"a\"", "\"b\"", PreconditionFailed),
            ("\"a\"", "", PreconditionFailed),
            ("\"a\"", "a", PreconditionFailed),
        ] {
            check(tag, &[("If-Match", value)], expected);
        }
    }

    #[test]
    fn dates() {
        for (name, value, expected) in [
            ("If-Modified-Since", BEFORE, Proceed),
            ("If-Modified-Since", EXACT, NotModified),
            ("If-Modified-Since", AFTER, NotModified),
            ("If-Modified-Since", "yesterday", Proceed),
            ("If-Unmodified-Since", BEFORE, PreconditionFailed),
            ("If-Unmodified-Since", EXACT, Proceed),
            ("If-Unmodified-Since", AFTER, Proceed),
            ("If-Unmodified-Since", "yesterday", Proceed),
        ] {
            check("\"a\"", &[(name, value)], expected);
        }
        // More than one is none (§13.1.3), and without a date of our own there is nothing to compare.
        check("\"a\"", &[("If-Modified-Since", EXACT), ("If-Modified-Since", EXACT)], Proceed);
        let current = Validators { tag: "\"a\"", last_modified: None };
        for (name, value) in [("If-Modified-Since", AFTER), ("If-Unmodified-Since", BEFORE)] {
            assert_eq!(evaluate(&request(Method::Get, &[(name, value)]), &current, NOW), Proceed);
        }
    }

    #[test]
    fn tags_go_before_dates_and_matches_before_none_matches() {
        let (same, other) = ("\"a\"", "\"b\"");
        for (lines, expected) in [
            ([("If-None-Match", other), ("If-Modified-Since", AFTER)], Proceed),
            ([("If-None-Match", same), ("If-Modified-Since", BEFORE)], NotModified),
            ([("If-Match", same), ("If-Unmodified-Since", BEFORE)], Proceed),
            ([("If-Match", other), ("If-Unmodified-Since", AFTER)], PreconditionFailed),
            ([("If-Match", other), ("If-None-Match", same)], PreconditionFailed),
            ([("If-Match", same), ("If-None-Match", same)], NotModified),
            ([("If-Unmodified-Since", BEFORE), ("If-None-Match", same)], PreconditionFailed),
            ([("If-Unmodified-Since", AFTER), ("If-Modified-Since", AFTER)], NotModified),
        ] {
            check(same, &lines, expected);
        }
    }

    #[test]
    fn a_method_that_writes_is_refused_where_one_that_reads_is_spared() {
        let current = Validators { tag: "\"a\"", last_modified: Some(MODIFIED) };
        for (name, value, expected) in [
            ("If-None-Match", "*", PreconditionFailed),
            ("If-None-Match", "\"b\"", Proceed),
            ("If-Modified-Since", AFTER, Proceed),
            ("If-Match", "\"b\"", PreconditionFailed),
        ] {
            assert_eq!(evaluate(&request(Method::Put, &[(name, value)]), &current, NOW), expected, "{name}: {value}");
        }
    }

    #[test]
    fn if_range() {
        for (tag, value, now, expected) in [
            ("\"a\"", "\"a\"", NOW, true),
            ("\"a\"", "\"b\"", NOW, false),
            ("\"a\"", "W/\"a\"", NOW, false),
            ("W/\"a\"", "W/\"a\"", NOW, false),
            ("\"a\"", "*", NOW, false),
            ("\"a\"", "", NOW, false),
            ("\"a\"", EXACT, NOW, true),
            ("\"a\"", EXACT, MODIFIED, false),
            ("\"a\"", BEFORE, NOW, false),
            ("\"a\"", AFTER, NOW, false),
        ] {
            let request = Request::new(Method::Get, "/").with_header("If-Range", value);
            let current = Validators { tag, last_modified: Some(MODIFIED) };
            assert_eq!(range_applies(&request, &current, now), expected, "{tag} {value}");
        }
        let current = Validators { tag: "\"a\"", last_modified: None };
        assert!(range_applies(&Request::new(Method::Get, "/"), &current, NOW));
        assert!(!range_applies(&Request::new(Method::Get, "/").with_header("If-Range", EXACT), &current, NOW));
    }
}
