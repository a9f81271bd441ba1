//! Counters and gauges of one encoder.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::engine::stats::Number;

/// Names ending in `_total` only grow. When a caller is told the end of its request, the gauges no longer hold it.
#[derive(Debug)]
pub struct EncoderStats {
    started: Instant,
    /// Requests of which something has been computed, and that are not done.
    pub running: Number,
    /// Requests accepted of which nothing has been computed yet.
    pub queued: Number,
    /// Tokens of requests that are done.
    pub prompt_tokens_total: Number,
    /// Inputs of requests that are done.
    pub inputs_total: Number,
    pub finished_total: Number,
    /// Requests whose reader left.
    pub cancelled_total: Number,
    /// Requests that were refused or failed.
    pub failed_total: Number,
    pub steps_total: Number,
    /// Steps in which the model failed or panicked.
    pub failed_steps_total: Number,
    /// Of the last step.
    pub step_us: Number,
    /// Microseconds after `started` at which the current turn of the loop began; 0 while it sleeps.
    turn_us: Number,
    healthy: AtomicBool,
}

impl EncoderStats {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            running: Number::default(),
            queued: Number::default(),
            prompt_tokens_total: Number::default(),
            inputs_total: Number::default(),
            finished_total: Number::default(),
            cancelled_total: Number::default(),
            failed_total: Number::default(),
            steps_total: Number::default(),
            failed_steps_total: Number::default(),
            step_us: Number::default(),
            turn_us: Number::default(),
            healthy: AtomicBool::new(true),
        }
    }

    /// For how long the encoder's thread has been in the current turn of its loop, for a watchdog; `None` while it sleeps.
    pub fn busy_for(&self) -> Option<Duration> {
        let turn_us = self.turn_us.get();
        (turn_us > 0).then(|| self.started.elapsed().saturating_sub(Duration::from_micros(turn_us)))
    }

    /// False after a failed step, until one succeeds, and when the encoder's thread has ended.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    pub(super) fn awake(&self) {
        self.turn_us.set(self.started.elapsed().as_micros() as usize + 1);
    }

    pub(super) fn asleep(&self) {
        self.turn_us.set(0);
    }
}
