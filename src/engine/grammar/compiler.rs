//! Compiles grammars in threads of its own, each once, in bounded time.
//!
//! ```text
//! compile ──▶ cached? ─▶ then
//!                │ no
//!                ▼
//!   desk (one thread): waiting ──▶ running, a thread each ──▶ cache, then, then, ...
//!                                     │ deadline
//!                                     └─▶ late: its askers have been told; the thread ends when it ends
//! ```
//!
//! A compilation can't be interrupted. One that is late counts against the number of threads until it has ended, so hostile
//! sources cost at most so many threads, each bounded by the matcher's own limits; meanwhile others are told [`Busy`], or run.
//!
//! [`Busy`]: GrammarError::Busy

use std::{
    collections::{HashMap, VecDeque},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use llguidance::ParserFactory;

use super::{
    Grammar, GrammarError, GrammarSource, cache::Cache, limits::COMPILE_TIME_MAX, source::brief, vocabulary::Vocabulary,
};
use crate::engine::{process, tokenizer::Tokenizer};

/// Compilations side by side, those that are late not counted.
const RUNNING_MAX: usize = 2;

/// Threads in all.
const THREADS_MAX: usize = 4;

/// Askers whose turn has not come, over all sources.
const WAITING_MAX: usize = 256;

/// Sources nest, and what reads them calls itself. Only what is used of it takes memory.
const STACK_BYTES: usize = 64 << 20;

/// What is done with the outcome. Called on the asker's thread or on one that others wait for: must not block.
type Then = Box<dyn FnOnce(Result<Grammar, GrammarError>) + Send>;

/// Compiles grammars for one tokenizer; clones are the same. Costs nothing before it is first asked.
#[derive(Clone)]
pub struct Compiler(Arc<Inner>);

struct Inner {
    tokenizer: Arc<Tokenizer>,
    cache: Arc<Mutex<Cache>>,
    /// To the desk, once there is one.
    desk: Mutex<Option<Sender<Message>>>,
}

enum Message {
    Ask { key: Arc<str>, source: GrammarSource, then: Then },
    Done { key: Arc<str>, outcome: Result<Grammar, GrammarError> },
}

impl Compiler {
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        let (cache, desk) = (Arc::default(), Mutex::new(None));
        Self(Arc::new(Inner { tokenizer: Arc::clone(tokenizer), cache, desk }))
    }

    /// The grammar of `source`; waits for it, bounded by the limit of time for a compilation, and the first time of all for
    /// the vocabulary to be laid out.
    ///
    /// # Errors
    /// What is wrong with the source, or `Busy`.
    pub fn compile(&self, source: &GrammarSource) -> Result<Grammar, GrammarError> {
        let (tell, told) = bounded(1);
        self.compile_then(source.clone(), Box::new(move |outcome| drop(tell.send(outcome))));
        told.recv().unwrap_or_else(|_| Err(GrammarError::Internal("its thread has ended".into())))
    }

    /// Gives `then` the grammar of `source`, or the error: before this returns if it is known, else later on a thread of
    /// the compiler, where `then` must not block. Itself it never waits.
    pub fn compile_then(&self, source: GrammarSource, then: Then) {
        let key: Arc<str> = match source.key() {
            Ok(key) => key.into(),
            Err(error) => return then(Err(error)),
        };
        let cached = self.0.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key);
        if let Some(grammar) = cached {
            return then(Ok(grammar));
        }
        let desk = match self.desk() {
            Ok(desk) => desk,
            Err(error) => return then(Err(error)),
        };
        match desk.try_send(Message::Ask { key, source, then }) {
            Ok(()) => {}
            Err(TrySendError::Full(Message::Ask { then, .. })) => then(Err(GrammarError::Busy)),
            Err(TrySendError::Disconnected(Message::Ask { then, .. })) => {
                then(Err(GrammarError::Internal("its thread has ended".into())));
            }
            Err(_) => {}
        }
    }

    /// The desk; opens it the first time.
    fn desk(&self) -> Result<Sender<Message>, GrammarError> {
        let mut desk = self.0.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = &*desk {
            return Ok(desk.clone());
        }
        // Room for every thread to say that it is done, whoever else asks.
        let (send, messages) = bounded(WAITING_MAX);
        let (tokenizer, cache) = (Arc::clone(&self.0.tokenizer), Arc::clone(&self.0.cache));
        let open = move || Desk::open(tokenizer, cache, messages);
        let opened = thread::Builder::new().name("grammar desk".into()).spawn(open);
        opened.map_err(|error| GrammarError::Internal(format!("can't start a thread: {error}")))?;
        *desk = Some(send.clone());
        Ok(send)
    }
}

/// Who asked for a source that is not compiled yet.
struct Asked {
    source: GrammarSource,
    since: Instant,
    then: Vec<Then>,
}

struct Desk {
    tokenizer: Arc<Tokenizer>,
    factory: Arc<ParserFactory>,
    cache: Arc<Mutex<Cache>>,
    messages: Receiver<Message>,
    /// From the threads.
    done: (Sender<Message>, Receiver<Message>),
    /// By source, and in order.
    waiting: VecDeque<Arc<str>>,
    asked: HashMap<Arc<str>, Asked>,
    /// When each compilation began.
    running: HashMap<Arc<str>, Instant>,
    /// Threads that nobody waits for any more.
    late: usize,
}

