//! Chooses the handler for a request by path and method.
//!
//! Knows no connection. Answers on its own: 404, 405 with `Allow`, `OPTIONS`, and HEAD through the GET handler (the
//! connection leaves the body out). Every answer made here or by the connection for a failure passes one error hook, so
//! that an API can give them all its own shape. A handler that panics costs its request a 500 and nothing else.
//!
//! ```text
//! a whole request       ─▶ layers ─▶ guards ─▶ handler
//! a head, its body to come ─▶ guards ─▶ the body ─▶ layers ─▶ handler
//! ```

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use super::middleware::{Guard, Layer, Next, catch_panic};
use super::pipe::Body;
use super::reply::{IntoReply, Reply};
use super::request::Request;
use super::route_tree::RouteTree;
use super::types::{Method, Status};

type Handler = Box<dyn Fn(&Request<'_>) -> Reply + Send + Sync>;
type ErrorHook = Box<dyn Fn(&Refusal<'_>) -> Reply + Send + Sync>;

/// Why a request gets an error that no handler made.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// The status that the client gets, whatever shape the hook gives to the rest.
    pub status: Status,
    /// What happened, as a sentence without a full stop. Nothing internal.
    pub reason: &'a str,
    /// The request, where there is one: bytes that are not HTTP have none.
    pub request: Option<&'a Request<'a>>,
}

/// Routes, middleware and what to say to the rest. Shared by all loops; built once, before the server starts.
///
/// A pattern is a path; a segment `{name}` takes any one segment that is not empty, a last segment `{*name}` the rest of
/// the path. The most specific pattern wins, whatever the order.
#[derive(Default)]
#[must_use = "a router is built by value: what a method returns is the one with the route"]
pub struct Router {
    paths: RouteTree<Path>,
    guards: Vec<Guard>,
    layers: Vec<Layer>,
    fallback: Option<Handler>,
    on_error: Option<ErrorHook>,
}

/// What there is at one path.
#[derive(Default)]
struct Path {
    pattern: Box<str>,
    routes: Vec<Route>,
    body_bytes_max: Option<usize>,
}

struct Route {
    method: Method,
    handler: Handler,
    streamed: bool,
    /// Those of the routers that this one was nested in.
    guards: Vec<Guard>,
}

/// What becomes of the body of a request whose head has arrived.
pub(crate) enum Admission {
    Buffer { bytes_max: usize },
    Stream { bytes_max: u64 },
    Refused(Reply),
}

/// What still lies before a handler.
#[derive(Clone, Copy)]
enum Gate {
    /// The guards have not been asked, nor has the length of the body, which is there, been looked at.
    Closed { body_bytes_max: usize },
    /// The request was [admitted](Router::admit).
    Open,
}

/// What a path and a method lead to.
#[derive(Clone, Copy)]
struct Found<'a> {
    path: Option<&'a Path>,
    route: Option<&'a Route>,
}

impl Router {
    /// A router without routes: everything is a 404.
    pub fn new() -> Router {
        Router::default()
    }

