//! Who is there: the Basic (RFC 7617) and Bearer (RFC 6750) schemes as guards, which refuse a request before its body
//! is read.
//!
//! Knows no users and no tokens: it reads the credentials and asks the program. A handler that wants to know who it is
//! reads them again with [`basic_credentials`] or [`bearer_token`].
//!
//! A guard of the whole router is asked for `OPTIONS` too. A browser's preflight, which has no credentials, is answered
//! by [`cors`](super::cors()) before it gets here.

use std::fmt;
use std::hint::black_box;

use super::base64;
use crate::http::extract::refusal;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::types::Status;

/// Lets through who has a name and a password that `check` accepts. Both come as sent, so passwords want a slow hash,
/// and plain ones at least [`eq_constant_time`]. Over plain HTTP everybody on the way can read them.
///
/// Anybody else gets a 401 with a challenge for `realm`, which browsers show to the user.
///
/// # Panics
/// On a control character in `realm`: a mistake of the program.
///
/// ```
/// use sconce::http::layers::{basic_auth, eq_constant_time};
/// use sconce::http::{Method, Request, Router};
///
/// let guard = basic_auth("staff", |user, password| user == "ada" && eq_constant_time(password, "engine"));
/// let router = Router::new().guard(guard).get("/", |_: &Request<'_>| "hello");
/// let stranger = router.handle(Request::new(Method::Get, "/"));
/// assert_eq!(stranger.header_value("www-authenticate"), Some("Basic realm=\"staff\", charset=\"UTF-8\""));
/// let ada = Request::new(Method::Get, "/").with_header("Authorization", "Basic YWRhOmVuZ2luZQ==");
/// assert_eq!(router.handle(ada).body(), b"hello");
/// ```
pub fn basic_auth(
    realm: &str,
    check: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
) -> impl Fn(&Request<'_>) -> Result<(), Reply> + Send + Sync + 'static {
    assert!(!realm.contains(char::is_control), "the realm {realm:?} cannot be sent");
    let challenge = format!("Basic realm={}, charset=\"UTF-8\"", quoted(realm));
    move |request| match basic_credentials(request) {
        Some(Credentials { user, password }) if check(&user, &password) => Ok(()),
        Some(_) => Err(unauthorized(&challenge, "the name or the password is wrong")),
        None => Err(unauthorized(&challenge, "this needs a name and a password")),
    }
}

/// Lets through who has a token that `check` accepts.
///
/// Without a token the answer is a 401 whose challenge names `realm`; with one that `check` refuses it is what the
/// [`TokenError`] says, in the words of RFC 6750 §3.1.
///
/// # Panics
/// On a control character in `realm`: a mistake of the program.
///
/// ```
/// use sconce::http::layers::{TokenError, bearer_auth, eq_constant_time};
/// use sconce::http::{Method, Request, Router};
///
/// let guard = bearer_auth("api", |token| match eq_constant_time(token, "7f3a") {
///     true => Ok(()),
///     false => Err(TokenError::Invalid),
/// });
/// let router = Router::new().guard(guard).get("/", |_: &Request<'_>| "hello");
/// let known = Request::new(Method::Get, "/").with_header("Authorization", "Bearer 7f3a");
/// assert_eq!(router.handle(known).body(), b"hello");
/// let unknown = Request::new(Method::Get, "/").with_header("Authorization", "Bearer 7f3b");
/// let challenge = router.handle(unknown).header_value("www-authenticate").map(String::from);
/// assert_eq!(challenge.as_deref(), Some("Bearer realm=\"api\", error=\"invalid_token\""));
/// ```
pub fn bearer_auth(
    realm: &str,
    check: impl Fn(&str) -> Result<(), TokenError> + Send + Sync + 'static,
) -> impl Fn(&Request<'_>) -> Result<(), Reply> + Send + Sync + 'static {
    assert!(!realm.contains(char::is_control), "the realm {realm:?} cannot be sent");
    let challenge = format!("Bearer realm={}", quoted(realm));
    move |request| {
        let token = match authorization(request, "Bearer") {
            Authorization::Absent => return Err(unauthorized(&challenge, "this needs a bearer token")),
            Authorization::Malformed => None,
            Authorization::Credentials(text) => Some(text).filter(|text| is_b64token(text)),
        };
        let Some(token) = token else {
            let challenge = format!("{challenge}, error=\"invalid_request\"");
            let reply = refusal(Status::BAD_REQUEST, "the Authorization header is malformed");
            return Err(reply.header("WWW-Authenticate", challenge));
        };
        check(token).map_err(|error| error.reply(&challenge))
    }
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Unknown, expired or revoked: 401.
    Invalid,
    /// Good, but not for this: 403. Names the scope that it would need.
    InsufficientScope(String),
    /// Nobody can say just now: 503.
    Unavailable,
}

impl TokenError {
    fn reply(&self, challenge: &str) -> Reply {
        match self {
            TokenError::Invalid => {
                unauthorized(&format!("{challenge}, error=\"invalid_token\""), "the token is not valid")
            }
            TokenError::InsufficientScope(scope) => {
                let challenge = format!("{challenge}, error=\"insufficient_scope\", scope={}", quoted(scope));
                refusal(Status::FORBIDDEN, "the token is not for this").header("WWW-Authenticate", challenge)
            }
            TokenError::Unavailable => {
                refusal(Status::SERVICE_UNAVAILABLE, "tokens cannot be checked now").header("Retry-After", "1")
            }
        }
    }
}

/// A name and a password, as a client sent them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Holds no colon.
    pub user: String,
    /// As it was typed; it may hold colons.
    pub password: String,
}

/// Passwords stay out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The name and the password of the Basic scheme. `None` when there are none, or they are not exactly base64 of UTF-8
/// with a colon and without control characters (RFC 7617 §2).
pub fn basic_credentials(request: &Request<'_>) -> Option<Credentials> {
    let Authorization::Credentials(text) = authorization(request, "Basic") else { return None };
    let text = String::from_utf8(base64::decode(text.as_bytes())?).ok()?;
    let (user, password) = text.split_once(':').filter(|_| !text.contains(char::is_control))?;
    Some(Credentials { user: user.to_string(), password: password.to_string() })
}

/// The token of the Bearer scheme; `None` when there is none or it is malformed.
pub fn bearer_token<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    match authorization(request, "Bearer") {
        Authorization::Credentials(token) => Some(token).filter(|token| is_b64token(token)),
        Authorization::Absent | Authorization::Malformed => None,
    }
}

