//! The client's side of the simulation: what it asks for, how it sends that, and how it reads the answers.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::answers::{Answer, Got};
use super::asks::{Ask, ask, render};
use super::handlers::{Plan, pattern};
use crate::http::seeded::Random;
use crate::reactor::{Protocol, Rehearsal, WireEnd};

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
