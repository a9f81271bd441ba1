//! JSON in, JSON out, and queries as structs (feature `json`): serde's types at the edge of a handler.
//!
//! The only place of `http` that knows serde. What a client gets wrong is an error that says where, and becomes a reply,
//! so that handlers need only `?`:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use sconce::http::{BadJson, Method, Reply, Request, Router};
//!
//! #[derive(Deserialize)]
//! struct Sum<'a> {
//!     label: &'a str,
//!     terms: Vec<i64>,
//! }
//!
//! #[derive(Serialize)]
//! struct Total<'a> {
//!     label: &'a str,
//!     total: i64,
//! }
//!
//! fn add(request: &Request<'_>) -> Result<Reply, BadJson> {
//!     let Sum { label, terms } = request.json()?;
//!     Ok(Reply::json(&Total { label, total: terms.iter().sum() }))
//! }
//!
//! let router = Router::new().post("/sum", add);
//! let post = |body| router.handle(Request::new(Method::Post, "/sum").with_body(body));
//! assert_eq!(post(br#"{"label":"a","terms":[1,2]}"#).body(), br#"{"label":"a","total":3}"#);
//! let reason = "400 Bad Request: the body: missing field `terms` at line 1 column 13\n";
//! assert_eq!(str::from_utf8(post(br#"{"label":"a"}"#).body()), Ok(reason));
//! ```

mod query;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::extract::refusal;
use super::reply::Reply;
use super::request::Request;
use super::types::Status;

pub use query::BadQuery;

impl<'a> Request<'a> {
    /// The body, read as JSON (RFC 8259). `T` may borrow from it: a `&str` field costs no copy, but takes no string with
    /// escapes; `Cow<str>` with `#[serde(borrow)]` and `String` take any.
    ///
    /// A missing `Content-Type` is taken for JSON. Nesting deeper than 128 levels is refused.
    ///
    /// # Errors
    /// [`BadJson`]: another type (415), no body, no JSON, or not the shape of `T` (400).
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, BadJson> {
        if let Some((_, value)) = self.headers().find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            && !is_json(value)
        {
            return Err(BadJson::ContentType(String::from_utf8_lossy(value).chars().take(64).collect()));
        }
        if self.body().is_empty() {
            return Err(BadJson::Empty);
        }
        serde_json::from_slice(self.body()).map_err(|error| BadJson::Body(error.to_string()))
    }

    /// The query, read as a struct: each field from the value of its name, decoded as forms are.
    ///
    /// Fields may be strings, numbers, `bool` (`true` or `false`), enums without data, types that read themselves from
    /// one of these, `Option` of them (`None` when the name is not there) and `Vec` of them (a name that comes several
    /// times; with `#[serde(default)]` also never). A field that is no `Vec` comes once. A `&str` field cannot take
    /// what had to be decoded; `String` can.
    ///
    /// # Errors
    /// [`BadQuery`]: a 400 that names the parameter and what is wrong with it.
    pub fn query_as<T: Deserialize<'a>>(&self) -> Result<T, BadQuery> {
        query::read(self.query_string().unwrap_or_default())
    }
}

impl Reply {
    /// 200 with `value` as JSON. A value that JSON cannot hold, such as a map whose keys are no strings, is a mistake
    /// of the program: it is logged, and the reply is a 500.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Reply {
        match serde_json::to_vec(value) {
            Ok(body) => Reply::bytes(Status::OK, "application/json", body),
            Err(error) => {
                log::error!("a reply cannot be written as JSON: {error}");
                refusal(Status::INTERNAL_SERVER_ERROR, "the answer cannot be written as JSON")
            }
        }
    }
}

/// `application/json`, or any type that says `+json` (RFC 6839 §3.1), whatever its parameters.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || (essence.contains(&b'/') && essence.ends_with(b"+json"))
}

/// Why a body is not what the handler needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadJson {
    /// The body is of this type: 415.
    ContentType(String),
    /// There is no body.
    Empty,
    /// The body is no JSON, or has another shape: what, and at which line and column.
    Body(String),
}

