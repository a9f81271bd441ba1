//! The engine's thread: owns model, cache and scheduler, and turns steps into events.
//!
//! ```text
//! loop: take in ─▶ ask sinks ─▶ plan ─▶ forward ─▶ sample ─▶ commit ─▶ tell
//! ```
//!
//! Sleeps on its inbox while there is nothing to compute. Invariant: `jobs` and the scheduler know the same sequences.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::{
    batch::{Batch, Want},
    choose::{Done, Row, Task, choose, rows},
    encoder::normalize,
    error::RequestError,
    grammar::{Ahead, Masks, Progress},
    intake::Admissible,
    job::Job,
    kv_cache::KvCache,
    models::{Model, Outcome},
    request::{FinishReason, Flow, StopCause},
    sampler::Sampler,
    scheduler::{Sampled, Scheduler, Step},
    sequence::SeqId,
    stats::EngineStats,
    tokenizer::Tokenizer,
};

/// While all readers are behind, they are asked again after this long.
const PARKED_POLL: Duration = Duration::from_millis(5);

/// So many failed steps in a row make the engine unhealthy.
const FAILED_STEPS_MAX: u32 = 3;

pub struct Executor {
    pub model: Box<dyn Model>,
    pub cache: KvCache,
    pub scheduler: Scheduler,
    /// One for each thread that may sample.
    pub samplers: Vec<Mutex<Sampler>>,
    pub masks: Masks,
    pub tokenizer: Arc<Tokenizer>,
    pub stats: Arc<EngineStats>,
    pub inbox: Receiver<Admissible>,
    pub closing: Arc<AtomicBool>,
    pub jobs: HashMap<SeqId, Job>,
    pub outcome: Outcome,
    /// Tokens of the tokenizer; higher ids of the model are padding.
    pub choices: usize,
    /// In a row, up to now.
    pub failed_steps: u32,
}

impl Executor {
    /// Works until the inbox is closed and everything in it is done, or until `closing` is set.
    pub fn run(mut self) {
        let _guard = Unhealthy(Arc::clone(&self.stats));
        let mut computing = false;
        while self.take_in(computing) {
            if self.closing.load(Ordering::Relaxed) {
                return self.close();
            }
            self.stats.awake();
            self.ask_sinks();
            computing = self.step();
        }
    }

