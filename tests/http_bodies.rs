//! Request bodies over real sockets: fed to handlers as they arrive, refused at the head, bounded in all; and connections
//! that leave HTTP.

mod http_support;

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use http_support::{Client, serve, serve_with};
use sconce::http::{Body, Done, Limits, Method, Reply, Request, Router, ServerConfig, Status};

/// Reads the whole body in a thread and answers with its length.
fn measure(_: &Request<'_>, mut body: Body) -> Reply {
    let (reply, responder) = Reply::later();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        match body.read_to_end(&mut bytes) {
            Ok(count) => {
                responder.send(Reply::text(format!("{count} {}", bytes.iter().map(|b| u64::from(*b)).sum::<u64>())))
            }
            Err(e) => responder.send(Reply::text(e.to_string()).with_status(Status::BAD_REQUEST)),
        }
    });
    reply
}

/// Sends back what comes, while it comes.
fn echo(_: &Request<'_>, body: Body) -> Reply {
    Reply::stream(Reply::bytes(Status::OK, "application/octet-stream", &[][..]), body)
}

fn router() -> Router {
    Router::new()
        .get("/", |_: &Request<'_>| "Hello")
        .post("/buffered", |r: &Request<'_>| r.body().len().to_string())
        .post("/small", |r: &Request<'_>| r.body().len().to_string())
        .limit_body("/small", 10)
        .route_streamed(Method::Post, "/measure", measure)
        .route_streamed(Method::Post, "/echo", echo)
        .route_streamed(Method::Post, "/ignore", |_: &Request<'_>, _| "not read")
        .route_streamed(Method::Post, "/little", measure)
        .limit_body("/little", 10)
        .guard(|request| match request.header("authorization") {
            Some("no") => Err(Reply::empty(Status::UNAUTHORIZED).header("WWW-Authenticate", "Basic realm=\"x\"")),
            _ => Ok(()),
        })
        .layer(|request, next| next.run(request).header("x-layer", "1"))
}

fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

#[test]
fn a_streamed_body_is_read_as_it_arrives_and_the_connection_lives_on() {
    let server = serve(router());
    let mut client = Client::connect(&server);
    let body = vec![b'x'; 3_000_000];
    for _ in 0..2 {
        client.send(head("/measure", "Content-Length: 3000000\r\n").as_bytes());
        body.chunks(99_999).for_each(|piece| client.send(piece));
        assert_eq!(client.answer().text(), format!("3000000 {}", 3_000_000 * u64::from(b'x')));
        client.send(head("/measure", "Transfer-Encoding: chunked\r\n").as_bytes());
        for piece in [&b"hello"[..], b" ", b"world"] {
            client.send(format!("{:x}\r\n", piece.len()).as_bytes());
            client.send(&[piece, b"\r\n"].concat());
        }
        client.send(b"0\r\nTrailer: dropped\r\n\r\n");
        assert_eq!(client.answer().text(), "11 1116");
        // All in one piece: the handler cannot tell.
        client.send((head("/measure", "Content-Length: 2\r\n") + "ab").as_bytes());
        assert_eq!(client.answer().text(), "2 195");
    }
}

#[test]
fn an_answer_can_stream_while_its_request_does() {
    let server = serve(router());
    let mut client = Client::connect(&server);
    client.send(head("/echo", "Transfer-Encoding: chunked\r\n").as_bytes());
    let answer = client.answer_to_head();
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, Some("chunked")));
    for word in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes());
        assert_eq!(client.chunk(), word.as_bytes());
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.chunk(), b"");
    assert_eq!(client.get("/").status, 200);

    client.send((head("/echo", "Content-Length: 5\r\n") + "he").as_bytes());
    assert_eq!(client.answer_to_head().header("content-length"), Some("5"), "a length is passed on");
    client.send(b"llo");
    assert_eq!(client.exactly(5), b"hello");
    assert_eq!(client.get("/").status, 200);
}

/// A body far larger than all buffers together, to a reader that waits: the client is held back, then everything arrives.
#[test]
fn a_slow_reader_holds_its_client_back() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(Some(wait));
    let router = Router::new().route_streamed(Method::Post, "/", move |request: &Request<'_>, body: Body| {
        let wait: Receiver<()> = wait.lock().unwrap().take().unwrap();
        let (reply, responder) = Reply::later();
        let length = body.length();
        assert_eq!((request.body().len(), length), (0, Some(50_000_000)));
        thread::spawn(move || {
            wait.recv().unwrap();
            responder.send(Reply::text(body.collect(usize::MAX - 1).unwrap().len().to_string()));
        });
        reply
    });
    let server = serve(router);
    let mut client = Client::connect(&server);
    client.send(head("/", "Content-Length: 50000000\r\n").as_bytes());
    client.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let (body, mut sent) = (vec![b'x'; 1 << 20], 0);
    while let Ok(count) = client.socket.write(&body[..body.len().min(50_000_000 - sent)]) {
        sent += count;
        assert!(sent < 50_000_000, "the whole body was taken though nobody read it");
    }
    go.send(()).unwrap();
    client.socket.set_write_timeout(None).unwrap();
    while sent < 50_000_000 {
        sent += client.socket.write(&body[..body.len().min(50_000_000 - sent)]).unwrap();
    }
    assert_eq!(client.answer().text(), "50000000");
}

