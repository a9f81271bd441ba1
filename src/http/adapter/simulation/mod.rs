//! Thousands of seeded lives of one connection: the whole protocol, from bytes to handlers and back, against clients that
//! are rude, slow, or gone, under a clock that the test owns.
//!
//! Everything that can happen next (a client sends or reads, a handler's thread goes on, the loop has a turn, time
//! passes) is drawn by lot. `SCONCE_SIM_SEED` repeats one life, `SCONCE_SIM_CASES` says how many there are.

mod answers;
mod asks;
mod client;
mod found;
mod handlers;
mod verdict;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Http1;
use crate::http::budget::Budget;
use crate::http::client::ClientConfig;
use crate::http::h1::corpus;
use crate::http::http_loop::HttpLoop;
use crate::http::limits::{HalfClose, Limits};
use crate::http::router::Router;
use crate::http::seeded::{Random, number_from_env};
use crate::reactor::{Config, Rehearsal};
use client::{Client, Garbage, Reading};
use handlers::{Shared, Stage, lock};

/// Room for answers behind the mark at which no further request is handled: the largest one, or the most that a stream may
/// have under way.
const ANSWER_BYTES_MAX: usize = crate::http::pipe::BACKLOG_BYTES_MAX + 200_000;

/// The longest that a life may take.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A connection to a server with these routes.
fn rehearse(
    router: Router,
    limits: &Limits,
    budget: Arc<Budget>,
    requests: Arc<AtomicU64>,
    room_bytes: usize,
    now: Instant,
) -> Rehearsal<HttpLoop> {
    let config = Config {
        input_bytes_max: limits.head_bytes_max.saturating_mul(2),
        write_stall_timeout: limits.write_stall_timeout,
        ..Config::default()
    };
    let http = Http1::new(Arc::new(router), limits.clone(), budget, requests);
    Rehearsal::new(HttpLoop::new(http, ClientConfig::default()), config, room_bytes, now)
}

struct Simulation {
    random: Random,
    now: Instant,
    start: Instant,
    limits: Limits,
    client: Client,
    stage: Shared,
    rehearsal: Rehearsal<HttpLoop>,
    budget: Arc<Budget>,
    budget_bytes: usize,
    requests: Arc<AtomicU64>,
    drain_at: Option<Instant>,
    drained: bool,
    /// Bytes that the protocol had seen when it last could do something about them.
    seen_bytes: usize,
    /// Turns since time passed, or the client took something.
    turns: u32,
}

impl Simulation {
    fn new(seed: u64, garbage: &[Garbage]) -> Simulation {
        let mut random = Random::new(seed);
        let start = Instant::now();
        let client = Client::new(&mut random, garbage, start);
        let asks = client.asks.len();
        let stage: Shared = Arc::new(Mutex::new(Stage {
            now: start,
            random: Random::new(seed + 1),
            plans: client.asks.iter().map(|ask| ask.plan.clone()).collect(),
            hooked: (0..asks).map(|_| !random.one_in(3)).collect(),
            calls: Vec::new(),
            strays: Vec::new(),
            done: vec![Vec::new(); asks],
            bodies: vec![None; asks],
            gave_up: vec![false; asks],
            jobs: Vec::new(),
        }));
        let limits = Limits {
            body_bytes_max: 1_000,
            output_high_water_bytes: if random.one_in(3) { random.below(5_000) } else { 256 << 10 },
            requests_per_connection_max: if random.one_in(10) { random.within(1, 5) as u64 } else { u64::MAX },
            requests_per_turn_max: random.within(1, 8) as u32,
            half_close: if random.one_in(2) { HalfClose::Gone } else { HalfClose::Waits },
            ..Limits::default()
        };
        let budget_bytes = if random.one_in(10) { random.within(1, 20_000) } else { 1 << 20 };
        let budget = Arc::new(Budget::new(budget_bytes));
        let requests = Arc::default();
        let tiny = random.one_in(3) && matches!(client.reading, Reading::Eager);
        let room_bytes = if tiny { random.within(1, 3_000) } else { 200 << 10 };
        let drain_at = random.one_in(10).then(|| start + Duration::from_millis(random.below(20_000) as u64));
        let router = handlers::router(&stage);
        let rehearsal = rehearse(router, &limits, Arc::clone(&budget), Arc::clone(&requests), room_bytes, start);
        Simulation {
            random,
            now: start,
            start,
            limits,
            client,
            stage,
            rehearsal,
            budget,
            budget_bytes,
            requests,
            drain_at,
            drained: false,
            seen_bytes: 0,
            turns: 0,
        }
    }

    /// Lives, and gives how many answers there were and how many of them were refusals or cut.
    fn run(&mut self) -> (usize, usize) {
        while self.step() {
            assert!(self.now - self.start < LIFE_MAX, "it never ends");
        }
        self.check_end()
    }

