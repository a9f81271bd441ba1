//! Embeddings from a decoder: each input is a prompt from which nothing is generated, and its vector that of its last row.
//!
//! A request with many inputs submits a few at a time, each end the next one, so that it neither fills the engine's queue
//! nor runs ahead of others' generations.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    encoder::{Done, EncodeError, EncodeInput, EncodeRequest, Encoded, Left},
    error::RequestError,
    handle::Engine,
    intake::Goal,
    request::{Event, FinishReason, Flow, GenerateRequest, Prompt, Sink},
};

/// Inputs of one request that are in the engine at a time.
const AT_ONCE: usize = 16;

/// A request in the making, shared by the sinks of its inputs.
pub(super) struct Embedding(Mutex<State>);

struct State {
    /// Those that are still to be submitted, by their index.
    waiting: VecDeque<(usize, GenerateRequest)>,
    goal: Goal,
    outputs: Vec<Vec<f32>>,
    prompt_tokens: usize,
    unfinished: usize,
    left: Left,
    /// `None` once the end has been told, or nobody waits for it.
    done: Option<Done>,
}

impl Embedding {
    /// See [`Engine::embed`].
    pub fn start(engine: &Engine, request: EncodeRequest, left: Left, done: Done) {
        let EncodeRequest { inputs, truncate, queue_timeout } = request;
        if inputs.is_empty() {
            return done(Err(RequestError::EmptyPrompt.into()));
        }
        if engine.hidden().is_none() {
            return done(Err(RequestError::Internal("the model gives no embeddings".into()).into()));
        }
        let count = inputs.len();
        let mut waiting = VecDeque::with_capacity(count);
        for (index, input) in inputs.into_iter().enumerate() {
            let prompt = match input {
                EncodeInput::Text(text) => Prompt::Text(text),
                EncodeInput::Tokens(tokens) => Prompt::Tokens(tokens),
                EncodeInput::Pair(..) => {
                    let error = RequestError::Internal("a decoder reads no pairs".into());
                    return done(Err(EncodeError { input: Some(index), error }));
                }
            };
            waiting
                .push_back((index, GenerateRequest { max_tokens: 1, queue_timeout, ..GenerateRequest::new(prompt) }));
        }
        let this = Arc::new(Self(Mutex::new(State {
            waiting,
            goal: Goal::Vector { truncate },
            outputs: vec![Vec::new(); count],
            prompt_tokens: 0,
            unfinished: count,
            left,
            done: Some(done),
        })));
        for _ in 0..AT_ONCE.min(count) {
            this.submit_next(engine);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never with the state locked: a refusal is told to the sink at once.
    fn submit_next(self: &Arc<Self>, engine: &Engine) {
        let (goal, next) = {
            let mut state = self.state();
            (state.goal, state.waiting.pop_front())
        };
        if let Some((index, request)) = next {
            let sink = InputSink { of: Arc::clone(self), engine: engine.clone(), index, vector: Vec::new() };
            engine.submit_for(goal, request, Box::new(sink));
        }
    }

    fn fail(&self, index: usize, error: RequestError) {
        let done = {
            let mut state = self.state();
            state.waiting.clear();
            state.done.take()
        };
        if let Some(done) = done {
            done(Err(EncodeError { input: Some(index), error }));
        }
    }

    /// Takes an input's vector; tells the end after the last.
    fn finish(&self, index: usize, vector: Vec<f32>, prompt_tokens: usize) {
        let end = {
            let mut state = self.state();
            state.outputs[index] = vector;
            state.prompt_tokens += prompt_tokens;
            state.unfinished -= 1;
            let all = state.unfinished == 0;
            let done = state.done.take_if(|_| all);
            done.map(|done| (done, mem::take(&mut state.outputs), state.prompt_tokens))
        };
        if let Some((done, outputs, prompt_tokens)) = end {
            done(Ok(Encoded { outputs, prompt_tokens }));
        }
    }
}

/// The sink of one input.
struct InputSink {
    of: Arc<Embedding>,
    engine: Engine,
    index: usize,
    vector: Vec<f32>,
}

impl Sink for InputSink {
    fn flow(&self) -> Flow {
        let mut state = self.of.state();
        if state.done.is_some() && !(state.left)() {
            return Flow::Continue;
        }
        state.waiting.clear();
        state.done = None;
        Flow::Cancel
    }

    fn on_vector(&mut self, vector: Vec<f32>) {
        self.vector = vector;
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Started { .. } | Event::Piece { .. } => {}
            Event::Finished { reason: FinishReason::Cancelled, .. } => {}
            Event::Finished { usage, .. } => {
                self.of.finish(self.index, mem::take(&mut self.vector), usage.prompt_tokens);
                self.of.submit_next(&self.engine);
            }
            Event::Failed(error) => self.of.fail(self.index, error),
        }
    }
}
