//! Whoever asked, on the way through the encoder.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    request::{EncodeError, Encoded},
    stats::EncoderStats,
};
use crate::engine::error::RequestError;

/// Asked before every step: whether nobody waits for the answer any more.
pub type Left = Box<dyn Fn() -> bool + Send>;
/// Told the end, once, on the encoder's thread or, for a refusal, on the caller's: must not block.
pub type Done = Box<dyn FnOnce(Result<Encoded, EncodeError>) + Send>;

/// Is told exactly one end: by [`finish`](Self::finish), by [`fail`](Self::fail), or when dropped without either; but
/// nobody who has left.
pub(super) struct Caller {
    left: Left,
    /// `None` once the end has been told.
    done: Option<Done>,
    stats: Arc<EncoderStats>,
    place: Place,
    pub received: Instant,
}

/// Which gauge holds the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Queued,
    Running,
}

impl Caller {
    /// With a place in the queue, if there are fewer than `queue_max` in it.
    pub fn queued(left: Left, done: Done, stats: &Arc<EncoderStats>, queue_max: usize) -> (Self, bool) {
        let fits = stats.queued.try_add(queue_max);
        let place = if fits { Place::Queued } else { Place::Nowhere };
        (Self { left, done: Some(done), stats: Arc::clone(stats), place, received: Instant::now() }, fits)
    }

    pub fn has_left(&self) -> bool {
        (self.left)()
    }

    pub fn is_late(&self, now: Instant, queue_timeout: Duration) -> bool {
        self.place == Place::Queued && now.saturating_duration_since(self.received) >= queue_timeout
    }

    /// Something of it is computed.
    pub fn running(&mut self) {
        if self.place == Place::Queued {
            self.leave();
            self.stats.running.add(1);
            self.place = Place::Running;
        }
    }

    pub fn finish(mut self, encoded: Encoded) {
        self.stats.finished_total.add(1);
        self.stats.prompt_tokens_total.add(encoded.prompt_tokens);
        self.stats.inputs_total.add(encoded.outputs.len());
        self.end(Ok(encoded));
    }

    pub fn fail(mut self, error: impl Into<EncodeError>) {
        self.stats.failed_total.add(1);
        self.end(Err(error.into()));
    }

    /// Nobody is there to be told.
    pub fn cancel(mut self) {
        self.stats.cancelled_total.add(1);
        self.done = None;
    }

    fn end(&mut self, result: Result<Encoded, EncodeError>) {
        self.leave();
        if let Some(done) = self.done.take() {
            done(result);
        }
    }

    fn leave(&mut self) {
        match std::mem::replace(&mut self.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Queued => self.stats.queued.subtract(1),
            Place::Running => self.stats.running.subtract(1),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.done.is_some() {
            self.stats.failed_total.add(1);
        }
        self.end(Err(RequestError::Internal("the encoder has stopped".into()).into()));
    }
}
