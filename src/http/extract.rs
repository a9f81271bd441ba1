//! Path and query parameters as values of a type.
//!
//! A parameter that is missing or does not parse is an error that names it and becomes a 400, so that handlers need
//! only `?`:
//!
//! ```
//! use sconce::http::{BadParam, Method, Reply, Request, Router};
//!
//! fn page(request: &Request<'_>) -> Result<String, BadParam> {
//!     let id: u64 = request.path_param("id")?;
//!     let limit = request.query_param("limit")?.unwrap_or(20_u8);
//!     Ok(format!("{limit} of {id}"))
//! }
//!
//! let router = Router::new().get("/lists/{id}", page);
//! assert_eq!(router.handle(Request::new(Method::Get, "/lists/7?limit=5")).body(), b"5 of 7");
//! assert_eq!(
//!     router.handle(Request::new(Method::Get, "/lists/7?limit=many")).body(),
//!     b"400 Bad Request: the query parameter \"limit\" is \"many\", not of type u8: invalid digit found in string\n"
//! );
//! ```
//!
//! Errors of different types meet in `Result<_, Reply>`, which `?` turns each of them into.
//!
//! There are no typed handler arguments: a handler takes its state beside the request, and reads in the order of its
//! body what it needs.

use std::any::type_name;
use std::fmt;
use std::str::FromStr;

use super::reply::Reply;
use super::request::Request;
use super::types::Status;

/// How much of what a client sent is said back to it.
const TEXT_CHARS_MAX: usize = 64;

impl Request<'_> {
    /// The path parameter that the route calls `{name}`, percent-decoded and parsed.
    ///
    /// # Errors
    /// It does not parse as a `T`: a 400. The route has no such parameter: a mistake of the program, a 500.
    pub fn path_param<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, BadParam> {
        match self.param(name) {
            Some(text) => parse(Place::Path, name, &text),
            None => Err(BadParam { place: Place::Path, name: name.to_string(), problem: Problem::Missing }),
        }
    }

    /// The first value of `name` in the query, decoded as forms are and parsed; `None` when it is not there.
    ///
    /// # Errors
    /// It is there and does not parse as a `T`: a 400. `?limit=` and `?limit` have an empty value, which is no number.
    pub fn query_param<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, BadParam> {
        self.query(name).map(|text| parse(Place::Query, name, &text)).transpose()
    }

    /// As [`query_param`](Request::query_param), for one that must be there.
    ///
    /// # Errors
    /// It is not there, or does not parse as a `T`: a 400.
    pub fn required_query_param<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, BadParam> {
        let missing = || BadParam { place: Place::Query, name: name.to_string(), problem: Problem::Missing };
        self.query_param(name)?.ok_or_else(missing)
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(place: Place, name: &str, text: &str) -> Result<T, BadParam> {
    text.parse().map_err(|error: T::Err| {
        let problem = Problem::Unreadable {
            text: text.chars().take(TEXT_CHARS_MAX).collect(),
            expected: short_type_name::<T>(),
            reason: error.to_string(),
        };
        BadParam { place, name: name.to_string(), problem }
    })
}

/// `u64` for `u64`, `Ipv4Addr` for `core::net::ip_addr::Ipv4Addr`.
fn short_type_name<T>() -> &'static str {
    let full = type_name::<T>();
    let path = full.split_once('<').map_or(full, |(path, _)| path);
    path.rsplit("::").next().unwrap_or(path)
}

/// A path or query parameter that is not what the handler needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParam {
    place: Place,
    name: String,
    problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Path,
    Query,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Missing,
    Unreadable { text: String, expected: &'static str, reason: String },
}