#[test]
fn a_body_that_is_cut_is_never_complete() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let router = Router::new().route_streamed(Method::Post, "/", move |_: &Request<'_>, body: Body| {
        let tell = tell.lock().unwrap().clone();
        thread::spawn(move || tell.send(body.collect(100).map_err(|e| e.kind())).unwrap());
        Reply::later().0
    });
    let server = serve(router);
    for (more, body) in [("Content-Length: 10\r\n", "half"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")] {
        let mut client = Client::connect(&server);
        client.send((head("/", more) + body).as_bytes());
        drop(client);
        assert_eq!(
            told.recv_timeout(Duration::from_secs(30)).unwrap(),
            Err(std::io::ErrorKind::UnexpectedEof),
            "{more}"
        );
    }
}

/// What a client sees that announces a body and waits for leave to send it.
#[track_caller]
fn check_expecting(path: &str, more: &str, expected: &str) {
    let server = serve(router());
    let mut client = Client::connect(&server);
    client.send(head(path, &format!("Expect: 100-continue\r\n{more}")).as_bytes());
    let line = client.line();
    assert!(line.ends_with(expected), "{path} {more:?}: {line}");
}

#[test]
fn leave_to_send_a_body_depends_on_route_guard_and_limit() {
    check_expecting("/buffered", "Content-Length: 5\r\n", "100 Continue");
    check_expecting("/measure", "Transfer-Encoding: chunked\r\n", "100 Continue");
    check_expecting("/small", "Content-Length: 11\r\n", "413 Content Too Large");
    check_expecting("/little", "Content-Length: 11\r\n", "413 Content Too Large");
    check_expecting("/none", "Content-Length: 5\r\n", "404 Not Found");
    check_expecting("/", "Content-Length: 5\r\n", "405 Method Not Allowed");
    check_expecting("/buffered", "Content-Length: 5\r\nAuthorization: no\r\n", "401 Unauthorized");
    check_expecting("/measure", "Content-Length: 5\r\nAuthorization: no\r\n", "401 Unauthorized");
    check_expecting("/ignore", "Content-Length: 5\r\n", "200 OK");
}

/// A request whose body is refused or ignored, its status, and whether its connection lives on.
#[track_caller]
fn check_declined(path: &str, more: &str, body: &[u8], status: u16, lives: bool) {
    let server = serve(router());
    let mut client = Client::connect(&server);
    // In two pieces, so that the head is seen alone.
    client.send(head(path, more).as_bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("x-layer")), (status, Some("1")), "{path} {more:?}");
    assert_eq!(answer.header("connection"), (!lives).then_some("close"), "{path} {more:?}");
    let _gone = client.socket.write_all(body).is_err();
    if lives {
        assert_eq!(client.get("/").text(), "Hello", "{path} {more:?}");
    } else {
        // What follows is not taken for a request.
        let _gone = client.socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err();
        assert_eq!(client.rest(), b"", "{path} {more:?}");
    }
}

#[test]
fn a_body_that_nobody_wants_costs_the_connection_unless_it_is_short() {
    let short = "Content-Length: 1000\r\n";
    let long = "Content-Length: 1000000\r\n";
    for (path, more, status) in [("/none", "", 404), ("/", "", 405), ("/ignore", "", 200)] {
        check_declined(path, &format!("{short}{more}"), &[b'x'; 1000], status, true);
        check_declined(path, &format!("{long}{more}"), &[b'x'; 1000], status, false);
        check_declined(path, "Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", status, false);
    }
    check_declined("/buffered", &format!("{short}Authorization: no\r\n"), &[b'x'; 1000], 401, true);
    check_declined("/small", short, &[b'x'; 1000], 413, true);
    check_declined("/small", long, b"x", 413, false);
}

#[test]
fn limits_of_routes_hold_however_the_body_comes() {
    let server = serve(router());
    let check = |path: &str, body: &str, status: u16| {
        let mut client = Client::connect(&server);
        client.send((head(path, "Transfer-Encoding: chunked\r\n") + body).as_bytes());
        assert_eq!(client.answer().status, status, "{path} {body:?}");
        let mut client = Client::connect(&server);
        client.send(head(path, "Transfer-Encoding: chunked\r\n").as_bytes());
        client.send(body.as_bytes());
        assert_eq!(client.answer().status, status, "{path} {body:?} in two");
    };
    check("/small", "a\r\n0123456789\r\n0\r\n\r\n", 200);
    check("/small", "b\r\n0123456789a\r\n0\r\n\r\n", 413);
    check("/small", "5\r\n01234\r\n6\r\n012345\r\n0\r\n\r\n", 413);
    check("/little", "a\r\n0123456789\r\n0\r\n\r\n", 200);
    check("/little", "5\r\n01234\r\n6\r\n012345\r\n0\r\n\r\n", 413);
    check("/measure", "x\r\n", 400);
    let mut client = Client::connect(&server);
    client.send((head("/small", "Content-Length: 11\r\n") + "0123456789a").as_bytes());
    assert_eq!(client.answer().status, 413, "a body that came with its head");
    assert_eq!(client.get("/").status, 200, "and was read");
}

