//! Layers and guards over real sockets.

mod http_support;

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use http_support::{Client, PATIENCE, serve, until};
use sconce::http::layers::{
    Cors, InboundId, RequestId, access_log_to, basic_auth, bearer_auth, cors, request_id, timeout,
};
use sconce::http::{Body, Method, Reply, Request, Responder, Router, Sse};

const APP: &str = "https://app.example";

/// A handler that gives its responder to the test.
fn handing_over() -> (impl Fn(&Request<'_>) -> Reply + Send + Sync + 'static, Receiver<Responder>) {
    let (sender, responders) = mpsc::channel();
    let handler = move |_: &Request<'_>| {
        let (reply, responder) = Reply::later();
        sender.send(responder).unwrap();
        reply
    };
    (handler, responders)
}

/// A layer that gives its lines to the test.
fn logged(router: Router) -> (Router, Receiver<String>) {
    let (sender, lines) = mpsc::channel();
    (router.layer(access_log_to(move |line| sender.send(line.to_string()).unwrap())), lines)
}

/// The next line of the log: the request line, and what follows it without the time, which must be there.
#[track_caller]
fn next_line(lines: &Receiver<String>) -> String {
    let line = lines.recv_timeout(PATIENCE).unwrap();
    let (peer, rest) = line.split_once(' ').unwrap();
    assert!(peer.starts_with("127.0.0.1:"), "{line}");
    let micros = rest.split(' ').find(|word| word.ends_with("us")).unwrap();
    micros.trim_end_matches("us").parse::<u64>().unwrap();
    rest.replace(micros, "us")
}

#[test]
fn a_browser_gets_its_preflight_and_its_answers_and_no_guard_is_in_the_way() {
    let (later, responders) = handing_over();
    let policy = Cors::origins_with_credentials([APP]).methods(&[Method::Delete]).headers(&["authorization"]);
    let router = Router::new()
        .layer(cors(policy))
        .guard(bearer_auth("api", |_| Ok(())))
        .route(Method::Delete, "/things/7", |_: &Request<'_>| "gone")
        .get("/later", later);
    let server = serve(router);
    let mut client = Client::connect(&server);
    let mut ask = |line: &str, more: &str| {
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\nOrigin: {APP}\r\n{more}\r\n").as_bytes());
        if line.ends_with("/later") && !more.is_empty() {
            responders.recv_timeout(PATIENCE).unwrap().send(Reply::text("late"));
        }
        client.answer()
    };
    let key = "Authorization: Bearer x\r\n";
    let preflight = "Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: authorization\r\n";

    let answer = ask("OPTIONS /things/7", preflight);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some(APP)));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST, DELETE"));
    assert_eq!(answer.header("content-length"), None);
    for (line, more, status) in
        [("DELETE /things/7", key, 200), ("DELETE /things/7", "", 401), ("GET /no", key, 404), ("GET /later", key, 200)]
    {
        let answer = ask(line, more);
        let seen = (answer.status, answer.header("access-control-allow-origin"), answer.header("vary"));
        assert_eq!(seen, (status, Some(APP), Some("Origin")), "{line}");
    }
}

