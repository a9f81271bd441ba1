//! Which form of an answer a client gets: plain or compressed (RFC 9110 §12.5.3).
//!
//! Pure; compresses nothing itself.

use super::files::lines;
use crate::http::request::Request;

/// A content coding of files that are stored compressed, and of answers that are compressed when they are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Brotli,
    Zstd,
    Gzip,
}

impl Coding {
    /// In the order in which they are preferred when a client likes them equally: the usual order of their sizes.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// The name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What the compressed file's name has behind the plain one's.
    pub const fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// The coding to send, of those that there are; `None` is the plain form.
///
/// The highest weight wins; a coding goes before the plain form where both weigh the same or the plain one is not named.
/// The plain form is also the answer to a client that accepts nothing we have: it may be of use, and a 406 is not (§12.4.1).
pub(crate) fn choose(request: &Request<'_>, available: impl IntoIterator<Item = Coding>) -> Option<Coding> {
    // Without the field anything is acceptable, but who does not ask may not decode.
    let accepted = |is_named: &dyn Fn(&[u8]) -> bool| {
        let (mut named, mut any) = (None, None);
        for (name, weight) in lines(request, "accept-encoding").flat_map(elements) {
            if is_named(name) {
                named = named.or(Some(weight));
            } else if name == b"*" {
                any = any.or(Some(weight));
            }
        }
        named.or(any).unwrap_or(0)
    };
    let plain = accepted(&|name| name.eq_ignore_ascii_case(b"identity"));
    let mut best = (None, plain);
    for coding in available {
        let weight = accepted(&|name| coding.is_named(name));
        if weight > best.1 || (weight == best.1 && weight > 0 && best.0.is_none()) {
            best = (Some(coding), weight);
        }
    }
    best.0
}

/// The codings of a list with their weights in thousandths. An element that is malformed counts as absent.
fn elements(list: &[u8]) -> impl Iterator<Item = (&[u8], u16)> {
    list.split(|byte| *byte == b',').filter_map(|element| {
        let mut parts = element.splitn(2, |byte| *byte == b';');
        let name = parts.next()?.trim_ascii();
        let weight = parts.next().map_or(Some(1000), |weight| thousandths(weight.trim_ascii()))?;
        (!name.is_empty()).then_some((name, weight))
    })
}

/// `q=0.5` as 500 (§12.4.2: at most three digits, at most 1).
fn thousandths(weight: &[u8]) -> Option<u16> {
    let (b"q=" | b"Q=", value) = weight.split_at_checked(2)? else { return None };
    let (whole, digits) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] => (whole, digits),
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = digits.iter().chain(b"000").take(3);
    let sum = padded.fold(u16::from(whole - b'0'), |sum, digit| sum * 10 + u16::from(digit - b'0'));
    (sum <= 1000).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;
    use Coding::*;

    #[test]
    fn choices() {
        let all = &Coding::ALL[..];
        for (accept, available, expected) in [
            ("gzip, deflate, br, zstd", all, Some(Brotli)),
            ("gzip, deflate", all, Some(Gzip)),
            ("X-GZIP", all, Some(Gzip)),
            ("gzip;q=1, br;q=0.9", all, Some(Gzip)),
            ("gzip;q=0.8,br;q=0.9 , zstd; q=0.9", all, Some(Brotli)),
            ("br;q=0, gzip", all, Some(Gzip)),
            ("*", all, Some(Brotli)),
            ("*;q=0.5, br;q=0", all, Some(Zstd)),
            ("*;q=0, gzip", all, Some(Gzip)),
            ("gzip", &[Brotli], None),
            ("gzip;q=0", all, None),
            ("identity", all, None),
            ("identity, gzip;q=0.5", all, None),
            ("identity;q=0.5, gzip;q=0.5", all, Some(Gzip)),
            ("identity;q=0, gzip;q=0.001", all, Some(Gzip)),
            ("identity;q=0", all, None),
            ("*;q=0", all, None),
            ("", all, None),
            ("gzip", &[], None),
            // Malformed elements are as if they were not there.
            ("gzip;q=2", all, None),
            ("gzip;q=1.001", all, None),
            ("gzip;q=0.1234", all, None),
            ("gzip;q=", all, None),
            ("gzip;q=-1, br;q=0.1", all, Some(Brotli)),
            ("gzip;level=9", all, None),
            (";q=1,,gzip", all, Some(Gzip)),
            ("gzipped", all, None),
        ] {
            let request = Request::new(Method::Get, "/").with_header("Accept-Encoding", accept);
            assert_eq!(choose(&request, available.to_vec()), expected, "{accept:?} of {available:?}");
        }
        let request = Request::new(Method::Get, "/");
        assert_eq!(choose(&request, Coding::ALL), None);
        let request = request.with_header("Accept-Encoding", "gzip;q=0.1").with_header("accept-encoding", "br");
        assert_eq!(choose(&request, Coding::ALL), Some(Brotli));
    }

    #[test]
    fn gzip_or_nothing() {
        for (lines, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip"], Some(Gzip)),
            (&["GZIP"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["gzip, deflate, br"], Some(Gzip)),
            (&["br;q=1.0, gzip;q=0.001"], Some(Gzip)),
            (&["br", "gzip"], Some(Gzip)),
            (&["*"], Some(Gzip)),
            (&["*;q=0.5"], Some(Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000, *"], None),
            (&["*, gzip;q=0"], None),
            (&["br, deflate"], None),
            (&["identity"], None),
            (&["gzip;q=0.5, identity"], None),
            (&["identity;q=0.5, gzip;q=0.5"], Some(Gzip)),
            (&["identity;q=0"], None),
            (&["gzip ; q=0.8"], Some(Gzip)),
            (&["gzip;Q=1.000"], Some(Gzip)),
            (&["gzip;q=2"], None),
            (&["gzip;q=1.001"], None),
            (&["gzip;q=0.1234"], None),
            (&["gzip;q="], None),
            (&["gzip;q=-1"], None),
            (&["gzipp, xgzip"], None),
        ] {
            let request = Request::new(Method::Get, "/");
            let request = lines.iter().fold(request, |request, line| request.with_header("accept-encoding", line));
            assert_eq!(choose(&request, [Gzip]), expected, "{lines:?}");
        }
    }
}