impl BadParam {
    /// The name of the parameter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 400; 500 for a path parameter that the route does not have, which is not the client's fault.
    pub fn status(&self) -> Status {
        match (self.place, &self.problem) {
            (Place::Path, Problem::Missing) => Status::INTERNAL_SERVER_ERROR,
            _ => Status::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BadParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadParam { place, name, problem } = self;
        match (place, problem) {
            (Place::Path, Problem::Missing) => write!(f, "the route has no parameter {name:?}"),
            (Place::Query, Problem::Missing) => write!(f, "the query parameter {name:?} is missing"),
            (_, Problem::Unreadable { text, expected, reason }) => {
                let place = if *place == Place::Path { "path" } else { "query" };
                write!(f, "the {place} parameter {name:?} is {text:?}, not of type {expected}: {reason}")
            }
        }
    }
}

impl std::error::Error for BadParam {}

impl From<BadParam> for Reply {
    fn from(error: BadParam) -> Reply {
        if error.status() == Status::INTERNAL_SERVER_ERROR {
            log::error!("{error}");
        }
        refusal(error.status(), error)
    }
}

/// An error in the shape of the router's own.
pub(super) fn refusal(status: Status, reason: impl fmt::Display) -> Reply {
    Reply::refusal(status, reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::http::Method;

    /// `expected`: the value as text, or the error.
    #[track_caller]
    fn check<T: FromStr<Err: fmt::Display> + fmt::Display>(target: &str, expected: Result<Option<&str>, &str>) {
        let value = Request::new(Method::Get, target).query_param::<T>("x");
        let value = value.map(|value| value.map(|value| value.to_string())).map_err(|error| error.to_string());
        assert_eq!(value, expected.map(|value| value.map(String::from)).map_err(String::from), "{target}");
    }

    #[test]
    fn query_parameters() {
        check::<u8>("/", Ok(None));
        check::<u8>("/?y=1", Ok(None));
        check::<u8>("/?x=7&x=8", Ok(Some("7")));
        check::<i64>("/?x=%2D7", Ok(Some("-7")));
        check::<String>("/?x=a+b%2Bc", Ok(Some("a b+c")));
        check::<bool>("/?x=true", Ok(Some("true")));
        check::<Ipv4Addr>("/?x=127.0.0.1", Ok(Some("127.0.0.1")));
        let number = |text, why| format!("the query parameter \"x\" is {text}, not of type u8: {why}");
        check::<u8>("/?x=256", Err(&number("\"256\"", "number too large to fit in target type")));
        check::<u8>("/?x=", Err(&number("\"\"", "cannot parse integer from empty string")));
        check::<u8>("/?x", Err(&number("\"\"", "cannot parse integer from empty string")));
        check::<u8>("/?x=%0A%22", Err(&number("\"\\n\\\"\"", "invalid digit found in string")));
        let why = "invalid IPv4 address syntax";
        check::<Ipv4Addr>("/?x=a", Err(&format!("the query parameter \"x\" is \"a\", not of type Ipv4Addr: {why}")));
    }

    #[test]
    fn a_long_text_is_cut() {
        let target = format!("/?x={}", "ä".repeat(1000));
        let error = Request::new(Method::Get, &target).query_param::<u8>("x").unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }

    #[test]
    fn path_parameters() {
        let request = Request::new(Method::Get, "/4%32").with_route("/{id}");
        assert_eq!(request.path_param("id"), Ok(42_u8));
        let request = Request::new(Method::Get, "/abc").with_route("/{id}");
        let error = request.path_param::<f32>("id").unwrap_err();
        assert_eq!((error.name(), error.status()), ("id", Status::BAD_REQUEST));
        assert_eq!(error.to_string(), "the path parameter \"id\" is \"abc\", not of type f32: invalid float literal");
        let reply = Reply::from(error);
        assert_eq!((reply.status(), reply.content_type()), (Status::BAD_REQUEST, "text/plain; charset=utf-8"));
    }

    #[test]
    fn a_name_that_the_route_lacks_is_the_servers_fault() {
        let error = Request::new(Method::Get, "/").path_param::<u8>("id").unwrap_err();
        assert_eq!(Reply::from(error).status(), Status::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn required_query_parameters() {
        let request = Request::new(Method::Get, "/?a=1");
        assert_eq!(request.required_query_param("a"), Ok(1_u8));
        let error = request.required_query_param::<u8>("b").unwrap_err();
        assert_eq!(
            (error.status(), &*error.to_string()),
            (Status::BAD_REQUEST, "the query parameter \"b\" is missing")
        );
    }

    #[test]
    fn type_names_are_short() {
        assert_eq!(
            [short_type_name::<u64>(), short_type_name::<String>(), short_type_name::<Option<String>>()],
            ["u64", "String", "Option"]
        );
    }
}
