//! One answer on its way to its client, made of one or more choices.
//!
//! The 200 of a stream is held back until the first piece or the first ping: until then an error has its real status,
//! and a proxy may still retry elsewhere.
//!
//! ```text
//! waiting ──first piece, or ping due (stream)──▶ streaming ──all ended──▶ done
//!    │  └──all ended: the answer at once──▶ done      └──failed: an error in the stream──▶ done
//!    └──failed: an error answer──▶ done
//! ```

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    api::{
        backend::Backend,
        error::ApiError,
        family::Family,
        metrics::{Endpoint, Metrics},
        reply,
    },
    engine::{
        dialect::Delta,
        request::{FinishReason, Flow, ScoredPrompt, StopCause, Timeline, TokenLogprobs, Usage},
    },
    http::{Responder, Status},
};

use super::{Begun, Choice, End, Frames, Piece, Scored, Total, Wire};

/// Whether an answer is told piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Whole,
    Stream,
}

/// What an answer needs of the server around it.
pub struct Setting {
    pub mode: Mode,
    pub family: Family,
    /// The field that the prompt came in.
    pub param: &'static str,
    pub endpoint: Endpoint,
    pub metrics: Arc<Metrics>,
    pub ping_interval: Duration,
}

/// An answer; shared by the sinks of its choices.
pub struct Delivery {
    setting: Setting,
    received: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    wire: Box<dyn Wire>,
    /// Known once the choices are.
    model: Option<Arc<dyn Backend>>,
    choices: Vec<Choice>,
    /// The stop strings that were asked for.
    stops: Vec<String>,
    /// Choices for each prompt.
    per_prompt: usize,
    prompt_tokens: usize,
    cached_tokens: usize,
    /// The tokens of each, if the wire is to know them.
    prompts: Vec<Vec<u32>>,
    /// The wire has begun.
    begun: bool,
}

enum State {
    Waiting(Responder),
    Streaming(Frames),
    Done,
}

/// What is new of a choice.
pub enum News {
    Started {
        prompt_tokens: usize,
        cached_tokens: usize,
        scored: Option<ScoredPrompt>,
    },
    Piece {
        deltas: Vec<Delta>,
        token_ids: Vec<u32>,
        logprobs: Vec<TokenLogprobs>,
        /// When the piece before it came.
        before: Option<Instant>,
    },
    Finished {
        deltas: Vec<Delta>,
        reason: FinishReason,
        usage: Usage,
        timeline: Timeline,
    },
}

impl Delivery {
    pub fn new(responder: Responder, wire: Box<dyn Wire>, setting: Setting) -> Arc<Self> {
        let inner = Inner {
            state: State::Waiting(responder),
            wire,
            model: None,
            choices: Vec::new(),
            stops: Vec::new(),
            per_prompt: 1,
            prompt_tokens: 0,
            cached_tokens: 0,
            prompts: Vec::new(),
            begun: false,
        };
        Arc::new(Self { setting, received: Instant::now(), inner: Mutex::new(inner) })
    }

    /// So many choices of `model` will come, `per_prompt` for each prompt. Before the first is submitted.
    pub fn expect(&self, model: Arc<dyn Backend>, choices: usize, per_prompt: usize, stops: Vec<String>) {
        let mut inner = self.lock();
        inner.model = Some(model);
        inner.choices.resize_with(choices, Choice::default);
        inner.per_prompt = per_prompt;
        inner.stops = stops;
    }

    /// The wire is told these with the beginning.
    pub fn show_prompts(&self, prompts: Vec<Vec<u32>>) {
        self.lock().prompts = prompts;
    }

