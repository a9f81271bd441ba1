//! The intake thread: tokenises and checks requests, off the callers' threads and off the engine's.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender};

use super::{
    batch::Want,
    blocks::BLOCK_TOKENS,
    detokenizer::{Start, TextStream},
    error::RequestError,
    grammar::{Constraint, Progress},
    job::{Caller, Job},
    request::{FinishReason, Flow, GenerateRequest, Prompt, Usage},
    sampler::{Memory, check, want},
    sequence::{SeqId, Sequence},
    speculation::Speculation,
    stop::StopStrings,
    tokenizer::Tokenizer,
};

/// What a prompt is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The text that goes on from it.
    Text,
    /// The vector of its last row; a prompt that is too long is cut if `truncate`.
    Vector { truncate: bool },
}

/// A request as it was submitted.
pub struct Submission {
    pub goal: Goal,
    pub request: GenerateRequest,
    pub caller: Caller,
}

/// A request that can be scheduled.
pub struct Admissible {
    pub sequence: Sequence,
    pub job: Job,
}

pub struct Intake {
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that a sequence may have.
    pub context: usize,
    /// Ids from here up are unknown to the model or to the tokenizer.
    pub vocabulary: usize,
    pub kv_blocks: usize,
    /// Tokens guessed at once; 0: nothing is.
    pub draft_max: usize,
    pub closing: Arc<AtomicBool>,
    pub submissions: Receiver<Submission>,
    /// As long as the queue may be: sending never waits.
    pub admissible: Sender<Admissible>,
}

impl Intake {
    /// Works until no one can submit any more.
    pub fn run(self) {
        for (id, submission) in self.submissions.iter().enumerate() {
            self.take(SeqId(id as u64), submission);
        }
    }

    fn take(&self, id: SeqId, Submission { goal, request, caller }: Submission) {
        if self.closing.load(Ordering::Relaxed) {
            return caller.fail(RequestError::ShuttingDown);
        }
        if caller.flow() == Flow::Cancel {
            return caller.finish(FinishReason::Cancelled, Usage::default());
        }
        // Tokenisers are not ours: one that panics costs its request.
        let prompt = panic::catch_unwind(AssertUnwindSafe(|| self.prompt(&request.prompt, goal)));
        let prompt = match prompt.unwrap_or_else(|_| Err(RequestError::Internal("the tokenizer panicked".into()))) {
            Ok(prompt) => prompt,
            Err(error) => return caller.fail(error),
        };
        if request.grammar.as_ref().is_some_and(|grammar| !grammar.is_for(&self.tokenizer)) {
            return caller.fail(RequestError::Grammar("it was compiled for another model".into()));
        }
        if let Err(error) = check(&request, self.vocabulary) {
            return caller.fail(error);
        }
        if request.max_tokens == 0 && !request.prompt_logprobs {
            let usage = Usage { prompt_tokens: prompt.len(), ..Usage::default() };
            return caller.finish(FinishReason::Length, usage);
        }
        let mut admissible = self.admissible(id, prompt, request, caller);
        if goal != Goal::Text {
            admissible.sequence.want = Want::Hidden;
            admissible.sequence.speculation = None;
        }
        if let Err(refused) = self.admissible.send(admissible) {
            refused.0.job.caller.fail(RequestError::Internal("the engine has stopped".into()));
        }
    }

    /// The prompt's tokens, which leave room for at least one more.
    fn prompt(&self, prompt: &Prompt, goal: Goal) -> Result<Vec<u32>, RequestError> {
        let mut tokens = prompt.encode(&self.tokenizer).into_owned();
        if tokens.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        if tokens.len() >= self.context && goal == (Goal::Vector { truncate: true }) {
            // What the model wants behind a text stays there.
            let behind = self.tokenizer.frame().after.filter(|after| tokens.last() == Some(after));
            tokens.truncate(self.context.saturating_sub(1 + behind.iter().len()));
            tokens.extend(behind);
        }
        if tokens.len() >= self.context {
            return Err(RequestError::ContextExceeded { prompt: tokens.len(), context: self.context });
        }
        match tokens.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(&id) => Err(RequestError::UnknownToken { id, vocabulary: self.vocabulary }),
            None => Ok(tokens),
        }
    }

    fn admissible(&self, id: SeqId, prompt: Vec<u32>, request: GenerateRequest, caller: Caller) -> Admissible {
        let prompt_tokens = prompt.len();
        // Cut to what context and cache leave; a prompt that has not even room for one token is refused by the scheduler.
        let tokens_max = prompt_tokens.saturating_add(request.max_tokens).min(self.context);
        let tokens_max = tokens_max.min(self.kv_blocks * BLOCK_TOKENS).max(prompt_tokens + 1);
        // A grammar says itself whether the answer begins with a space.
        let start = match request.prompt.is_turn() && request.grammar.is_none() {
            true => Start::OfText,
            false => Start::Continuation,
        };
        let constraint = Constraint::new(request.grammar, request.thinking, request.ignore_eos, &self.tokenizer);
        let sequence = Sequence {
            // The best token of all may not be allowed.
            want: if constraint.is_some() || request.logprobs.is_some() {
                Want::Logits
            } else {
                want(&request.sampling)
            },
            unscored: if request.prompt_logprobs { 0..prompt_tokens - 1 } else { 0..0 },
            priority: request.priority,
            client: request.client,
            tenant: request.tenant,
            deadline: Some(caller.deadline(request.queue_timeout)),
            expires: request.timeout.map(|timeout| caller.deadline(timeout)),
            speculation: (self.draft_max > 0).then(|| Speculation::new(&prompt)),
            ..Sequence::new(id, prompt, tokens_max, caller.received())
        };
        let mut end_tokens = request.stop_tokens;
        if !request.ignore_eos {
            end_tokens.extend(self.tokenizer.end_tokens());
        }
        let job = Job {
            caller,
            text: Some(TextStream::new(StopStrings::new(&request.stop), start, request.visible, &self.tokenizer)),
            seed: request.sampling.seed.unwrap_or_else(chance),
            sampling: request.sampling,
            memory: Memory::default(),
            logprobs: request.logprobs,
            untold: VecDeque::new(),
            scores: request.prompt_logprobs.then(Vec::new),
            wants_tokens: request.max_tokens > 0,
            end_tokens,
            prompt_tokens,
            cached_tokens: 0,
            generated_tokens: 0,
            parked: false,
            constraint: constraint.map(Box::new),
            progress: Progress::GoesOn,
        };
        Admissible { sequence, job }
    }
}

/// A number nobody has chosen: the standard library seeds its hash maps by it.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}
