//! Answers that come later: responders, streams, clients that leave, and the end of the server.

mod http_support;

use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use http_support::{Client, serve, serve_with, until};
use sconce::http::{HalfClose, Limits, Reply, Request, Responder, Router, Running, ServerConfig, Status};

/// A server that gives each responder to the test.
fn handing_over(config: ServerConfig) -> (Running, mpsc::Receiver<Responder>) {
    let (sender, responders) = mpsc::channel();
    let router = Router::new()
        .layer(|request, next| next.run(request).header("x-request-id", "7"))
        .get("/now", |_: &Request<'_>| "now")
        .get("/later", move |_: &Request<'_>| {
            let (reply, responder) = Reply::later();
            sender.send(responder).unwrap();
            reply
        });
    (serve_with(router, config), responders)
}

fn one_loop() -> ServerConfig {
    ServerConfig { threads: 1, ..ServerConfig::default() }
}

const LATER: &[u8] = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
const NOW: &[u8] = b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn an_answer_from_another_thread_keeps_its_place_and_the_lines_of_the_layers() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    for n in 0..100 {
        client.send(&[LATER, NOW].concat());
        let responder = responders.recv().unwrap();
        let sender = thread::spawn(move || responder.send(Reply::text(n.to_string()).with_status(Status::CREATED)));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.header("x-request-id")), (201, n.to_string(), Some("7")));
        assert_eq!(client.answer().text(), "now");
        sender.join().unwrap();
    }
}

#[test]
fn a_responder_dropped_unanswered_is_a_500_and_the_connection_lives() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(LATER);
    drop(responders.recv().unwrap());
    assert_eq!(client.answer().status, 500);
    assert_eq!(client.get("/now").status, 200);
}

#[test]
fn events_arrive_as_they_are_sent_and_the_connection_lives_on() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(LATER);
    let sse = responders.recv().unwrap().sse(&[("x-extra", "1")]);
    let head = client.answer_to_head();
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
        ("x-request-id", "7"),
        ("x-extra", "1"),
    ] {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    for n in 0..100 {
        sse.event(&format!("event {n}"));
        assert_eq!(client.chunk(), format!("data: event {n}\n\n").into_bytes());
    }
    sse.close();
    assert_eq!(client.chunk(), b"");
    assert_eq!(client.get("/now").text(), "now");
}

#[test]
fn an_old_client_gets_its_events_without_chunks() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(b"GET /later HTTP/1.0\r\n\r\n");
    let sse = responders.recv().unwrap().sse(&[]);
    sse.event("a");
    sse.event("b");
    sse.close();
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("transfer-encoding")), ("data: a\n\ndata: b\n\n".into(), None));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_stream_that_is_dropped_does_not_look_complete() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(LATER);
    let sse = responders.recv().unwrap().sse(&[]);
    sse.event("half");
    client.answer_to_head();
    assert_eq!(client.chunk(), b"data: half\n\n");
    drop(sse);
    assert_eq!(client.rest(), b"", "an end without a last chunk");

    let mut old = Client::connect(&server);
    old.send(b"GET /later HTTP/1.0\r\n\r\n");
    let sse = responders.recv().unwrap().sse(&[]);
    old.answer_to_head();
    drop(sse);
    let error = std::io::Read::read(&mut old.socket, &mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_quiet_stream_is_pinged() {
    let limits = Limits { sse_ping: Duration::from_millis(60), ..Limits::default() };
    let (server, responders) = handing_over(ServerConfig { limits, ..one_loop() });
    let mut client = Client::connect(&server);
    client.send(LATER);
    let _sse = responders.recv().unwrap().sse(&[]);
    client.answer_to_head();
    assert_eq!((client.chunk(), client.chunk()), (b": ping\n\n".to_vec(), b": ping\n\n".to_vec()));
}

#[test]
fn head_of_a_stream_has_no_body() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(b"HEAD /later HTTP/1.1\r\nHost: a\r\n\r\n");
    let sse = responders.recv().unwrap().sse(&[]);
    sse.event("nothing");
    sse.close();
    assert_eq!(client.answer_to_head().status, 200);
    assert_eq!(client.get("/now").text(), "now");
}

#[test]
fn a_client_that_leaves_is_noticed_while_its_answer_is_made() {
    let (server, responders) = handing_over(one_loop());
    for reset in [false, true] {
        let mut client = Client::connect(&server);
        client.send(LATER);
        let responder = responders.recv().unwrap();
        assert!(!responder.is_closed());
        if reset {
            // Unread bytes make the close a reset.
            client.send(b"GET");
        }
        drop(client);
        until("the responder knows", || responder.is_closed());
    }
}

#[test]
fn a_client_that_leaves_is_noticed_while_it_gets_a_stream() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(LATER);
    let sse = responders.recv().unwrap().sse(&[]);
    sse.event("x");
    client.answer_to_head();
    assert!(!sse.is_closed());
    drop(client);
    until("the stream knows", || sse.is_closed());
    until("the connection is gone", || {
        sse.event("more");
        server.handle().stats()[0].open_connections == 0
    });
}

#[test]
fn a_half_close_is_a_notice_and_the_answer_is_sent_all_the_same() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(LATER);
    client.socket.shutdown(Shutdown::Write).unwrap();
    let responder = responders.recv().unwrap();
    until("the responder knows", || responder.is_closed());
    responder.send(Reply::text("still"));
    assert_eq!(client.answer().text(), "still");
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_half_closed_client_may_be_thought_to_wait() {
    let limits = Limits { half_close: HalfClose::Waits, ..Limits::default() };
    let (server, responders) = handing_over(ServerConfig { limits, ..one_loop() });
    let mut client = Client::connect(&server);
    client.send(LATER);
    client.socket.shutdown(Shutdown::Write).unwrap();
    let responder = responders.recv().unwrap();
    // Another client's exchange comes after the FIN in the same loop.
    assert_eq!(Client::connect(&server).get("/now").status, 200);
    let sse = responder.sse(&[]);
    assert!(!sse.is_closed());
    sse.event("still");
    sse.close();
    assert_eq!(client.answer().text(), "data: still\n\n");
}