    /// Nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        match &self.lock().state {
            State::Waiting(responder) => responder.is_closed(),
            State::Streaming(frames) => frames.is_closed(),
            State::Done => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a choice's engine is to do next.
    pub fn flow(&self, choice: usize) -> Flow {
        let mut inner = self.lock();
        if inner.choices.get(choice).is_some_and(|choice| choice.end.is_some()) {
            return Flow::Cancel;
        }
        let ping_due = match &inner.state {
            State::Waiting(responder) if responder.is_closed() => return Flow::Cancel,
            State::Waiting(_) => {
                self.setting.mode == Mode::Stream && self.received.elapsed() >= self.setting.ping_interval
            }
            State::Streaming(frames) if frames.is_closed() => return Flow::Cancel,
            State::Streaming(frames) if frames.is_behind() => return Flow::Park,
            State::Streaming(_) => false,
            State::Done => return Flow::Cancel,
        };
        if ping_due {
            self.open(&mut inner);
            if let State::Streaming(frames) = &inner.state {
                frames.ping();
            }
        }
        Flow::Continue
    }

    /// Takes what is new of a choice.
    pub fn tell(&self, choice: usize, news: News) {
        let mut inner = self.lock();
        let metrics = &self.setting.metrics;
        match news {
            News::Started { prompt_tokens, cached_tokens, scored } => {
                inner.wire.under_way();
                if let (Some(prompt), Some(model)) = (scored, inner.model.clone())
                    && let Some(choice) = inner.choices.get_mut(choice)
                {
                    choice.prompt_scored = Scored::of_prompt(&prompt, &*model);
                }
                // Prompts count once, by their first choice.
                if choice.is_multiple_of(inner.per_prompt) {
                    inner.prompt_tokens += prompt_tokens;
                    inner.cached_tokens += cached_tokens;
                }
                if let Some((wire, frames, choices)) = self.stream(&mut inner)
                    && let Some(so_far) = choices.get(choice)
                {
                    wire.started(choice, so_far, frames);
                }
            }
            News::Piece { deltas, token_ids, logprobs, before } => {
                metrics.on_piece(token_ids.len(), self.received, before, Instant::now());
                let scored = inner.scored(&logprobs);
                self.add(&mut inner, choice, &deltas, token_ids, scored);
            }
            News::Finished { deltas, reason, usage, timeline } => {
                metrics.on_finished(reason, usage, &timeline);
                if !deltas.is_empty() {
                    self.add(&mut inner, choice, &deltas, Vec::new(), Vec::new());
                }
                self.end(&mut inner, choice, reason, usage, timeline);
            }
        }
    }

    /// The answer breaks off, or never begins.
    pub fn fail(&self, error: ApiError) {
        let mut inner = self.lock();
        let error = error.about(self.setting.param);
        self.setting.metrics.on_failed();
        inner.model = None;
        match mem::replace(&mut inner.state, State::Done) {
            State::Waiting(responder) => {
                inner.wire.refused(&error);
                self.setting.metrics.on_answer(self.setting.endpoint, error.status());
                responder.send(self.setting.family.refuse(&error));
            }
            State::Streaming(mut frames) => {
                inner.wire.fail(&error, &mut frames);
                frames.close();
            }
            State::Done => {}
        }
    }

    /// Sends the 200, unless it is out already.
    fn open(&self, inner: &mut Inner) {
        let framing = inner.wire.framing();
        inner.state = match mem::replace(&mut inner.state, State::Done) {
            State::Waiting(responder) => {
                self.setting.metrics.on_answer(self.setting.endpoint, 200);
                State::Streaming(Frames::begin(responder, framing))
            }
            other => other,
        };
    }

