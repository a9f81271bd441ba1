//! The server over real sockets: what a client sees for good and bad requests.

mod http_support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use http_support::{Answer, Client, serve, serve_with};
use sconce::http::{Accept, Limits, Reply, Request, Router, ServerConfig};

fn router() -> Router {
    Router::new()
        .get("/", |_: &Request<'_>| "Hello, World!")
        .post("/echo", |r: &Request<'_>| Reply::text(String::from_utf8_lossy(r.body()).into_owned()))
        .get("/items/{id}", |r: &Request<'_>| {
            format!("{} {}", r.param("id").unwrap(), r.query("q").unwrap_or_default())
        })
        .get("/panic", |_: &Request<'_>| -> Reply { panic!("on purpose") })
        .get("/peer", |r: &Request<'_>| r.peer().ip().to_string())
}

#[test]
fn requests_follow_one_another_on_one_connection() {
    let server = serve(router());
    let mut client = Client::connect(&server);
    for n in 0..100 {
        let answer = client.get(&format!("/items/{n}?q=a%20b"));
        assert_eq!((answer.status, answer.text()), (200, format!("{n} a b")));
        assert!(answer.header("date").is_some() && answer.header("connection").is_none());
    }
    assert_eq!(client.get("/peer").text(), "127.0.0.1");
    assert_eq!(server.handle().stats().iter().map(|s| s.requests).sum::<u64>(), 101);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve(router());
    let mut client = Client::connect(&server);
    let count = 2000;
    let requests: String = (0..count).map(|n| format!("GET /items/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests.as_bytes());
    for n in 0..count {
        assert_eq!(client.answer().text(), format!("{n} "));
    }
}

#[test]
fn bodies_arrive_whole_however_they_are_sent() {
    let server = serve(router());
    let mut client = Client::connect(&server);
    let body: String = (0..300_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    assert_eq!(client.answer().text(), body);
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(9_999) {
        client.send(format!("{:x}\r\n{}\r\n", piece.len(), str::from_utf8(piece).unwrap()).as_bytes());
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.answer().text(), body);
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let server = serve(router());
    let mut client = Client::connect(&server);
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let mut interim = [0; 25];
    client.socket.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"ok");
    assert_eq!(client.answer().text(), "ok");
}

/// One request, its status, and whether the connection is closed after it.
#[track_caller]
fn check(request: &str, status: u16, closes: bool) -> Answer {
    let server = serve(router());
    let mut client = Client::connect(&server);
    client.send(request.as_bytes());
    let answer = if request.starts_with("HEAD") { client.answer_to_head() } else { client.answer() };
    assert_eq!(answer.status, status, "{request:.200}");
    assert_eq!(answer.header("connection"), closes.then_some("close"), "{request:.200}");
    if closes {
        assert_eq!(client.rest(), b"", "{request:.200}");
    } else {
        assert_eq!(client.get("/").status, 200, "the connection lives on after {request:.200}");
    }
    answer
}

#[test]
fn errors_have_their_status_and_close_where_they_must() {
    check("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 404, false);
    let answer = check("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 405, false);
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    check("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n", 500, false);
    check("nonsense\r\n\r\n", 400, true);
    check("\x16\x03\x01\x02\x00\x01\x00\x01", 400, true);
    check("GET / HTTP/1.1\r\n\r\n", 400, true);
    check("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, true);
    check("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n", 413, true);
    check(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000)), 414, true);
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000)), 431, true);
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(150)), 431, true);
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}: y\r\n\r\n", "x".repeat(66_000)), 431, true);
    check("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501, true);
    check("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, true);
    check("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, true);
    check("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 5\r\n\r\n", 417, true);
}

#[test]
fn versions_and_methods_keep_their_promises() {
    assert_eq!(check("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, false).header("content-length"), Some("13"));
    assert_eq!(check("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", 204, false).header("allow"), Some("GET, HEAD, OPTIONS"));
    check("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204, false);
    check("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 200, false);
    check("GET / HTTP/1.0\r\n\r\n", 200, true);
    check("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, true);
    let server = serve(router());
    let mut client = Client::connect(&server);
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.answer().header("connection"), Some("keep-alive"));
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn an_error_answer_survives_the_body_that_nobody_reads() {
    let server = serve(router());
    let mut client = Client::connect(&server);
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
    // The client goes on sending, as many do, before it looks at the answer.
    for _ in 0..100 {
        if client.socket.write_all(&[b'x'; 10_000]).is_err() {
            break;
        }
    }
    assert_eq!(client.answer().status, 413);
}

#[test]
fn requests_before_a_half_close_are_answered() {
    let server = serve(router());
    for _ in 0..100 {
        let mut client = Client::connect(&server);
        client.send(b"GET /items/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /items/2 HTTP/1.1\r\nHost: a\r\n\r\n");
        client.socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!((client.answer().text(), client.answer().text()), ("1 ".into(), "2 ".into()));
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn slow_clients_are_told_so_and_idle_ones_are_closed() {
    let limits = Limits {
        head_timeout: Duration::from_millis(100),
        body_grace: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = serve_with(router(), ServerConfig { limits, ..ServerConfig::default() });
    for (start, answer) in [
        ("", None),
        ("GET / HT", Some(408)),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", Some(408)),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha", Some(408)),
    ] {
        let mut client = Client::connect(&server);
        client.send(start.as_bytes());
        if let Some(status) = answer {
            assert_eq!(client.answer().status, status, "{start}");
        }
        assert_eq!(client.rest(), b"", "{start}");
    }
}

#[test]
fn a_reader_that_does_not_read_is_cut_and_holds_no_more_than_the_mark() {
    let body = "x".repeat(100_000);
    let router = Router::new().get("/", move |_: &Request<'_>| body.clone());
    let limits = Limits { write_stall_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = serve_with(router, ServerConfig { limits, ..ServerConfig::default() });
    let mut client = Client::connect(&server);
    let count = 5000;
    client.socket.set_nonblocking(true).unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(count);
    let sent = client.socket.write(requests.as_bytes()).unwrap();
    assert!(sent > 0);
    http_support::until("the reader is cut", || server.handle().stats()[0].open_connections == 0);
    let handled = server.handle().stats()[0].requests;
    assert!(handled < 200, "{handled} of {count} answers were made for a client that takes none");
}

#[test]
fn a_thousand_connections_at_once() {
    let server = serve_with(router(), ServerConfig { threads: 2, ..ServerConfig::default() });
    let mut clients: Vec<Client> = (0..1000).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    let stats = server.handle().stats();
    // How many each loop gets depends on how busy each is; accepting keeps the first one busy.
    let open: Vec<u64> = stats.iter().map(|s| s.open_connections).collect();
    assert!(open.iter().sum::<u64>() == 1000 && open.iter().all(|open| *open >= 250), "{open:?}");
    drop(clients);
    http_support::until("all are gone", || server.handle().stats().iter().all(|s| s.open_connections == 0));
}

#[test]
fn too_many_connections_are_turned_away_with_a_word() {
    let server = serve_with(router(), ServerConfig { connections_max: 2, ..ServerConfig::default() });
    let mut taken: Vec<Client> = (0..2).map(|_| Client::connect(&server)).collect();
    assert!(taken.iter_mut().all(|client| client.get("/").status == 200));
    let answer = Client::connect(&server).answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    drop(taken);
    http_support::until("there is room", || server.handle().stats().iter().all(|s| s.open_connections == 0));
    assert_eq!(Client::connect(&server).get("/").status, 200);
}

#[test]
fn one_address_can_be_held_to_its_share() {
    let config = ServerConfig { threads: 1, connections_per_address_max: Some(2), ..ServerConfig::default() };
    let server = serve_with(router(), config);
    let mut taken: Vec<Client> = (0..2).map(|_| Client::connect(&server)).collect();
    assert!(taken.iter_mut().all(|client| client.get("/").status == 200));
    assert_eq!(Client::connect(&server).answer().status, 503);
    assert_eq!(Client::connect_from("127.0.0.2", &server).get("/").status, 200, "another address has its own");
    let stats = server.handle().stats();
    assert_eq!((stats[0].refused, stats[0].refused_per_address), (1, 1));
}

#[test]
fn each_loop_can_accept_for_itself() {
    let server = serve_with(router(), ServerConfig { threads: 2, accept: Accept::PerLoop, ..ServerConfig::default() });
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(&server)).collect();
    assert!(clients.iter_mut().all(|client| client.get("/").status == 200));
    // The kernel spreads by a hash of the addresses: 100 on one of two loops would be no chance.
    let stats = server.handle().stats();
    assert!(stats.iter().all(|one| one.open_connections > 0 && one.requests > 0), "{stats:?}");
    assert!(stats.iter().all(|one| one.bytes_in > 0 && one.bytes_out > one.bytes_in && one.busy > Duration::ZERO));
}

#[test]
fn a_failed_handler_harms_nobody() {
    let server = serve_with(router(), ServerConfig { threads: 1, ..ServerConfig::default() });
    let mut client = Client::connect(&server);
    for _ in 0..300 {
        assert_eq!(client.get("/panic").status, 500);
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn random_bytes_get_an_answer_or_a_close() {
    let limits = Limits {
        head_timeout: Duration::from_millis(200),
        body_grace: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = serve_with(router(), ServerConfig { limits, ..ServerConfig::default() });
    let words: [&[u8]; 14] = [
        b"GET ",
        b"POST ",
        b"/echo",
        b" HTTP/1.1",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: a",
        b"Content-Length: 3",
        b"Transfer-Encoding: chunked",
        b"\r\n\r\n",
        b"\0",
        b"3\r\nabc\r\n0\r\n\r\n",
        b":",
    ];
    let seed = std::process::id() as u64;
    println!("seed {seed}");
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..100 {
        let mut client = Client::connect(&server);
        let mut bytes = Vec::new();
        for _ in 0..20 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.extend_from_slice(words[random as usize % words.len()]);
        }
        client.send(&bytes);
        client.socket.shutdown(Shutdown::Write).unwrap();
        let answer = client.rest();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{answer:?}");
    }
    assert_eq!(Client::connect(&server).get("/").status, 200);
}
