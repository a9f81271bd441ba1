//! What clients of the simulation ask for, and how that looks on the wire.

use std::fmt;
use std::time::Duration;

use super::handlers::{BUFFER_BYTES_MAX, Finish, How, Plan, WhileReading, pattern};
use crate::http::seeded::Random;

/// One request, and what its handler will do.
pub struct Ask {
    pub route: Route,
    pub method: &'static str,
    pub http10: bool,
    /// The client wants the connection to end, or does not say that it should not.
    pub closes: bool,
    pub expects: bool,
    pub chunked: bool,
    pub body: Vec<u8>,
    /// The chunked body has an error in it.
    pub broken: bool,
    pub plan: Plan,
    /// Where the request ends in all that the client sends; `None` when it never does.
    pub end: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Get,
    Buffer,
    Stream,
    Guarded,
    /// No route has this path, and a guard says no.
    Shut,
    Missing,
    NotAllowed,
    Upgrade,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ask { route, method, http10, closes, expects, chunked, body, broken, plan, end } = self;
        write!(f, "{method} {route:?} {} bytes, http10 {http10}, closes {closes}, expects {expects}, ", body.len())?;
        write!(f, "chunked {chunked}, broken {broken}, ends at {end:?}, {plan:?}")
    }
}

/// A request by lot.
pub fn ask(random: &mut Random, id: usize) -> Ask {
    let route = match random.below(16) {
        0..=5 => Route::Get,
        6..=8 => Route::Buffer,
        9..=12 => Route::Stream,
        13 => Route::Guarded,
        14 => *random.pick(&[Route::Missing, Route::NotAllowed, Route::Shut]),
        _ => Route::Upgrade,
    };
    let http10 = random.one_in(8) && route != Route::Upgrade;
    let has_body = !matches!(route, Route::Get | Route::Upgrade);
    let bytes = match random.below(5) {
        0 => 0,
        1 | 2 => random.below(100),
        3 => random.below(BUFFER_BYTES_MAX),
        _ if route == Route::Stream => random.below(400_000),
        _ => random.below(2 * BUFFER_BYTES_MAX),
    };
    let chunked = has_body && !http10 && random.one_in(2);
    let method = match route {
        Route::Get if random.one_in(4) => "HEAD",
        Route::Get | Route::Upgrade => "GET",
        Route::NotAllowed => "PUT",
        _ => "POST",
    };
    Ask {
        route,
        method,
        http10,
        closes: random.one_in(12) || (http10 && random.one_in(2)),
        expects: has_body && bytes > 0 && random.one_in(5),
        chunked,
        body: if has_body { pattern(id, bytes) } else { Vec::new() },
        broken: chunked && bytes > 0 && random.one_in(10),
        plan: plan(random, route),
        end: None,
    }
}

fn millis(random: &mut Random, max: usize) -> Duration {
    Duration::from_millis(random.below(max) as u64)
}

fn plan(random: &mut Random, route: Route) -> Plan {
    if route == Route::Upgrade {
        return Plan::Upgrade;
    }
    let long = if random.one_in(6) { 100_000 } else { 200 };
    match random.below(10) {
        0..=3 if route == Route::Stream => Plan::Read {
            after: millis(random, long),
            pace: {
                let slow = random.one_in(4);
                millis(random, if slow { 20_000 } else { 50 }) + Duration::from_millis(1)
            },
            stop_after: if random.one_in(4) { random.below(50_000) } else { usize::MAX },
            answer: *random.pick(&[WhileReading::Behind, WhileReading::Before, WhileReading::Mirror]),
        },
        4 if route == Route::Stream => Plan::Ignore,
        6 if route == Route::Stream => Plan::Upgrade,
        5 if route == Route::Stream => Plan::Echo,
        0..=2 => {
            let bytes = if random.one_in(3) { random.below(100_000) } else { random.below(300) };
            Plan::Whole {
                status: *random.pick(&[200, 200, 200, 201, 204, 205, 304, 404]),
                bytes,
                shared: random.one_in(3),
            }
        }
        3 => Plan::Panics,
        _ => {
            let within = random.one_in(4).then(|| millis(random, 1_000));
            let after = if random.one_in(4) { Duration::ZERO } else { millis(random, long) };
            Plan::Later { after, how: how(random), obeys: !random.one_in(3), within }
        }
    }
}

fn how(random: &mut Random) -> How {
    let pace = match random.below(4) {
        0 => Duration::ZERO,
        1 => millis(random, 15_000),
        _ => millis(random, 50),
    };
    let finish = if random.one_in(4) { Finish::Cut } else { Finish::Close };
    match random.below(8) {
        0 => How::Whole { bytes: random.below(50_000) },
        1 | 2 => How::Whole { bytes: random.below(100) },
        3 => How::Never,
        4 | 5 => How::Sse { events: random.below(10), pace, finish },
        _ => {
            let bytes = if random.one_in(4) { random.within(1, 100_000) } else { random.within(1, 500) };
            How::Stream { pieces: random.below(25), bytes, pace, sized: random.one_in(3), finish }
        }
    }
}

/// The bytes of a request: its head and its body.
pub fn render(random: &mut Random, ask: &Ask, id: usize) -> (Vec<u8>, Vec<u8>) {
    let path = match ask.route {
        Route::Get | Route::NotAllowed | Route::Upgrade => "/get",
        Route::Buffer => "/buffer",
        Route::Stream => "/stream",
        Route::Guarded => "/guarded",
        Route::Shut => "/shut",
        Route::Missing => "/missing",
    };
    let version = if ask.http10 { "1.0" } else { "1.1" };
    let mut head = format!("{} {path}?n={id} HTTP/{version}\r\nHost: a\r\nX-Id: {id}\r\n", ask.method);
    match (ask.closes, ask.http10) {
        (true, false) => head += "Connection: close\r\n",
        (false, true) => head += "Connection: keep-alive\r\n",
        _ => {}
    }
    if matches!(ask.plan, Plan::Upgrade) {
        head += if ask.closes {
            "Upgrade: echo\r\nConnection: upgrade\r\n"
        } else {
            "Connection: upgrade\r\nUpgrade: echo\r\n"
        };
    }
    if ask.expects {
        head += "Expect: 100-continue\r\n";
    }
    let body = if ask.chunked {
        head += "Transfer-Encoding: chunked\r\n";
        chunks(random, &ask.body, ask.broken)
    } else {
        if ask.method == "POST" || ask.method == "PUT" {
            head += &format!("Content-Length: {}\r\n", ask.body.len());
        }
        ask.body.clone()
    };
    head += "\r\n";
    (head.into_bytes(), body)
}

fn chunks(random: &mut Random, mut body: &[u8], broken: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let size_max = *random.pick(&[10, 100, 100_000]);
    let size_min = body.len() / 200 + 1;
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(random.within(size_min, size_max.max(size_min)).min(body.len()));
        let extension = if random.one_in(5) { ";a=b" } else { "" };
        bytes.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(if broken && rest.is_empty() { b"XX" } else { b"\r\n" });
        body = rest;
    }
    bytes.extend_from_slice(if random.one_in(5) { b"0\r\nTrailer: x\r\n\r\n" } else { b"0\r\n\r\n" });
    bytes
}
