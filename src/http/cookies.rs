//! Cookies: what a client sends back, and what a server asks it to keep (RFC 6265, and its revision "6265bis").
//!
//! Reading is lenient, as clients are: a part that is no `name=value` is passed over. Writing is strict: what some client
//! would drop or read otherwise is an error at the call. Knows nothing of sessions and signs nothing: what must not be
//! forged needs a signature of its own, or better a random key to something that the server keeps.

use std::fmt;
use std::time::Duration;

use super::reply::{Reply, is_token};
use super::request::Request;
use super::types::Status;

/// Name and value together; clients drop what is longer (6265bis §5.6).
const NAME_AND_VALUE_BYTES_MAX: usize = 4096;
/// The value of one attribute; clients drop longer ones (6265bis §5.6).
const ATTRIBUTE_BYTES_MAX: usize = 1024;

impl Request<'_> {
    /// The value of the first cookie with this name, as sent: not decoded, and with its quotes if it has some, which
    /// are part of the value (6265bis §4.1.1). Names are case-sensitive. `None` also when the value is not UTF-8.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The cookies of all `Cookie` lines in order. A part without `=`, whose name is no token, or whose value is not
    /// UTF-8, is passed over.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.headers().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
        lines.flat_map(|(_, line)| line.split(|b| *b == b';')).filter_map(|pair| {
            let (name, value) = str::from_utf8(pair).ok()?.split_once('=')?;
            let blank = [' ', '\t'];
            Some((name.trim_matches(blank), value.trim_matches(blank))).filter(|(name, _)| is_token(name))
        })
    }
}

impl Reply {
    /// Asks the client to keep a cookie. Each call adds a `Set-Cookie` line.
    ///
    /// # Errors
    /// The cookie is one that clients would refuse, or read otherwise than meant; see [`InvalidCookie`]. The error
    /// becomes a 500, so that `?` works in handlers.
    pub fn cookie(self, cookie: &Cookie<'_>) -> Result<Reply, InvalidCookie> {
        Ok(self.header("Set-Cookie", cookie.line()?))
    }
}

/// A cookie to be set. Nothing is checked before [`Reply::cookie`].
///
/// Without attributes it goes to the host that set it only, to paths beside the one that set it, by any scheme, is seen
/// by scripts, and ends with the browser's session. What names a login wants at least this:
///
/// ```
/// use std::time::Duration;
/// use sconce::http::{Cookie, InvalidCookie, Reply, SameSite};
///
/// fn signed_in(key: &str) -> Result<Reply, InvalidCookie> {
///     let cookie = Cookie::new("__Host-session", key).path("/").secure().http_only().same_site(SameSite::Lax);
///     Reply::text("welcome").cookie(&cookie.max_age(Duration::from_secs(3600)))
/// }
///
/// let line = "__Host-session=7f3a; Path=/; Max-Age=3600; SameSite=Lax; Secure; HttpOnly";
/// assert_eq!(signed_in("7f3a").unwrap().header_value("set-cookie"), Some(line));
/// assert!(signed_in("a;b").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a cookie does nothing until `Reply::cookie`"]
pub struct Cookie<'a> {
    name: &'a str,
    value: &'a str,
    path: Option<&'a str>,
    domain: Option<&'a str>,
    max_age: Option<Duration>,
    same_site: Option<SameSite>,
    secure: bool,
    http_only: bool,
}

/// Whether requests that other sites cause carry the cookie (6265bis §4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the user follows a link.
    Lax,
    /// Always; only for a cookie that is [`secure`](Cookie::secure).
    None,
}

