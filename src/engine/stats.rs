//! Counters and gauges of one engine: written by its threads, read by anybody without waiting.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::request::{Event, FinishReason};

/// A number that one side sets or counts up and others read. Readers need no order among different numbers.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }

    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, count: usize) {
        self.0.fetch_sub(count as u64, Ordering::Relaxed);
    }

    /// Counts one up unless there are `max` already.
    pub(super) fn try_add(&self, max: usize) -> bool {
        let below_max = |n: u64| (n < max as u64).then_some(n + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_max).is_ok()
    }
}

/// Names ending in `_total` only grow. When a caller is told the end of its request, the gauges no longer hold it.
#[derive(Debug)]
pub struct EngineStats {
    started: Instant,
    /// Sequences that are being generated, those with a slow reader among them.
    pub running: Number,
    /// Requests accepted and not admitted yet.
    pub queued: Number,
    /// Sequences that lost their blocks and wait to go on.
    pub preempted: Number,
    /// Blocks that sequences hold.
    pub kv_blocks_used: Number,
    /// Blocks that nobody holds and whose tokens may come again; free for whoever needs them.
    pub kv_blocks_cached: Number,
    pub kv_blocks_total: Number,
    /// Prompt tokens of admitted requests.
    pub prompt_tokens_total: Number,
    /// Prompt tokens of ended requests that were in the cache, and requests that had any.
    pub cached_tokens_total: Number,
    pub prefix_hits_total: Number,
    pub generated_tokens_total: Number,
    /// Tokens that were guessed, and those of them that were right.
    pub drafted_tokens_total: Number,
    pub accepted_tokens_total: Number,
    pub preemptions_total: Number,
    /// Requests that ended at an end token, stop token or stop string.
    pub stopped_total: Number,
    /// Requests that ended at `max_tokens` or with a full context.
    pub length_total: Number,
    /// Requests whose reader left.
    pub cancelled_total: Number,
    /// Requests that were refused or failed.
    pub failed_total: Number,
    /// Requests failed for NaN or infinite logits; among `failed_total`.
    pub bad_logits_total: Number,
    /// Requests admitted, and how long they had waited together.
    pub admitted_total: Number,
    pub wait_us_total: Number,
    pub steps_total: Number,
    /// Steps in which the model failed or panicked.
    pub failed_steps_total: Number,
    /// Of the last step.
    pub step_us: Number,
    /// Microseconds after `started` at which the current turn of the loop began; 0 while it sleeps.
    turn_us: Number,
    healthy: AtomicBool,
}

impl EngineStats {
    pub(super) fn new(kv_blocks: usize) -> Self {
        let stats = Self {
            started: Instant::now(),
            running: Number::default(),
            queued: Number::default(),
            preempted: Number::default(),
            kv_blocks_used: Number::default(),
            kv_blocks_cached: Number::default(),
            kv_blocks_total: Number::default(),
            prompt_tokens_total: Number::default(),
            cached_tokens_total: Number::default(),
            prefix_hits_total: Number::default(),
            drafted_tokens_total: Number::default(),
            accepted_tokens_total: Number::default(),
            generated_tokens_total: Number::default(),
            preemptions_total: Number::default(),
            stopped_total: Number::default(),
            length_total: Number::default(),
            cancelled_total: Number::default(),
            failed_total: Number::default(),
            bad_logits_total: Number::default(),
            admitted_total: Number::default(),
            wait_us_total: Number::default(),
            steps_total: Number::default(),
            failed_steps_total: Number::default(),
            step_us: Number::default(),
            turn_us: Number::default(),
            healthy: AtomicBool::new(true),
        };
        stats.kv_blocks_total.set(kv_blocks);
        stats
    }

    /// Requests that wait: not admitted yet, or preempted.
    pub fn waiting(&self) -> u64 {
        self.queued.get() + self.preempted.get()
    }

    /// Of all requests admitted so far.
    pub fn average_wait(&self) -> Duration {
        Duration::from_micros(self.wait_us_total.get() / self.admitted_total.get().max(1))
    }

    /// For how long the engine's thread has been in the current turn of its loop, for a watchdog; `None` while it sleeps.
    pub fn busy_for(&self) -> Option<Duration> {
        let turn_us = self.turn_us.get();
        (turn_us > 0).then(|| self.started.elapsed().saturating_sub(Duration::from_micros(turn_us)))
    }

    /// False after three failed steps in a row, until one succeeds, and when the engine's thread has ended.
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

    pub(super) fn count_end(&self, event: &Event) {
        match event {
            Event::Started { .. } | Event::Piece { .. } => return,
            Event::Finished { reason: FinishReason::Stop(_), .. } => &self.stopped_total,
            Event::Finished { reason: FinishReason::Length, .. } => &self.length_total,
            Event::Finished { reason: FinishReason::Cancelled, .. } => &self.cancelled_total,
            Event::Failed(_) => &self.failed_total,
        }
        .add(1);
    }
}
