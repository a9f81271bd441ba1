//! What the simulation has found, each as short as it gets.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::rehearse;
use crate::http::budget::Budget;
use crate::http::http_loop::HttpLoop;
use crate::http::limits::Limits;
use crate::http::pipe::Body;
use crate::http::reply::{Done, Reply};
use crate::http::request::Request;
use crate::http::responder::Responder;
use crate::http::router::Router;
use crate::http::types::{Method, Status};
use crate::reactor::{Rehearsal, WireEnd};

/// One connection, and a client that does what a test says.
struct Stand {
    rehearsal: Rehearsal<HttpLoop>,
    now: Instant,
}

impl Stand {
    fn new(router: Router, limits: Limits, room_bytes: usize) -> Stand {
        let now = Instant::now();
        let budget = Arc::new(Budget::new(1 << 20));
        Stand { rehearsal: rehearse(router, &limits, budget, Arc::default(), room_bytes, now), now }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.rehearsal.receive(bytes);
        self.settle();
    }

    fn settle(&mut self) {
        while self.rehearsal.wants_turn() {
            self.rehearsal.turn(self.now);
        }
    }

    /// Lets time pass, and what falls due in it happen.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.rehearsal.next_deadline().filter(|due| *due <= end) {
            self.now = due;
            self.rehearsal.turn(due);
            self.settle();
        }
        self.now = end;
    }

    /// Takes up to so many bytes of what has been sent to the client.
    fn take(&mut self, bytes_max: usize) -> String {
        let wire = &mut self.rehearsal.wire;
        let count = wire.to_peer.len().min(bytes_max);
        let taken = wire.to_peer.drain(..count).collect();
        self.settle();
        String::from_utf8(taken).unwrap()
    }
}

fn now(_: &Request<'_>) -> &'static str {
    "now"
}

#[test]
fn a_client_that_takes_its_time_with_an_answer_is_not_idle() {
    let router = Router::new().get("/large", |_: &Request<'_>| "x".repeat(400_000)).get("/now", now);
    let limits = Limits { output_high_water_bytes: 1_000, ..Limits::default() };
    let mut stand = Stand::new(router, limits, 10_000);
    stand.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut taken = String::new();
    while !taken.ends_with("now") {
        stand.pass(Duration::from_secs(20));
        let news = stand.take(10_000);
        assert!(!news.is_empty(), "{} bytes, and no more", taken.len());
        taken += &news;
    }
    assert!(stand.rehearsal.is_open());
    stand.pass(Duration::from_secs(121));
    assert!(stand.rehearsal.is_gone(), "now it is");
}

#[test]
fn a_draining_server_keeps_no_connection_for_the_rest_of_a_body_that_it_has_read() {
    let mut stand = Stand::new(Router::new().get("/now", now), Limits::default(), 10_000);
    stand.send(b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert!(stand.take(10_000).starts_with("HTTP/1.1 405"));
    stand.rehearsal.drain(stand.now);
    assert!(stand.rehearsal.is_open());
    stand.send(b"hello");
    assert!(!stand.rehearsal.is_open());
}

/// A route that reads a body that comes, and will answer some day.
fn waiting(done: &Arc<Mutex<Vec<Done>>>) -> Router {
    let (done, held) = (Arc::clone(done), Mutex::<Vec<(Body, Responder)>>::default());
    Router::new().route_streamed(Method::Post, "/", move |_, body| {
        let (reply, responder) = Reply::later();
        held.lock().unwrap().push((body, responder));
        let done = Arc::clone(&done);
        reply.on_done(move |told| done.lock().unwrap().push(*told))
    })
}

#[test]
fn who_waits_for_the_end_of_an_answer_is_told_when_it_is_refused_instead() {
    let done = Arc::default();
    let mut stand = Stand::new(waiting(&done), Limits::default(), 10_000);
    stand.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX");
    assert!(stand.take(10_000).starts_with("HTTP/1.1 400"));
    let told = [Done { status: Status::BAD_REQUEST, body_bytes: 0, complete: false }];
    assert_eq!(*done.lock().unwrap(), told);
}

#[test]
fn the_answers_before_one_that_is_cut_arrive() {
    let router = Router::new()
        .get("/now", now)
        .route_streamed(Method::Post, "/echo", |_, body| Reply::stream(Reply::empty(Status::OK), body));
    let mut stand = Stand::new(router, Limits::default(), 10);
    stand.send(
        b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
    );
    let mut taken = String::new();
    while stand.rehearsal.wire.end.is_none() {
        taken += &stand.take(10);
    }
    taken += &stand.take(10);
    assert_eq!(stand.rehearsal.wire.end, Some(WireEnd::Orderly));
    assert!(taken.contains("now") && taken.contains("chunked") && !taken.ends_with("0\r\n\r\n"), "{taken}");
}

#[test]
fn a_body_that_is_still_to_come_is_not_another_protocol() {
    for (length, behind) in [(5, "hel"), (5_000_000, "hello")] {
        let router = Router::new().route_streamed(Method::Post, "/", |request, _| {
            Reply::upgrade(request, "echo", |_| panic!("granted while a body arrives")).header("x-layer", "1")
        });
        let mut stand = Stand::new(router, Limits::default(), 10_000);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n";
        stand.send(format!("{head}Content-Length: {length}\r\n\r\n{behind}").as_bytes());
        let answer = stand.take(10_000);
        assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("x-layer: 1\r\n"), "{answer}");
    }
}