impl<'a> Cookie<'a> {
    /// `value` is plain visible ASCII without space, `"`, `,`, `;` and `\` (RFC 6265 §4.1.1), or such in double quotes.
    pub fn new(name: &'a str, value: &'a str) -> Cookie<'a> {
        Cookie {
            name,
            value,
            path: None,
            domain: None,
            max_age: None,
            same_site: None,
            secure: false,
            http_only: false,
        }
    }

    /// A cookie that makes the client forget the one with this name, [path](Cookie::path) and
    /// [domain](Cookie::domain): give it those of the one that was set.
    pub fn removal(name: &'a str) -> Cookie<'a> {
        Cookie::new(name, "").max_age(Duration::ZERO)
    }

    /// Sent with this path and those below it.
    pub fn path(mut self, path: &'a str) -> Self {
        self.path = Some(path);
        self
    }

    /// Sent to this host and all below it; without, to the host that set it and no other.
    pub fn domain(mut self, domain: &'a str) -> Self {
        self.domain = Some(domain);
        self
    }

    /// Kept this long, in whole seconds; clients keep none for more than 400 days. There is no `Expires`, which says
    /// the same by the client's clock and counts only where this is missing.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Whether requests that other sites cause carry it. Without, browsers take [`SameSite::Lax`], or something near it.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = Some(same_site);
        self
    }

    /// Sent over TLS only.
    pub fn secure(mut self) -> Self {
        self.secure = true;
        self
    }

    /// Hidden from scripts.
    pub fn http_only(mut self) -> Self {
        self.http_only = true;
        self
    }

    /// The value of `Set-Cookie`.
    fn line(&self) -> Result<String, InvalidCookie> {
        self.check()?;
        let mut line = format!("{}={}", self.name, self.value);
        let mut attribute = |name: &str, value: &str| {
            line.push_str("; ");
            line.push_str(name);
            line.push_str(value);
        };
        self.path.inspect(|path| attribute("Path=", path));
        self.domain.inspect(|domain| attribute("Domain=", domain));
        self.max_age.inspect(|age| attribute("Max-Age=", &age.as_secs().to_string()));
        match self.same_site {
            Some(SameSite::Strict) => attribute("SameSite=", "Strict"),
            Some(SameSite::Lax) => attribute("SameSite=", "Lax"),
            Some(SameSite::None) => attribute("SameSite=", "None"),
            None => {}
        }
        if self.secure {
            attribute("Secure", "");
        }
        if self.http_only {
            attribute("HttpOnly", "");
        }
        Ok(line)
    }

    fn check(&self) -> Result<(), InvalidCookie> {
        let unquoted = self.value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(self.value);
        // Clients compare the prefixes without case (6265bis §5.7).
        let has_prefix = |prefix: &str| self.name.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix));
        let bound_to_host = self.secure && self.path == Some("/") && self.domain.is_none();
        let broken = [
            (!is_token(self.name), InvalidCookie::Name),
            (!unquoted.bytes().all(is_cookie_octet), InvalidCookie::Value),
            (self.name.len() + self.value.len() > NAME_AND_VALUE_BYTES_MAX, InvalidCookie::TooLong),
            (self.path.is_some_and(|path| !is_path(path)), InvalidCookie::Path),
            (self.domain.is_some_and(|domain| !is_domain(domain)), InvalidCookie::Domain),
            (self.same_site == Some(SameSite::None) && !self.secure, InvalidCookie::SameSiteNone),
            (has_prefix("__Secure-") && !self.secure, InvalidCookie::SecurePrefix),
            (has_prefix("__Host-") && !bound_to_host, InvalidCookie::HostPrefix),
        ];
        broken.into_iter().find(|(is_broken, _)| *is_broken).map_or(Ok(()), |(_, rule)| Err(rule))
    }
}

/// `cookie-octet` of RFC 6265 §4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

/// `path-value` of RFC 6265 §4.1.1. Clients ignore one that does not begin with a slash.
fn is_path(path: &str) -> bool {
    path.len() <= ATTRIBUTE_BYTES_MAX
        && path.starts_with('/')
        && path.bytes().all(|b| matches!(b, b' '..=b'~') && b != b';')
}

/// Labels of letters, digits and hyphens. A leading dot, which clients ignore, means that somebody thinks it counts.
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    domain.len() <= ATTRIBUTE_BYTES_MAX && domain.split('.').all(is_label)
}

/// Which rule a cookie breaks. A mistake of the program, so a client gets a 500 for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidCookie {
    /// The name is no token (RFC 9110 §5.6.2).
    Name,
    /// The value holds something else than `cookie-octet`s. Encode it: base64url and percent-encoding both fit.
    Value,
    /// Name and value are longer than 4,096 bytes together.
    TooLong,
    /// The path does not begin with `/`, or holds `;` or a control character.
    Path,
    /// The domain is no host name; it has no leading dot.
    Domain,
    /// `SameSite=None` needs `Secure`.
    SameSiteNone,
    /// A name that begins with `__Secure-` needs `Secure`.
    SecurePrefix,
    /// A name that begins with `__Host-` needs `Secure`, `Path=/` and no domain.
    HostPrefix,
}

impl fmt::Display for InvalidCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidCookie::Name => "the name of a cookie is no token",
            InvalidCookie::Value => "the value of a cookie holds a byte that must be encoded",
            InvalidCookie::TooLong => "a cookie is longer than 4096 bytes",
            InvalidCookie::Path => "the path of a cookie does not begin with / or holds a byte that no path has",
            InvalidCookie::Domain => "the domain of a cookie is no host name",
            InvalidCookie::SameSiteNone => "a cookie with SameSite=None is not Secure",
            InvalidCookie::SecurePrefix => "a cookie named __Secure- is not Secure",
            InvalidCookie::HostPrefix => "a cookie named __Host- is not Secure with the path / and no domain",
        })
    }
}

impl std::error::Error for InvalidCookie {}