impl BadJson {
    /// 415 for a body of another type, else 400.
    pub fn status(&self) -> Status {
        match self {
            BadJson::ContentType(_) => Status::UNSUPPORTED_MEDIA_TYPE,
            BadJson::Empty | BadJson::Body(_) => Status::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BadJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadJson::ContentType(seen) => write!(f, "the body is {seen:?}, not application/json"),
            BadJson::Empty => f.write_str("the body is empty, not JSON"),
            BadJson::Body(reason) => write!(f, "the body: {reason}"),
        }
    }
}

impl std::error::Error for BadJson {}

impl From<BadJson> for Reply {
    fn from(error: BadJson) -> Reply {
        refusal(error.status(), error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;
    use crate::http::Method;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct New<'a> {
        name: &'a str,
        size: u8,
    }

    #[track_caller]
    fn check(content_type: &str, body: &[u8], expected: Result<(&str, u8), (u16, &str)>) {
        let request = Request::new(Method::Post, "/").with_header("Content-Type", content_type).with_body(body);
        let seen = request.json::<New<'_>>().map(|new| (new.name, new.size));
        let seen = seen.map_err(|error| (error.status().code(), error.to_string()));
        assert_eq!(seen, expected.map_err(|(status, text)| (status, text.to_string())), "{content_type}");
    }

    #[test]
    fn bodies() {
        let good = br#"{"name":"a","size":1}"#;
        for json in ["application/json", "Application/JSON ; charset=utf-8", "application/problem+json"] {
            check(json, good, Ok(("a", 1)));
        }
        for other in ["text/plain", "application/jsonx", "application/x-www-form-urlencoded", "+json", ""] {
            check(other, good, Err((415, &format!("the body is {other:?}, not application/json"))));
        }
        for (body, reason) in [
            (&b""[..], "the body is empty, not JSON"),
            (b"{", "the body: EOF while parsing an object at line 1 column 1"),
            (b"{\n\"name\": 1}", "the body: invalid type: integer `1`, expected a borrowed string at line 2 column 9"),
            (br#"{"name":"a","size":256}"#, "the body: invalid value: integer `256`, expected u8 at line 1 column 22"),
            (br#"{"nam":"a"}"#, "the body: unknown field `nam`, expected `name` or `size` at line 1 column 6"),
            (br#"{"name":"a","size":1} x"#, "the body: trailing characters at line 1 column 23"),
            (b"{\"name\":\"\xff\",\"size\":1}", "the body: invalid unicode code point at line 1 column 10"),
        ] {
            check("application/json", body, Err((400, reason)));
        }
    }

    #[test]
    fn a_body_without_a_type_is_taken_for_json() {
        let request = Request::new(Method::Post, "/").with_body(b"[1]");
        assert_eq!(request.json(), Ok(vec![1]));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        let request = Request::new(Method::Post, "/").with_body(deep.as_bytes());
        let error = request.json::<Value>().unwrap_err().to_string();
        assert!(error.contains("recursion limit"), "{error}");
    }

    #[test]
    fn queries() {
        let request = Request::new(Method::Get, "/?a=1");
        assert_eq!(request.query_as::<HashMap<String, u8>>(), Ok(HashMap::from([("a".into(), 1)])));
        let reply = Reply::from(request.query_as::<HashMap<String, bool>>().unwrap_err());
        let reason = "400 Bad Request: the query: \"a\": provided string was not `true` or `false`\n";
        assert_eq!((reply.status(), str::from_utf8(reply.body()).unwrap()), (Status::BAD_REQUEST, reason));
        assert_eq!(Request::new(Method::Get, "/").query_as(), Ok(HashMap::<String, u8>::new()));
    }

    #[test]
    fn replies() {
        let reply = Reply::json(&[1, 2]);
        assert_eq!(
            (reply.status(), reply.content_type(), reply.body()),
            (Status::OK, "application/json", &b"[1,2]"[..])
        );
        let unwritable = HashMap::from([((1, 2), 3)]);
        assert_eq!(Reply::json(&unwritable).status(), Status::INTERNAL_SERVER_ERROR);
        assert_eq!(Reply::from(BadJson::Empty).body(), b"400 Bad Request: the body is empty, not JSON\n");
        assert_eq!(Reply::from(BadJson::ContentType("a/b".into())).status(), Status::UNSUPPORTED_MEDIA_TYPE);
    }
}
