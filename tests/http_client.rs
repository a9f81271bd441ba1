//! The client against our own server, and against peers that do what a test says, to the byte.

mod http_support;

use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http_support::{serve, serve_with, until};
use sconce::http::client::{Client, ClientConfig, ClientError, ClientRequest, ErrorKind, Phase, Timeouts};
use sconce::http::{Body, Method, Reply, Request, Router, Running, ServerConfig, Status};

/// Nothing in these tests takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough to be noticed, short enough to be waited for.
const SHORT: Duration = Duration::from_millis(150);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that does with its connections, numbered from 0, what a test says.
struct Scripted {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(script: impl Fn(usize, &mut Conn) + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (count, script) = (Arc::clone(&accepted), Arc::new(script));
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (number, script) = (count.fetch_add(1, Ordering::SeqCst), Arc::clone(&script));
                thread::spawn(move || script(number, &mut Conn::new(socket)));
            }
        });
        Scripted { addr, accepted }
    }

    /// Answers every request on every connection with the same bytes.
    fn answering(answer: &'static [u8]) -> Scripted {
        Scripted::new(move |_, conn| while conn.request().is_some() && conn.socket.write_all(answer).is_ok() {})
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.addr)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

struct Conn {
    socket: TcpStream,
    ahead: Vec<u8>,
}

impl Conn {
    fn new(socket: TcpStream) -> Conn {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Conn { socket, ahead: Vec::new() }
    }

    /// The head of the next request; `None` at the end of the connection.
    fn request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.ahead.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.ahead.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Waits until the other side has closed or reset the connection.
    fn wait_for_end(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == IoErrorKind::ConnectionReset => return,
                Err(e) => panic!("the connection stays open: {e}"),
            }
        }
    }
}

fn client() -> Client {
    Client::start(ClientConfig::default()).unwrap()
}

fn get(url: &str) -> ClientRequest {
    ClientRequest::new(Method::Get, url).unwrap()
}

fn post(url: &str) -> ClientRequest {
    ClientRequest::new(Method::Post, url).unwrap()
}

/// Status and body, or what happened.
fn ask(client: &Client, request: ClientRequest) -> Result<(u16, String), ErrorKind> {
    let answer = client.fetch(request).map_err(|error| error.kind().clone())?;
    let status = answer.status.code();
    let body = answer.collect(1 << 20).map_err(|_| ErrorKind::Closed)?;
    Ok((status, String::from_utf8(body).unwrap()))
}

fn ok(text: &str) -> Result<(u16, String), ErrorKind> {
    Ok((200, text.into()))
}

fn url_of(server: &Running, target: &str) -> String {
    format!("http://{}{target}", server.local_addr())
}

