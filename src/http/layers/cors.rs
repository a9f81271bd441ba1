//! Cross-origin requests: which pages of other origins may use this server from a browser (WHATWG Fetch, "CORS
//! protocol").
//!
//! It tells browsers what their scripts may see. It protects nothing from clients that are no browsers, and a request
//! that needs no preflight is handled whatever its origin: only its answer is withheld from the page.

use std::sync::Arc;
use std::time::Duration;

use crate::http::middleware::Next;
use crate::http::reply::{Reply, is_token};
use crate::http::request::Request;
use crate::http::types::{Method, Status};

/// Lets pages of other origins use this server as `policy` says, and answers their preflights.
///
/// Every answer says whose page may see it, also an error, one from a guard, and one that comes later.
///
/// ```
/// use sconce::http::layers::{Cors, cors};
/// use sconce::http::{Method, Request, Router};
///
/// let policy = Cors::origins(["https://app.example"]).methods(&[Method::Delete]).headers(&["content-type"]);
/// let router = Router::new().layer(cors(policy)).get("/", |_: &Request<'_>| "hello");
/// let request = Request::new(Method::Get, "/").with_header("Origin", "https://app.example");
/// let reply = router.handle(request);
/// assert_eq!(reply.header_value("access-control-allow-origin"), Some("https://app.example"));
/// assert_eq!(reply.header_value("vary"), Some("Origin"));
/// ```
pub fn cors(policy: Cors) -> impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static {
    let policy = Arc::new(policy);
    move |request, next| {
        if let Some(reply) = policy.preflight(request) {
            return reply;
        }
        let origin = request.header("origin").filter(|origin| policy.allows(origin)).map(String::from);
        let policy = Arc::clone(&policy);
        next.run(request).map(move |reply| policy.mark(reply, origin.as_deref()))
    }
}

/// Which origins may do what. Without more than an origin: GET, HEAD and POST with the headers that plain HTML forms
/// can send; `Content-Type: application/json` is not among them.
#[derive(Clone, Debug)]
#[must_use = "a policy does nothing until it is given to `cors`"]
pub struct Cors {
    origins: Origins,
    methods: Vec<Method>,
    headers: String,
    exposed_headers: String,
    max_age: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Origins {
    Any,
    Listed { origins: Vec<String>, credentials: bool },
}

impl Cors {
    /// Any page may use this server, but never with the cookies or credentials of its user.
    pub fn any_origin() -> Cors {
        Cors::new(Origins::Any)
    }

    /// Pages of these origins may use this server, without the user's cookies and credentials. An origin is written as
    /// browsers do: `https://host`, with a port if it is not the scheme's own, and without a slash at the end.
    ///
    /// # Panics
    /// On anything else, which would never match: a mistake of the program.
    pub fn origins<O: Into<String>>(origins: impl IntoIterator<Item = O>) -> Cors {
        Cors::new(Origins::Listed { origins: checked(origins), credentials: false })
    }

    /// As [`origins`](Cors::origins), and the browser adds the user's cookies and credentials for this server: these
    /// pages act in the user's name. There is no such thing for any origin.
    pub fn origins_with_credentials<O: Into<String>>(origins: impl IntoIterator<Item = O>) -> Cors {
        Cors::new(Origins::Listed { origins: checked(origins), credentials: true })
    }

    fn new(origins: Origins) -> Cors {
        let methods = vec![Method::Get, Method::Head, Method::Post];
        Cors { origins, methods, headers: String::new(), exposed_headers: String::new(), max_age: None }
    }

    /// Methods allowed besides GET, HEAD and POST.
    pub fn methods(mut self, methods: &[Method]) -> Cors {
        self.methods.extend_from_slice(methods);
        self
    }

    /// Request headers allowed besides those that forms can send, such as `content-type` (for JSON) and `authorization`.
    ///
    /// # Panics
    /// On a name that is no token.
    pub fn headers(mut self, names: &[&str]) -> Cors {
        push_names(&mut self.headers, names);
        self
    }

    /// Answer headers that scripts may read besides the few that they always may.
    ///
    /// # Panics
    /// On a name that is no token.
    pub fn exposed_headers(mut self, names: &[&str]) -> Cors {
        push_names(&mut self.exposed_headers, names);
        self
    }

