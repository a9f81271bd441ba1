//! Chooses the handler for a request by path and method.
//!
//! Knows no connection. Fixed paths are found by one look-up, paths with parameters by trying their routes in order.
//! Answers on its own: 404, 405 with `Allow`, `OPTIONS`, and HEAD through the GET handler (the connection leaves the
//! body out). Every answer made here or by the connection for a failure passes one error hook, so that an API can give
//! them all its own shape. A handler that panics costs its request a 500 and nothing else.

use std::collections::HashMap;
use std::fmt;

use super::middleware::{Layer, Next, catch_panic};
use super::reply::{IntoReply, Reply};
use super::request::{PARAMS_MAX, Request};
use super::types::{Method, Status};

type Handler = Box<dyn Fn(&Request<'_>) -> Reply + Send + Sync>;
type ErrorHook = Box<dyn Fn(&Refusal<'_>) -> Reply + Send + Sync>;

/// Why a request gets an error that no handler made.
#[derive(Debug)]
pub struct Refusal<'a> {
    pub status: Status,
    /// What happened, as a sentence without a full stop. Nothing internal.
    pub reason: &'a str,
    /// The request, where there is one: bytes that are not HTTP have none.
    pub request: Option<&'a Request<'a>>,
}

/// Routes, middleware and what to say to the rest. Shared by all loops; built once, before the server starts.
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
    /// Routes without parameters, by path.
    fixed: HashMap<String, usize>,
    /// The other routes, in the order in which they were added.
    patterns: Vec<usize>,
    layers: Vec<Layer>,
    fallback: Option<Handler>,
    on_error: Option<ErrorHook>,
}

struct Route {
    segments: Vec<Segment>,
    handlers: Vec<(Method, Handler)>,
}

#[derive(PartialEq)]
enum Segment {
    Fixed(String),
    Param(String),
    /// `{*name}`: the rest of the path, slashes included.
    Rest(String),
}

impl Router {
    pub fn new() -> Router {
        Router::default()
    }

    /// Adds a handler. `pattern` is a path; a segment `{name}` takes any one segment that is not empty, a last segment
    /// `{*name}` the rest of the path.
    ///
    /// # Panics
    /// On a pattern that cannot work (no leading `/`, more than four parameters) and on a second handler for the same
    /// pattern and method: both are mistakes of the program.
    pub fn route<R: IntoReply>(
        mut self,
        method: Method,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        let segments = parse_pattern(pattern);
        let index = self.routes.iter().position(|route| route.segments == segments).unwrap_or_else(|| {
            let index = self.routes.len();
            if segments.iter().all(|segment| matches!(segment, Segment::Fixed(_))) {
                self.fixed.insert(pattern.to_string(), index);
            } else {
                self.patterns.push(index);
            }
            self.routes.push(Route { segments, handlers: Vec::new() });
            index
        });
        let handlers = &mut self.routes[index].handlers;
        assert!(handlers.iter().all(|(other, _)| *other != method), "two handlers for {method} {pattern}");
        handlers.push((method, Box::new(move |request| handler(request).into_reply())));
        self
    }

