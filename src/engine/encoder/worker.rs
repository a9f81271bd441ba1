//! The encoder's thread: owns the model, and turns requests into steps.
//!
//! ```text
//! loop: take in ─▶ who left? ─▶ tokenise some ─▶ take inputs in turns ─▶ forward ─▶ tell
//! ```
//!
//! Sleeps on its inbox while there is nothing to do. Inputs are tokenised by the model's team, in turns as they are
//! computed, and all inputs of a request before the first of them is computed: what is wrong with one is found before time
//! is spent on the others. Invariant: a request in `jobs` has turns left in exactly one of `unread` and `ready`, or inputs
//! in the step that is being computed.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, TryRecvError};

use super::{
    batch::{InputBatch, InputTokens},
    caller::Caller,
    input::EncodeInput,
    model::EncoderModel,
    request::{EncodeError, EncodeRequest, Encoded},
    stats::EncoderStats,
    turns::{Taken, Turns},
};
use crate::engine::{error::RequestError, models::ForwardError, tokenizer::Tokenizer};

/// Bytes of text that are tokenised between two steps: some ten milliseconds of work.
const READ_BYTES: usize = 32 << 10;

pub(super) struct Worker {
    pub model: EncoderModel,
    pub tokenizer: Arc<Tokenizer>,
    pub stats: Arc<EncoderStats>,
    pub step_tokens_max: usize,
    pub inbox: Receiver<Submission>,
    pub closing: Arc<AtomicBool>,
    pub state: State,
}

/// A request as it was submitted.
pub(super) struct Submission {
    pub request: EncodeRequest,
    pub caller: Caller,
}

#[derive(Default)]
pub(super) struct State {
    jobs: HashMap<u64, Job>,
    next_id: u64,
    /// Inputs that are still text.
    unread: Turns,
    /// Inputs of requests that are tokens through and through.
    ready: Turns,
    batch: InputBatch,
    outputs: Vec<f32>,
}

struct Job {
    caller: Caller,
    truncate: bool,
    queue_timeout: Duration,
    texts: Vec<EncodeInput>,
    /// One for each input, empty until it is tokenised.
    inputs: Vec<InputTokens>,
    unread: usize,
    outputs: Vec<Vec<f32>>,
    uncomputed: usize,
}

impl Worker {
    /// Works until the inbox is closed and everything in it is done, or until `closing` is set.
    pub fn run(mut self) {
        let _guard = Unhealthy(Arc::clone(&self.stats));
        while self.take_in() {
            if self.closing.load(Ordering::Relaxed) {
                return self.close();
            }
            self.stats.awake();
            self.drop_those_who_left();
            self.read();
            self.step();
        }
    }

    /// Takes what has come in; waits for it if there is nothing to do. False when there will be nothing any more.
    fn take_in(&mut self) -> bool {
        if self.state.jobs.is_empty() {
            self.stats.asleep();
            match self.inbox.recv() {
                Ok(submission) => self.submit(submission),
                Err(_) => return false,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(submission) => self.submit(submission),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !self.state.jobs.is_empty(),
            }
        }
    }

    fn submit(&mut self, Submission { request, caller }: Submission) {
        let EncodeRequest { inputs: texts, truncate, queue_timeout } = request;
        if texts.is_empty() {
            return caller.fail(RequestError::EmptyPrompt);
        }
        let State { jobs, next_id, unread, .. } = &mut self.state;
        let (id, count) = (*next_id, texts.len());
        *next_id += 1;
        // An empty text costs a turn as well.
        unread.add(id, texts.iter().map(|text| text.bytes().max(1)).collect());
        let job = Job {
            caller,
            truncate,
            queue_timeout,
            texts,
            inputs: vec![InputTokens::of_one(Vec::new()); count],
            unread: count,
            outputs: vec![Vec::new(); count],
            uncomputed: count,
        };
        jobs.insert(id, job);
    }

    fn drop_those_who_left(&mut self) {
        let now = Instant::now();
        let gone: Vec<u64> =
            self.state.jobs.iter().filter(|(_, job)| job.caller.has_left()).map(|(id, _)| *id).collect();
        for id in gone {
            self.state.remove(id).into_iter().for_each(|job| job.caller.cancel());
        }
        let late = |job: &Job| job.caller.is_late(now, job.queue_timeout);
        let late: Vec<u64> = self.state.jobs.iter().filter(|(_, job)| late(job)).map(|(id, _)| *id).collect();
        for id in late {
            self.state.fail(id, RequestError::QueueTimeout);
        }
    }

