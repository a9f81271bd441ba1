//! The engine as its users hold it.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    blocks::BLOCK_TOKENS,
    config::EngineConfig,
    embedding::Embedding,
    encoder::{Done, EncodeRequest, Left},
    error::RequestError,
    executor::Executor,
    grammar::{Compiler, Masks},
    intake::{Goal, Intake, Submission},
    job::{Caller, Ticket},
    kv_cache::KvCache,
    models::{Model, Outcome, Spec},
    process,
    request::{Event, Flow, GenerateRequest, Sink},
    sampler::Sampler,
    scheduler::Scheduler,
    stats::EngineStats,
    team::Team,
    tokenizer::Tokenizer,
};

/// A cache for fewer tokens, if the context has more, is taken for a mistake.
const CACHE_TOKENS_MIN: usize = 128;

/// Why an engine could not start.
#[derive(Debug)]
pub enum StartError {
    /// This setting must be at least 1.
    Zero(&'static str),
    /// The KV cache has room for so few tokens that hardly any request could be served.
    CacheTooSmall {
        tokens: usize,
        tokens_min: usize,
    },
    /// The tokenizer has tokens that the model has no row for.
    Vocabulary {
        tokenizer: usize,
        model: usize,
    },
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(what) => write!(f, "{what} must be at least 1"),
            Self::CacheTooSmall { tokens, tokens_min } => {
                write!(f, "the KV cache has room for {tokens} tokens; give it memory for {tokens_min} at least")
            }
            Self::Vocabulary { tokenizer, model } => {
                write!(f, "the tokenizer has {tokenizer} tokens, but the model has rows for {model} only")
            }
            Self::Thread(error) => write!(f, "can't start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running engine; clones are handles to the same. Without handles it finishes what it has accepted and ends.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    name: String,
    spec: Spec,
    context: usize,
    running_max: usize,
    hidden: Option<usize>,
    queue_max: usize,
    tokenizer: Arc<Tokenizer>,
    grammars: Compiler,
    stats: Arc<EngineStats>,
    /// `None` once the engine is shutting down.
    submissions: Mutex<Option<Sender<Submission>>>,
    /// End everything now.
    closing: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Closed when the engine's thread has ended.
    ended: Receiver<()>,
}

impl Engine {
    /// Starts the threads of an engine: intake and executor. `cache` decides how much can run side by side.
    pub fn start(
        name: &str,
        model: Box<dyn Model>,
        cache: KvCache,
        tokenizer: Arc<Tokenizer>,
        config: EngineConfig,
    ) -> Result<Self, StartError> {
        let (spec, hidden) = (model.spec().clone(), model.hidden());
        let running_max = model.width_max().unwrap_or(usize::MAX).min(config.running_max);
        let config = EngineConfig { running_max, ..config };
        let context = config.context_max.map_or(spec.context, |max| max.min(spec.context));
        let blocks = cache.blocks();
        let settings = [
            ("step_tokens_max", config.step_tokens_max),
            ("step_prompt_tokens_max", config.step_prompt_tokens_max),
            ("running_max", config.running_max),
            ("queue_max", config.queue_max),
            ("the context", context),
            ("the KV cache", blocks),
        ];
        if let Some((what, _)) = settings.iter().find(|(_, value)| *value == 0) {
            return Err(StartError::Zero(what));
        }
        let tokens_min = CACHE_TOKENS_MIN.min(context);
        if blocks * BLOCK_TOKENS < tokens_min {
            return Err(StartError::CacheTooSmall { tokens: blocks * BLOCK_TOKENS, tokens_min });
        }
        if tokenizer.vocabulary() > spec.vocabulary {
            return Err(StartError::Vocabulary { tokenizer: tokenizer.vocabulary(), model: spec.vocabulary });
        }
        let stats = Arc::new(EngineStats::new(blocks));
        let closing = Arc::new(AtomicBool::new(false));
        // Requests in both channels are counted in `stats.queued`, which `submit` keeps within `queue_max`.
        let (submit, submissions) = bounded(config.queue_max);
        let (admit, inbox) = bounded(config.queue_max);
        let (end, ended) = bounded(0);
        let vocabulary = tokenizer.vocabulary();
        let intake = Intake {
            tokenizer: Arc::clone(&tokenizer),
            context,
            vocabulary,
            kv_blocks: blocks,
            draft_max: config.draft_max,
            closing: Arc::clone(&closing),
            submissions,
            admissible: admit,
        };
        let threads = model.team().map_or(1, Team::threads);
        let samplers = (0..threads).map(|_| Mutex::new(Sampler::new(vocabulary))).collect();
        let executor = Executor {
            model,
            cache,
            scheduler: Scheduler::new(&config, blocks),
            samplers,
            masks: Masks::new(),
            tokenizer: Arc::clone(&tokenizer),
            stats: Arc::clone(&stats),
            inbox,
            closing: Arc::clone(&closing),
            jobs: HashMap::new(),
            outcome: Outcome::default(),
            choices: vocabulary,
            failed_steps: 0,
        };
        let spawn = |role: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(format!("{role} {name}")).spawn(work).map_err(StartError::Thread)
        };
        let threads = vec![
            spawn("intake", Box::new(move || intake.run()))?,
            spawn(
                "engine",
                Box::new(move || {
                    let _end: Sender<()> = end;
                    process::give_way();
                    executor.run();
                }),
            )?,
        ];
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            spec,
            context,
            running_max,
            hidden,
            queue_max: config.queue_max,
            grammars: Compiler::new(&tokenizer),
            tokenizer,
            stats,
            submissions: Mutex::new(Some(submit)),
            closing,
            threads: Mutex::new(threads),
            ended,
        })))
    }

    /// Asks for inputs to be embedded beside what is generated: an input's vector is that of its last row after the last
    /// norm, given the length 1. As [`Encoder::submit`](super::encoder::Encoder::submit).
    pub fn embed(&self, request: EncodeRequest, left: Left, done: Done) {
        Embedding::start(self, request, left, done);
    }

    /// Values of the vectors that the model can [`embed`](Self::embed) to; `None`: it can't.
    pub fn hidden(&self) -> Option<usize> {
        self.0.hidden
    }

    /// Asks for a generation; never waits. Everything is told to `sink`, a refusal too: then before this returns, on the
    /// caller's thread.
    pub fn submit(&self, request: GenerateRequest, sink: Box<dyn Sink>) {
        self.submit_for(Goal::Text, request, sink);
    }

    pub(super) fn submit_for(&self, goal: Goal, request: GenerateRequest, sink: Box<dyn Sink>) {
        let inner = &self.0;
        let ticket = Ticket::take(&inner.stats, inner.queue_max);
        let full = ticket.is_none();
        let caller = Caller::new(sink, Arc::clone(&inner.stats), ticket);
        if full {
            return caller.fail(RequestError::QueueFull { length: inner.queue_max });
        }
        let submissions = inner.submissions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(submissions) = submissions else { return caller.fail(RequestError::ShuttingDown) };
        if let Err(refused) = submissions.try_send(Submission { goal, request, caller }) {
            refused.into_inner().caller.fail(RequestError::Internal("the engine has stopped".into()));
        }
    }

    /// Asks for a generation and gives its events as they come. Dropping the iterator cancels it.
    pub fn generate(&self, request: GenerateRequest) -> Generation {
        let (sender, events) = bounded(EVENTS_MAX);
        let reader = Arc::new(());
        self.submit(request, Box::new(ChannelSink { sender, reader: Arc::downgrade(&reader) }));
        Generation { events, _reader: reader }
    }

    /// Ends the engine: accepts no more, gives what it has accepted `grace` to finish, fails the rest with
    /// `ShuttingDown`, and waits for its threads. Not to be called by a sink.
    pub fn shutdown(&self, grace: Duration) {
        let inner = &self.0;
        drop(inner.submissions.lock().unwrap_or_else(PoisonError::into_inner).take());
        if !grace.is_zero() {
            // Nothing is ever sent: this ends with the thread, or with the grace.
            let _ = inner.ended.recv_timeout(grace);
        }
        inner.closing.store(true, Ordering::Relaxed);
        for thread in inner.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of engine {} had panicked", inner.name);
            }
        }
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn stats(&self) -> &EngineStats {
        &self.0.stats
    }

    pub fn spec(&self) -> &Spec {
        &self.0.spec
    }

    /// Tokens that prompt and answer may have together.
    pub fn context(&self) -> usize {
        self.0.context
    }

    /// Sequences that are generated side by side at most.
    pub fn running_max(&self) -> usize {
        self.0.running_max
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.0.tokenizer
    }

    /// Compiles grammars for requests to this engine.
    pub fn grammars(&self) -> &Compiler {
        &self.0.grammars
    }
}

/// A generation parks when this many events wait to be read; a step adds three at most.
const EVENTS_PARK: usize = 64;
const EVENTS_MAX: usize = EVENTS_PARK + 4;

/// The events of one generation; the last is `Finished` or `Failed`.
pub struct Generation {
    events: Receiver<Event>,
    /// Lives as long as anybody reads.
    _reader: Arc<()>,
}

impl Iterator for Generation {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.events.recv().ok()
    }
}

struct ChannelSink {
    sender: Sender<Event>,
    reader: Weak<()>,
}

impl Sink for ChannelSink {
    fn flow(&self) -> Flow {
        match self.reader.strong_count() {
            0 => Flow::Cancel,
            _ if self.sender.len() >= EVENTS_PARK => Flow::Park,
            _ => Flow::Continue,
        }
    }

    fn on_event(&mut self, event: Event) {
        // Never full, see `EVENTS_PARK`; closed when the reader has gone.
        let _ = self.sender.try_send(event);
    }
}