    /// Takes what has come in; waits for it if nothing is being computed. False when there is and will be nothing to do.
    fn take_in(&mut self, computing: bool) -> bool {
        let mut open = true;
        if !computing {
            self.stats.asleep();
            let waited = match self.jobs.is_empty() {
                true => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.inbox.recv_timeout(PARKED_POLL),
            };
            match waited {
                Ok(admissible) => self.submit(admissible),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(admissible) => self.submit(admissible),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        if !open && !computing && !self.jobs.is_empty() {
            // A closed inbox no longer waits for us.
            thread::park_timeout(PARKED_POLL);
        }
        open || !self.jobs.is_empty()
    }

    fn submit(&mut self, Admissible { sequence, job }: Admissible) {
        let id = sequence.id;
        match self.scheduler.submit(sequence) {
            Ok(()) => drop(self.jobs.insert(id, job)),
            Err(error) => job.caller.fail(error),
        }
    }

    /// Readers that left are dropped before anything more is computed for them, those behind are parked.
    fn ask_sinks(&mut self) {
        let mut gone = Vec::new();
        for (&id, job) in &mut self.jobs {
            let flow = job.caller.flow();
            if flow == Flow::Cancel {
                gone.push(id);
            }
            let parked = flow == Flow::Park;
            if std::mem::replace(&mut job.parked, parked) != parked {
                self.scheduler.set_parked(id, parked);
            }
        }
        for id in gone {
            self.finish(id, FinishReason::Cancelled);
        }
    }

    /// Plans and computes one step. False if there was nothing to compute.
    fn step(&mut self) -> bool {
        let started = Instant::now();
        let step = self.scheduler.plan(started);
        self.note(&step, started);
        if step.chunks.is_empty() {
            return false;
        }
        let batch = self.scheduler.batch(&step, self.choices);
        self.ask_masks(&step);
        let computed = self.forward(&batch);
        let ahead = self.masks.collect();
        match computed {
            Ok(()) => {
                let sampled = self.sample(&step, &batch, ahead);
                let elapsed = started.elapsed();
                self.scheduler.commit(&step, &sampled, elapsed);
                self.stats.steps_total.add(1);
                self.stats.step_us.set(elapsed.as_micros() as usize);
                self.failed_steps = 0;
                self.stats.set_healthy(true);
                self.tell(&sampled);
            }
            Err(why) => {
                log::error!("a step of {} rows failed: {why}", batch.rows());
                self.failed_steps += 1;
                self.stats.failed_steps_total.add(1);
                if self.failed_steps >= FAILED_STEPS_MAX {
                    self.stats.set_healthy(false);
                }
                for chunk in &step.chunks {
                    self.fail(chunk.id, RequestError::Internal(why.clone()));
                }
            }
        }
        true
    }

    /// Who has come and gone by the plan.
    fn note(&mut self, step: &Step, now: Instant) {
        for id in &step.expired {
            self.fail(*id, RequestError::QueueTimeout);
        }
        for id in &step.overdue {
            self.fail(*id, RequestError::Timeout);
        }
        for id in &step.admitted {
            if let Some(job) = self.jobs.get_mut(id)
                && job.caller.admitted(now)
            {
                self.stats.prompt_tokens_total.add(job.prompt_tokens);
            }
        }
        for id in &step.preempted {
            if let Some(job) = self.jobs.get_mut(id) {
                job.caller.preempted();
                self.stats.preemptions_total.add(1);
            }
        }
        self.publish();
    }

    /// What the sampled rows may choose from is worked out while the model computes them.
    fn ask_masks(&mut self, step: &Step) {
        for chunk in step.chunks.iter().filter(|chunk| chunk.sample) {
            if let Some(constraint) = self.jobs.get_mut(&chunk.id).and_then(|job| job.constraint.take()) {
                self.masks.ask(chunk.id, *constraint, &chunk.draft);
            }
        }
    }

    /// Leaves what the batch wants in `self.outcome`.
    fn forward(&mut self, batch: &Batch) -> Result<(), String> {
        let (model, cache, outcome) = (&mut self.model, &mut self.cache, &mut self.outcome);
        // Whatever a panic leaves half written belongs to this batch's sequences, which all fail.
        panic::catch_unwind(AssertUnwindSafe(|| model.forward(batch, cache, outcome)))
            .map_err(|panic| format!("the model panicked: {}", panic_message(&*panic)))?
            .map_err(|error| error.0)?;
        let count = |wanted: Want| batch.sampled.iter().filter(|(_, want)| *want == wanted).count();
        let hidden = self.model.hidden().unwrap_or(0);
        let expected =
            (count(Want::Logits) * self.model.spec().vocabulary, count(Want::Best), count(Want::Hidden) * hidden);
        match (self.outcome.logits.len(), self.outcome.best.len(), self.outcome.hidden.len()) {
            given if given == expected => Ok(()),
            given => Err(format!("the model gave {given:?} logits, best tokens and states, not {expected:?}")),
        }
    }

    /// The next tokens of every sequence that has some; those without usable logits fail, and those whose grammar does.
    fn sample(&mut self, step: &Step, batch: &Batch, mut ahead: HashMap<SeqId, Result<Ahead, String>>) -> Vec<Sampled> {
        let Self { outcome, samplers, jobs, scheduler, stats, tokenizer, model, .. } = self;
        let mut rows = rows(batch, outcome, model.spec().vocabulary, model.hidden().unwrap_or(1));
        let (mut tasks, mut embedded) = (Vec::new(), Vec::new());
        for chunk in step.chunks.iter().filter(|chunk| chunk.wanted_rows() > 0) {
            let rows: Vec<Row> = rows.by_ref().take(chunk.wanted_rows()).collect();
            if let [Row::Hidden(state)] = rows[..] {
                embedded.push((chunk.id, state.to_vec()));
                continue;
            }
            let Some(sequence) = scheduler.sequence(chunk.id) else { continue };
            // Each goes to a thread with all that is its own.
            let Some(job) = jobs.remove(&chunk.id) else { continue };
            let ahead = ahead.remove(&chunk.id).transpose();
            tasks.push(Task { chunk, rows, tokens: &sequence.tokens, ahead, job });
        }
        let mut sampled = Vec::new();
        let mut failed = Vec::new();
        for Done { chunk, job, chosen } in choose(tasks, samplers, tokenizer, model.team()) {
            jobs.insert(chunk.id, job);
            match chosen {
                Ok(tokens) if tokens.is_empty() => {}
                Ok(tokens) => {
                    stats.drafted_tokens_total.add(chunk.draft.len());
                    stats.accepted_tokens_total.add(tokens.len() - 1);
                    sampled.push((chunk.id, tokens));
                }
                Err(error) => failed.push((chunk.id, error)),
            }
        }
        drop(rows);
        for (id, vector) in embedded {
            match vector.iter().all(|x| x.is_finite()) {
                true => self.finish_vector(id, vector),
                false => failed.push((id, RequestError::BadLogits)),
            }
        }
        for (id, error) in failed {
            if error == RequestError::BadLogits {
                self.stats.bad_logits_total.add(1);
                self.scheduler.discard(id);
            }
            self.fail(id, error);
        }
        sampled
    }

    /// Hands the tokens out, and ends what has come to its end.
    fn tell(&mut self, sampled: &[Sampled]) {
        let now = Instant::now();
        for (id, tokens) in sampled {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            if let Some(sequence) = self.scheduler.sequence(*id) {
                job.cached_tokens = sequence.cached_tokens;
                job.start(&sequence.tokens);
            }
            if !job.wants_tokens {
                self.finish(*id, FinishReason::Length);
                continue;
            }
            let before = job.generated_tokens;
            let stopped = job.push(tokens, now, &self.tokenizer);
            self.stats.generated_tokens_total.add(job.generated_tokens - before);
            if let Some(cause) = stopped {
                self.finish(*id, FinishReason::Stop(cause));
            } else if job.progress == Progress::Complete {
                self.finish(*id, FinishReason::Stop(StopCause::Complete));
            } else if self.scheduler.sequence(*id).is_none_or(|s| s.tokens.len() >= s.tokens_max) {
                self.finish(*id, FinishReason::Length);
            } else if let Some(constraint) = &mut job.constraint {
                self.scheduler.foretell(*id, || constraint.forced());
            }
        }
    }

    fn finish(&mut self, id: SeqId, reason: FinishReason) {
        if let Some(job) = self.remove(id) {
            job.finish(reason);
        }
    }

    /// Nothing is generated from a prompt that is embedded: this is its end.
    fn finish_vector(&mut self, id: SeqId, mut vector: Vec<f32>) {
        normalize(&mut vector);
        if let Some(mut job) = self.remove(id) {
            job.caller.vector(vector);
            job.finish(FinishReason::Length);
        }
    }

    fn fail(&mut self, id: SeqId, error: RequestError) {
        if let Some(job) = self.remove(id) {
            job.caller.fail(error);
        }
    }

    /// Takes a sequence out; the gauges know it before its caller does.
    fn remove(&mut self, id: SeqId) -> Option<Job> {
        let sequence = self.scheduler.remove(id);
        self.publish();
        let mut job = self.jobs.remove(&id)?;
        job.cached_tokens = sequence.map_or(0, |sequence| sequence.cached_tokens);
        self.stats.cached_tokens_total.add(job.cached_tokens);
        self.stats.prefix_hits_total.add(usize::from(job.cached_tokens > 0));
        Some(job)
    }

    fn publish(&self) {
        self.stats.running.set(self.scheduler.running_count());
        self.stats.preempted.set(self.scheduler.preempted_count());
        self.stats.kv_blocks_used.set(self.scheduler.blocks_held());
        self.stats.kv_blocks_cached.set(self.scheduler.blocks_cached());
    }

    /// Ends everything now.
    fn close(mut self) {
        let ids: Vec<SeqId> = self.jobs.keys().copied().collect();
        for id in ids {
            self.fail(id, RequestError::ShuttingDown);
        }
        // The intake sends nothing more once it has seen `closing`, and then closes the inbox.
        for admissible in self.inbox.iter() {
            admissible.job.caller.fail(RequestError::ShuttingDown);
        }
    }
}

/// Marks the engine unhealthy when its thread ends, by a panic too.
struct Unhealthy(Arc<EngineStats>);

impl Drop for Unhealthy {
    fn drop(&mut self) {
        self.0.set_healthy(false);
        self.0.asleep();
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