#[test]
fn one_connection_serves_many_requests() {
    let server = serve(Router::new().get("/{n}", |r: &Request<'_>| r.param("n").unwrap_or_default().into_owned()));
    let client = client();
    for n in 0..20 {
        assert_eq!(ask(&client, get(&url_of(&server, &format!("/{n}")))), ok(&n.to_string()));
    }
    assert_eq!(server.handle().stats()[0].accepted, 1);
    server.handle().stop();
}

#[test]
fn answers_of_every_framing_arrive() {
    for (method, answer, expected, connections) in [
        (Method::Get, &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], "hello", 1),
        (
            Method::Get,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "hello",
            1,
        ),
        (Method::Get, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 1),
        (Method::Head, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", 1),
        (
            Method::Get,
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
            1,
        ),
        (Method::Get, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "hello", 2),
        (Method::Get, b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 2),
        // Bytes that nobody asked for: they belong to no answer, least of all to the next one.
        (
            Method::Get,
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            "hello",
            2,
        ),
    ] {
        let (peer, client) = (Scripted::answering(answer), client());
        for _ in 0..2 {
            let request = ClientRequest::new(method, &peer.url("/")).unwrap();
            assert_eq!(ask(&client, request), ok(expected), "{}", String::from_utf8_lossy(answer));
        }
        assert_eq!(peer.accepted(), connections, "{}", String::from_utf8_lossy(answer));
    }
    let until_close = Scripted::new(|_, conn| {
        conn.request();
        conn.socket.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").unwrap();
    });
    assert_eq!(ask(&client(), get(&until_close.url("/"))), ok("hello"));
}

#[test]
fn what_is_sent_is_what_was_asked_for() {
    let (heads, seen) = mpsc::channel();
    let peer = Scripted::new(move |_, conn| {
        while let Some(head) = conn.request() {
            heads.send(head).unwrap();
            conn.ahead.clear();
            conn.socket.write_all(OK).unwrap();
        }
    });
    let client = client();
    let request = get(&peer.url("/a%20b?c=d#e")).header("X-One", "1").unwrap();
    assert_eq!(ask(&client, request), ok("ok"));
    let host = peer.addr;
    assert_eq!(seen.recv().unwrap(), format!("GET /a%20b?c=d HTTP/1.1\r\nHost: {host}\r\nX-One: 1\r\n\r\n"));
    assert_eq!(ask(&client, post(&peer.url("/"))), ok("ok"));
    assert_eq!(seen.recv().unwrap(), format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(ask(&client, post(&peer.url("/")).body("hello")), ok("ok"));
    assert_eq!(seen.recv().unwrap(), format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\n"));
}

/// The first connection answers once, and closes when it has read the next request.
fn tired_after_one() -> Scripted {
    Scripted::new(|number, conn| {
        conn.request();
        conn.socket.write_all(OK).unwrap();
        if conn.request().is_some() && number > 0 {
            conn.socket.write_all(OK).unwrap();
        }
    })
}

#[test]
fn an_old_connection_that_turns_out_closed_costs_a_safe_request_nothing() {
    let (peer, client) = (tired_after_one(), client());
    for _ in 0..2 {
        assert_eq!(ask(&client, get(&peer.url("/"))), ok("ok"));
    }
    assert_eq!(peer.accepted(), 2);
}

#[test]
fn what_is_not_safe_is_not_repeated() {
    let (peer, client) = (tired_after_one(), client());
    assert_eq!(ask(&client, get(&peer.url("/"))), ok("ok"));
    assert_eq!(ask(&client, post(&peer.url("/")).body("pay")), Err(ErrorKind::Closed));
    assert_eq!(peer.accepted(), 1);
}

#[test]
fn a_fresh_connection_that_closes_is_not_tried_again() {
    let peer = Scripted::new(|_, conn| drop(conn.request()));
    assert_eq!(ask(&client(), get(&peer.url("/"))), Err(ErrorKind::Closed));
    assert_eq!(peer.accepted(), 1);
}

#[test]
fn a_server_that_is_not_there_is_told_from_one_that_breaks() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = client().fetch(get(&format!("http://{nobody}/"))).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Connect { addr, .. } if *addr == nobody), "{refused}");
    assert_eq!(refused.authority(), nobody.to_string());
    let peer = Scripted::answering(b"SSH-2.0-x\r\n");
    assert!(matches!(ask(&client(), get(&peer.url("/"))), Err(ErrorKind::Protocol(_))));
}

/// `localhost` is found by the resolver's threads, and where it is two addresses the one that answers is used.
#[test]
fn names_are_resolved() {
    let (peer, client) = (Scripted::answering(OK), client());
    for _ in 0..2 {
        assert_eq!(ask(&client, get(&format!("http://localhost:{}/", peer.addr.port()))), ok("ok"));
    }
    assert_eq!(peer.accepted(), 1);
}

fn with_timeouts(request: ClientRequest, set: impl FnOnce(&mut Timeouts)) -> ClientRequest {
    let mut timeouts = Timeouts { connect: PATIENCE, first_byte: PATIENCE, idle: PATIENCE, total: Some(PATIENCE) };
    set(&mut timeouts);
    request.timeouts(timeouts)
}

fn timeout(phase: Phase) -> Result<(u16, String), ErrorKind> {
    Err(ErrorKind::Timeout(phase))
}

#[test]
fn each_wait_has_its_own_end() {
    let client = client();
    let silent = Scripted::new(|_, conn| {
        conn.request();
        conn.wait_for_end();
    });
    let first_byte = with_timeouts(get(&silent.url("/")), |t| t.first_byte = SHORT);
    assert_eq!(ask(&client, first_byte), timeout(Phase::FirstByte));
    let total = with_timeouts(get(&silent.url("/")), |t| t.total = Some(SHORT));
    assert_eq!(ask(&client, total), timeout(Phase::Total));

    // Open, and never read, until this test is over.
    let (_hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let deaf = Scripted::new(move |_, _| assert!(held.lock().unwrap().recv().is_err()));
    let send = with_timeouts(post(&deaf.url("/")).body(vec![7; 32 << 20]), |t| t.idle = SHORT);
    assert_eq!(ask(&client, send), timeout(Phase::Send));

    let stops = Scripted::new(|_, conn| {
        conn.request();
        conn.socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
        conn.wait_for_end();
    });
    for request in [
        with_timeouts(get(&stops.url("/")), |t| t.idle = SHORT),
        with_timeouts(get(&stops.url("/")), |t| t.total = Some(SHORT)),
    ] {
        let mut answer = client.fetch(request).unwrap();
        let mut read = Vec::new();
        assert_eq!(answer.body.read_to_end(&mut read).unwrap_err().kind(), IoErrorKind::UnexpectedEof);
        assert_eq!(read, b"hello");
    }
}

/// A queue that is full takes no connection: the kernel drops what asks for one.
#[cfg(target_os = "linux")]
#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let in_the_queue: Vec<_> = (0..4).map_while(|_| TcpStream::connect_timeout(&addr, SHORT).ok()).collect();
    assert!(in_the_queue.len() < 4, "the queue has no end here");
    let request = with_timeouts(get(&format!("http://{addr}/")), |t| t.connect = SHORT);
    assert_eq!(ask(&client(), request), timeout(Phase::Connect));
}

#[test]
fn a_host_has_its_share_of_connections_and_then_a_queue() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let peer = Scripted::new(move |_, conn| {
        while conn.request().is_some() {
            released.lock().unwrap().recv().unwrap();
            conn.socket.write_all(OK).unwrap();
        }
    });
    let config = ClientConfig { connections_per_host_max: 1, waiting_per_host_max: 1, ..ClientConfig::default() };
    let client = Client::start(config).unwrap();
    let (sender, outcomes) = mpsc::channel();
    let begin = |name: &'static str, request: ClientRequest| {
        let sender = sender.clone();
        client.send(request, move |outcome| {
            sender.send((name, outcome)).unwrap();
        });
    };
    let next = || {
        let (name, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        (name, outcome.map(|answer| answer.collect(2).unwrap()).map_err(|error| error.kind().clone()))
    };
    begin("first", get(&peer.url("/")));
    begin("late", with_timeouts(get(&peer.url("/")), |t| t.connect = SHORT));
    begin("too many", get(&peer.url("/")));
    assert_eq!(next(), ("too many", Err(ErrorKind::Busy)));
    assert_eq!(next(), ("late", Err(ErrorKind::Timeout(Phase::Queue))));
    begin("next", get(&peer.url("/")));
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(next(), ("first", Ok(b"ok".to_vec())));
    assert_eq!(next(), ("next", Ok(b"ok".to_vec())));
    assert_eq!(peer.accepted(), 1);
}