impl Desk {
    /// Lays the vocabulary out, then works until nobody can ask any more.
    fn open(tokenizer: Arc<Tokenizer>, cache: Arc<Mutex<Cache>>, messages: Receiver<Message>) {
        process::give_way();
        let vocabulary = Arc::clone(&tokenizer);
        let laid_out = panic::catch_unwind(AssertUnwindSafe(|| Vocabulary::new(vocabulary, true)?.into_factory().ok()));
        let Ok(Some(factory)) = laid_out else {
            for message in messages.iter() {
                if let Message::Ask { then, .. } = message {
                    tell(then, Err(GrammarError::Internal("the model's vocabulary can't be laid out".into())));
                }
            }
            return;
        };
        let desk = Self {
            tokenizer,
            factory: Arc::new(factory),
            cache,
            messages,
            done: bounded(THREADS_MAX),
            waiting: VecDeque::new(),
            asked: HashMap::new(),
            running: HashMap::new(),
            late: 0,
        };
        desk.work();
    }

    fn work(mut self) {
        loop {
            let message = self.next();
            match message {
                Ok(Message::Ask { key, source, then }) => self.ask(key, source, then),
                Ok(Message::Done { key, outcome }) => self.done(key, outcome),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.close(),
            }
            self.give_up();
            self.start();
        }
    }

    /// The next message, or none until the next deadline.
    fn next(&self) -> Result<Message, RecvTimeoutError> {
        let began =
            self.running.values().chain(self.waiting.iter().filter_map(|key| Some(&self.asked.get(key)?.since)));
        let deadline = began.min().map(|began| *began + COMPILE_TIME_MAX);
        let never = crossbeam_channel::never();
        let timeout = deadline.map_or(never, crossbeam_channel::at);
        crossbeam_channel::select_biased! {
            recv(self.done.1) -> message => message.map_err(|_| RecvTimeoutError::Disconnected),
            recv(self.messages) -> message => message.map_err(|_| RecvTimeoutError::Disconnected),
            recv(timeout) -> _ => Err(RecvTimeoutError::Timeout),
        }
    }

    fn ask(&mut self, key: Arc<str>, source: GrammarSource, then: Then) {
        // Compiled since it was asked for.
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key);
        if let Some(grammar) = cached {
            return tell(then, Ok(grammar));
        }
        if self.asked.values().map(|asked| asked.then.len()).sum::<usize>() >= WAITING_MAX {
            return tell(then, Err(GrammarError::Busy));
        }
        match self.asked.get_mut(&key) {
            Some(asked) => asked.then.push(then),
            None => {
                self.waiting.push_back(Arc::clone(&key));
                self.asked.insert(key, Asked { source, since: Instant::now(), then: vec![then] });
            }
        }
    }

    fn done(&mut self, key: Arc<str>, outcome: Result<Grammar, GrammarError>) {
        if let Ok(grammar) = &outcome {
            self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&key), grammar.clone());
        }
        if self.running.remove(&key).is_none() {
            self.late = self.late.saturating_sub(1);
        }
        // Whoever asked again for one that was late has it now, too.
        self.waiting.retain(|waiting| *waiting != key);
        self.answer(&key, outcome);
    }

    /// Tells those whose time is over.
    fn give_up(&mut self) {
        let now = Instant::now();
        let over = |since: &Instant| now.duration_since(*since) >= COMPILE_TIME_MAX;
        let late: Vec<Arc<str>> =
            self.running.iter().filter(|(_, since)| over(since)).map(|(key, _)| Arc::clone(key)).collect();
        for key in late {
            self.running.remove(&key);
            self.late += 1;
            let milliseconds = COMPILE_TIME_MAX.as_millis();
            let message = format!("the grammar takes longer than {milliseconds} ms to compile");
            self.answer(&key, Err(GrammarError::invalid(message)));
        }
        while let Some(key) = self.waiting.front().cloned() {
            if self.asked.get(&key).is_some_and(|asked| !over(&asked.since)) {
                break;
            }
            self.waiting.pop_front();
            self.answer(&key, Err(GrammarError::Busy));
        }
    }

    fn start(&mut self) {
        while self.running.len() < RUNNING_MAX && self.running.len() + self.late < THREADS_MAX {
            let Some(key) = self.waiting.pop_front() else { return };
            let Some(source) = self.asked.get(&key).map(|asked| asked.source.clone()) else { continue };
            let (factory, tokenizer) = (Arc::clone(&self.factory), Arc::clone(&self.tokenizer));
            let (done, name) = (self.done.0.clone(), Arc::clone(&key));
            let compile = move || {
                process::give_way();
                let compiled = panic::catch_unwind(AssertUnwindSafe(|| {
                    source.parser(&factory, &tokenizer).map(|parser| Grammar::new(Arc::clone(&tokenizer), parser))
                }));
                let panicked = |_| Err(GrammarError::Internal("it panicked".into()));
                // Fails only if the desk has closed, and then nobody waits.
                let _ = done.send(Message::Done { key: name, outcome: compiled.unwrap_or_else(panicked) });
            };
            match thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES).spawn(compile) {
                Ok(_) => drop(self.running.insert(key, Instant::now())),
                Err(error) => self.answer(&key, Err(GrammarError::Internal(brief(&error)))),
            }
        }
    }

    /// The model is gone: nobody could use what is still asked for.
    fn close(mut self) {
        let keys: Vec<Arc<str>> = self.asked.keys().cloned().collect();
        keys.iter().for_each(|key| self.answer(key, Err(GrammarError::Internal("the model has been unloaded".into()))));
    }

    fn answer(&mut self, key: &Arc<str>, outcome: Result<Grammar, GrammarError>) {
        let asked = self.asked.remove(key);
        asked.into_iter().flat_map(|asked| asked.then).for_each(|then| tell(then, outcome.clone()));
    }
}

/// What an asker does with the outcome is not ours: if it panics, the others are served all the same.
fn tell(then: Then, outcome: Result<Grammar, GrammarError>) {
    if panic::catch_unwind(AssertUnwindSafe(|| then(outcome))).is_err() {
        log::error!("whoever asked for a grammar panicked");
    }
}