    pub fn get<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Get, pattern, handler)
    }

    pub fn post<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Post, pattern, handler)
    }

    pub fn put<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Put, pattern, handler)
    }

    pub fn delete<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Delete, pattern, handler)
    }

    /// Wraps every answer of this router, errors included. The layer added first is the outermost.
    pub fn layer(mut self, layer: impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static) -> Router {
        self.layers.push(Box::new(layer));
        self
    }

    /// Handles paths that no route has, instead of 404.
    pub fn fallback<R: IntoReply>(mut self, handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static) -> Router {
        self.fallback = Some(Box::new(move |request| handler(request).into_reply()));
        self
    }

    /// Gives shape to the errors that no handler made: those of the router (404, 405, 500 after a panic) and those of
    /// the connection (400, 408, 413, 414, 417, 431, 501, 503, 505). Its reply keeps the refusal's status.
    pub fn on_error(mut self, hook: impl Fn(&Refusal<'_>) -> Reply + Send + Sync + 'static) -> Router {
        self.on_error = Some(Box::new(hook));
        self
    }

    /// Answers a request. Never panics.
    pub fn handle(&self, request: Request<'_>) -> Reply {
        let (route, request) = self.find(request);
        let endpoint = |request: &Request<'_>| {
            catch_panic(|| self.answer(route, request)).unwrap_or_else(|message| self.panicked(request, &message))
        };
        catch_panic(|| Next::new(&self.layers, &endpoint).run(&request))
            .unwrap_or_else(|message| self.panicked(&request, &message))
    }

    /// The error reply for a refusal, in the shape of the hook.
    pub(crate) fn refuse(&self, refusal: &Refusal<'_>) -> Reply {
        let reply = match &self.on_error {
            Some(hook) => catch_panic(|| hook(refusal)).ok(),
            None => None,
        };
        reply
            .unwrap_or_else(|| Reply::text(format!("{}: {}\n", refusal.status, refusal.reason)))
            .with_status(refusal.status)
    }

    fn panicked(&self, request: &Request<'_>, message: &str) -> Reply {
        log::error!("handler of {} {} panicked: {message}", request.method(), request.path());
        let reason = "the handler of this request failed";
        self.refuse(&Refusal { status: Status::INTERNAL_SERVER_ERROR, reason, request: Some(request) })
    }

    /// The route for a path, and the request with its parameters.
    fn find<'a>(&'a self, request: Request<'a>) -> (Option<&'a Route>, Request<'a>) {
        if let Some(&index) = self.fixed.get(request.path()) {
            return (Some(&self.routes[index]), request);
        }
        for &index in &self.patterns {
            let route = &self.routes[index];
            if let Some(params) = match_segments(&route.segments, request.path()) {
                let request = params.into_iter().flatten().fold(request, |r, (name, raw)| r.with_param(name, raw));
                return (Some(route), request);
            }
        }
        (None, request)
    }

    fn answer(&self, route: Option<&Route>, request: &Request<'_>) -> Reply {
        let method = request.method();
        let Some(route) = route else {
            return match &self.fallback {
                Some(handler) => handler(request),
                None if method == Method::Options && request.path() == "*" => Reply::empty(Status::NO_CONTENT),
                None => {
                    let reason = format!("no such path: {}", request.path());
                    self.refuse(&Refusal { status: Status::NOT_FOUND, reason: &reason, request: Some(request) })
                }
            };
        };
        let find = |wanted: Method| route.handlers.iter().find(|(method, _)| *method == wanted);
        let handler = find(method).or_else(|| if method == Method::Head { find(Method::Get) } else { None });
        match handler {
            Some((_, handler)) => handler(request),
            None if method == Method::Options => Reply::empty(Status::NO_CONTENT).header("Allow", route.allow()),
            None => {
                let reason = format!("{method} is not allowed here, only {}", route.allow());
                let status = Status::METHOD_NOT_ALLOWED;
                self.refuse(&Refusal { status, reason: &reason, request: Some(request) }).header("Allow", route.allow())
            }
        }
    }
}

impl Route {
    /// The value of `Allow` (RFC 9110 §10.2.1).
    fn allow(&self) -> String {
        let mut names: Vec<&str> = self.handlers.iter().map(|(method, _)| method.name()).collect();
        if names.contains(&"GET") && !names.contains(&"HEAD") {
            names.push("HEAD");
        }
        if !names.contains(&"OPTIONS") {
            names.push("OPTIONS");
        }
        names.join(", ")
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("routes", &self.routes.len()).field("layers", &self.layers.len()).finish()
    }
}

fn parse_pattern(pattern: &str) -> Vec<Segment> {
    let path = pattern.strip_prefix('/').unwrap_or_else(|| panic!("the pattern {pattern:?} does not begin with /"));
    let segments: Vec<Segment> = path
        .split('/')
        .map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => match name.strip_prefix('*') {
                Some(rest) => Segment::Rest(rest.to_string()),
                None => Segment::Param(name.to_string()),
            },
            None => Segment::Fixed(segment.to_string()),
        })
        .collect();
    let params = segments.iter().filter(|segment| !matches!(segment, Segment::Fixed(_))).count();
    assert!(params <= PARAMS_MAX, "the pattern {pattern:?} has more than {PARAMS_MAX} parameters");
    let rest = segments.iter().position(|segment| matches!(segment, Segment::Rest(_)));
    assert!(rest.is_none_or(|at| at + 1 == segments.len()), "{{*rest}} is not last in {pattern:?}");
    segments
}

