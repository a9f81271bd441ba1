//! The server's side of the simulation: handlers that do as planned, and the work that they leave to "other threads",
//! which happens when the simulation says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::http::pipe::{Body, End, Stream};
use crate::http::reply::{Done, Reply};
use crate::http::request::Request;
use crate::http::responder::Responder;
use crate::http::router::Router;
use crate::http::seeded::Random;
use crate::http::sse::Sse;
use crate::http::types::{Method, Status};
use crate::http::upgrade::Upgraded;

/// The most that `/buffer` takes.
pub const BUFFER_BYTES_MAX: usize = 20_000;

/// What bodies are made of: whoever takes a body for requests is found out.
const EVIL: &[u8] = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";

/// The body of answer or request `id`.
pub fn pattern(id: usize, len: usize) -> Vec<u8> {
    EVIL.iter().copied().cycle().skip(id * 7 % EVIL.len()).take(len).collect()
}

/// What a handler does with its request.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Answers at once.
    Whole {
        status: u16,
        bytes: usize,
        shared: bool,
    },
    Panics,
    /// Answers later.
    Later {
        after: Duration,
        how: How,
        obeys: bool,
        within: Option<Duration>,
    },
    /// Of a streamed body: read it, up to a point, and answer then.
    Read {
        after: Duration,
        pace: Duration,
        stop_after: usize,
        answer: WhileReading,
    },
    /// Of a streamed body: forget it.
    Ignore,
    /// Of a streamed body: send it back as it comes, without a thread.
    Echo,
    /// Leave HTTP; echo what comes.
    Upgrade,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileReading {
    /// With what was read, when it was.
    Behind,
    /// Before anything was read.
    Before,
    /// With each piece as it is read.
    Mirror,
}

#[derive(Clone, Debug)]
pub enum How {
    Whole {
        bytes: usize,
    },
    /// The responder is dropped.
    Never,
    Stream {
        pieces: usize,
        bytes: usize,
        pace: Duration,
        sized: bool,
        finish: Finish,
    },
    Sse {
        events: usize,
        pace: Duration,
        finish: Finish,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Close,
    Cut,
}

impl How {
    /// The body that it gives if it comes to its end.
    pub fn body(&self, id: usize) -> Vec<u8> {
        match self {
            How::Whole { bytes } => pattern(id, *bytes),
            How::Never => Vec::new(),
            How::Stream { pieces, bytes, .. } => pattern(id, pieces * bytes),
            How::Sse { events, .. } => (0..*events).flat_map(|n| format!("data: {n}\n\n").into_bytes()).collect(),
        }
    }
}

/// What handlers and their threads know and have seen. Requests are known by number.
pub struct Stage {
    pub now: Instant,
    pub random: Random,
    pub plans: Vec<Plan>,
    /// Whether an `on_done` is to be hung on the answer.
    pub hooked: Vec<bool>,
    /// Calls of handlers, in order.
    pub calls: Vec<usize>,
    pub strays: Vec<String>,
    pub done: Vec<Vec<Done>>,
    /// Request bodies as handlers saw them; `None` is a body that the handler did not read to its end.
    pub bodies: Vec<Option<(Vec<u8>, Option<End>)>>,
    /// Producers that stopped because they were told that their client has gone, or lagged too far.
    pub gave_up: Vec<bool>,
    pub jobs: Vec<Job>,
}

pub type Shared = Arc<Mutex<Stage>>;

pub fn lock(stage: &Shared) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that another thread would do.
pub struct Job {
    pub id: usize,
    pub at: Instant,
    work: Work,
}

enum Work {
    Answer { responder: Responder, how: How, obeys: bool },
    Write { stream: Producer, left: Vec<Vec<u8>>, pace: Duration, finish: Finish, obeys: bool },
    Read { body: Body, seen: Vec<u8>, pace: Duration, stop_after: usize, then: Then },
    Tunnel { upgraded: Upgraded },
}

enum Producer {
    Stream(Stream),
    Sse(Sse),
}

enum Then {
    Nothing,
    Answer(Responder),
    Mirror(Stream),
}

impl Stage {
    fn plan(&mut self, request: &Request<'_>) -> (usize, Plan) {
        let id: usize =
            request.header("x-id").and_then(|id| id.parse().ok()).expect("only requests of this simulation");
        self.calls.push(id);
        (id, self.plans[id].clone())
    }

    fn start(&mut self, id: usize, after: Duration, work: Work) {
        self.jobs.push(Job { id, at: self.now + after, work });
    }

