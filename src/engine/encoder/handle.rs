//! The encoder as its users hold it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    blueprint::EncoderSpec,
    caller::{Caller, Done, Left},
    model::EncoderModel,
    request::{EncodeError, EncodeRequest, Encoded},
    stats::EncoderStats,
    worker::{State, Submission, Worker},
};
use crate::engine::{StartError, error::RequestError, process, tokenizer::Tokenizer};

/// Bounds and budgets of one encoder; [`Default`] gives the values named here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Tokens of one step: 512. Weights are read once a step, and a request that comes waits for one step.
    pub step_tokens_max: usize,
    /// Requests accepted of which nothing is computed yet: 512. Over it: `QueueFull`.
    pub queue_max: usize,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self { step_tokens_max: 512, queue_max: 512 }
    }
}

/// A running encoder; clones are handles to the same. Without handles it finishes what it has accepted and ends.
#[derive(Clone)]
pub struct Encoder(Arc<Inner>);

struct Inner {
    name: String,
    spec: EncoderSpec,
    queue_max: usize,
    tokenizer: Arc<Tokenizer>,
    stats: Arc<EncoderStats>,
    /// `None` once the encoder is shutting down.
    submissions: Mutex<Option<Sender<Submission>>>,
    /// End everything now.
    closing: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Encoder {
    /// Starts the encoder's thread.
    pub fn start(
        name: &str,
        model: EncoderModel,
        tokenizer: Arc<Tokenizer>,
        config: EncoderConfig,
    ) -> Result<Self, StartError> {
        for (what, value) in [("step_tokens_max", config.step_tokens_max), ("queue_max", config.queue_max)] {
            if value == 0 {
                return Err(StartError::Zero(what));
            }
        }
        let spec = model.spec().clone();
        if tokenizer.vocabulary() > spec.vocabulary {
            return Err(StartError::Vocabulary { tokenizer: tokenizer.vocabulary(), model: spec.vocabulary });
        }
        let stats = Arc::new(EncoderStats::new());
        let closing = Arc::new(AtomicBool::new(false));
        // What is in the channel is counted in `stats.queued`, which `submit` keeps within `queue_max`.
        let (submissions, inbox) = bounded(config.queue_max);
        let (end, ended) = bounded::<()>(0);
        let worker = Worker {
            model,
            tokenizer: Arc::clone(&tokenizer),
            stats: Arc::clone(&stats),
            step_tokens_max: config.step_tokens_max,
            inbox,
            closing: Arc::clone(&closing),
            state: State::default(),
        };
        let work = move || {
            let _end = end;
            process::give_way();
            worker.run();
        };
        let thread = thread::Builder::new().name(format!("encoder {name}")).spawn(work).map_err(StartError::Thread)?;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            spec,
            queue_max: config.queue_max,
            tokenizer,
            stats,
            submissions: Mutex::new(Some(submissions)),
            closing,
            thread: Mutex::new(Some(thread)),
            ended,
        })))
    }

    /// Asks for inputs to be encoded; never waits. `done` is told the end, a refusal before this returns; it is dropped
    /// untold if `left` says before a step that nobody waits any more.
    pub fn submit(&self, request: EncodeRequest, left: Left, done: Done) {
        let inner = &self.0;
        let (caller, fits) = Caller::queued(left, done, &inner.stats, inner.queue_max);
        if !fits {
            return caller.fail(RequestError::QueueFull { length: inner.queue_max });
        }
        let submissions = inner.submissions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(submissions) = submissions else { return caller.fail(RequestError::ShuttingDown) };
        if let Err(refused) = submissions.try_send(Submission { request, caller }) {
            refused.into_inner().caller.fail(RequestError::Internal("the encoder has stopped".into()));
        }
    }

    /// Encodes, and waits for it.
    pub fn encode(&self, request: EncodeRequest) -> Result<Encoded, EncodeError> {
        let (told, end) = bounded(1);
        // Nobody else has the receiver, and it is there until it has been told.
        let done = move |result| drop(told.send(result));
        self.submit(request, Box::new(|| false), Box::new(done));
        end.recv().unwrap_or_else(|_| Err(RequestError::Internal("the encoder has stopped".into()).into()))
    }

    /// Ends the encoder: accepts no more, gives what it has accepted `grace` to finish, fails the rest with
    /// `ShuttingDown`, and waits for its thread. Not to be called by a `done`.
    pub fn shutdown(&self, grace: Duration) {
        let inner = &self.0;
        drop(inner.submissions.lock().unwrap_or_else(PoisonError::into_inner).take());
        if !grace.is_zero() {
            // Nothing is ever sent: this ends with the thread, or with the grace.
            let _ = inner.ended.recv_timeout(grace);
        }
        inner.closing.store(true, Ordering::Relaxed);
        let thread = inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread of encoder {} had panicked", inner.name);
        }
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn stats(&self) -> &EncoderStats {
        &self.0.stats
    }

    pub fn spec(&self) -> &EncoderSpec {
        &self.0.spec
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.0.tokenizer
    }
}
