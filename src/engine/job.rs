//! A request on its way through the engine.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    detokenizer::{Pushed, TextStream},
    error::RequestError,
    grammar::{Ahead, Allowed, Constraint, Progress},
    request::{
        Event, FinishReason, Flow, SamplingParams, ScoredPrompt, Sink, StopCause, Timeline, TokenLogprobs, Usage,
    },
    sampler::{Ask, BadLogits, Memory, Sampler},
    stats::EngineStats,
    tokenizer::Tokenizer,
};

/// A place in the queue, from submission to admission.
pub struct Ticket(Arc<EngineStats>);

impl Ticket {
    /// `None`: `queue_max` requests wait already.
    pub fn take(stats: &Arc<EngineStats>, queue_max: usize) -> Option<Self> {
        stats.queued.try_add(queue_max).then(|| Self(Arc::clone(stats)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.queued.subtract(1);
    }
}

/// Whoever asked. Is told exactly one end: by [`finish`](Self::finish), by [`fail`](Self::fail), or when dropped without
/// either, which happens only if a thread of the engine panics.
pub struct Caller {
    /// `None` once the end has been told.
    sink: Option<Box<dyn Sink>>,
    stats: Arc<EngineStats>,
    ticket: Option<Ticket>,
    timeline: Timeline,
}

impl Caller {
    pub fn new(sink: Box<dyn Sink>, stats: Arc<EngineStats>, ticket: Option<Ticket>) -> Self {
        let timeline =
            Timeline { received: Instant::now(), admitted: None, first_token: None, finished: None, preemptions: 0 };
        Self { sink: Some(sink), stats, ticket, timeline }
    }

    pub fn flow(&self) -> Flow {
        self.sink.as_ref().map_or(Flow::Cancel, |sink| sink.flow())
    }

    pub fn received(&self) -> Instant {
        self.timeline.received
    }

    /// When so much time has passed since it came.
    pub fn deadline(&self, timeout: Duration) -> Instant {
        let far = Duration::from_secs(365 * 24 * 3600);
        self.timeline.received + timeout.min(far)
    }

    /// Scheduled; true if for the first time.
    pub fn admitted(&mut self, now: Instant) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        drop(ticket);
        self.timeline.admitted = Some(now);
        self.stats.admitted_total.add(1);
        self.stats.wait_us_total.add(now.saturating_duration_since(self.timeline.received).as_micros() as usize);
        true
    }

    pub fn preempted(&mut self) {
        self.timeline.preemptions += 1;
    }

    pub fn token(&mut self, now: Instant) {
        self.timeline.first_token.get_or_insert(now);
    }

    /// Tells something before the end.
    pub fn tell(&mut self, event: Event) {
        if let Some(sink) = &mut self.sink {
            sink.on_event(event);
        }
    }

    pub fn vector(&mut self, vector: Vec<f32>) {
        if let Some(sink) = &mut self.sink {
            sink.on_vector(vector);
        }
    }

    pub fn finish(mut self, reason: FinishReason, usage: Usage) {
        self.timeline.finished = Some(Instant::now());
        let timeline = self.timeline;
        self.end(Event::Finished { reason, usage, timeline });
    }

    pub fn fail(mut self, error: RequestError) {
        self.end(Event::Failed(error));
    }

    fn end(&mut self, event: Event) {
        if let Some(mut sink) = self.sink.take() {
            self.ticket = None;
            self.stats.count_end(&event);
            sink.on_event(event);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.end(Event::Failed(RequestError::Internal("the engine has stopped".into())));
    }
}

/// What is generated for a caller.
pub struct Job {
    pub caller: Caller,
    /// `None` once all of it has been told.
    pub text: Option<TextStream>,
    pub sampling: SamplingParams,
    /// The request's, or drawn for it.
    pub seed: u64,
    /// What the sampler carries from token to token: it moves with those that are chosen, and no preemption touches it.
    pub memory: Memory,
    /// Each token is told with its log-probability, and with those of so many of the most likely ones.
    pub logprobs: Option<usize>,
    /// Of the tokens that were chosen and have not been told, in their order.
    pub untold: VecDeque<TokenLogprobs>,
    /// Of the prompt's tokens but the first, as far as they are computed. `None`: not asked for, or told.
    pub scores: Option<Vec<TokenLogprobs>>,
    /// Else the prompt is all that is asked about.
    pub wants_tokens: bool,
    /// Tokens that end it.
    pub end_tokens: Vec<u32>,
    pub prompt_tokens: usize,
    /// Prompt tokens that were in the cache.
    pub cached_tokens: usize,
    pub generated_tokens: usize,
    /// Its reader is behind.
    pub parked: bool,
    /// What it may say; elsewhere while masks are computed. `None`: anything.
    pub constraint: Option<Box<Constraint>>,
    pub progress: Progress,
}

impl Job {
    /// Of the states that were looked ahead to, `tokens` leads to the one after its last: all but that were the draft's.
    pub fn advance(&mut self, mut ahead: Ahead, tokens: &[u32]) -> Result<(), String> {
        let Some((&last, known)) = tokens.split_last() else { return Err("no token was chosen".into()) };
        let (mut constraint, _) = ahead.swap_remove(known.len());
        self.progress = constraint.advance(last)?;
        self.constraint = Some(Box::new(constraint));
        Ok(())
    }

    /// Chooses the token after `tokens`, given its row of logits, of which `allowed` leaves some out.
    pub fn choose(
        &mut self,
        logits: &mut [f32],
        allowed: &Allowed,
        tokens: &[u32],
        sampler: &mut Sampler,
        tokenizer: &Tokenizer,
    ) -> Result<u32, BadLogits> {
        if let Some(count) = self.logprobs {
            sampler.look(logits, count)?;
        }
        allowed.apply(logits);
        let Self { sampling: params, seed, prompt_tokens, memory, .. } = self;
        let ask = Ask { params, tokens, prompt_tokens: *prompt_tokens, seed: *seed, texts: tokenizer };
        let token = sampler.sample(logits, &ask, memory)?;
        if self.logprobs.is_some() {
            self.untold.push_back(sampler.logprobs(token));
        }
        Ok(token)
    }

    /// Takes down how likely the prompt's next token was, given the row of logits before it.
    pub fn score(&mut self, logits: &[f32], token: u32, sampler: &mut Sampler) -> Result<(), BadLogits> {
        sampler.look(logits, self.logprobs.unwrap_or(0))?;
        if let Some(scores) = &mut self.scores {
            scores.push(sampler.logprobs(token));
        }
        Ok(())
    }

    /// Before the first token, tells that the prompt has been computed: the first of `tokens`.
    pub fn start(&mut self, tokens: &[u32]) {
        if self.generated_tokens == 0 {
            let Self { prompt_tokens, cached_tokens, .. } = *self;
            let prompt = || tokens.iter().take(prompt_tokens).copied().collect();
            let scored = self.scores.take().map(|logprobs| ScoredPrompt { token_ids: prompt(), logprobs });
            self.caller.tell(Event::Started { prompt_tokens, cached_tokens, scored });
        }
    }

    /// Takes the next tokens and tells the text that they bring. Says so if the generation stops at one of them: those
    /// after it are nobody's.
    pub fn push(&mut self, tokens: &[u32], now: Instant, tokenizer: &Tokenizer) -> Option<StopCause> {
        self.caller.token(now);
        let (mut text, mut token_ids) = (String::new(), Vec::new());
        let mut stopped = None;
        for &token in tokens {
            self.generated_tokens += 1;
            stopped = self.take(token, tokenizer, &mut text, &mut token_ids);
            if stopped.is_some() {
                break;
            }
        }
        self.piece(text, token_ids);
        stopped
    }

    /// Adds what one token brings. Says so if the generation stops here.
    fn take(
        &mut self,
        token: u32,
        tokenizer: &Tokenizer,
        text: &mut String,
        token_ids: &mut Vec<u32>,
    ) -> Option<StopCause> {
        if self.end_tokens.contains(&token) {
            // Told, but its bytes are not of the text.
            self.rest(text, token_ids);
            token_ids.push(token);
            return Some(StopCause::Token(token));
        }
        match self.text.as_mut().map_or(Pushed::Held, |stream| stream.push(token, tokenizer)) {
            Pushed::Held => None,
            Pushed::Text { text: new, token_ids: ids } => {
                text.push_str(&new);
                token_ids.extend(ids);
                None
            }
            Pushed::Stopped { by, text: new, token_ids: ids } => {
                self.text = None;
                text.push_str(&new);
                token_ids.extend(ids);
                Some(StopCause::Text(by))
            }
        }
    }

    /// Tells the end, and before it the text that was held back.
    pub fn finish(mut self, reason: FinishReason) {
        if reason != FinishReason::Cancelled {
            let (mut text, mut token_ids) = (String::new(), Vec::new());
            self.rest(&mut text, &mut token_ids);
            self.piece(text, token_ids);
        }
        let Self { prompt_tokens, generated_tokens: completion_tokens, cached_tokens, .. } = self;
        self.caller.finish(reason, Usage { prompt_tokens, completion_tokens, cached_tokens });
    }

    /// No more text will come: adds what was held back.
    fn rest(&mut self, text: &mut String, token_ids: &mut Vec<u32>) {
        if let Some(stream) = self.text.take() {
            let (held, ids) = stream.finish();
            text.push_str(&held);
            token_ids.extend(ids);
        }
    }

    fn piece(&mut self, text: String, token_ids: Vec<u32>) {
        if !text.is_empty() || !token_ids.is_empty() {
            let logprobs = self.untold.drain(..token_ids.len().min(self.untold.len())).collect();
            self.caller.tell(Event::Piece { text, token_ids, logprobs });
        }
    }
}