#[test]
fn a_reader_that_lags_is_seen_and_does_not_hold_up_others() {
    let (server, responders) = handing_over(one_loop());
    let mut slow = Client::connect(&server);
    slow.send(LATER);
    let sse = responders.recv().unwrap().sse(&[]);
    let data = "x".repeat(10_000);
    let mut sent = 0;
    until("it lags", || {
        sse.event(&data);
        sent += 1;
        sse.is_behind()
    });
    assert_eq!(Client::connect(&server).get("/now").status, 200);
    // The reader catches up, and nothing is lost.
    slow.answer_to_head();
    let reader = thread::spawn(move || {
        let mut bytes = 0;
        loop {
            match slow.chunk().len() {
                0 => return bytes,
                count => bytes += count,
            }
        }
    });
    until("it has caught up", || sse.backlog_bytes() == 0);
    sse.close();
    assert_eq!(reader.join().unwrap(), sent * (data.len() + "data: \n\n".len()));
}

#[test]
fn many_streams_at_once_from_one_thread() {
    let (server, responders) = handing_over(ServerConfig { threads: 2, ..ServerConfig::default() });
    let count = 200;
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.send(LATER));
    let streams: Vec<_> = (0..count).map(|_| responders.recv().unwrap().sse(&[])).collect();
    for n in 0..50 {
        streams.iter().for_each(|sse| sse.event(&n.to_string()));
    }
    streams.into_iter().for_each(|sse| sse.close());
    let expected: String = (0..50).map(|n| format!("data: {n}\n\n")).collect();
    for mut client in clients {
        assert_eq!(client.answer().text(), expected);
    }
}

#[test]
fn a_drain_finishes_what_runs_and_closes_what_is_idle() {
    let (server, responders) = handing_over(one_loop());
    let mut idle = Client::connect(&server);
    assert_eq!(idle.get("/now").status, 200);
    let (mut waiting, mut streaming) = (Client::connect(&server), Client::connect(&server));
    waiting.send(LATER);
    let responder = responders.recv().unwrap();
    streaming.send(LATER);
    let sse = responders.recv().unwrap().sse(&[]);
    streaming.answer_to_head();

    let addr = server.local_addr();
    server.handle().drain(Duration::from_secs(30));
    assert!(server.handle().is_draining());
    assert_eq!(idle.rest(), b"");
    until("nobody is let in", || TcpStream::connect(addr).is_err());
    sse.event("last");
    assert_eq!(streaming.chunk(), b"data: last\n\n");
    sse.close();
    assert_eq!((streaming.chunk(), streaming.rest()), (vec![], vec![]));
    responder.send(Reply::text("done"));
    let answer = waiting.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("done".into(), Some("close")));
    drop((waiting, streaming, idle));
    server.join().unwrap();
}

#[test]
fn a_drain_reaches_every_loop() {
    let (server, _) = handing_over(ServerConfig { threads: 3, ..ServerConfig::default() });
    let mut clients: Vec<Client> = (0..9).map(|_| Client::connect(&server)).collect();
    assert!(clients.iter_mut().all(|client| client.get("/now").status == 200));
    server.handle().drain(Duration::from_secs(30));
    assert!(clients.iter_mut().all(|client| client.rest().is_empty()));
    drop(clients);
    server.join().unwrap();
}

#[test]
fn a_drain_has_an_end() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(LATER);
    let responder = responders.recv().unwrap();
    server.handle().drain(Duration::from_millis(100));
    server.join().unwrap();
    assert!(responder.is_closed());
    assert_eq!(client.rest(), b"");
}

#[test]
fn stop_is_at_once_and_a_late_answer_finds_nobody() {
    let (server, responders) = handing_over(one_loop());
    let mut client = Client::connect(&server);
    client.send(LATER);
    let responder = responders.recv().unwrap();
    server.handle().stop();
    server.join().unwrap();
    assert!(responder.is_closed());
    responder.send(Reply::text("late"));
}

#[test]
fn a_late_answer_does_not_reach_the_next_client_in_the_slot() {
    let (server, responders) = handing_over(one_loop());
    for _ in 0..50 {
        let mut gone = Client::connect(&server);
        gone.send(LATER);
        let responder = responders.recv().unwrap();
        let sse = responder.sse(&[]);
        drop(gone);
        until("it is noticed", || sse.is_closed());
        let mut next = Client::connect(&server);
        next.send(LATER);
        let current = responders.recv().unwrap();
        sse.event("for somebody else");
        sse.close();
        current.send(Reply::text("mine"));
        assert_eq!(next.answer().text(), "mine");
    }
    assert_eq!(serve(Router::new()).handle().stats().len(), 1);
}

/// The end of a client that has pipelined more than is read ahead is behind all of that.
#[test]
fn a_client_that_leaves_is_noticed_behind_a_full_input() {
    let (give, taken) = std::sync::mpsc::channel();
    let give = std::sync::Mutex::new(give);
    let router = Router::new().get("/", move |_: &Request<'_>| {
        let (reply, responder) = Reply::later();
        give.lock().unwrap().send(responder).unwrap();
        reply
    });
    let server = serve(router);
    let mut client = Client::connect(&server);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4_000).as_bytes());
    let responder = taken.recv().unwrap();
    assert!(!responder.is_closed());
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    until("the end is noticed", || responder.is_closed());
}
