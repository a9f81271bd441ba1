//! Answers to generations: what the engine tells, gathered into what every API speaks of, and delivered whole or as it
//! comes.
//!
//! ```text
//! engine ─Event─▶ ChoiceSink ─▶ Delivery ─┬─ whole: gathers, and answers at the end
//!                 (Reader: thoughts, text, calls)   └─ stream: a Wire writes each piece into Frames
//! ```
//!
//! A [`Wire`] is all that an API adds: how it writes an answer down. It knows no engine, no connection and no clock.

mod delivery;
mod frames;
mod json;
mod sink;
#[cfg(test)]
mod tests;

pub use delivery::{Delivery, Mode, Setting};
pub use frames::{Frames, Framing};
pub use json::push_json_string;
pub use sink::{ChoiceSink, Reading};

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    api::{backend::Backend, error::ApiError},
    engine::{
        dialect::Delta,
        request::{FinishReason, ScoredPrompt, Timeline, TokenLogprobs, Usage},
    },
};

/// How an API writes an answer down. For a stream `begin`, then `started`, any number of `piece` and one `end` for each
/// choice, in any order between choices, then `finish`; or `fail` at any point. For an answer at once only `whole`, or
/// `refused`. In either case `under_way` comes before, for each choice.
pub trait Wire: Send + 'static {
    fn framing(&self) -> Framing;

    /// The prompt of a choice has been read, whether the answer is a stream or not.
    fn under_way(&mut self) {}

    /// The first choice is about to speak.
    fn begin(&mut self, _begun: &Begun, _out: &mut Frames) {}

    /// The prompt of a choice has been read; an empty answer may come without this.
    fn started(&mut self, _choice: usize, _so_far: &Choice, _out: &mut Frames) {}

    /// Something new of a choice.
    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Frames);

    /// Nothing more comes of a choice.
    fn end(&mut self, choice: usize, all: &Choice, out: &mut Frames);

    /// Nothing more comes at all.
    fn finish(&mut self, total: &Total, out: &mut Frames);

    /// The answer breaks off.
    fn fail(&mut self, error: &ApiError, out: &mut Frames);

    /// The answer breaks off before anything of it was sent: the client gets the error instead.
    fn refused(&mut self, _error: &ApiError) {}

    /// The answer at once: the body of the reply.
    fn whole(&mut self, begun: &Begun, choices: &[Choice], total: &Total) -> Value;
}

/// What is known when an answer begins.
pub struct Begun<'a> {
    pub model: &'a dyn Backend,
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    /// The tokens of each prompt, if the ask wants them told.
    pub prompts: &'a [Vec<u32>],
}

/// New text of a choice.
pub struct Piece<'a> {
    pub deltas: &'a [Delta],
    pub token_ids: &'a [u32],
    /// One for each token if they were asked for, else none.
    pub scored: &'a [Scored],
    /// Tokens of this choice so far, these included.
    pub tokens: usize,
}

/// A token with its probability, as it stands in answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub id: u32,
    pub bytes: Vec<u8>,
    /// Natural logarithm.
    pub logprob: f32,
    /// The most likely ones in its place, best first; of these `top` is empty.
    pub top: Vec<Scored>,
}

impl Scored {
    pub fn new(token: &TokenLogprobs, model: &dyn Backend) -> Self {
        let plain = |id, logprob| Self { id, bytes: model.token_bytes(id), logprob, top: Vec::new() };
        let top = token.top.iter().map(|&(id, logprob)| plain(id, logprob)).collect();
        Self { top, ..plain(token.token, token.logprob) }
    }

    /// A prompt's tokens. The first has no probability.
    pub fn of_prompt(prompt: &ScoredPrompt, model: &dyn Backend) -> Vec<Self> {
        let first = prompt.token_ids.first().map(|&token| TokenLogprobs { token, logprob: f32::NAN, top: Vec::new() });
        first.iter().chain(&prompt.logprobs).map(|token| Self::new(token, model)).collect()
    }

    /// Its text; bytes that are no characters become U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// All of a choice.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    pub thoughts: String,
    pub text: String,
    pub calls: Vec<Call>,
    pub token_ids: Vec<u32>,
    pub scored: Vec<Scored>,
    /// The prompt's tokens, if they were asked for; the first one's probability is NaN.
    pub prompt_scored: Vec<Scored>,
    /// Tokens of its thoughts.
    pub thought_tokens: usize,
    /// `None` until its end.
    pub end: Option<End>,
}

/// A call of a tool: its name, and its arguments as JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    pub arguments: String,
}

/// How a choice ended.
#[derive(Debug, Clone)]
pub struct End {
    pub reason: FinishReason,
    /// The stop string that did it.
    pub stop: Option<String>,
    pub usage: Usage,
    pub timeline: Timeline,
}

impl Choice {
    /// Adds what is new.
    pub fn extend(&mut self, deltas: &[Delta]) {
        for delta in deltas {
            match delta {
                Delta::Thought(text) => self.thoughts.push_str(text),
                Delta::Text(text) => self.text.push_str(text),
                Delta::ToolCall { name, .. } => self.calls.push(Call { name: name.clone(), ..Call::default() }),
                Delta::Arguments { fragment, .. } => {
                    if let Some(call) = self.calls.last_mut() {
                        call.arguments.push_str(fragment);
                    }
                }
            }
        }
    }

    /// It ended because all was said, not for want of tokens.
    pub fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|end| matches!(end.reason, FinishReason::Stop(_)))
    }

    /// It ended by calling tools.
    pub fn calls_tools(&self) -> bool {
        self.is_complete() && !self.calls.is_empty()
    }
}

/// What an answer has cost, over all its choices.
#[derive(Debug, Clone)]
pub struct Total {
    /// Prompts that several choices share count once.
    pub usage: Usage,
    pub thought_tokens: usize,
    pub received: Instant,
    /// When the first prompt was admitted and the first token there; the end if it never came to that.
    pub admitted: Instant,
    pub first_token: Instant,
    pub finished: Instant,
}

impl Total {
    /// From its arrival to its end.
    pub fn duration(&self) -> Duration {
        self.finished.saturating_duration_since(self.received)
    }

    /// Reading the prompt.
    pub fn prompt_duration(&self) -> Duration {
        self.first_token.saturating_duration_since(self.admitted)
    }

    /// Writing the answer.
    pub fn answer_duration(&self) -> Duration {
        self.finished.saturating_duration_since(self.first_token)
    }
}
