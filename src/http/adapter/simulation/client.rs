//! The client's side of the simulation: what it asks for, how it sends that, and how it reads the answers.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::answers::{Answer, Got};
use super::handlers::{BUFFER_BYTES_MAX, Finish, How, Plan, WhileReading, pattern};
use crate::http::seeded::Random;
use crate::reactor::{Protocol, Rehearsal, WireEnd};

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

/// Bytes that are no request.
pub struct Garbage {
    pub bytes: Vec<u8>,
    /// What they deserve.
    pub status: u16,
}

enum Act {
    Send(Vec<u8>),
    Pause(Duration),
    /// Waits for 100 Continue, a final answer to this request, or a second.
    AwaitContinue(usize, Option<Instant>),
    /// Waits until as many answers are there.
    AwaitAnswers(usize),
    End,
    Reset,
}

/// How a client takes what it gets.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    Eager,
    /// Up to so many bytes at a time, after random pauses up to this.
    Slow(usize, Duration),
    /// Nothing after so many bytes.
    Stops(usize),
}

pub struct Client {
    pub asks: Vec<Ask>,
    /// What follows the requests and is none, with the status that it deserves.
    pub garbage: Option<u16>,
    /// It never leaves the server waiting for long.
    pub prompt: bool,
    /// It ends its side before it has all answers, or it ends it in the middle of a request.
    pub half_closes: bool,
    pub reading: Reading,
    pub received: Vec<u8>,
    pub sent_bytes: usize,
    pub has_reset: bool,
    /// What it had not read yet was destroyed by a reset.
    pub lost: bool,
    /// It has seen the end of the server's side.
    pub end: Option<WireEnd>,
    acts: VecDeque<Act>,
    send_at: Instant,
    read_at: Instant,
    gap: Duration,
}

impl Client {
    pub fn new(random: &mut Random, garbage: &[Garbage], now: Instant) -> Client {
        let prompt = !random.one_in(3);
        let reading = match random.below(8) {
            0 => Reading::Slow(random.within(500, 40_000), Duration::from_millis(random.within(1, 25_000) as u64)),
            1 => Reading::Stops(random.below(5_000)),
            _ => Reading::Eager,
        };
        let mut client = Client {
            asks: Vec::new(),
            garbage: None,
            prompt,
            half_closes: false,
            reading,
            received: Vec::new(),
            sent_bytes: 0,
            has_reset: false,
            lost: false,
            end: None,
            acts: VecDeque::new(),
            send_at: now,
            read_at: now,
            gap: if prompt { Duration::from_millis(3) } else { Duration::from_millis(random.within(1, 4_000) as u64) },
        };
        client.write_script(random, garbage);
        client
    }