    /// The stream, open and begun.
    fn stream<'a>(&self, inner: &'a mut Inner) -> Option<(&'a mut Box<dyn Wire>, &'a mut Frames, &'a [Choice])> {
        if self.setting.mode == Mode::Whole {
            return None;
        }
        self.open(inner);
        let Inner { state, wire, model, choices, prompt_tokens, cached_tokens, prompts, begun, .. } = inner;
        let State::Streaming(frames) = state else { return None };
        if !mem::replace(begun, true) {
            let (prompt_tokens, cached_tokens) = (*prompt_tokens, *cached_tokens);
            wire.begin(&Begun { model: &**model.as_ref()?, prompt_tokens, cached_tokens, prompts }, frames);
        }
        Some((wire, frames, choices))
    }

    fn add(&self, inner: &mut Inner, index: usize, deltas: &[Delta], token_ids: Vec<u32>, scored: Vec<Scored>) {
        let Some(choice) = inner.choices.get_mut(index) else { return };
        choice.extend(deltas);
        if deltas.iter().any(|delta| matches!(delta, Delta::Thought(_))) {
            choice.thought_tokens += token_ids.len();
        }
        let new = choice.token_ids.len()..;
        choice.token_ids.extend(token_ids);
        let first_scored = choice.scored.len();
        choice.scored.extend(scored);
        if let Some((wire, frames, choices)) = self.stream(inner) {
            let Choice { token_ids, scored, .. } = &choices[index];
            let tokens = token_ids.len();
            let (token_ids, scored) = (&token_ids[new], &scored[first_scored..]);
            wire.piece(index, &Piece { deltas, token_ids, scored, tokens }, frames);
        }
    }

    fn end(&self, inner: &mut Inner, index: usize, reason: FinishReason, usage: Usage, timeline: Timeline) {
        let stop = match reason {
            FinishReason::Stop(StopCause::Text(stop)) => inner.stops.get(stop).cloned(),
            _ => None,
        };
        let Some(choice) = inner.choices.get_mut(index) else { return };
        choice.end = Some(End { reason, stop, usage, timeline });
        if let Some((wire, frames, choices)) = self.stream(inner) {
            wire.end(index, &choices[index], frames);
        }
        if inner.choices.iter().all(|choice| choice.end.is_some()) {
            self.finish(inner);
        }
    }

    fn finish(&self, inner: &mut Inner) {
        let total = inner.total(self.received);
        match mem::replace(&mut inner.state, State::Done) {
            State::Waiting(responder) => {
                let Inner { wire, model, choices, prompts, .. } = inner;
                let Some(model) = model else { return };
                let Usage { prompt_tokens, cached_tokens, .. } = total.usage;
                let begun = Begun { model: &**model, prompt_tokens, cached_tokens, prompts };
                let body = wire.whole(&begun, choices, &total);
                // Given back before the client knows: its next request may be for a model that needs the room.
                inner.model = None;
                // To a client that has gone nothing is answered.
                let status = if responder.is_closed() { 499 } else { 200 };
                self.setting.metrics.on_answer(self.setting.endpoint, status);
                responder.send(reply::json(Status::OK, &body));
            }
            State::Streaming(mut frames) => {
                inner.wire.finish(&total, &mut frames);
                inner.model = None;
                frames.close();
            }
            State::Done => {}
        }
    }
}

impl Inner {
    fn scored(&self, logprobs: &[TokenLogprobs]) -> Vec<Scored> {
        let Some(model) = &self.model else { return Vec::new() };
        logprobs.iter().map(|token| Scored::new(token, &**model)).collect()
    }

    fn total(&self, received: Instant) -> Total {
        let ends = || self.choices.iter().filter_map(|choice| choice.end.as_ref());
        let finished = ends().filter_map(|end| end.timeline.finished).max().unwrap_or(received);
        let firsts = ends().step_by(self.per_prompt);
        Total {
            usage: Usage {
                prompt_tokens: firsts.clone().map(|end| end.usage.prompt_tokens).sum(),
                completion_tokens: ends().map(|end| end.usage.completion_tokens).sum(),
                cached_tokens: firsts.map(|end| end.usage.cached_tokens).sum(),
            },
            thought_tokens: self.choices.iter().map(|choice| choice.thought_tokens).sum(),
            received,
            admitted: ends().filter_map(|end| end.timeline.admitted).min().unwrap_or(finished),
            first_token: ends().filter_map(|end| end.timeline.first_token).min().unwrap_or(finished),
            finished,
        }
    }
}
