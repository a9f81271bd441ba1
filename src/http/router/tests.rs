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
    let router = router().layer(|request, next| next.run(request).header("x-outer", "1")).layer(|request, next| {
        match request.header("x-stop") {
            Some(_) => Reply::empty(Status::FORBIDDEN),
            None => next.run(request).header("x-inner", "2"),
        }
    });
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

/// What becomes of a request must not depend on whether its body has come with its head.
#[test]
fn bodies_that_are_there_and_bodies_to_come_are_judged_alike() {
    let router = Router::new()
        .guard(|request| match (request.header("x-key"), request.body()) {
            (Some("k"), b"") => Ok(()),
            _ => Err(Reply::empty(Status::UNAUTHORIZED)),
        })
        .post("/a", |_: &Request<'_>| Status::OK)
        .post("/wide", |_: &Request<'_>| Status::OK)
        .limit_body("/wide", 20)
        .route_streamed(Method::Post, "/streamed", |_, _| Status::OK)
        .fallback(|_: &Request<'_>| Status::GONE);
    let body = [b'x'; 21];
    for (method, path, key, bytes, status) in [
        (Method::Post, "/a", "k", 10, 200),
        (Method::Post, "/a", "k", 11, 413),
        (Method::Post, "/a", "", 11, 401),
        (Method::Put, "/a", "k", 11, 405),
        (Method::Put, "/a", "", 11, 401),
        (Method::Post, "/wide", "k", 20, 200),
        (Method::Post, "/wide", "k", 21, 413),
        (Method::Post, "/streamed", "k", 21, 200),
        (Method::Post, "/streamed", "", 21, 401),
        (Method::Post, "/other", "k", 10, 410),
        (Method::Post, "/other", "k", 11, 413),
        (Method::Post, "/other", "", 1, 401),
    ] {
        let request = || Request::new(method, path).with_header("x-key", key);
        let there = router.answer(&mut request().with_body(&body[..bytes]), 10);
        let to_come = match router.admit(&request(), Some(bytes as u64), 10) {
            Admission::Refused(reply) => reply,
            _ => router.answer_admitted(&mut request().with_body(&body[..bytes])),
        };
        let seen = (there.status().code(), to_come.status().code());
        assert_eq!(seen, (status, status), "{method} {path}, key {key:?}, {bytes} bytes");
    }
}

#[test]
fn fallback_takes_the_rest() {
    let router = router().fallback(|_: &Request<'_>| Status::GONE);
    assert_eq!(router.handle(Request::new(Method::Get, "/nothing")).status(), Status::GONE);
}
