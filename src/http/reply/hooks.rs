//! What is done with an answer once it is there, and once it has ended.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::Reply;
use crate::http::types::Status;

type Map = Box<dyn FnOnce(Reply) -> Reply + Send>;
type OnDone = Box<dyn FnOnce(&Done) + Send>;

/// What middleware hangs on a reply.
#[derive(Default)]
pub(super) struct Hooks {
    /// For a later answer, when it arrives.
    pub maps: Vec<Map>,
    pub done: Vec<OnDone>,
    pub within: Option<Duration>,
    /// Why this is an error, where the router is to give it its shape.
    pub refusal: Option<Cow<'static, str>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("maps", &self.maps.len()).field("done", &self.done.len()).finish()
    }
}

/// How an answer ended, for [`Reply::on_done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The status that the client was sent; 499 when it left before an answer began.
    pub status: Status,
    /// Bytes of the body that were handed to the connection, framing not counted.
    pub body_bytes: u64,
    /// Whether that was all of it. `false`: the client left, or the producer did.
    pub complete: bool,
}

/// What a reply that stands for a later one adds to it.
#[derive(Debug, Default)]
pub(crate) struct Later {
    lines: String,
    hooks: Option<Box<Hooks>>,
}

impl Later {
    pub(super) fn new(lines: String, hooks: Option<Box<Hooks>>) -> Later {
        Later { lines, hooks }
    }

    pub fn within(&self) -> Option<Duration> {
        self.hooks.as_ref()?.within
    }

    /// This answer will not be sent, but `status` instead, if anything.
    pub fn abandon(self, status: Status) {
        OnEnd { status, hooks: self.hooks }.tell(0, false);
    }

    /// The answer as it is sent.
    pub fn complete(self, answer: Reply) -> Reply {
        let answer = answer.with_lines_in_front(&self.lines);
        let Some(hooks) = self.hooks else { return answer };
        let mut answer = hooks.maps.into_iter().fold(answer, |answer, map| map(answer));
        if !hooks.done.is_empty() {
            answer.hooks().done.splice(0..0, hooks.done);
        }
        answer
    }
}

/// Whom to tell of an answer's end.
#[derive(Debug)]
pub(crate) struct OnEnd {
    status: Status,
    hooks: Option<Box<Hooks>>,
}

impl OnEnd {
    pub(super) fn new(status: Status, hooks: Option<Box<Hooks>>) -> OnEnd {
        OnEnd { status, hooks }
    }

    /// For another answer in place of the one that begins with `head`.
    pub fn into_later(self, head: &Reply) -> Later {
        Later { lines: head.headers.clone(), hooks: self.hooks }
    }

    pub fn tell(self, body_bytes: u64, complete: bool) {
        let done = Done { status: self.status, body_bytes, complete };
        self.hooks.into_iter().flat_map(|hooks| hooks.done).for_each(|tell| tell(&done));
    }
}