    /// How long a browser may go without asking again, in whole seconds. Its default is 5 s, and its maximum 2 h or so.
    pub fn max_age(mut self, max_age: Duration) -> Cors {
        self.max_age = Some(max_age);
        self
    }

    /// The answer to a preflight, the question that a browser asks before a request that no form could cause. It is the
    /// same whatever is asked for: the browser compares. `None` for any other request.
    fn preflight(&self, request: &Request<'_>) -> Option<Reply> {
        let origin = request.header("origin")?;
        request.header("access-control-request-method").filter(|_| request.method() == Method::Options)?;
        let reply = self.mark(Reply::empty(Status::NO_CONTENT), Some(origin));
        if !self.allows(origin) {
            return Some(reply);
        }
        let methods: Vec<&str> = self.methods.iter().map(|method| method.name()).collect();
        let mut reply = reply.header("Access-Control-Allow-Methods", methods.join(", "));
        if !self.headers.is_empty() {
            reply = reply.header("Access-Control-Allow-Headers", &self.headers);
        }
        match self.max_age {
            Some(age) => Some(reply.header("Access-Control-Max-Age", age.as_secs().to_string())),
            None => Some(reply),
        }
    }

    /// Adds what the browser wants to see for `origin`. A handler that set the first of these lines itself has its way.
    fn mark(&self, reply: Reply, origin: Option<&str>) -> Reply {
        if reply.header_value("access-control-allow-origin").is_some() {
            return reply;
        }
        let reply = match (&self.origins, origin) {
            (Origins::Any, _) => reply.header("Access-Control-Allow-Origin", "*"),
            // Answers differ by origin even where this one gets nothing: a cache must not give one the other's.
            (Origins::Listed { .. }, None) => return reply.header("Vary", "Origin"),
            (Origins::Listed { .. }, Some(origin)) if !self.allows(origin) => return reply.header("Vary", "Origin"),
            (Origins::Listed { credentials, .. }, Some(origin)) => {
                let reply = reply.header("Access-Control-Allow-Origin", origin).header("Vary", "Origin");
                if *credentials { reply.header("Access-Control-Allow-Credentials", "true") } else { reply }
            }
        };
        match &*self.exposed_headers {
            "" => reply,
            names => reply.header("Access-Control-Expose-Headers", names),
        }
    }

    fn allows(&self, origin: &str) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::Listed { origins, .. } => origins.iter().any(|listed| listed == origin),
        }
    }
}

fn checked<O: Into<String>>(origins: impl IntoIterator<Item = O>) -> Vec<String> {
    let origins: Vec<String> = origins.into_iter().map(Into::into).collect();
    for origin in &origins {
        assert!(is_origin(origin), "{origin:?} is no origin, which is like https://host or http://host:port");
    }
    origins
}

/// Scheme, host and port as browsers write them: in lower case, without the scheme's own port.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "/",
    };
    let is_plain = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase() && !b"/?#@\\*\"<>,".contains(&b);
    let is_scheme = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    !scheme.is_empty()
        && scheme.bytes().all(is_scheme)
        && !authority.is_empty()
        && authority.bytes().all(is_plain)
        && !authority.ends_with(own_port)
}

