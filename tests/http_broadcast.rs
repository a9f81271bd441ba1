//! One event stream for many clients, over real sockets.

mod http_support;

use std::io::Read;

use http_support::{Client, serve_with, until};
use sconce::http::{Broadcast, Event, Request, Router, ServerConfig};

/// A server of two loops, and what its clients listen to.
fn server() -> (sconce::http::Running, Broadcast) {
    let news = Broadcast::new();
    let listeners = news.clone();
    let router = Router::new()
        .get("/news", move |_: &Request<'_>| listeners.subscribe(&[("x-own", "1")]))
        .get("/", |_: &Request<'_>| "Hello");
    let server = serve_with(router, ServerConfig { threads: 2, ..ServerConfig::default() });
    (server, news)
}

#[test]
fn every_client_gets_every_event_in_order() {
    let (server, news) = server();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.send(b"GET /news HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.answer_to_head();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(answer.header("x-own"), Some("1"));
    }
    until("all listen", || news.listeners() == 200);
    for n in 0..50 {
        news.send(&Event::new(&n.to_string()).name("tick"));
    }
    for client in &mut clients {
        for n in 0..50 {
            assert_eq!(client.chunk(), format!("event: tick\ndata: {n}\n\n").as_bytes());
        }
    }
    // Those who leave are forgotten when something is written to them; the others go on, and set the pace.
    clients.truncate(20);
    let mut rounds = 0;
    while news.listeners() > 20 {
        news.send(&Event::new("x"));
        clients.iter_mut().for_each(|client| assert_eq!(client.chunk(), b"data: x\n\n"));
        rounds += 1;
        assert!(rounds < 10_000, "{} listen", news.listeners());
    }
    news.send(&Event::new("last"));
    clients.iter_mut().for_each(|client| assert_eq!(client.chunk(), b"data: last\n\n"));
    assert_eq!(news.missed(), 0);
}

#[test]
fn old_and_curious_clients_get_what_they_understand() {
    let (server, news) = server();
    let mut old = Client::connect(&server);
    old.send(b"GET /news HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer_to_head().header("connection"), Some("close"));
    let mut curious = Client::connect(&server);
    curious.send(b"HEAD /news HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(curious.answer_to_head().status, 200);
    assert_eq!(curious.get("/").status, 200, "nothing follows the head");
    until("one listens", || news.listeners() == 1);
    news.send(&Event::new("hi"));
    assert_eq!(old.exactly(10), b"data: hi\n\n");
}

#[test]
fn when_the_last_sender_goes_the_streams_end_well() {
    let router = Router::new().get("/", |_: &Request<'_>| {
        // Nobody else holds this one.
        Broadcast::new().subscribe(&[])
    });
    let server = serve_with(router, ServerConfig { threads: 1, ..ServerConfig::default() });
    let mut client = Client::connect(&server);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    assert_eq!(client.chunk(), b"", "a stream without a sender is over");

    let (server, news) = self::server();
    let mut client = Client::connect(&server);
    client.send(b"GET /news HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    until("it listens", || news.listeners() == 1);
    news.send(&Event::new("one"));
    assert_eq!(client.chunk(), b"data: one\n\n");
    // The route holds a clone for as long as the router lives, so here the end comes with the server.
    server.handle().stop();
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_does_not_read_is_cut_and_the_others_are_not() {
    let (server, news) = server();
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.send(b"GET /news HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer_to_head().status, 200);
    }
    until("both listen", || news.listeners() == 2);
    let data = "x".repeat(10_000);
    let mut sent = 0;
    while news.listeners() == 2 {
        news.send(&Event::new(&data));
        sent += 1;
        // The one that reads keeps up, so that it is never far behind.
        assert_eq!(clients[0].chunk().len(), data.len() + 8);
        assert!(sent < 5_000, "50 MB for a client that reads nothing");
    }
    news.send(&Event::new("still here"));
    assert_eq!(clients[0].chunk(), b"data: still here\n\n");
}

/// Two events that are larger than what may wait for a client: it gets them all, or sees that it was cut.
#[test]
fn no_event_is_left_out_without_a_word() {
    let (server, news) = server();
    let mut client = Client::connect(&server);
    client.send(b"GET /news HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    until("it listens", || news.listeners() == 1);
    for data in ["a".repeat(300_000), "b".repeat(300_000), "end".to_string()] {
        news.send(&Event::new(&data));
    }
    let (mut seen, mut part) = (std::mem::take(&mut client.ahead), [0; 64 << 10]);
    while !seen.ends_with(b"end\n\n\r\n") {
        // A ping comes after a silence only.
        assert!(!seen.ends_with(b": ping\n\n\r\n"), "events are missing");
        match client.socket.read(&mut part) {
            Ok(0) => return,
            Ok(count) => seen.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("neither the events nor an end: {error}"),
        }
    }
    assert!(seen.iter().filter(|byte| **byte == b'b').count() >= 300_000, "the second event is missing");
}
