//! Where a request goes: as much of RFC 3986 as a client of plain HTTP needs.
//!
//! Knows no socket and resolves no name. Invariant: whatever a [`Url`] holds may stand in the head of a request; nothing
//! in it can end a line or begin another request.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The longest host name that DNS can hold (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// An absolute `http://` URL, checked. Its fragment is left out: it is not for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    origin: Origin,
    target: String,
}

/// What connections are shared by: the same host by the same name, and the same port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Address(IpAddr),
    /// In lower case.
    Name(String),
}

/// What is wrong with a URL. Holds the part that is wrong, never a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadUrl {
    /// It does not begin with `http://`.
    NotHttp,
    /// TLS is not spoken by this client.
    Https,
    /// `user:password@`: it belongs in an `Authorization` header, and in an URL it misleads people (RFC 9110 §4.2.4).
    Userinfo,
    /// Neither a name of letters, digits, `-`, `_` and dots, nor an address.
    Host(String),
    /// Not a number from 1 to 65535.
    Port(String),
    /// A character of path and query that must be percent-encoded (RFC 3986 §2).
    Character {
        /// What stands there.
        character: char,
        /// Bytes in front of it.
        at: usize,
    },
    /// CONNECT asks for a tunnel, not for a URL, and this client opens none.
    Connect,
}

impl Url {
    /// Reads `http://host[:port][/path][?query]`. Path and query are taken as they are, percent-encoded by the caller.
    ///
    /// # Errors
    /// [`BadUrl`] says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Url, BadUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::NotHttp)?;
        if scheme.eq_ignore_ascii_case("https") {
            return Err(BadUrl::Https);
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(BadUrl::NotHttp);
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let origin = Origin::parse(authority)?;
        let slash = if target.starts_with('/') { "" } else { "/" };
        check_target(target)?;
        Ok(Url { origin, target: format!("{slash}{target}") })
    }

    /// The host: a name in lower case, or an address; one of IPv6 in brackets.
    pub fn host(&self) -> String {
        self.origin.host.to_string()
    }

    /// The port, 80 where the URL names none.
    pub fn port(&self) -> u16 {
        self.origin.port
    }

    /// Path and query, as they are sent; at least `/`.
    pub fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.origin, self.target)
    }
}

impl Origin {
    /// Reads `host[:port]`, the form of a Host header.
    pub fn parse(authority: &str) -> Result<Origin, BadUrl> {
        if authority.contains('@') {
            return Err(BadUrl::Userinfo);
        }
        // A colon inside brackets belongs to an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        let port = match port {
            "" => 80,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or_else(|| BadUrl::Port(port.into()))?
            }
            _ => return Err(BadUrl::Port(port.into())),
        };
        Ok(Origin { host: Host::parse(host)?, port })
    }
}