    /// Lets one thing happen. `false` when nothing ever will.
    fn step(&mut self) -> bool {
        let jobs = lock(&self.stage).jobs.iter().map(|job| job.at).min();
        let turn = if self.rehearsal.wants_turn() { Some(self.now) } else { self.rehearsal.next_deadline() };
        let drain = self.drain_at.filter(|_| !self.rehearsal.is_gone());
        let (send, read) = (self.client.next_send(&self.rehearsal), self.client.next_read(&self.rehearsal));
        let times = [jobs, turn, drain, send, read];
        let due: Vec<usize> = (0..times.len()).filter(|n| times[*n].is_some_and(|at| at <= self.now)).collect();
        if due.is_empty() {
            let Some(next) = times.into_iter().flatten().min() else { return false };
            self.now = next;
            lock(&self.stage).now = next;
            self.turns = 0;
            return true;
        }
        match *self.random.pick(&due) {
            0 => drop(lock(&self.stage).work()),
            1 => self.turn(),
            2 => {
                (self.drain_at, self.drained) = (None, true);
                self.rehearsal.drain(self.now);
            }
            3 => self.client.act(&mut self.rehearsal, self.now),
            _ => {
                self.turns = 0;
                self.client.read(&mut self.rehearsal, &mut self.random, self.now);
            }
        }
        true
    }

    fn turn(&mut self) {
        let was_open = self.rehearsal.is_open();
        self.rehearsal.turn(self.now);
        self.turns += 1;
        assert!(self.turns < 2_000, "the loop spins: {:?}", self.rehearsal.next_deadline().map(|at| at - self.start));
        if was_open {
            self.seen_bytes = self.client.sent_bytes - self.rehearsal.wire.to_loop.len();
        }
        let output_bytes = self.rehearsal.output.len();
        assert!(
            output_bytes <= self.limits.output_high_water_bytes + ANSWER_BYTES_MAX,
            "{output_bytes} bytes of output"
        );
        if self.rehearsal.is_open() && !self.rehearsal.wants_turn() {
            self.check_rest();
        }
    }

    /// What holds whenever the loop would go to sleep.
    fn check_rest(&self) {
        let jobs = lock(&self.stage).jobs.len();
        let deadline = self.rehearsal.next_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "a deadline that has passed");
        if jobs > 0 || !self.rehearsal.output.is_empty() {
            return;
        }
        // Nobody but the client can move this connection now.
        assert!(deadline.is_some(), "a client that says nothing holds this connection for ever");
        let whole = self.client.asks.iter().take_while(|ask| ask.end.is_some_and(|end| end <= self.seen_bytes));
        let (asked, handled) = (whole.clone().count() as u64, self.requests.load(Ordering::Relaxed));
        assert!(handled >= asked, "{asked} requests are there and {handled} were handled");
        let between = whole.last().map_or(0, |ask| ask.end.unwrap_or_default()) == self.seen_bytes;
        assert!(!(self.drained && between), "the server is ending, and this connection is idle");
    }

    fn check_end(&mut self) -> (usize, usize) {
        assert!(self.rehearsal.is_gone(), "nothing will ever happen to this connection again");
        let mut stage = lock(&self.stage);
        assert_eq!(stage.jobs.len(), 0, "a producer was not told of the end");
        let mut held = 0;
        assert!(self.budget.resize(&mut held, self.budget_bytes), "memory for bodies was not given back");
        verdict::Verdict {
            client: &self.client,
            stage: &mut stage,
            limits: &self.limits,
            seen_bytes: self.seen_bytes,
            drained: self.drained,
            budget_is_small: self.budget_bytes < 1 << 20,
        }
        .give()
    }
}

impl Simulation {
    /// What a failure came from.
    fn report(&self) {
        let Simulation { client, stage, limits, .. } = self;
        eprintln!("after {:?}, drained: {}, {limits:?}\n{client:#?}", self.now - self.start, self.drained);
        let stage = lock(stage);
        eprintln!("calls {:?}, done {:?}, gave up {:?}", stage.calls, stage.done, stage.gave_up);
        if let Ok(answers) = panic::catch_unwind(AssertUnwindSafe(|| client.answers())) {
            eprintln!("{answers:#?}");
        }
    }
}

fn garbage() -> Vec<Garbage> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/h1");
    let cases = corpus::read(directory, "refused.txt").into_iter().filter(|case| case.events.len() == 1);
    cases
        .map(|case| Garbage { status: case.events[0].split(' ').next().unwrap().parse().unwrap(), bytes: case.input })
        .collect()
}

#[test]
fn rude_clients_get_what_they_deserve_and_the_others_their_answers() {
    let garbage = garbage();
    let seeds = match number_from_env::<u64>("SCONCE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_env("SCONCE_SIM_CASES").unwrap_or(3_000),
    };
    let (lives, mut answers, mut unhappy) = (seeds.end - seeds.start, 0, 0);
    for seed in seeds {
        let mut simulation = Simulation::new(seed, &garbage);
        match panic::catch_unwind(AssertUnwindSafe(|| simulation.run())) {
            Ok(counts) => (answers, unhappy) = (answers + counts.0, unhappy + counts.1),
            Err(panic) => {
                eprintln!("repeat it with SCONCE_SIM_SEED={seed}");
                simulation.report();
                panic::resume_unwind(panic);
            }
        }
    }
    println!("{lives} lives, {answers} answers, {unhappy} of them refusals or cut");
    assert!(
        lives < 1_000 || (answers > lives as usize && unhappy > answers / 20),
        "the simulation has become too kind"
    );
}