#[test]
fn bodies_in_all_have_a_bound() {
    let config = ServerConfig { threads: 1, body_bytes_in_all_max: 150_000, ..ServerConfig::default() };
    let server = serve_with(router(), config);
    // What one request held is there for the next.
    for _ in 0..5 {
        let mut client = Client::connect(&server);
        client.send(head("/buffered", "Content-Length: 100001\r\n").as_bytes());
        client.send(&[b'x'; 100_001]);
        assert_eq!(client.answer().text(), "100001");
    }
    let mut big = Client::connect(&server);
    big.send(head("/buffered", "Content-Length: 1000000\r\n").as_bytes());
    let _gone = big.socket.write_all(&[b'x'; 999_999]).is_err();
    let answer = big.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let mut client = Client::connect(&server);
    client.send((head("/buffered", "Content-Length: 3\r\n") + "abc").as_bytes());
    assert_eq!(client.answer().text(), "3");
}

#[test]
fn a_body_that_comes_too_slowly_is_refused_but_not_while_its_reader_pauses() {
    let limits =
        Limits { body_grace: Duration::from_millis(200), body_bytes_per_second_min: 1 << 30, ..Limits::default() };
    let server = serve_with(router(), ServerConfig { limits, ..ServerConfig::default() });
    let mut slow = Client::connect(&server);
    slow.send((head("/measure", "Content-Length: 10\r\n") + "half").as_bytes());
    assert_eq!(slow.answer().status, 408);
    assert_eq!(slow.rest(), b"");
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_a_504() {
    let done: Arc<Mutex<Vec<Done>>> = Arc::default();
    let noted = Arc::clone(&done);
    let (give, taken) = channel();
    let give = Mutex::new(give);
    let router = Router::new()
        .get("/never", move |_: &Request<'_>| {
            let (reply, responder) = Reply::later();
            give.lock().unwrap().send(responder).unwrap();
            let noted = Arc::clone(&noted);
            reply.answer_within(Duration::from_millis(100)).on_done(move |done| noted.lock().unwrap().push(*done))
        })
        .get("/", |_: &Request<'_>| "Hello");
    let server = serve(router);
    let mut client = Client::connect(&server);
    assert_eq!(client.get("/never").status, 504);
    assert_eq!(client.get("/").status, 200, "the connection lives on");
    let responder = taken.recv().unwrap();
    assert!(responder.is_closed());
    responder.send(Reply::text("too late"));
    assert_eq!(client.get("/").text(), "Hello");
    let done = done.lock().unwrap();
    assert_eq!((done.len(), done[0].status, done[0].complete), (1, Status::GATEWAY_TIMEOUT, true));
}

#[test]
fn the_last_request_of_a_connection_is_announced() {
    let limits = Limits { requests_per_connection_max: 3, ..Limits::default() };
    let server = serve_with(router(), ServerConfig { limits, ..ServerConfig::default() });
    let mut client = Client::connect(&server);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5).as_bytes());
    let closes: Vec<bool> = (0..3).map(|_| client.answer().header("connection") == Some("close")).collect();
    assert_eq!((closes, client.rest()), (vec![false, false, true], Vec::new()));
}

#[test]
fn a_connection_leaves_http_when_both_sides_want_it() {
    let router = Router::new().get("/shout", |request: &Request<'_>| {
        Reply::upgrade(request, "shout", |mut upgraded| {
            thread::spawn(move || {
                let mut bytes = [0; 100];
                while let Ok(count @ 1..) = upgraded.input.read(&mut bytes) {
                    upgraded.output.write(&bytes[..count].to_ascii_uppercase()).unwrap();
                }
                upgraded.output.write(b"bye").unwrap();
                upgraded.output.close().unwrap();
            });
        })
    });
    let server = serve(router);
    let mut client = Client::connect(&server);
    let refused = client.get("/shout");
    assert_eq!((refused.status, refused.header("upgrade")), (426, Some("shout")));
    client.send(b"GET /shout HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: shout\r\n\r\nhel");
    let answer = client.answer_to_head();
    assert_eq!(answer.status, 101);
    assert_eq!((answer.header("upgrade"), answer.header("connection")), (Some("shout"), Some("Upgrade")));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(client.exactly(3), b"HEL");
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.exactly(18), b"GET / HTTP/1.1\r\n\r\n");
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"bye");
}
