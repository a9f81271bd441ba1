//! Header lines of an answer, and which of them end at this connection.

use std::fmt::Write;

/// Header lines in the order in which they came.
///
/// Bytes that are not UTF-8 were replaced by U+FFFD. Look-ups walk the lines, of which there are at most a hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `name: value\r\n` each, as in a [`Reply`](crate::http::Reply).
    lines: String,
}

impl Headers {
    pub(crate) fn of(parsed: &[httparse::Header<'_>]) -> Headers {
        let bytes = parsed.iter().map(|header| header.name.len() + header.value.len() + 4).sum();
        let mut lines = String::with_capacity(bytes);
        for header in parsed {
            // Writing to a string cannot fail.
            let _ = write!(lines, "{}: {}\r\n", header.name, String::from_utf8_lossy(header.value));
        }
        Headers { lines }
    }

    /// All lines, as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.split("\r\n").filter_map(|line| line.split_once(": "))
    }

    /// The first value of a header; names compare without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The lines that may be passed on to another connection: all but those about this connection (RFC 9110 §7.6.1).
    pub fn end_to_end(&self) -> impl Iterator<Item = (&str, &str)> {
        let nominated = self.values("connection").collect::<Vec<_>>();
        self.iter().filter(move |(name, _)| !is_hop_by_hop(name) && !lists(&nominated, name))
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Whether one of these values of `Connection` nominates a header.
pub(crate) fn lists(connection: &[&str], name: &str) -> bool {
    connection.iter().any(|value| value.split(',').any(|option| option.trim_ascii().eq_ignore_ascii_case(name)))
}

/// Headers about one connection, whatever `Connection` says of them, and those that frame a message on it.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_the_connection_is_not_passed_on() {
        let line = |name, value: &'static str| httparse::Header { name, value: value.as_bytes() };
        let headers = Headers::of(&[
            line("Content-Type", "a/b"),
            line("Connection", "close, X-One"),
            line("Set-Cookie", "a: b"),
            line("x-one", "1"),
            line("CONNECTION", " x-two ,"),
            line("X-Two", "2"),
            line("X-Three", ""),
            line("Keep-Alive", "timeout=5"),
            line("Proxy-Authenticate", "x"),
            line("Proxy-Connection", "x"),
            line("TE", "trailers"),
            line("Trailer", "x"),
            line("Transfer-Encoding", "chunked"),
            line("Upgrade", "x"),
            line("Content-Length", "1"),
            line("set-cookie", "c"),
        ]);
        let passed: Vec<_> = headers.end_to_end().collect();
        assert_eq!(passed, [("Content-Type", "a/b"), ("Set-Cookie", "a: b"), ("X-Three", ""), ("set-cookie", "c")]);
        assert_eq!((headers.get("X-ONE"), headers.get("none")), (Some("1"), None));
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        let headers = Headers::of(&[httparse::Header { name: "a", value: b"\xff1" }]);
        assert_eq!(headers.get("a"), Some("\u{fffd}1"));
    }
}