    fn write_script(&mut self, random: &mut Random, garbage: &[Garbage]) {
        let polite = random.one_in(3);
        let mut total = 0;
        let asks = random.below(9);
        for id in 0..asks {
            let mut ask = ask(random, id);
            let (head, body) = render(random, &ask, id);
            let last = id + 1 == asks;
            // The last one may stop anywhere.
            let whole = !(last && random.one_in(4));
            let bytes = [head.as_slice(), &body].concat();
            if whole {
                self.send(random, &head);
                if ask.expects {
                    self.acts.push_back(Act::AwaitContinue(id, None));
                }
                self.send(random, &body);
                total += bytes.len();
                ask.end = Some(total).filter(|_| !ask.broken);
            } else {
                let stop = random.below(bytes.len());
                self.send(random, &bytes[..stop]);
            }
            let upgrades = matches!(ask.plan, Plan::Upgrade);
            let ends = ask.closes || ask.broken || !whole || upgrades;
            self.asks.push(ask);
            if !whole {
                return self.leave(random);
            }
            if polite && !ends {
                self.acts.push_back(Act::AwaitAnswers(id + 1));
            }
            if ends {
                // Nothing behind this may become a request.
                if random.one_in(2) && !upgrades {
                    self.send(random, b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
                }
                if upgrades {
                    self.acts.push_back(Act::AwaitAnswers(id + 1));
                    let len = random.below(2_000);
                    self.send(random, &pattern(id, len));
                    self.acts.push_back(Act::End);
                    self.half_closes = true;
                }
                return self.leave(random);
            }
        }
        if random.one_in(4) {
            let case = random.pick(garbage);
            self.garbage = Some(case.status);
            self.send(random, &case.bytes);
            self.send(random, b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        self.leave(random);
    }

    /// Says goodbye, or nothing at all.
    fn leave(&mut self, random: &mut Random) {
        match random.below(6) {
            0 | 1 => {
                self.acts.push_back(Act::End);
                self.half_closes = true;
            }
            2 => self.acts.push_back(Act::Reset),
            _ => {}
        }
    }

    /// Bytes in random pieces.
    fn send(&mut self, random: &mut Random, mut bytes: &[u8]) {
        let pieces_bytes_max = match random.below(4) {
            0 => 40,
            1 => 400,
            _ => 1 << 20,
        };
        // No more than some dozens of pieces, so that no run gets too long.
        let bytes_min = bytes.len() / 60 + 1;
        while !bytes.is_empty() {
            let (piece, rest) =
                bytes.split_at(random.within(bytes_min, pieces_bytes_max.max(bytes_min)).min(bytes.len()));
            self.acts.push_back(Act::Send(piece.to_vec()));
            if !random.one_in(4) && self.gap > Duration::ZERO {
                let pause = random.below(self.gap.as_micros() as usize + 1);
                self.acts.push_back(Act::Pause(Duration::from_micros(pause as u64)));
            }
            bytes = rest;
        }
    }

    /// The answers so far.
    pub fn answers(&self) -> Vec<Answer> {
        let ended = self.end == Some(WireEnd::Orderly) && !self.lost;
        let got = Got { bytes: &self.received, ended };
        got.answers(|n| self.asks.get(n).is_some_and(|ask| ask.method == "HEAD"))
    }

    /// When it would send next, if it has anything to send and the wire has room.
    pub fn next_send<P: Protocol>(&self, rehearsal: &Rehearsal<P>) -> Option<Instant> {
        let waits = self.end.is_some() || self.has_reset || self.acts.is_empty();
        match self.acts.front() {
            _ if waits => None,
            Some(Act::Send(_)) if rehearsal.wire.to_loop.len() > 64 << 10 && !rehearsal.is_gone() => None,
            _ => Some(self.send_at),
        }
    }

    pub fn act<P: Protocol>(&mut self, rehearsal: &mut Rehearsal<P>, now: Instant) {
        let Some(act) = self.acts.pop_front() else { return };
        match act {
            Act::Send(bytes) => {
                self.sent_bytes += bytes.len();
                match rehearsal.is_gone() {
                    // A closed socket answers with a reset, which destroys what has not been read.
                    true => {
                        self.lost = true;
                        self.lose(rehearsal);
                    }
                    false => rehearsal.receive(&bytes),
                }
            }
            Act::Pause(pause) => self.send_at = now + pause,
            Act::AwaitContinue(id, until) => {
                let until = until.unwrap_or(now + Duration::from_secs(1));
                let answers = self.answers();
                let told = self.received.windows(12).any(|text| text == b"100 Continue") && answers.len() == id;
                let continued = told && self.received.ends_with(b"100 Continue\r\n\r\n");
                if answers.len() > id {
                    // Refused: the body is not sent, nor anything else on this connection.
                    self.asks[id].end = None;
                    self.asks.iter_mut().skip(id + 1).for_each(|ask| ask.end = None);
                    self.acts.clear();
                    self.garbage = None;
                } else if !continued && now < until {
                    self.acts.push_front(Act::AwaitContinue(id, Some(until)));
                    self.send_at = (now + Duration::from_millis(100)).min(until);
                }
            }
            Act::AwaitAnswers(count) => {
                let answers = self.answers();
                let there = answers.iter().filter(|answer| answer.complete).count() >= count;
                let upgrades = matches!(self.asks[count - 1].plan, Plan::Upgrade);
                let reads = !self.has_stopped() && (!rehearsal.is_gone() || self.next_read(rehearsal).is_some());
                if !there && reads {
                    self.acts.push_front(Act::AwaitAnswers(count));
                    self.send_at = now + Duration::from_millis(200);
                } else if upgrades && answers.last().is_none_or(|answer| answer.status != 101) {
                    self.acts.clear();
                    self.acts.push_back(Act::End);
                }
            }
            Act::End => rehearsal.receive_end(),
            Act::Reset => {
                self.has_reset = true;
                self.lose(rehearsal);
                rehearsal.receive_reset();
            }
        }
    }

    fn lose<P: Protocol>(&mut self, rehearsal: &mut Rehearsal<P>) {
        self.lost |= !rehearsal.wire.to_peer.is_empty();
        rehearsal.wire.to_peer.clear();
        self.end = Some(WireEnd::Reset);
    }

    /// Whether it will never read again.
    fn has_stopped(&self) -> bool {
        matches!(self.reading, Reading::Stops(bytes) if self.received.len() >= bytes)
    }

    /// When it would read next, if there is something to read.
    pub fn next_read<P: Protocol>(&self, rehearsal: &Rehearsal<P>) -> Option<Instant> {
        let wire = &rehearsal.wire;
        if self.end.is_some() || self.has_stopped() || (wire.to_peer.is_empty() && wire.end.is_none()) {
            return None;
        }
        Some(self.read_at)
    }

    pub fn read<P: Protocol>(&mut self, rehearsal: &mut Rehearsal<P>, random: &mut Random, now: Instant) {
        let wire = &mut rehearsal.wire;
        if wire.end == Some(WireEnd::Reset) && random.one_in(2) {
            return self.lose(rehearsal);
        }
        let count = match self.reading {
            Reading::Eager => wire.to_peer.len(),
            Reading::Slow(bytes, pause) => {
                self.read_at = now + Duration::from_micros(random.below(pause.as_micros() as usize) as u64);
                random.within(1, bytes)
            }
            Reading::Stops(bytes) => bytes - self.received.len(),
        };
        self.received.extend(wire.to_peer.drain(..count.min(wire.to_peer.len())));
        if wire.to_peer.is_empty() {
            self.end = wire.end;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client { garbage, prompt, half_closes, reading, sent_bytes, has_reset, lost, end, acts, gap, .. } = self;
        write!(f, "prompt {prompt}, half closes {half_closes}, {reading:?}, gap {gap:?}, garbage {garbage:?}, ")?;
        writeln!(f, "reset {has_reset}, lost {lost}, end {end:?}, {} acts left, sent {sent_bytes}", acts.len())?;
        self.asks.iter().enumerate().try_for_each(|(n, ask)| writeln!(f, "{n}: {ask:?}"))
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ask { route, method, http10, closes, expects, chunked, body, broken, plan, end } = self;
        write!(f, "{method} {route:?} {} bytes, http10 {http10}, closes {closes}, expects {expects}, ", body.len())?;
        write!(f, "chunked {chunked}, broken {broken}, ends at {end:?}, {plan:?}")
    }
}

fn ask(random: &mut Random, id: usize) -> Ask {
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
fn render(random: &mut Random, ask: &Ask, id: usize) -> (Vec<u8>, Vec<u8>) {
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