    /// Does what is due, one job, and says whether there was any.
    pub fn work(&mut self) -> bool {
        let due = |job: &Job| job.at <= self.now;
        let Some(at) = self.jobs.iter().position(due) else { return false };
        let Job { id, work, .. } = self.jobs.swap_remove(at);
        if let Some((after, work)) = self.act(id, work) {
            self.start(id, after, work);
        }
        true
    }

    /// One step of a job; what is left of it, and when that goes on.
    fn act(&mut self, id: usize, work: Work) -> Option<(Duration, Work)> {
        match work {
            Work::Answer { responder, how, obeys } => self.answer(id, responder, how, obeys),
            Work::Write { stream, mut left, pace, finish, obeys } => {
                let (closed, behind) = match &stream {
                    Producer::Stream(stream) => (stream.is_closed(), stream.is_behind()),
                    Producer::Sse(sse) => (sse.is_closed(), sse.is_behind()),
                };
                if closed && obeys {
                    self.gave_up[id] = true;
                    return None;
                }
                if behind && obeys {
                    return Some((pace + Duration::from_millis(50), Work::Write { stream, left, pace, finish, obeys }));
                }
                if let Some(piece) = left.pop() {
                    match &stream {
                        Producer::Stream(stream) => self.gave_up[id] |= stream.write(&piece).is_err(),
                        Producer::Sse(sse) => sse.event(str::from_utf8(&piece).unwrap()),
                    }
                    // Some write all they have at once.
                    let pace = if left.is_empty() || self.random.one_in(3) { Duration::ZERO } else { pace };
                    return Some((pace, Work::Write { stream, left, pace, finish, obeys }));
                }
                match (stream, finish) {
                    (Producer::Stream(stream), Finish::Close) => self.gave_up[id] |= stream.close().is_err(),
                    (Producer::Sse(sse), Finish::Close) => sse.close(),
                    (_, Finish::Cut) => {}
                }
                None
            }
            Work::Read { mut body, mut seen, pace, stop_after, then } => {
                let mut bytes = Vec::new();
                let end = body.poll(&mut bytes);
                body.set_unsent_bytes(0);
                if let Then::Mirror(stream) = &then {
                    self.gave_up[id] |= stream.write(&bytes).is_err();
                }
                seen.append(&mut bytes);
                // Behind the end there is nothing, but there may have been something with it.
                let over = end.is_some() || seen.len() >= stop_after;
                if !over {
                    return Some((pace, Work::Read { body, seen, pace, stop_after, then }));
                }
                drop(body);
                let reply = Reply::bytes(Status::OK, "", seen.len().to_string().into_bytes());
                self.bodies[id] = Some((seen, end));
                match then {
                    Then::Nothing => {}
                    Then::Answer(responder) if end == Some(End::Cut) => {
                        responder.send(reply.with_status(Status::CONFLICT));
                    }
                    Then::Answer(responder) => responder.send(reply),
                    Then::Mirror(stream) if end == Some(End::Complete) => self.gave_up[id] |= stream.close().is_err(),
                    Then::Mirror(stream) => drop(stream),
                }
                None
            }
            Work::Tunnel { mut upgraded } => {
                let mut bytes = Vec::new();
                let end = upgraded.input.poll(&mut bytes);
                upgraded.input.set_unsent_bytes(0);
                let gone = upgraded.output.write(&bytes).is_err();
                match end {
                    Some(End::Complete) => drop(upgraded.output.close()),
                    None if !gone => {
                        let pace = Duration::from_millis(self.random.within(1, 100) as u64);
                        return Some((pace, Work::Tunnel { upgraded }));
                    }
                    _ => {}
                }
                None
            }
        }
    }

    fn answer(&mut self, id: usize, responder: Responder, how: How, obeys: bool) -> Option<(Duration, Work)> {
        if obeys && responder.is_closed() {
            self.gave_up[id] = true;
            return None;
        }
        let body = how.body(id);
        let head = Reply::bytes(Status::OK, "text/plain", &[][..]);
        match how {
            How::Whole { .. } => {
                responder.send(head.with_body(body));
                None
            }
            How::Never => None,
            How::Stream { bytes, pace, sized, finish, .. } => {
                let stream = match sized {
                    true => responder.stream_sized(head, body.len() as u64),
                    false => responder.stream(head),
                };
                let left = body.chunks(bytes.max(1)).rev().map(<[u8]>::to_vec).collect();
                let work = Work::Write { stream: Producer::Stream(stream), left, pace, finish, obeys };
                Some((self.soon(pace), work))
            }
            How::Sse { events, pace, finish } => {
                let left = (0..events).rev().map(|n| n.to_string().into_bytes()).collect();
                let work = Work::Write { stream: Producer::Sse(responder.sse(&[])), left, pace, finish, obeys };
                Some((self.soon(pace), work))
            }
        }
    }