    /// Adds a handler.
    ///
    /// # Panics
    /// On a pattern that cannot work (no leading `/`, one parameter under two names) and on a
    /// second handler for the same pattern and method: these are mistakes of the program.
    pub fn route<R: IntoReply>(
        self,
        method: Method,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        let handler = Box::new(move |request: &Request<'_>| handler(request).into_reply());
        self.add(pattern, Route { method, handler, streamed: false, guards: Vec::new() })
    }

    /// Adds a handler that is called as soon as the head has arrived, and reads the body while it comes, for instance
    /// from another thread. The default bound on its length does not hold for it, only one set by
    /// [`limit_body`](Router::limit_body).
    ///
    /// # Panics
    /// As [`route`](Router::route) does.
    pub fn route_streamed<R: IntoReply>(
        self,
        method: Method,
        pattern: &str,
        handler: impl Fn(&Request<'_>, Body) -> R + Send + Sync + 'static,
    ) -> Router {
        let handler = Box::new(move |request: &Request<'_>| {
            let body = request.take_stream().unwrap_or_else(|| Body::whole(request.body()));
            handler(request, body).into_reply()
        });
        self.add(pattern, Route { method, handler, streamed: true, guards: Vec::new() })
    }

    fn add(mut self, pattern: &str, route: Route) -> Router {
        let path = self.path(pattern);
        let method = route.method;
        assert!(path.routes.iter().all(|other| other.method != method), "two handlers for {method} {pattern}");
        path.routes.push(route);
        self
    }

    fn path(&mut self, pattern: &str) -> &mut Path {
        let path = self.paths.entry(pattern).unwrap_or_else(|reason| panic!("{reason}"));
        path.pattern = pattern.into();
        path
    }

    /// Adds a handler for GET; it serves HEAD too, whose answer is sent without its body (RFC 9110 §9.3.2).
    ///
    /// # Panics
    /// As [`route`](Router::route) does.
    pub fn get<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Get, pattern, handler)
    }

    /// Adds a handler for POST (RFC 9110 §9.3.3).
    ///
    /// # Panics
    /// As [`route`](Router::route) does.
    pub fn post<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Post, pattern, handler)
    }

    /// Adds a handler for PUT (RFC 9110 §9.3.4).
    ///
    /// # Panics
    /// As [`route`](Router::route) does.
    pub fn put<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Put, pattern, handler)
    }

    /// Adds a handler for PATCH (RFC 5789 §2).
    ///
    /// # Panics
    /// As [`route`](Router::route) does.
    pub fn patch<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Patch, pattern, handler)
    }

    /// Adds a handler for DELETE (RFC 9110 §9.3.5).
    ///
    /// # Panics
    /// As [`route`](Router::route) does.
    pub fn delete<R: IntoReply>(
        self,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Router {
        self.route(Method::Delete, pattern, handler)
    }

    /// Bounds the bodies of requests for a pattern, in bytes after decoding, in place of
    /// [`Limits::body_bytes_max`](super::Limits::body_bytes_max). A longer one is refused with 413, before it is read.
    ///
    /// # Panics
    /// As [`route`](Router::route) does for the pattern.
    pub fn limit_body(mut self, pattern: &str, bytes_max: usize) -> Router {
        self.path(pattern).body_bytes_max = Some(bytes_max);
        self
    }

    /// Asks before a request is let in, when its head has arrived and nothing of its body has been read: who is this, may
    /// they? The first guard that says no gives the answer. Guards see an empty body.
    pub fn guard(mut self, guard: impl Fn(&Request<'_>) -> Result<(), Reply> + Send + Sync + 'static) -> Router {
        self.guards.push(Arc::new(guard));
        self
    }

    /// Wraps every answer of this router, errors included. The layer added first is the outermost.
    pub fn layer(mut self, layer: impl Fn(&Request<'_>, Next<'_>) -> Reply + Send + Sync + 'static) -> Router {
        self.layers.push(Box::new(layer));
        self
    }

    /// Puts the routes of another router under `prefix`, each with the guards and layers of that router. Its fallback and
    /// its error hook do not count: what no route takes is this router's.
    ///
    /// # Panics
    /// As [`route`](Router::route) does.
    pub fn nest(mut self, prefix: &str, other: Router) -> Router {
        let layers: Arc<[Layer]> = other.layers.into();
        for (pattern, path) in other.paths.into_entries() {
            let pattern = match (prefix.strip_suffix('/').unwrap_or(prefix), pattern.as_str()) {
                (prefix, "/") if !prefix.is_empty() => prefix.to_string(),
                (prefix, pattern) => format!("{prefix}{pattern}"),
            };
            for route in path.routes {
                let (layers, inner) = (Arc::clone(&layers), route.handler);
                let handler = Box::new(move |request: &Request<'_>| Next::new(&layers, &inner).run(request));
                let guards = other.guards.iter().cloned().chain(route.guards).collect();
                self = self.add(&pattern, Route { handler, guards, ..route });
            }
            if let Some(bytes_max) = path.body_bytes_max {
                self = self.limit_body(&pattern, bytes_max);
            }
        }
        self
    }

    /// Handles paths that no route has, instead of 404.
    pub fn fallback<R: IntoReply>(mut self, handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static) -> Router {
        self.fallback = Some(Box::new(move |request| handler(request).into_reply()));
        self
    }

    /// Gives shape to the errors that no handler made: those of the router (404, 405, 413, 500 after a panic, 504) and
    /// those of the connection (400, 408, 413, 414, 417, 421, 431, 501, 503, 505). Its reply keeps the refusal's status.
    pub fn on_error(mut self, hook: impl Fn(&Refusal<'_>) -> Reply + Send + Sync + 'static) -> Router {
        self.on_error = Some(Box::new(hook));
        self
    }

    /// Answers a request that is there with its body. Never panics.
    pub fn handle(&self, request: Request<'_>) -> Reply {
        let mut request = request;
        self.answer(&mut request, usize::MAX)
    }

    /// The same, where bodies of more than `body_bytes_max` are refused unless their route says otherwise.
    pub(crate) fn answer<'a>(&'a self, request: &mut Request<'a>, body_bytes_max: usize) -> Reply {
        let found = self.find(request);
        self.in_layers(request, &|request| self.dispatch(found, request, Gate::Closed { body_bytes_max }))
    }

    /// Answers a request that was [admitted](Router::admit): its guards have been asked.
    pub(crate) fn answer_admitted<'a>(&'a self, request: &mut Request<'a>) -> Reply {
        let found = self.find(request);
        self.in_layers(request, &|request| self.dispatch(found, request, Gate::Open))
    }

    /// Decides what becomes of a body that is still to come, `length` bytes if that was declared.
    pub(crate) fn admit(&self, request: &Request<'_>, length: Option<u64>, body_bytes_max: usize) -> Admission {
        let mut request = request.head();
        let found = self.find(&mut request);
        let refused = |refusal: &dyn Fn(&Request<'_>) -> Reply| Admission::Refused(self.in_layers(&request, refusal));
        if !self.takes_body(found) {
            return refused(&|request| self.dispatch(found, request, Gate::Closed { body_bytes_max }));
        }
        // The layers see what a guard said as they see any answer, though not around the guard.
        match catch_panic(|| self.ask(found, &request)) {
            Ok(Ok(())) => {}
            Ok(Err(reply)) => {
                let reply = Cell::new(Some(reply));
                return refused(&|_| reply.take().unwrap_or_else(|| Reply::empty(Status::INTERNAL_SERVER_ERROR)));
            }
            Err(message) => return refused(&|request| self.panicked(request, &message)),
        }
        let bytes_max = found.body_bytes_max(body_bytes_max);
        if length.is_some_and(|length| length > bytes_max) {
            return refused(&|request| self.too_large(bytes_max, request));
        }
        match found.is_streamed() {
            true => Admission::Stream { bytes_max },
            false => Admission::Buffer { bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) },
        }
    }

    /// Runs the layers around `endpoint`; a panic anywhere is a 500.
    fn in_layers(&self, request: &Request<'_>, endpoint: &dyn Fn(&Request<'_>) -> Reply) -> Reply {
        let guarded = |request: &Request<'_>| match catch_panic(|| endpoint(request)) {
            Ok(reply) if reply.refusal_reason().is_none() => reply,
            Ok(refusal) => self.shape(refusal, Some(request)),
            Err(message) => self.panicked(request, &message),
        };
        if self.layers.is_empty() {
            return guarded(request);
        }
        let reply = catch_panic(|| Next::new(&self.layers, &guarded).run(request));
        self.shape(reply.unwrap_or_else(|message| self.panicked(request, &message)), Some(request))
    }

    /// Gives a [refusal](Reply::refusal) the shape of the hook; other replies have one.
    pub(crate) fn shape(&self, reply: Reply, request: Option<&Request<'_>>) -> Reply {
        let (Some(reason), Some(hook)) = (reply.refusal_reason(), &self.on_error) else { return reply };
        let refusal = Refusal { status: reply.status(), reason, request };
        match catch_panic(|| hook(&refusal)) {
            Ok(shape) => reply.shaped_as(shape),
            Err(_) => reply,
        }
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

    fn too_large(&self, bytes_max: u64, request: &Request<'_>) -> Reply {
        let reason = format!("the body is too large, at most {bytes_max} bytes are taken here");
        let status = Status::CONTENT_TOO_LARGE;
        self.refuse(&Refusal { status, reason: &reason, request: Some(request) })
    }

    fn panicked(&self, request: &Request<'_>, message: &str) -> Reply {
        log::error!("handler of {} {} panicked: {message}", request.method(), request.path());
        let reason = "the handler of this request failed";
        self.refuse(&Refusal { status: Status::INTERNAL_SERVER_ERROR, reason, request: Some(request) })
    }

    /// What a request leads to; the request learns its route.
    fn find<'a>(&'a self, request: &mut Request<'a>) -> Found<'a> {
        let method = request.method();
        let path = self.paths.find(request.path(), |path| path.route(method).is_some());
        match path.filter(|path| !path.routes.is_empty()) {
            Some(path) => {
                request.set_route(&path.pattern);
                Found { path: Some(path), route: path.route(method) }
            }
            None => Found { path: None, route: None },
        }
    }

    fn dispatch(&self, found: Found<'_>, request: &Request<'_>, gate: Gate) -> Reply {
        let Found { path, route } = found;
        let method = request.method();
        if let Gate::Closed { body_bytes_max } = gate {
            if let Err(reply) = self.ask(found, request) {
                return reply;
            }
            let bytes_max = found.body_bytes_max(body_bytes_max);
            if self.takes_body(found) && request.body().len() as u64 > bytes_max {
                return self.too_large(bytes_max, request);
            }
        }
        match (path, route) {
            (_, Some(route)) => (route.handler)(request),
            (Some(path), None) if method == Method::Options => {
                Reply::empty(Status::NO_CONTENT).header("Allow", path.allow())
            }
            (Some(path), None) => {
                let reason = format!("{method} is not allowed here, only {}", path.allow());
                let status = Status::METHOD_NOT_ALLOWED;
                self.refuse(&Refusal { status, reason: &reason, request: Some(request) }).header("Allow", path.allow())
            }
            (None, None) => match &self.fallback {
                Some(handler) => handler(request),
                None if method == Method::Options && request.path() == "*" => Reply::empty(Status::NO_CONTENT),
                None => {
                    let reason = format!("no such path: {}", request.path());
                    self.refuse(&Refusal { status: Status::NOT_FOUND, reason: &reason, request: Some(request) })
                }
            },
        }
    }

    /// Whether the body of a request gets to a handler.
    fn takes_body(&self, found: Found<'_>) -> bool {
        found.route.is_some() || (found.path.is_none() && self.fallback.is_some())
    }

    /// The guards of this router, then those of the route's own. They see the head, even where the body is there.
    fn ask(&self, found: Found<'_>, request: &Request<'_>) -> Result<(), Reply> {
        let own = found.route.map_or(&[][..], |route| &route.guards);
        if self.guards.is_empty() && own.is_empty() {
            return Ok(());
        }
        let head = request.head();
        self.guards.iter().chain(own).try_for_each(|guard| guard(&head))
    }
}

impl Found<'_> {
    fn is_streamed(self) -> bool {
        self.route.is_some_and(|route| route.streamed)
    }

    /// The bound on the body, where `default` holds for those that have none of their own and are not streamed.
    fn body_bytes_max(self, default: usize) -> u64 {
        match self.path.and_then(|path| path.body_bytes_max) {
            None if self.is_streamed() => u64::MAX,
            own => own.unwrap_or(default) as u64,
        }
    }
}

impl Path {
    /// The route for a method; that of GET serves HEAD too.
    fn route(&self, method: Method) -> Option<&Route> {
        let find = |wanted: Method| self.routes.iter().find(|route| route.method == wanted);
        find(method).or_else(|| if method == Method::Head { find(Method::Get) } else { None })
    }

    /// The value of `Allow` (RFC 9110 §10.2.1).
    fn allow(&self) -> String {
        let mut names: Vec<&str> = self.routes.iter().map(|route| route.method.name()).collect();
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
        f.debug_struct("Router").field("layers", &self.layers.len()).field("guards", &self.guards.len()).finish()
    }
}

#[cfg(test)]
mod tests;
