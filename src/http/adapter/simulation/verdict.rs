//! Judges a whole life: what the client got, against what it asked for.

use super::answers::{Answer, Framing};
use super::asks::{Ask, Route};
use super::client::{Client, Reading};
use super::handlers::{BUFFER_BYTES_MAX, Finish, How, Plan, Stage, WhileReading, pattern};
use crate::http::limits::Limits;
use crate::http::pipe::End;
use crate::reactor::WireEnd;

pub struct Verdict<'a> {
    pub client: &'a Client,
    pub stage: &'a mut Stage,
    pub limits: &'a Limits,
    pub seen_bytes: usize,
    pub drained: bool,
    pub budget_is_small: bool,
}

impl Verdict<'_> {
    /// Judges, and gives how many answers there were and how many of them were refusals or cut.
    pub fn give(&self) -> (usize, usize) {
        let (asks, answers) = (&self.client.asks, self.client.answers());
        assert!(self.stage.strays.iter().all(|path| path == "/missing"), "smuggled: {:?}", self.stage.strays);
        assert!(self.stage.calls.is_sorted_by(|a, b| a < b), "a request was handled twice: {:?}", self.stage.calls);
        for (n, answer) in answers.iter().enumerate() {
            match answer.id() {
                Some(id) => {
                    assert_eq!(id, n, "answers are out of order");
                    self.check_answer(n, &asks[n], answer);
                }
                None => {
                    assert_eq!(n + 1, answers.len(), "an answer behind a refusal");
                    self.check_refusal(n, answer);
                }
            }
        }
        self.check_all_answered(&answers);
        self.check_ends(&answers);
        self.check_bodies();
        (answers.len(), answers.iter().filter(|answer| answer.id().is_none() || !answer.complete).count())
    }

    /// The client sees everything that is sent to it, sooner or later.
    fn listens(&self) -> bool {
        !self.client.has_reset && !self.client.lost && !matches!(self.client.reading, Reading::Stops(_))
    }

    /// Every request that arrived whole, before the connection had a reason to end, has its answer.
    fn check_all_answered(&self, answers: &[Answer]) {
        if !self.listens() {
            return;
        }
        let last_is_last = answers.last().is_some_and(|last| {
            !last.complete || last.closes() || last.status == 101 || self.may_end_behind(answers.len() - 1)
        });
        // To HTTP/1.0 a stream can be cut only by a reset, which may take even its head along.
        let next = self.client.asks.get(answers.len());
        let is_reset = next.is_some_and(|ask| ask.http10 && self.may_be_cut(ask, answers.len()));
        let last_is_last = last_is_last || is_reset;
        let whole = self.client.asks.iter().take_while(|ask| ask.end.is_some_and(|end| end <= self.seen_bytes)).count();
        assert!(answers.len() >= whole || last_is_last, "{whole} requests got {} answers", answers.len());
        if let Some(status) = self.client.garbage
            && self.seen_bytes == self.client.sent_bytes
            && matches!(self.client.reading, Reading::Eager)
            && !last_is_last
            && !self.drained
        {
            panic!("no answer {status} to garbage");
        }
        // A cut answer is the fault of somebody, and nobody else sees a reset.
        let cut = answers.last().is_some_and(|last| !last.complete || last.framing == Framing::Switched);
        assert!(
            self.client.end == Some(WireEnd::Orderly) || cut || is_reset,
            "the connection was reset without a reason"
        );
    }

    fn check_answer(&self, n: usize, ask: &Ask, answer: &Answer) {
        let what = || format!("answer {n} to {ask:?}: {answer:?}");
        let persistent = ask.http10 && !answer.closes() && answer.status != 101;
        assert_eq!(answer.header("connection") == Some("keep-alive"), persistent, "{}", what());
        assert!(!ask.closes || answer.status == 101 || answer.closes(), "{}", what());
        assert!(!answer.closes() || self.may_close(n, ask, answer), "no reason to close: {}", what());
        assert!(!answer.continued || (ask.expects && !ask.http10), "100 Continue to {}", what());
        let statuses = self.statuses(ask, n);
        assert!(statuses.contains(&answer.status), "none of {statuses:?}: {}", what());
        let expected = match (answer.status, ask.route, &ask.plan) {
            _ if ask.method == "HEAD" => return,
            (401 | 405 | 413 | 426 | 500 | 504, ..) | (_, Route::Missing, _) => return,
            (204 | 205 | 304, ..) => Vec::new(),
            (_, _, Plan::Whole { bytes, .. }) => pattern(n, *bytes),
            (_, _, Plan::Later { how, .. }) => how.body(n),
            (_, _, Plan::Ignore) => b"ignored".to_vec(),
            (_, _, Plan::Echo | Plan::Read { answer: WhileReading::Mirror, .. }) => ask.body.clone(),
            (_, _, Plan::Read { answer: WhileReading::Before, .. }) => b"before".to_vec(),
            (_, _, Plan::Read { .. }) => {
                let seen = self.stage.bodies[n].as_ref().map_or(0, |(seen, _)| seen.len());
                seen.to_string().into_bytes()
            }
            (_, _, Plan::Upgrade | Plan::Panics) => answer.body.clone(),
        };
        let body = without_pings(&answer.body);
        assert!(expected.starts_with(&body) || is_piece_of_ping(&expected, &body), "not its body: {}", what());
        assert!(!answer.complete || expected == body || self.client.lost, "cut unseen: {}", what());
        if self.listens() && !answer.complete {
            assert!(self.may_be_cut(ask, n), "cut without a reason: {}", what());
        }
    }

    fn statuses(&self, ask: &Ask, n: usize) -> Vec<u16> {
        if ask.route == Route::Shut || ask.route == Route::Guarded {
            return vec![401];
        }
        let too_large = match ask.route {
            Route::Buffer => ask.body.len() > BUFFER_BYTES_MAX,
            Route::Missing => ask.body.len() > self.limits.body_bytes_max,
            _ => false,
        };
        if too_large {
            return vec![413];
        }
        match ask.route {
            Route::Guarded | Route::Shut => return vec![401],
            Route::NotAllowed => return vec![405],
            Route::Missing => return vec![404],
            Route::Get | Route::Buffer | Route::Stream | Route::Upgrade => {}
        }
        match &ask.plan {
            Plan::Whole { status, .. } => vec![*status],
            Plan::Panics => vec![500],
            Plan::Later { how, within, .. } => {
                let mut statuses = vec![if matches!(how, How::Never) { 500 } else { 200 }];
                statuses.extend(within.map(|_| 504));
                statuses.extend(self.stage.gave_up[n].then_some(500));
                statuses
            }
            Plan::Read { answer: WhileReading::Behind, .. } if ask.end.is_none() => vec![200, 409],
            Plan::Read { .. } | Plan::Ignore | Plan::Echo => vec![200],
            Plan::Upgrade if ask.http10 => vec![426],
            Plan::Upgrade if ask.body.is_empty() && !ask.chunked => vec![101],
            // It cannot be granted while the body arrives.
            Plan::Upgrade => vec![101, 500],
        }
    }

    fn may_close(&self, n: usize, ask: &Ask, answer: &Answer) -> bool {
        let last = n as u64 + 1 >= self.limits.requests_per_connection_max;
        let rest_unread = !ask.body.is_empty() || ask.chunked;
        let until_close = ask.http10 && answer.framing == Framing::UntilClose;
        ask.closes || self.drained || last || rest_unread || until_close
    }

    /// Whether an answer may end before its end: its producer cut it, or gave up, or its own source was cut.
    fn may_be_cut(&self, ask: &Ask, n: usize) -> bool {
        match &ask.plan {
            Plan::Later { how: How::Stream { finish, .. } | How::Sse { finish, .. }, .. } => {
                *finish == Finish::Cut || self.stage.gave_up[n]
            }
            Plan::Read { answer: WhileReading::Mirror, stop_after, .. } => {
                ask.end.is_none() || *stop_after < usize::MAX || self.stage.gave_up[n] || !self.client.prompt
            }
            Plan::Read { answer: WhileReading::Before | WhileReading::Behind, .. } => false,
            Plan::Echo => ask.end.is_none() || !self.client.prompt,
            _ => false,
        }
    }

    /// Whether a producer writes all that it has promised and then drops its stream instead of closing it.
    fn is_cut_at_its_end(&self, n: usize) -> bool {
        let gave_up = self.stage.gave_up[n];
        let sized_cut = |how: &How| match how {
            How::Stream { sized, finish, .. } => *sized && (gave_up || *finish == Finish::Cut),
            _ => false,
        };
        matches!(&self.client.asks[n].plan, Plan::Later { how, .. } if sized_cut(how))
    }

    /// Whether something after its answer has begun, and said nothing of this, may end the connection behind it.
    fn may_end_behind(&self, n: usize) -> bool {
        let Some(ask) = self.client.asks.get(n) else { return false };
        let stops = matches!(ask.plan, Plan::Read { stop_after, .. } if stop_after < usize::MAX);
        let slow_rest = !self.client.prompt && !ask.body.is_empty();
        self.drained || slow_rest || self.is_cut_at_its_end(n) || (stops && ask.route == Route::Stream)
    }

    /// An answer to what is no request, or is one no more.
    fn check_refusal(&self, n: usize, answer: &Answer) {
        let ask = self.client.asks.get(n);
        assert!(answer.closes(), "a refusal ends the connection: {answer:?}");
        let allowed = match (answer.status, ask) {
            (408, _) => !self.client.prompt || ask.is_none_or(|ask| ask.end.is_none()),
            (400, Some(ask)) => ask.broken,
            (413, Some(ask)) => ask.chunked && self.statuses(ask, n) == [413],
            (503, Some(ask)) => self.budget_is_small && matches!(ask.route, Route::Buffer | Route::Missing),
            (status, None) => self.client.garbage == Some(status),
            _ => false,
        };
        assert!(allowed, "refused without a reason: {answer:?} to {ask:?}");
    }

    /// Everybody who waited for the end of an answer was told, once, and told the truth.
    fn check_ends(&self, answers: &[Answer]) {
        for (n, done) in self.stage.done.iter().enumerate() {
            let answer = answers.get(n).filter(|answer| answer.id() == Some(n));
            if !self.stage.hooked[n] {
                continue;
            }
            let called = self.stage.calls.contains(&n);
            assert!(done.len() == 1 || (done.is_empty() && !called), "request {n}: told {done:?}");
            let (Some(done), Some(answer)) = (done.first(), answer) else { continue };
            assert_eq!(done.status.code(), answer.status, "request {n}");
            if answer.complete && self.client.asks[n].method != "HEAD" && answer.framing != Framing::Switched {
                assert!(done.complete || self.is_cut_at_its_end(n), "request {n}: {done:?}, though {answer:?}");
                let pings = answer.body.len() - without_pings(&answer.body).len();
                assert_eq!(done.body_bytes as usize, answer.body.len() - pings, "request {n}: {answer:?}");
            }
        }
    }

    /// Handlers saw the bodies that were sent.
    fn check_bodies(&self) {
        for (n, body) in self.stage.bodies.iter().enumerate() {
            let Some((seen, end)) = body else { continue };
            let ask = &self.client.asks[n];
            assert!(ask.body.starts_with(seen), "request {n}: {} bytes that are not its body", seen.len());
            if *end == Some(End::Complete) {
                assert_eq!(seen.len(), ask.body.len(), "request {n}: a part of a body was taken for all of it");
            }
        }
    }
}

const PING: &[u8] = b": ping\n\n";

fn without_pings(body: &[u8]) -> Vec<u8> {
    let mut left = Vec::new();
    let mut rest = body;
    while let Some((byte, after)) = rest.split_first() {
        match rest.strip_prefix(PING) {
            Some(after) => rest = after,
            None => {
                left.push(*byte);
                rest = after;
            }
        }
    }
    left
}

/// A stream that was cut within a ping.
fn is_piece_of_ping(expected: &[u8], body: &[u8]) -> bool {
    (1..PING.len()).any(|len| body.strip_suffix(&PING[..len]).is_some_and(|body| expected.starts_with(body)))
}