    /// At once, as often as not.
    fn soon(&mut self, pace: Duration) -> Duration {
        if self.random.one_in(2) { Duration::ZERO } else { pace }
    }
}

/// All routes. Layers say which request an answer is for.
pub fn router(stage: &Shared) -> Router {
    let of = |handler: fn(&Shared, &Request<'_>, Option<Body>) -> Reply| {
        let stage = Arc::clone(stage);
        move |request: &Request<'_>| handler(&stage, request, None)
    };
    let (streaming, strays, layer) = (Arc::clone(stage), Arc::clone(stage), Arc::clone(stage));
    Router::new()
        .get("/get", of(handle))
        .post("/buffer", of(handle))
        .limit_body("/buffer", BUFFER_BYTES_MAX)
        .route_streamed(Method::Post, "/stream", move |request, body| handle(&streaming, request, Some(body)))
        .post("/guarded", of(handle))
        .fallback(move |request: &Request<'_>| {
            lock(&strays).strays.push(request.path().to_string());
            Status::NOT_FOUND
        })
        .guard(|request| match request.path() {
            "/guarded" | "/shut" => Err(Reply::text("no").with_status(Status::UNAUTHORIZED)),
            _ => Ok(()),
        })
        .layer(move |request, next| {
            let reply = next.run(request);
            let Some(id) = request.header("x-id") else { return reply };
            let (number, reply) = (id.parse::<usize>().unwrap(), reply.header("x-id", id));
            if !lock(&layer).hooked[number] {
                return reply;
            }
            let stage = Arc::clone(&layer);
            reply.on_done(move |done| lock(&stage).done[number].push(*done))
        })
}

fn handle(stage: &Shared, request: &Request<'_>, body: Option<Body>) -> Reply {
    let mut stage_now = lock(stage);
    let (id, plan) = stage_now.plan(request);
    if body.is_none() {
        stage_now.bodies[id] = Some((request.body().to_vec(), Some(End::Complete)));
    }
    match plan {
        Plan::Whole { status, bytes, shared } => {
            let status = Status::from_code(status).unwrap();
            let body = pattern(id, bytes);
            if shared { Reply::shared("a/b", body.into()).with_status(status) } else { Reply::bytes(status, "", body) }
        }
        Plan::Panics => {
            drop(stage_now);
            // Not `panic!`, which would fill the log.
            std::panic::resume_unwind(Box::new("on purpose"))
        }
        Plan::Later { after, how, obeys, within } => {
            let (reply, responder) = Reply::later();
            let job = Work::Answer { responder, how, obeys };
            match after.is_zero() {
                // Before the connection has even begun to wait.
                true => {
                    if let Some((after, work)) = stage_now.act(id, job) {
                        stage_now.start(id, after, work);
                    }
                }
                false => stage_now.start(id, after, job),
            }
            within.into_iter().fold(reply, Reply::answer_within)
        }
        Plan::Read { after, pace, stop_after, answer } => {
            let Some(body) = body else { return Reply::empty(Status::CONFLICT) };
            let (reply, then) = match answer {
                WhileReading::Before => (Reply::text("before"), Then::Nothing),
                WhileReading::Behind => {
                    let (reply, responder) = Reply::later();
                    (reply, Then::Answer(responder))
                }
                WhileReading::Mirror => {
                    let (reply, responder) = Reply::later();
                    (reply, Then::Mirror(responder.stream(Reply::empty(Status::OK))))
                }
            };
            stage_now.start(id, after, Work::Read { body, seen: Vec::new(), pace, stop_after, then });
            reply
        }
        Plan::Ignore => Reply::text("ignored"),
        Plan::Echo => match body {
            Some(body) => Reply::stream(Reply::empty(Status::OK), body),
            None => Reply::bytes(Status::OK, "", request.body().to_vec()),
        },
        Plan::Upgrade => {
            let stage = Arc::clone(stage);
            Reply::upgrade(request, "echo", move |upgraded| {
                let mut stage = lock(&stage);
                stage.start(id, Duration::from_millis(1), Work::Tunnel { upgraded });
            })
        }
    }
}