    /// Tokenises some inputs, on all threads.
    fn read(&mut self) {
        let State { jobs, unread, ready, .. } = &mut self.state;
        let taken = unread.take(READ_BYTES);
        let text = |taken: &Taken| jobs.get(&taken.request).map(|job| (&job.texts[taken.input], job.truncate));
        let texts: Vec<_> = taken.iter().map(text).collect();
        let prepared: Vec<_> = taken.iter().map(|_| Mutex::new(None)).collect();
        let (tokenizer, spec) = (&*self.tokenizer, self.model.spec());
        self.model.share_out(taken.len(), |i| {
            let Some((text, truncate)) = texts[i] else { return };
            let prepare = || text.prepare(tokenizer, spec, truncate);
            // Tokenisers are not all ours: one that panics costs its request.
            let result = panic::catch_unwind(AssertUnwindSafe(prepare));
            let result = result.unwrap_or_else(|_| Err(RequestError::Internal("the tokenizer panicked".into())));
            *prepared[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        let mut refused = Vec::new();
        for (Taken { request, input }, result) in taken.into_iter().zip(prepared) {
            let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            let (Some(job), Some(result)) = (jobs.get_mut(&request), result) else { continue };
            match result {
                Ok(tokens) => {
                    job.inputs[input] = tokens;
                    job.unread -= 1;
                    if job.unread == 0 {
                        job.texts = Vec::new();
                        ready.add(request, job.inputs.iter().map(|input| input.tokens.len()).collect());
                    }
                }
                Err(error) => refused.push((request, EncodeError { input: Some(input), error })),
            }
        }
        for (request, error) in refused {
            self.state.fail(request, error);
        }
    }

    /// Computes some inputs.
    fn step(&mut self) {
        let started = Instant::now();
        let State { jobs, ready, batch, outputs, .. } = &mut self.state;
        let taken = ready.take(self.step_tokens_max);
        if taken.is_empty() {
            return;
        }
        batch.clear();
        for Taken { request, input } in &taken {
            if let Some(job) = jobs.get_mut(request) {
                job.caller.running();
                batch.push(&job.inputs[*input]);
            }
        }
        let model = &mut self.model;
        // Whatever a panic leaves half written belongs to this batch's requests, which all fail.
        let result = panic::catch_unwind(AssertUnwindSafe(|| model.forward(batch, outputs)));
        let result = result.unwrap_or_else(|_| Err(ForwardError("the model panicked".into())));
        self.stats.set_healthy(result.is_ok());
        match result {
            Ok(()) => {
                self.stats.steps_total.add(1);
                self.stats.step_us.set(started.elapsed().as_micros() as usize);
                let width = self.model.spec().output_width();
                self.state.tell(&taken, width);
            }
            Err(error) => {
                log::error!("a step of {} tokens failed: {}", batch.rows(), error.0);
                self.stats.failed_steps_total.add(1);
                for Taken { request, .. } in &taken {
                    self.state.fail(*request, RequestError::Internal(error.0.clone()));
                }
            }
        }
    }

    /// Ends everything now.
    fn close(mut self) {
        for (_, job) in self.state.jobs.drain() {
            job.caller.fail(RequestError::ShuttingDown);
        }
        for submission in self.inbox.iter() {
            submission.caller.fail(RequestError::ShuttingDown);
        }
    }
}

impl State {
    /// Hands out what a step gave, and ends the requests that are done.
    fn tell(&mut self, taken: &[Taken], width: usize) {
        for (Taken { request, input }, output) in taken.iter().zip(self.outputs.chunks_exact(width)) {
            let Some(job) = self.jobs.get_mut(request) else { continue };
            if output.iter().any(|x| !x.is_finite()) {
                let error = EncodeError { input: Some(*input), error: RequestError::BadLogits };
                self.unread.remove(*request);
                self.ready.remove(*request);
                self.jobs.remove(request).into_iter().for_each(|job| job.caller.fail(error.clone()));
                continue;
            }
            job.outputs[*input] = output.to_vec();
            job.uncomputed -= 1;
            if job.uncomputed == 0
                && let Some(job) = self.jobs.remove(request)
            {
                let prompt_tokens = job.inputs.iter().map(|input| input.tokens.len()).sum();
                job.caller.finish(Encoded { outputs: job.outputs, prompt_tokens });
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Job> {
        self.unread.remove(id);
        self.ready.remove(id);
        self.jobs.remove(&id)
    }

    fn fail(&mut self, id: u64, error: impl Into<EncodeError>) {
        if let Some(job) = self.remove(id) {
            job.caller.fail(error);
        }
    }
}

/// Marks the encoder unhealthy when its thread ends, by a panic too.
struct Unhealthy(Arc<EncoderStats>);

impl Drop for Unhealthy {
    fn drop(&mut self) {
        self.0.set_healthy(false);
        self.0.asleep();
    }
}