fn push_names(list: &mut String, names: &[&str]) {
    for name in names {
        assert!(is_token(name), "{name:?} is no header name");
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::http::Router;

    const APP: &str = "https://app.example";

    fn policy() -> Cors {
        Cors::origins_with_credentials([APP, "http://localhost:3000"])
            .methods(&[Method::Put])
            .headers(&["content-type", "authorization"])
            .exposed_headers(&["x-request-id"])
            .max_age(Duration::from_secs(600))
    }

    /// `expected`: the header lines of the answer to a GET.
    #[track_caller]
    fn check(policy: &Cors, origin: Option<&str>, expected: &str) {
        assert_eq!(policy.mark(Reply::text("x"), origin).header_lines(), expected, "{origin:?}");
    }

    #[test]
    fn answers() {
        let allowed = |origin: &str| {
            format!(
                "Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n\
                 Access-Control-Expose-Headers: x-request-id\r\n"
            )
        };
        check(&policy(), Some(APP), &allowed(APP));
        check(&policy(), Some("http://localhost:3000"), &allowed("http://localhost:3000"));
        for other in [
            "https://app.example.evil",
            "https://evil.example",
            "http://app.example",
            "https://app.example:8443",
            "https://APP.example",
            "null",
            "",
            "*",
        ] {
            check(&policy(), Some(other), "Vary: Origin\r\n");
        }
        check(&policy(), None, "Vary: Origin\r\n");
        let plain = Cors::origins([APP]);
        check(&plain, Some(APP), "Access-Control-Allow-Origin: https://app.example\r\nVary: Origin\r\n");
        check(&Cors::any_origin(), Some("null"), "Access-Control-Allow-Origin: *\r\n");
        check(&Cors::any_origin(), None, "Access-Control-Allow-Origin: *\r\n");
    }

    #[test]
    fn a_handler_may_decide_itself() {
        let reply = Reply::text("").header("Access-Control-Allow-Origin", "https://b");
        assert_eq!(policy().mark(reply, Some(APP)).header_lines(), "Access-Control-Allow-Origin: https://b\r\n");
    }

    #[test]
    fn preflights() {
        let asked = |origin| {
            let request = Request::new(Method::Options, "/").with_header("origin", origin);
            request.with_header("Access-Control-Request-Method", "PATCH")
        };
        let reply = policy().preflight(&asked(APP)).unwrap();
        assert_eq!(reply.status(), Status::NO_CONTENT);
        for (name, value) in [
            ("access-control-allow-origin", APP),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, HEAD, POST, PUT"),
            ("access-control-allow-headers", "content-type, authorization"),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(reply.header_value(name), Some(value), "{name}");
        }
        let reply = policy().preflight(&asked("https://evil.example")).unwrap();
        assert_eq!((reply.status(), reply.header_lines()), (Status::NO_CONTENT, "Vary: Origin\r\n"));
        let reply = Cors::any_origin().preflight(&asked("https://any.example")).unwrap();
        let lines = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: GET, HEAD, POST\r\n";
        assert_eq!(reply.header_lines(), lines);
    }

    #[test]
    fn a_preflight_reaches_no_guard_and_no_handler_and_any_answer_is_marked() {
        let router = Router::new()
            .layer(cors(policy()))
            .guard(|request| if request.path() == "/closed" { Err(Reply::empty(Status::UNAUTHORIZED)) } else { Ok(()) })
            .route(Method::Options, "/own", |_: &Request<'_>| "mine")
            .get("/later", |_: &Request<'_>| {
                let (reply, responder) = Reply::later();
                responder.send(Reply::text("late"));
                reply
            });
        for path in ["/closed", "/own", "/nothing"] {
            let preflight = Request::new(Method::Options, path).with_header("Origin", APP);
            let reply = router.handle(preflight.with_header("Access-Control-Request-Method", "PUT"));
            assert_eq!(reply.status(), Status::NO_CONTENT);
        }
        for (method, path, status) in [
            (Method::Options, "/own", 200),
            (Method::Get, "/later", 200),
            (Method::Get, "/no", 404),
            (Method::Get, "/closed", 401),
        ] {
            let reply = router.handle(Request::new(method, path).with_header("Origin", APP));
            let reply = reply.wait(Duration::from_secs(10)).unwrap();
            assert_eq!((reply.status().code(), reply.header_value("access-control-allow-origin")), (status, Some(APP)));
        }
    }

    #[test]
    fn other_requests_are_no_preflights() {
        let options = || Request::new(Method::Options, "/");
        for request in [
            options(),
            options().with_header("Origin", APP),
            options().with_header("Access-Control-Request-Method", "PUT"),
            Request::new(Method::Get, "/")
                .with_header("Origin", APP)
                .with_header("Access-Control-Request-Method", "PUT"),
        ] {
            assert!(policy().preflight(&request).is_none(), "{request:?}");
        }
    }

    #[test]
    fn origins_that_would_never_match_are_refused() {
        for good in ["https://a", "http://a.b:8080", "http://[::1]:3000", "chrome-extension://abc", "http://a:443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "*",
            "null",
            "https://",
            "://a",
            "https://a/",
            "https://a/b",
            "https://A",
            "HTTPS://a",
            "https://a:443",
            "http://a:80",
            "https://*.a",
            "https://a b",
            "https://u@a",
            "https://a,https://b",
        ] {
            assert!(!is_origin(bad), "{bad}");
            assert!(catch_unwind(|| Cors::origins([bad])).is_err(), "{bad}");
        }
    }
}