/// The form of a Host header: the port only where it is not the usual one (RFC 9110 §7.2).
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            80 => write!(f, "{}", self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

impl Host {
    fn parse(text: &str) -> Result<Host, BadUrl> {
        if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = literal.parse().map_err(|_| BadUrl::Host(text.into()))?;
            return Ok(Host::Address(address.into()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Host::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label =
            |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        // `127.1` and `0x7f000001` are addresses to some resolvers: who checks names must not be surprised by them.
        let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        if name.len() > NAME_BYTES_MAX || is_number || !name.split('.').all(is_label) {
            return Err(BadUrl::Host(text.into()));
        }
        Ok(Host::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// Characters that browsers leave unescaped in queries (`|`, `{`, `^` …) pass, as they do in requests that are served.
fn check_target(target: &str) -> Result<(), BadUrl> {
    let wrong = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '<' | '>' | '\\');
    match target.char_indices().find(|(_, c)| wrong(*c)) {
        Some((at, character)) => Err(BadUrl::Character { character, at }),
        None => Ok(()),
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadUrl::NotHttp => f.write_str("the URL does not begin with http://"),
            BadUrl::Https => f.write_str("https is not spoken by this client: ask a TLS proxy over http://"),
            BadUrl::Userinfo => f.write_str("the URL holds a user name: send it in an Authorization header instead"),
            BadUrl::Host(host) => write!(f, "the URL's host {host:?} is neither a name nor an address"),
            BadUrl::Port(port) => write!(f, "the URL's port {port:?} is not a number from 1 to 65535"),
            BadUrl::Character { character, at } => {
                write!(f, "{character:?} at byte {at} of the URL's path and query must be percent-encoded")
            }
            BadUrl::Connect => f.write_str("CONNECT opens a tunnel, which this client does not do"),
        }
    }
}

impl std::error::Error for BadUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_taken() {
        for (text, origin, port, target) in [
            ("http://example.com", "example.com", 80, "/"),
            ("HTTP://Example.COM./a", "example.com", 80, "/a"),
            ("http://a:8080/x?y=z&w", "a:8080", 8080, "/x?y=z&w"),
            ("http://a:80/", "a", 80, "/"),
            ("http://a:/", "a", 80, "/"),
            ("http://a?q", "a", 80, "/?q"),
            ("http://a/b#fragment", "a", 80, "/b"),
            ("http://a#fragment/not/path", "a", 80, "/"),
            ("http://127.0.0.1:65535/", "127.0.0.1:65535", 65535, "/"),
            ("http://[::1]:8080/", "[::1]:8080", 8080, "/"),
            ("http://[2001:DB8::0:1]", "[2001:db8::1]", 80, "/"),
            ("http://my_host-1.x/a%20b|{c}^", "my_host-1.x", 80, "/a%20b|{c}^"),
            ("http://a/user@host:1//", "a", 80, "/user@host:1//"),
        ] {
            let url = Url::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((&*url.origin().to_string(), url.port(), url.target()), (origin, port, target), "{text}");
            assert_eq!(Url::parse(&url.to_string()), Ok(url), "{text}: not the same again");
        }
    }

    #[test]
    fn urls_that_are_refused() {
        let host = |host: &str| BadUrl::Host(host.into());
        let port = |port: &str| BadUrl::Port(port.into());
        let at = |at, character| BadUrl::Character { character, at };
        for (text, expected) in [
            ("", BadUrl::NotHttp),
            ("/path", BadUrl::NotHttp),
            ("example.com", BadUrl::NotHttp),
            ("http:/a", BadUrl::NotHttp),
            ("ftp://a/", BadUrl::NotHttp),
            (" http://a/", BadUrl::NotHttp),
            ("https://a/", BadUrl::Https),
            ("http://me@a/", BadUrl::Userinfo),
            ("http://me:secret@a/", BadUrl::Userinfo),
            ("http://a:80@evil/", BadUrl::Userinfo),
            ("http:///a", host("")),
            ("http://:80/", host("")),
            ("http://a..b/", host("a..b")),
            ("http://a b/", host("a b")),
            ("http://a\r\nX: y/", host("a\r\nX")),
            ("http://a\\b/", host("a\\b")),
            ("http://a%2eb/", host("a%2eb")),
            ("http://ä/", host("ä")),
            ("http://127.1/", host("127.1")),
            ("http://2130706433/", host("2130706433")),
            ("http://0x7f000001/", host("0x7f000001")),
            ("http://1.2.3.256/", host("1.2.3.256")),
            ("http://::1/", host(":")),
            ("http://[::1/", host("[:")),
            ("http://[]/", host("[]")),
            ("http://[::1%25lo]/", host("[::1%25lo]")),
            ("http://[1.2.3.4]/", host("[1.2.3.4]")),
            ("http://a:0/", port("0")),
            ("http://a:65536/", port("65536")),
            ("http://a:+80/", port("+80")),
            ("http://a:8 0/", port("8 0")),
            ("http://a:80\r\n/", port("80\r\n")),
            ("http://a/b c", at(2, ' ')),
            ("http://a/\r\nX: y", at(1, '\r')),
            ("http://a/?x\ny", at(3, '\n')),
            ("http://a/\0", at(1, '\0')),
            ("http://a/\x7f", at(1, '\x7f')),
            ("http://a/ä", at(1, 'ä')),
            ("http://a/\"", at(1, '"')),
            ("http://a/\\..", at(1, '\\')),
        ] {
            match Url::parse(text) {
                // Where a colon is wrong, its part shows: which part does not matter.
                Err(BadUrl::Port(_)) if matches!(expected, BadUrl::Host(_)) => {}
                seen => assert_eq!(seen, Err(expected), "{text:?}"),
            }
        }
        assert!(Url::parse(&format!("http://{}/", "a".repeat(254))).is_err());
        assert!(!Url::parse("http://me:secret@a/").unwrap_err().to_string().contains("secret"));
    }

    /// Whatever is taken holds no byte that could break a head.
    #[test]
    fn nothing_that_breaks_a_line_is_ever_taken() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % bound
        };
        let seeds = ["http://example.com:80/a/b?c=d", "http://[::1]:8080/?x", "http://1.2.3.4/#y"];
        let odd = ['\r', '\n', '\0', ' ', '\t', '@', ':', '[', ']', '#', '?', '/', '\\', '%', 'ä', '\u{a0}'];
        let mut taken = 0;
        for round in 0..20_000 {
            let mut text: Vec<char> = seeds[round % 3].chars().collect();
            for _ in 0..1 + next(3) {
                let at = next(text.len());
                text[at] = odd[next(odd.len())];
            }
            let text: String = text.into_iter().collect();
            if let Ok(url) = Url::parse(&text) {
                let sent = format!("{}{}", url.origin(), url.target());
                assert!(sent.bytes().all(|b| b.is_ascii_graphic()) && url.target().starts_with('/'), "{text:?}");
                taken += 1;
            }
        }
        assert!(taken > 500, "only {taken} were taken: the test tests nothing");
    }
}
