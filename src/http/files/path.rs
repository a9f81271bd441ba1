//! From the path of a URL to the name of a file below a directory: the only way in, and what it refuses.
//!
//! Pure; knows no file system, so what a symbolic link does is not known here. A [`SafePath`] never climbs: it has no `..`,
//! is not absolute, and each of its names is one name, however it was encoded.

use std::borrow::Cow;

/// What Linux and macOS allow for one name, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// All names together, with their slashes; the smallest PATH_MAX there is (macOS).
const PATH_BYTES_MAX: usize = 1024;

/// Whether names that begin with a dot are served (`.git`, `.env`). `.well-known` (RFC 8615) always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    Refused,
    Served,
}

/// A relative path, decoded: names joined by single slashes. Empty means the directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SafePath<'a> {
    pub name: Cow<'a, str>,
    /// The URL ended in a slash, so it means a directory.
    pub is_directory: bool,
}

impl<'a> SafePath<'a> {
    /// Reads the path of a URL, still percent-encoded and without its first slash. `None`: no file may be called that.
    ///
    /// It is decoded once (`%252e` is the three characters `%2e`), and each name is looked at after that. An encoded slash
    /// is refused: it would be part of a name to the URL (RFC 3986 §2.2) and a separator to the file system.
    pub fn parse(raw: &'a str, hidden: Hidden) -> Option<SafePath<'a>> {
        if raw.is_empty() {
            return Some(SafePath { name: Cow::Borrowed(""), is_directory: true });
        }
        let names = raw.strip_suffix('/').unwrap_or(raw);
        let mut decoded = String::new();
        for (index, segment) in names.split('/').enumerate() {
            let name = decode(segment)?;
            let shown = hidden == Hidden::Served || !name.starts_with('.') || (index == 0 && name == ".well-known");
            if !shown || !is_safe(&name) {
                return None;
            }
            if raw.contains('%') {
                decoded.push_str(if index == 0 { "" } else { "/" });
                decoded.push_str(&name);
            }
        }
        let name = if raw.contains('%') { Cow::Owned(decoded) } else { Cow::Borrowed(names) };
        (name.len() <= PATH_BYTES_MAX).then_some(SafePath { name, is_directory: names.len() < raw.len() })
    }
}

/// Whether this is one name, on every system, and nothing else. Control characters and backslashes have no business in
/// one; `C:` at its start would be a drive.
fn is_safe(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\'))
        && !matches!(name.as_bytes(), [drive, b':', ..] if drive.is_ascii_alphabetic())
}

/// Each `%XX` replaced by its byte, once. `None` if a `%` is not followed by two digits, or the bytes are not UTF-8.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    let digit = |rest: &mut std::str::Bytes<'_>| char::from(rest.next()?).to_digit(16);
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => u8::try_from(digit(&mut rest)? * 16 + digit(&mut rest)?).ok()?,
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Option<&str>) {
        let path = SafePath::parse(raw, Hidden::Refused);
        assert_eq!(path.as_ref().map(|path| &*path.name), expected, "{raw:?}");
    }

    #[test]
    fn names() {
        for (raw, expected) in [
            ("", Some("")),
            ("a", Some("a")),
            ("a/b.c", Some("a/b.c")),
            ("a/b/", Some("a/b")),
            ("a%20b", Some("a b")),
            ("%61/%62", Some("a/b")),
            ("caf%C3%A9", Some("café")),
            ("café", Some("café")),
            ("a..b", Some("a..b")),
            ("a+b", Some("a+b")),
            ("a:b", None),
            ("ab:c", Some("ab:c")),
            // Double encoding stays what it is after one decoding.
            ("%252e%252e/a", Some("%2e%2e/a")),
            ("%2525", Some("%25")),
            (".well-known/security.txt", Some(".well-known/security.txt")),
        ] {
            check(raw, expected);
        }
    }

    #[test]
    fn refused() {
        for raw in [
            "/",
            "//",
            "/a",
            "a//b",
            "a//",
            "./a",
            "a/.",
            "a/./b",
            "..",
            "../a",
            "a/..",
            "a/../b",
            "a/../",
            "%2e%2e",
            "%2E%2e/a",
            ".%2e/a",
            "%2e/a",
            "a%2fb",
            "..%2fa",
            "%2f",
            "a%5cb",
            "a\\b",
            "..\\a",
            "%5c%5chost",
            "a%00",
            "a%00.html",
            "%00",
            "a%0ab",
            "a%0d%0aSet-Cookie:b",
            "a%7f",
            "a%c2%85",
            "C:",
            "c:/a",
            "C%3a/a",
            "a/C:",
            "%",
            "%2",
            "%zz",
            "%%32e",
            "a%2",
            "%ff",
            "%c0%ae%c0%ae/a",
            "%e0%80%ae",
            ".git/config",
            ".env",
            "a/.htaccess",
            "%2egit/config",
            "a/.well-known/b",
            "a/.well-known",
            ".well-known/..",
            ".well-known/.a",
        ] {
            check(raw, None);
        }
        check(&"a".repeat(255), Some(&"a".repeat(255)));
        check(&"a".repeat(256), None);
        check(&"%61".repeat(256), None);
        check(&vec!["a"; 512].join("/"), Some(&vec!["a"; 512].join("/")));
        check(&vec!["a"; 513].join("/"), None);
    }

    #[test]
    fn a_slash_at_the_end_means_a_directory() {
        for (raw, is_directory) in [("", true), ("a", false), ("a/", true), ("a/b%20/", true), ("a%20b", false)] {
            assert_eq!(SafePath::parse(raw, Hidden::Refused).unwrap().is_directory, is_directory, "{raw}");
        }
    }

    #[test]
    fn hidden_files_on_request_only() {
        for (raw, shown) in
            [(".env", true), ("a/.b/c", true), ("...", true), ("..", false), ("%2e%2e/a", false), (".", false)]
        {
            assert_eq!(SafePath::parse(raw, Hidden::Served).is_some(), shown, "{raw}");
        }
    }
}