/// Compares secrets without telling by its time where they differ. That their lengths differ does show.
pub fn eq_constant_time(a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> bool {
    let (a, b) = (a.as_ref(), b.as_ref());
    // The compiler must not see that the answer is known at the first difference.
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
    a.len() == b.len() && black_box(differing) == 0
}

/// What `Authorization` says, seen by one scheme.
enum Authorization<'r> {
    /// Nothing, or something for another scheme.
    Absent,
    /// Two of them, or no text. Which one counts is nothing to guess at.
    Malformed,
    Credentials(&'r str),
}

/// Scheme names compare without case, and are followed by spaces (RFC 9110 §11.4).
fn authorization<'r>(request: &'r Request<'_>, scheme: &str) -> Authorization<'r> {
    let mut lines = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let value = match (lines.next(), lines.next()) {
        (None, _) => return Authorization::Absent,
        (Some((_, value)), None) => str::from_utf8(value),
        (Some(_), Some(_)) => return Authorization::Malformed,
    };
    match value.map(|value| value.split_once(' ').unwrap_or((value, ""))) {
        Ok((name, credentials)) if name.eq_ignore_ascii_case(scheme) => {
            Authorization::Credentials(credentials.trim_start_matches(' '))
        }
        Ok(_) => Authorization::Absent,
        Err(_) => Authorization::Malformed,
    }
}

/// `b64token` of RFC 6750 §2.1.
fn is_b64token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

fn unauthorized(challenge: &str, reason: &str) -> Reply {
    refusal(Status::UNAUTHORIZED, reason).header("WWW-Authenticate", challenge)
}

/// A quoted-string (RFC 9110 §5.6.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;

    type Guard = dyn Fn(&Request<'_>) -> Result<(), Reply>;

    /// `expected`: the status and challenge of the refusal, `None` when the guard lets through.
    #[track_caller]
    fn check(guard: &Guard, authorization: &[&str], expected: Option<(u16, &str)>) {
        let request = Request::new(Method::Get, "/");
        let request = authorization.iter().fold(request, |request, value| request.with_header("Authorization", value));
        let refused = guard(&request).err();
        let seen =
            refused.as_ref().map(|r| (r.status().code(), r.header_value("www-authenticate").unwrap_or_default()));
        assert_eq!(seen, expected, "{authorization:?}");
    }

    #[test]
    fn basic() {
        let guard = basic_auth("a \"b\" \\", |user, password| (user, password) == ("Aladdin", "open sesame"));
        let refused = Some((401, "Basic realm=\"a \\\"b\\\" \\\\\", charset=\"UTF-8\""));
        check(&guard, &["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="], None);
        check(&guard, &["bAsIc   QWxhZGRpbjpvcGVuIHNlc2FtZQ=="], None);
        for wrong in [
            &[][..],
            &[""],
            &["Basic"],
            &["Basic "],
            &["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ"],
            &["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ== x"],
            &["Basic ===="],
            // Aladdin without a colon; Aladdin:open\nsesame; bytes that are not UTF-8; Aladdin:wrong.
            &["Basic QWxhZGRpbg=="],
            &["Basic QWxhZGRpbjpvcGVuCnNlc2FtZQ=="],
            &["Basic /zr/"],
            &["Basic QWxhZGRpbjp3cm9uZw=="],
            &["Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
            &["BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
            &["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
        ] {
            check(&guard, wrong, refused);
        }
    }

    #[test]
    fn the_first_colon_ends_the_name() {
        let request = Request::new(Method::Get, "/").with_header("Authorization", "Basic YTpiOmM=");
        let credentials = basic_credentials(&request).unwrap();
        assert_eq!((&*credentials.user, &*credentials.password), ("a", "b:c"));
        assert!(!format!("{credentials:?}").contains("b:c"));
    }

    #[test]
    fn bearer() {
        let guard = bearer_auth("api", |token| match token {
            "good" | "a-._~+/9==" => Ok(()),
            "small" => Err(TokenError::InsufficientScope("read write".into())),
            "slow" => Err(TokenError::Unavailable),
            _ => Err(TokenError::Invalid),
        });
        check(&guard, &["Bearer good"], None);
        check(&guard, &["bearer  a-._~+/9=="], None);
        check(&guard, &[], Some((401, "Bearer realm=\"api\"")));
        check(&guard, &["Basic good"], Some((401, "Bearer realm=\"api\"")));
        check(&guard, &["Bearer bad"], Some((401, "Bearer realm=\"api\", error=\"invalid_token\"")));
        for malformed in [
            &["Bearer"][..],
            &["Bearer "],
            &["Bearer ="],
            &["Bearer a b"],
            &["Bearer a\"b"],
            &["Bearer é"],
            &["Bearer good", "Bearer good"],
        ] {
            check(&guard, malformed, Some((400, "Bearer realm=\"api\", error=\"invalid_request\"")));
        }
        let scope = "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"read write\"";
        check(&guard, &["Bearer small"], Some((403, scope)));
        check(&guard, &["Bearer slow"], Some((503, "")));
    }

    #[test]
    fn tokens_are_read_again_by_handlers() {
        let request = |value| Request::new(Method::Get, "/").with_header("authorization", value);
        assert_eq!(bearer_token(&request("Bearer abc")), Some("abc"));
        assert_eq!(bearer_token(&request("Bearer a c")), None);
        assert_eq!(bearer_token(&request("Basic abc")), None);
    }

    #[test]
    fn secrets_compare() {
        for (a, b, equal) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "b", false),
            ("a", "aa", false),
            ("ab", "aa", false),
            ("", "a", false),
        ] {
            assert_eq!(eq_constant_time(a, b), equal, "{a} {b}");
        }
    }
}