#[test]
fn credentials_are_asked_for_before_the_body() {
    let guard = basic_auth("staff", |user, password| (user, password) == ("ada", "engine"));
    let router = Router::new()
        .layer(request_id(InboundId::Kept))
        .guard(guard)
        .post("/", |request: &Request<'_>| request.body().len().to_string());
    let server = serve(router);
    for expect in ["Expect: 100-continue\r\n", ""] {
        let mut client = Client::connect(&server);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n{expect}\r\n").as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, 401, "{expect}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"staff\", charset=\"UTF-8\""));
        assert!(answer.header("x-request-id").is_some());
    }
    let mut client = Client::connect(&server);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: basic YWRhOmVuZ2luZQ==\r\nExpect: 100-continue\r\n";
    client.send(format!("{head}Content-Length: 5\r\n\r\n").as_bytes());
    assert_eq!((client.line(), client.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
    client.send(b"hello");
    assert_eq!(client.answer().text(), "5");
}

#[test]
fn a_streamed_answer_is_logged_at_its_end() {
    let (later, responders) = handing_over();
    let (router, lines) = logged(Router::new());
    let server =
        serve(router.layer(request_id(InboundId::Kept)).get("/later", later).get("/", |_: &Request<'_>| "now"));
    let mut client = Client::connect(&server);
    let mut start = |target: &str| -> Sse {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-7\r\n\r\n").as_bytes());
        let sse = responders.recv_timeout(PATIENCE).unwrap().sse(&[]);
        assert_eq!(client.answer_to_head().header("x-request-id"), Some("id-7"));
        sse.event("1");
        assert_eq!(client.chunk(), b"data: 1\n\n");
        sse
    };

    let sse = start("/later?a=%22");
    assert!(lines.try_recv().is_err(), "logged before it ended");
    sse.event("2");
    sse.close();
    assert_eq!(next_line(&lines), "\"GET /later?a=%22 HTTP/1.1\" id-7 200 18 us");

    // The producer is gone before the end of its stream.
    assert_eq!((client.chunk(), client.chunk()), (b"data: 2\n\n".to_vec(), vec![]));
    let mut client = Client::connect(&server);
    client.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    let sse = responders.recv_timeout(PATIENCE).unwrap().sse(&[]);
    sse.event("1");
    drop(sse);
    client.rest();
    let line = next_line(&lines);
    assert!(line.starts_with("\"GET /later HTTP/1.1\" ") && line.ends_with(" 200 9 us cut"), "{line}");

    // The client is gone before its answer. What it did not read makes its close a reset.
    let mut client = Client::connect(&server);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-8\r\n\r\n");
    client.send(b"GET /later HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-9\r\n\r\n");
    assert_eq!(next_line(&lines), "\"GET / HTTP/1.1\" id-8 200 3 us");
    let responder = responders.recv_timeout(PATIENCE).unwrap();
    client.socket.peek(&mut [0]).unwrap();
    drop(client);
    assert_eq!(next_line(&lines), "\"GET /later HTTP/1.1\" id-9 499 0 us cut");
    until("the responder knows", || responder.is_closed());
}

#[test]
fn whole_answers_and_errors_are_logged_too() {
    let (router, lines) = logged(Router::new());
    let router =
        router.get("/", |_: &Request<'_>| "now").get("/panic", |_: &Request<'_>| -> Reply { panic!("on purpose") });
    let server = serve(router);
    let mut client = Client::connect(&server);
    for (target, status, bytes) in [("/", 200, 3), ("/no", 404, 33), ("/panic", 500, 62)] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.body.len()), (status, bytes), "{}", answer.text());
        assert_eq!(next_line(&lines), format!("\"GET {target} HTTP/1.1\" - {status} {bytes} us"));
    }
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_a_504() {
    let (later, responders) = handing_over();
    let (router, lines) = logged(Router::new());
    let router = router.layer(cors(Cors::any_origin())).layer(timeout(Duration::from_millis(20))).get("/later", later);
    let server = serve(router.get("/now", |_: &Request<'_>| "now"));
    let mut client = Client::connect(&server);
    let answer = client.get("/later");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (504, Some("*")));
    let responder = responders.recv_timeout(PATIENCE).unwrap();
    assert!(responder.is_closed());
    responder.send(Reply::text("too late"));
    assert_eq!(client.get("/now").text(), "now");
    let line = next_line(&lines);
    assert!(line.starts_with("\"GET /later HTTP/1.1\" - 504 "), "{line}");
}

#[test]
fn a_panic_is_a_500_that_passes_the_layers() {
    let router = Router::new()
        .layer(request_id(InboundId::Kept))
        .layer(cors(Cors::any_origin()))
        .get("/panic", |_: &Request<'_>| -> Reply { panic!("on purpose") });
    let server = serve(router);
    let mut client = Client::connect(&server);
    client.send(b"GET /panic HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-9\r\n\r\n");
    let answer = client.answer();
    let lines = (answer.header("x-request-id"), answer.header("access-control-allow-origin"));
    assert_eq!((answer.status, lines), (500, (Some("id-9"), Some("*"))));
    assert_eq!(client.get("/panic").status, 500);
}

#[test]
fn a_streamed_route_keeps_its_body_under_a_new_id() {
    let router = Router::new().layer(request_id(InboundId::Replaced)).route_streamed(
        Method::Post,
        "/",
        |request: &Request<'_>, body: Body| {
            let id = RequestId::of(request).unwrap();
            let (reply, responder) = Reply::later();
            std::thread::spawn(move || {
                let body = body.collect(1 << 20).unwrap();
                responder.send(Reply::text(format!("{id} {}", body.len())));
            });
            reply
        },
    );
    let server = serve(router);
    let mut client = Client::connect(&server);
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nContent-Length: 10\r\n\r\nhello");
    client.send(b"hello");
    let answer = client.answer();
    let id = answer.header("x-request-id").unwrap();
    assert_eq!((id.len(), answer.text()), (32, format!("{id} 10")));
}

#[cfg(feature = "compression")]
#[test]
fn a_compressed_answer_decodes_and_head_is_its_head() {
    use std::io::Read;

    use sconce::http::layers::{Compression, compression};

    let text = "all work and no play makes jack a dull boy. ".repeat(200);
    let whole = text.clone();
    let (later, responders) = handing_over();
    let router = Router::new()
        .layer(compression(Compression::default()))
        .get("/now", move |_: &Request<'_>| Reply::text(whole.clone()).header("ETag", "\"a\""))
        .get("/later", later);
    let server = serve(router);
    let mut client = Client::connect(&server);
    for target in ["/now", "/later"] {
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, deflate, br\r\n\r\n").as_bytes());
        if target == "/later" {
            responders.recv_timeout(PATIENCE).unwrap().send(Reply::text(text.clone()));
        }
        let answer = client.answer();
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (Some("gzip"), Some("Accept-Encoding")));
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, text);
        assert!(answer.body.len() * 10 < text.len());
    }
    client.send(b"GET /now HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let get = client.answer();
    client.send(b"HEAD /now HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.answer_to_head();
    for name in ["content-encoding", "content-length", "content-type", "etag", "vary"] {
        assert_eq!((head.header(name), head.header(name).is_some()), (get.header(name), true), "{name}");
    }
    assert_eq!(client.get("/now").text(), text);
}