impl From<InvalidCookie> for Reply {
    fn from(error: InvalidCookie) -> Reply {
        log::error!("{error}");
        Reply::text("500 Internal Server Error: the handler of this request failed\n")
            .with_status(Status::INTERNAL_SERVER_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;

    #[test]
    fn cookies_are_read_leniently() {
        let request = Request::new(Method::Get, "/")
            .with_header("Cookie", "a=1;b=2 ;\t c = x=y ; a=3; flag; =nameless; sp ace=1; q=\"v\"; e=")
            .with_header("X-Other", "z=1")
            .with_header("cookie", "late=4");
        for (name, expected) in [
            ("a", Some("1")),
            ("A", None),
            ("b", Some("2")),
            ("c", Some("x=y")),
            ("flag", None),
            ("", None),
            ("sp ace", None),
            ("ace", None),
            ("q", Some("\"v\"")),
            ("e", Some("")),
            ("z", None),
            ("late", Some("4")),
        ] {
            assert_eq!(request.cookie(name), expected, "{name:?}");
        }
        assert_eq!(Request::new(Method::Get, "/").cookie("a"), None);
    }

    #[test]
    fn a_value_that_is_not_utf8_costs_only_itself() {
        let request = Request::new(Method::Get, "/").with_headers(vec![("Cookie", b"a=\xff; b=2")]);
        assert_eq!((request.cookie("a"), request.cookie("b")), (None, Some("2")));
    }

    #[track_caller]
    fn check(cookie: Cookie<'_>, expected: Result<&str, InvalidCookie>) {
        let reply = Reply::text("").cookie(&cookie);
        let line = reply.as_ref().map(|reply| reply.header_value("set-cookie").unwrap());
        assert_eq!(line.map_err(|error| *error), expected, "{cookie:?}");
    }

    #[test]
    fn attributes_in_order() {
        check(Cookie::new("a", ""), Ok("a="));
        check(Cookie::new("a", "\"b\""), Ok("a=\"b\""));
        check(
            Cookie::new("a", "b")
                .path("/x y")
                .domain("example.org")
                .max_age(Duration::from_millis(61_500))
                .secure()
                .http_only()
                .same_site(SameSite::None),
            Ok("a=b; Path=/x y; Domain=example.org; Max-Age=61; SameSite=None; Secure; HttpOnly"),
        );
        check(Cookie::new("a", "b").same_site(SameSite::Strict), Ok("a=b; SameSite=Strict"));
        check(Cookie::removal("a").path("/"), Ok("a=; Path=/; Max-Age=0"));
    }

    #[test]
    fn what_clients_would_refuse_is_an_error() {
        for name in ["", "a b", "a=", "a;", "é", "a\r\n"] {
            check(Cookie::new(name, "x"), Err(InvalidCookie::Name));
        }
        for value in ["a b", "a;b", "a,b", "a\\b", "a\"b", "\"", "\"a", "é", "a\r\nSet-Cookie: b=c", "\0", "\x7f"] {
            check(Cookie::new("a", value), Err(InvalidCookie::Value));
        }
        let (fits, long) = ("x".repeat(4095), "x".repeat(4096));
        assert!(Cookie::new("a", &fits).line().is_ok());
        check(Cookie::new("a", &long), Err(InvalidCookie::TooLong));
        for path in ["", "x", "/a;b", "/a\n", "/é"] {
            check(Cookie::new("a", "b").path(path), Err(InvalidCookie::Path));
        }
        for domain in ["", ".example.org", "a..b", "a b", "a;b", "é.org", "a:1"] {
            check(Cookie::new("a", "b").domain(domain), Err(InvalidCookie::Domain));
        }
        check(Cookie::new("a", "b").same_site(SameSite::None), Err(InvalidCookie::SameSiteNone));
    }

    #[test]
    fn prefixes_promise_what_they_say() {
        let host = || Cookie::new("__Host-a", "b").secure().path("/");
        assert!(host().line().is_ok());
        for broken in [
            host().path("/a"),
            host().domain("a.org"),
            Cookie::new("__Host-a", "b").path("/"),
            Cookie::new("__Host-a", "b").secure(),
            Cookie::new("__host-a", "b").secure(),
        ] {
            check(broken, Err(InvalidCookie::HostPrefix));
        }
        check(Cookie::new("__Secure-a", "b"), Err(InvalidCookie::SecurePrefix));
        check(Cookie::new("__SECURE-a", "b"), Err(InvalidCookie::SecurePrefix));
        assert!(Cookie::new("__Secure-a", "b").secure().line().is_ok());
    }

    #[test]
    fn a_broken_cookie_is_the_servers_fault() {
        let reply = Reply::from(InvalidCookie::Value);
        assert_eq!(reply.status(), Status::INTERNAL_SERVER_ERROR);
    }
}