#[test]
fn a_hundred_at_once() {
    let server = serve(Router::new().post("/", |r: &Request<'_>| Reply::bytes(Status::OK, "", r.body().to_vec())));
    let config = ClientConfig { connections_per_host_max: 8, ..ClientConfig::default() };
    let client = Client::start(config).unwrap();
    let threads: Vec<_> = (0..100)
        .map(|n: usize| {
            let (client, url) = (client.clone(), url_of(&server, "/"));
            thread::spawn(move || {
                let text = format!("{n} ").repeat(1 + n * 100);
                assert_eq!(ask(&client, post(&url).body(&*text)), ok(&text));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let accepted = server.handle().stats()[0].accepted;
    assert!(accepted <= 8, "{accepted} connections");
    server.handle().stop();
}

/// A writer that gets nowhere for so long is stopped by its reader, and not by a busy machine.
const WHILE: Duration = Duration::from_millis(1500);

/// Writes until the other side takes no more for a while; tells how much that was, then writes the rest.
fn flood(socket: &mut TcpStream, bytes_total: usize, blocked_at: &mpsc::Sender<usize>) {
    socket.set_write_timeout(Some(WHILE)).unwrap();
    let piece = [b'x'; 64 << 10];
    let (mut written, mut told) = (0, false);
    while written < bytes_total {
        match socket.write(&piece[..piece.len().min(bytes_total - written)]) {
            Ok(count) => written += count,
            Err(e) if matches!(e.kind(), IoErrorKind::WouldBlock | IoErrorKind::TimedOut) => {
                if !told {
                    blocked_at.send(written).unwrap();
                    told = true;
                }
            }
            Err(e) => panic!("after {written} bytes: {e}"),
        }
    }
}

/// What the kernel may hold between two sockets on one machine, and we beside it.
const ON_ITS_WAY_BYTES_MAX: usize = 24 << 20;

#[test]
fn a_reader_that_sleeps_stops_the_server() {
    const BYTES: usize = 64 << 20;
    let (blocked_at, blocked) = mpsc::channel();
    let peer = Scripted::new(move |_, conn| {
        conn.request();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        conn.socket.write_all(head.as_bytes()).unwrap();
        flood(&mut conn.socket, BYTES, &blocked_at);
    });
    let client = client();
    // Neither does its sleep count as the server's: the idle time is over long before it wakes.
    let answer = client.fetch(with_timeouts(get(&peer.url("/")), |t| t.idle = WHILE * 2 / 3)).unwrap();
    let written = blocked.recv_timeout(PATIENCE).unwrap();
    assert!(written < ON_ITS_WAY_BYTES_MAX, "{written} bytes were taken for a reader that sleeps");
    assert_eq!(answer.collect(BYTES).unwrap().len(), BYTES);
}

#[test]
fn a_reader_that_leaves_closes_the_connection() {
    let (ended, end) = mpsc::channel();
    let peer = Scripted::new(move |_, conn| {
        conn.request();
        conn.socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").unwrap();
        conn.wait_for_end();
        ended.send(()).unwrap();
    });
    let client = client();
    drop(client.fetch(get(&peer.url("/"))).unwrap());
    end.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_client_that_is_dropped_answers_what_was_under_way() {
    let (asked, was_asked) = mpsc::channel();
    let peer = Scripted::new(move |_, conn| {
        conn.request();
        asked.send(()).unwrap();
        conn.wait_for_end();
    });
    let client = client();
    let (sender, outcomes) = mpsc::channel();
    client.send(get(&peer.url("/")), move |outcome| sender.send(outcome.is_err()).unwrap());
    was_asked.recv_timeout(PATIENCE).unwrap();
    drop(client);
    assert!(outcomes.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn a_loop_does_not_wait_for_itself() {
    let peer = Scripted::answering(OK);
    let client = client();
    let (again, url) = (client.clone(), peer.url("/"));
    let (sender, outcomes) = mpsc::channel();
    client.send(get(&url), {
        let url = url.clone();
        move |_| sender.send(again.fetch(get(&url)).unwrap_err().kind().clone()).unwrap()
    });
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), ErrorKind::OnLoop);
    assert_eq!(ask(&client, get(&url)), ok("ok"), "and goes on");
}

/// A server may answer before it has read the request; then the rest is not sent, and the connection not used again.
#[test]
fn an_early_answer_ends_the_request() {
    let peer = Scripted::new(|_, conn| {
        conn.request();
        conn.socket.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").unwrap();
        conn.wait_for_end();
    });
    let client = client();
    for n in 1..=3 {
        let answer = ask(&client, post(&peer.url("/")).body(vec![7; 32 << 20]));
        assert_eq!((answer, peer.accepted()), (Ok((413, "no".into())), n));
    }
    let (_producer, endless) = Body::channel(None);
    assert_eq!(ask(&client, post(&peer.url("/")).body_stream(endless)), Ok((413, "no".into())));
}

#[test]
fn a_handler_does_not_wait_for_its_own_loop() {
    let handler = |request: &Request<'_>| request.client().fetch(get("http://127.0.0.1:1/")).map(|_| "never");
    let server = serve(Router::new().get("/", handler));
    assert_eq!(http_support::Client::connect(&server).get("/").status, 500);
    server.handle().stop();
}

/// Whatever a server does, every request is answered, and none keeps its place in the share of its host.
#[test]
fn a_server_that_breaks_off_anywhere_costs_no_more_than_its_answer() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let peer = Scripted::new(|number, conn| {
        conn.request();
        let cut = number.min(ANSWER.len());
        conn.socket.write_all(&ANSWER[..cut]).unwrap();
    });
    let config = ClientConfig { connections_per_host_max: 2, ..ClientConfig::default() };
    let client = Client::start(config).unwrap();
    for cut in 0..ANSWER.len() {
        assert_eq!(ask(&client, get(&peer.url("/"))), Err(ErrorKind::Closed), "cut at {cut}");
    }
    assert_eq!(ask(&client, get(&peer.url("/"))), ok("hello"));
    assert_eq!(peer.accepted(), ANSWER.len() + 1);
}

/// What the server of many moods does with a request for `/<mood>/<n>`; `n` is the body of a good answer.
const MOODS: [(&str, &str); 9] = [
    ("length", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nNNNN"),
    ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nN\r\n3\r\nNNN\r\n0\r\n\r\n"),
    ("last", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nNNNN"),
    ("until_close", "HTTP/1.1 200 OK\r\n\r\nNNNN"),
    ("more", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nNNNNHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    ("cut", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nNNNN"),
    ("nothing", ""),
    ("garbage", "\r\n\r\nHTTP"),
    ("silence", ""),
];

fn of_many_moods() -> Scripted {
    Scripted::new(|_, conn| {
        while let Some(head) = conn.request() {
            let mut path = head.split(' ').nth(1).unwrap().split('/').skip(1);
            let (mood, n) = (path.next().unwrap(), path.next().unwrap());
            let (_, answer) = MOODS.iter().find(|(name, _)| *name == mood).unwrap();
            // Each `N` is a digit of the number.
            let mut digits = n.chars();
            let answer: String = answer.chars().map(|c| if c == 'N' { digits.next().unwrap() } else { c }).collect();
            let sent = conn.socket.write_all(answer.as_bytes());
            match mood {
                "length" | "chunks" | "more" if sent.is_ok() => {}
                "silence" => return conn.wait_for_end(),
                _ => return,
            }
        }
    })
}

/// Eight threads, four connections, moods by a seeded choice: each request gets its own answer or its own error, and
/// nothing of it is left behind.
#[test]
fn everyone_gets_their_own_answer_from_a_server_of_many_moods() {
    let peer = of_many_moods();
    let config = ClientConfig { connections_per_host_max: 4, ..ClientConfig::default() };
    let client = Client::start(config).unwrap();
    let one = |mood: &str, n: usize| {
        // Only who is met with silence is in a hurry: on a busy machine a good answer may take its time.
        let first_byte = if mood == "silence" { SHORT } else { PATIENCE };
        let request = with_timeouts(get(&peer.url(&format!("/{mood}/{n}"))), |t| t.first_byte = first_byte);
        let outcome = ask(&client, request);
        let as_expected = match (mood, &outcome) {
            ("length" | "chunks" | "last" | "until_close" | "more", Ok((200, text))) => *text == n.to_string(),
            ("cut" | "nothing", Err(ErrorKind::Closed)) => true,
            ("garbage", Err(ErrorKind::Protocol(_))) => true,
            ("silence", Err(ErrorKind::Timeout(Phase::FirstByte))) => true,
            _ => false,
        };
        assert!(as_expected, "{mood} {n}: {outcome:?}");
    };
    thread::scope(|scope| {
        for seed in 1..=8u64 {
            let one = &one;
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for round in 0..100 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    // Silence is waited for: it comes seldom.
                    let mood = (random >> 20) as usize % (MOODS.len() - usize::from(round % 25 > 0));
                    one(MOODS[mood].0, 1000 + seed as usize * 100 + round);
                }
            });
        }
    });
    (0..8).for_each(|n| one("length", 2000 + n));
}

#[test]
fn a_body_that_grows_too_long_is_cut() {
    let peer = Scripted::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let client = client();
    assert_eq!(ask(&client, get(&peer.url("/")).answer_bytes_max(5)), ok("hello"));
    assert_eq!(ask(&client, get(&peer.url("/")).answer_bytes_max(4)), Err(ErrorKind::Closed));
    let declared = Scripted::answering(OK);
    let error = ask(&client, get(&declared.url("/")).answer_bytes_max(1));
    assert_eq!(error, Err(ErrorKind::TooLarge { bytes_max: 1 }));
}

/// Sends every request on to another server, as it comes.
fn proxy_to(origin: String) -> Router {
    let pass = move |request: &Request<'_>, body: Body| -> Reply {
        let url = format!("{origin}{}", request.path());
        let ask = match ClientRequest::new(request.method(), &url) {
            Ok(ask) => ask.headers_of(request).body_stream(body),
            Err(bad) => return ClientError::from(bad).into(),
        };
        request.client().reply(ask, |outcome| match outcome {
            Ok(answer) => answer.into_reply(),
            Err(error) => error.into(),
        })
    };
    let pass = Arc::new(pass);
    [Method::Get, Method::Post, Method::Head].into_iter().fold(Router::new(), |router, method| {
        let pass = Arc::clone(&pass);
        router.route_streamed(method, "/{*path}", move |request: &Request<'_>, body: Body| pass(request, body))
    })
}

fn proxied(origin: String) -> Running {
    serve_with(proxy_to(origin), ServerConfig { threads: 2, ..ServerConfig::default() })
}

#[test]
fn a_proxy_streams_both_ways() {
    const BYTES: usize = 12 << 20;
    let echo = |_: &Request<'_>, body: Body| Reply::stream(Reply::empty(Status::CREATED).header("x-back", "1"), body);
    let back = serve(Router::new().route_streamed(Method::Post, "/echo", echo).get("/", |_: &Request<'_>| "hello"));
    let front = proxied(format!("http://{}", back.local_addr()));
    let mut client = http_support::Client::connect(&front);
    assert_eq!(client.get("/").text(), "hello");

    let text: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let sent = text.clone();
    let mut socket = client.socket.try_clone().unwrap();
    let writer = thread::spawn(move || {
        socket.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for piece in sent.chunks(70_001) {
            socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            socket.write_all(piece).unwrap();
            socket.write_all(b"\r\n").unwrap();
        }
        socket.write_all(b"0\r\n\r\n").unwrap();
    });
    let answer = client.answer();
    writer.join().unwrap();
    assert_eq!((answer.status, answer.header("x-back")), (201, Some("1")));
    assert!(answer.body == text, "{} bytes of {BYTES}, or others", answer.body.len());
    assert_eq!(client.get("/").text(), "hello");
    for server in [front, back] {
        server.handle().stop();
    }
}

#[test]
fn a_proxy_keeps_little_for_a_client_that_reads_nothing() {
    const BYTES: usize = 96 << 20;
    let (blocked_at, blocked) = mpsc::channel();
    let back = Scripted::new(move |_, conn| {
        conn.request();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
        conn.socket.write_all(head.as_bytes()).unwrap();
        flood(&mut conn.socket, BYTES, &blocked_at);
    });
    let front = proxied(format!("http://{}", back.addr));
    let mut client = http_support::Client::connect(&front);
    client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    let written = blocked.recv_timeout(PATIENCE).unwrap();
    assert!(written < 2 * ON_ITS_WAY_BYTES_MAX, "{written} bytes were taken for a client that reads nothing");
    assert_eq!(client.answer().body.len(), BYTES);
    front.handle().stop();
}

#[test]
fn an_answer_that_is_cut_reaches_the_proxys_client_cut() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let back = Scripted::new(move |_, conn| {
            conn.request();
            let body = if head.starts_with('C') { "hello" } else { "5\r\nhello\r\n" };
            conn.socket.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes()).unwrap();
        });
        let front = proxied(format!("http://{}", back.addr));
        let mut client = http_support::Client::connect(&front);
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.answer_to_head();
        assert_eq!(answer.status, 200);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.contains("hello") && !rest.contains("0\r\n\r\n"), "{head}: {rest:?}");
        front.handle().stop();
    }
}

#[test]
fn a_proxy_tells_what_went_wrong_behind_it() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let front = proxied(format!("http://{nobody}"));
    assert_eq!(http_support::Client::connect(&front).get("/x").status, 502);
    front.handle().stop();
    let silent = Scripted::new(|_, conn| {
        conn.request();
        conn.wait_for_end();
    });
    let client =
        ClientConfig { timeouts: Timeouts { first_byte: SHORT, ..Timeouts::default() }, ..ClientConfig::default() };
    let config = ServerConfig { threads: 1, client, ..ServerConfig::default() };
    let front = serve_with(proxy_to(format!("http://{}", silent.addr)), config);
    assert_eq!(http_support::Client::connect(&front).get("/x").status, 504);
    front.handle().stop();
}

/// The server behind, which says when it was asked, when it has sent `answer`, and when its connection has ended.
fn watched(answer: &'static [u8]) -> (Scripted, Receiver<&'static str>) {
    let (events, seen) = mpsc::channel();
    let peer = Scripted::new(move |_, conn| {
        conn.request();
        conn.socket.write_all(answer).unwrap();
        events.send("asked").unwrap();
        conn.wait_for_end();
        events.send("ended").unwrap();
    });
    (peer, seen)
}

#[test]
fn who_leaves_a_proxy_leaves_the_server_behind_it() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        let (back, seen) = watched(answer);
        let front = proxied(format!("http://{}", back.addr));
        let mut client = http_support::Client::connect(&front);
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(seen.recv_timeout(PATIENCE), Ok("asked"));
        if !answer.is_empty() {
            client.answer_to_head();
        }
        drop(client);
        assert_eq!(seen.recv_timeout(PATIENCE), Ok("ended"), "{}", String::from_utf8_lossy(answer));
        front.handle().stop();
    }
}

#[test]
fn an_upload_that_is_cut_is_never_complete_behind_a_proxy() {
    for (head, part) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")] {
        let (bodies, seen) = mpsc::channel();
        let back = Scripted::new(move |_, conn| {
            conn.request();
            let mut rest = std::mem::take(&mut conn.ahead);
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = conn.socket.read(&mut bytes) {
                rest.extend_from_slice(&bytes[..count]);
            }
            bodies.send(String::from_utf8(rest).unwrap()).unwrap();
        });
        let front = proxied(format!("http://{}", back.addr));
        let mut client = http_support::Client::connect(&front);
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{part}").as_bytes());
        until("the request reaches the server behind", || back.accepted() == 1);
        client.socket.shutdown(Shutdown::Write).unwrap();
        let body = seen.recv_timeout(PATIENCE).unwrap();
        assert!(!body.contains("0\r\n\r\n") && body.len() < 11, "{head}: {body:?}");
        front.handle().stop();
    }
}

#[test]
fn answers_without_a_body_pass_a_proxy_and_leave_its_connections_usable() {
    let back = Scripted::new(|_, conn| {
        while let Some(head) = conn.request() {
            let answer: &[u8] = match head.split(' ').nth(1).unwrap() {
                "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
                _ if head.starts_with("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                _ => OK,
            };
            conn.socket.write_all(answer).unwrap();
        }
    });
    let front = serve(proxy_to(format!("http://{}", back.addr)));
    let mut client = http_support::Client::connect(&front);
    assert_eq!(client.get("/204").status, 204);
    let unchanged = client.get("/304");
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some("\"x\"")));
    client.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    assert_eq!(client.get("/x").text(), "ok");
    assert_eq!(back.accepted(), 1);
    front.handle().stop();
}

/// Drained, a server finishes what it is asking for, and its idle connections to others keep it from nothing.
#[test]
fn a_server_that_asked_others_drains() {
    let back = Scripted::answering(OK);
    let front = proxied(format!("http://{}", back.addr));
    let mut client = http_support::Client::connect(&front);
    assert_eq!(client.get("/x").text(), "ok");
    let start = Instant::now();
    front.handle().drain(PATIENCE);
    front.join().unwrap();
    assert!(start.elapsed() < PATIENCE / 2, "an idle connection was waited for");
}