/// The parameters of `path` under a pattern, or `None` when it does not match.
fn match_segments<'a>(segments: &'a [Segment], path: &'a str) -> Option<[Option<(&'a str, &'a str)>; PARAMS_MAX]> {
    let mut params = [None; PARAMS_MAX];
    let mut slots = params.iter_mut();
    let mut rest = Some(path.strip_prefix('/')?);
    for segment in segments {
        let text = rest?;
        let (head, tail) = text.split_once('/').map_or((text, None), |(head, tail)| (head, Some(tail)));
        rest = tail;
        match segment {
            Segment::Fixed(fixed) if fixed == head => {}
            Segment::Param(name) if !head.is_empty() => *slots.next()? = Some((name.as_str(), head)),
            Segment::Rest(name) => {
                *slots.next()? = Some((name.as_str(), text));
                rest = None;
            }
            _ => return None,
        }
    }
    rest.is_none().then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        Router::new()
            .get("/", |_: &Request<'_>| "root")
            .get("/a", |_: &Request<'_>| "a")
            .post("/a", |_: &Request<'_>| "posted")
            .get("/requests/{id}", |r: &Request<'_>| format!("id={}", r.param("id").unwrap_or_default()))
            .get("/x/{one}/y/{two}", |r: &Request<'_>| {
                format!("{}+{}", r.param("one").unwrap_or_default(), r.param("two").unwrap_or_default())
            })
            .get("/files/{*path}", |r: &Request<'_>| r.param("path").unwrap_or_default().into_owned())
            .get("/panic", |_: &Request<'_>| -> Reply { panic!("on purpose") })
    }

    #[track_caller]
    fn check(method: Method, path: &str, status: u16, body: &str) {
        let reply = router().handle(Request::new(method, path));
        assert_eq!((reply.status().code(), str::from_utf8(reply.body()).unwrap()), (status, body), "{method} {path}");
    }

    #[test]
    fn paths_and_methods() {
        use Method::*;
        check(Get, "/", 200, "root");
        check(Get, "/a", 200, "a");
        check(Get, "/a?b=c", 200, "a");
        check(Head, "/a", 200, "a");
        check(Post, "/a", 200, "posted");
        check(Get, "/requests/7%2F8", 200, "id=7/8");
        check(Get, "/x/1/y/2", 200, "1+2");
        check(Get, "/files/a/b.css", 200, "a/b.css");
        check(Get, "/requests/", 404, "404 Not Found: no such path: /requests/\n");
        check(Get, "/requests/7/8", 404, "404 Not Found: no such path: /requests/7/8\n");
        check(Get, "/x/1/z/2", 404, "404 Not Found: no such path: /x/1/z/2\n");
        check(Get, "/A", 404, "404 Not Found: no such path: /A\n");
        check(Delete, "/a", 405, "405 Method Not Allowed: DELETE is not allowed here, only GET, POST, HEAD, OPTIONS\n");
        check(Options, "/a", 204, "");
        check(Options, "*", 204, "");
        check(Get, "/panic", 500, "500 Internal Server Error: the handler of this request failed\n");
    }

    #[test]
    fn allow_names_what_works() {
        for method in [Method::Options, Method::Put] {
            let reply = router().handle(Request::new(method, "/a"));
            assert_eq!(reply.header_value("allow"), Some("GET, POST, HEAD, OPTIONS"));
        }
    }

    #[test]
    fn layers_wrap_everything_and_the_first_is_outermost() {
        let router =
            router().layer(|request, next| next.run(request).header("x-outer", "1")).layer(
                |request, next| match request.header("x-stop") {
                    Some(_) => Reply::empty(Status::FORBIDDEN),
                    None => next.run(request).header("x-inner", "2"),
                },
            );
        let reply = router.handle(Request::new(Method::Get, "/nothing"));
        assert_eq!(reply.header_lines(), "x-inner: 2\r\nx-outer: 1\r\n");
        let reply = router.handle(Request::new(Method::Get, "/panic"));
        assert_eq!((reply.status().code(), reply.header_value("x-outer")), (500, Some("1")));
        let reply = router.handle(Request::new(Method::Get, "/a").with_header("x-stop", ""));
        assert_eq!((reply.status().code(), reply.header_lines()), (403, "x-outer: 1\r\n"));
    }

    #[test]
    fn a_panicking_layer_or_hook_is_a_500() {
        let router = router().layer(|_, _| panic!("on purpose")).on_error(|_| panic!("again"));
        assert_eq!(router.handle(Request::new(Method::Get, "/a")).status().code(), 500);
    }

    #[test]
    fn the_error_hook_shapes_but_keeps_the_status() {
        let router = router().on_error(|refusal| {
            Reply::bytes(
                Status::OK,
                "application/json",
                format!("{{\"path\":{:?}}}", refusal.request.unwrap().path()).into_bytes(),
            )
        });
        let reply = router.handle(Request::new(Method::Delete, "/a"));
        assert_eq!((reply.status().code(), reply.body()), (405, &b"{\"path\":\"/a\"}"[..]));
        assert!(reply.header_value("allow").is_some());
    }

    #[test]
    fn fallback_takes_the_rest() {
        let router = router().fallback(|_: &Request<'_>| Status::GONE);
        assert_eq!(router.handle(Request::new(Method::Get, "/nothing")).status(), Status::GONE);
    }
}
