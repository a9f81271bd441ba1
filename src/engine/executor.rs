//! The engine's thread: owns model, cache and scheduler, and turns steps into events.
//!
//! ```text
//! loop: take in ─▶ ask sinks ─▶ plan ─▶ forward ─▶ sample ─▶ commit ─▶ tell
//! ```
//!
//! Sleeps on its inbox while there is nothing to compute. Invariant: `jobs` and the scheduler know the same sequences.

use std::{
    borrow::Cow,
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::{
    batch::{Batch, Want},
    encoder::normalize,
    error::RequestError,
    grammar::{Ahead, Allowed, Masks, Progress},
    intake::Admissible,
    job::Job,
    kv_cache::KvCache,
    models::{Best, Model, Outcome},
    request::{FinishReason, Flow, StopCause},
    sampler::{BadLogits, Sampler},
    scheduler::{Chunk, Sampled, Scheduler, Step},
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
    pub sampler: Sampler,
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
        let Self { outcome, sampler, jobs, scheduler, stats, .. } = self;
        let mut rows = rows(batch, outcome, self.model.spec().vocabulary, self.model.hidden().unwrap_or(1));
        let mut embedded = Vec::new();
        let mut sampled = Vec::new();
        let mut failed = Vec::new();
        for chunk in step.chunks.iter().filter(|chunk| chunk.sample) {
            let rows: Vec<Row> = rows.by_ref().take(chunk.sampled_rows()).collect();
            if let [Row::Hidden(state)] = rows[..] {
                embedded.push((chunk.id, state.to_vec()));
                continue;
            }
            let (Some(job), Some(sequence)) = (jobs.get_mut(&chunk.id), scheduler.sequence(chunk.id)) else { continue };
            let ahead = match ahead.remove(&chunk.id).transpose() {
                Ok(ahead) => ahead,
                Err(why) => {
                    failed.push((chunk.id, RequestError::Grammar(why)));
                    continue;
                }
            };
            let choose = |row: Row, tokens: &[u32]| {
                let allowed = match &ahead {
                    None => &Allowed::All,
                    Some(ahead) => {
                        ahead.get(tokens.len() - sequence.tokens.len()).map(|(_, allowed)| allowed).ok_or(BadLogits)?
                    }
                };
                row.choose(allowed, sampler, job, tokens)
            };
            let chosen = follow(chunk, rows, &sequence.tokens, choose);
            let advanced = chosen.map_err(|BadLogits| RequestError::BadLogits).and_then(|tokens| {
                ahead.map_or(Ok(()), |ahead| job.advance(ahead, &tokens)).map_err(RequestError::Grammar)?;
                Ok(tokens)
            });
            match advanced {
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
            job.cached_tokens = self.scheduler.sequence(*id).map_or(0, |sequence| sequence.cached_tokens);
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

/// What the model gave for one sampled row.
enum Row<'a> {
    Best(Best),
    Logits(&'a mut [f32]),
    Hidden(&'a [f32]),
}

impl Row<'_> {
    /// The token after `tokens`.
    fn choose(self, allowed: &Allowed, sampler: &mut Sampler, job: &Job, tokens: &[u32]) -> Result<u32, BadLogits> {
        match self {
            Row::Best(best) if best.logit.is_finite() => Ok(best.token),
            Row::Best(_) | Row::Hidden(_) => Err(BadLogits),
            Row::Logits(logits) => {
                allowed.apply(logits);
                sampler.sample(logits, &job.sampling, tokens, job.seed)
            }
        }
    }
}

/// The sampled rows of a batch, in order.
fn rows<'a>(
    batch: &'a Batch,
    outcome: &'a mut Outcome,
    vocabulary: usize,
    hidden: usize,
) -> impl Iterator<Item = Row<'a>> {
    let mut best = outcome.best.iter().copied();
    let mut logits = outcome.logits.chunks_exact_mut(vocabulary);
    let mut states = outcome.hidden.chunks_exact(hidden);
    batch.sampled.iter().filter_map(move |(_, want)| match want {
        Want::Best => best.next().map(Row::Best),
        Want::Logits => logits.next().map(Row::Logits),
        Want::Hidden => states.next().map(Row::Hidden),
    })
}

/// What a chunk brings after `tokens`: a token from its first sampled row and, as long as the draft has just that token, one
/// from the row after it. Each is chosen as if there were no draft: with the tokens before it, and none of a wrong guess.
fn follow(
    chunk: &Chunk,
    rows: Vec<Row>,
    tokens: &[u32],
    mut choose: impl FnMut(Row, &[u32]) -> Result<u32, BadLogits>,
) -> Result<Vec<u32>, BadLogits> {
    let mut tokens = Cow::Borrowed(tokens);
    let mut chosen = Vec::with_capacity(rows.len());
    for (i, row) in rows.into_iter().enumerate() {
        match choose(row, &tokens) {
            Ok(token) => chosen.push(token),
            // A guess that can't be checked is not taken.
            Err(_) if i > 0 => break,
            Err(bad) => return Err(bad),
        }
        if chunk.draft.get(i) != chosen.last() {
            break;
        }
        tokens.to_mut().extend(chosen.last());
    }
    Ok(chosen)
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
