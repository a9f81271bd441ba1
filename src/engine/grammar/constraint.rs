//! What one sequence may say next: its thoughts, as long as their budget lasts, and then what its grammar allows.
//!
//! ```text
//! Opening ──open──▶ Thinking ──close──▶ Answer (a grammar) or Free (none)
//!    └───────────── anything else ─────────▲
//! ```
//!
//! A function of the tokens taken: neither batches nor preemption nor drafts show in it.

use std::sync::Arc;

use llguidance::toktrie::SimpleVob;

use super::{Grammar, matcher::Matcher};
use crate::engine::{request::Thinking, tokenizer::Tokenizer};

/// Which tokens may come next.
#[derive(Debug, Clone)]
pub enum Allowed {
    All,
    AllBut(Arc<[u32]>),
    Only(SimpleVob),
    Just(u32),
}

impl Allowed {
    pub fn permits(&self, token: u32) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(tokens) => !tokens.contains(&token),
            Self::Only(mask) => (token as usize) < mask.len() && mask.is_allowed(token),
            Self::Just(only) => *only == token,
        }
    }

    /// Excludes all other tokens from a row of logits.
    pub fn apply(&self, logits: &mut [f32]) {
        match self {
            Self::All => {}
            Self::AllBut(tokens) => {
                for &token in tokens.iter() {
                    if let Some(logit) = logits.get_mut(token as usize) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
            Self::Only(mask) => exclude(mask.as_slice(), logits),
            Self::Just(token) => {
                let kept = logits.get(*token as usize).copied();
                logits.fill(f32::NEG_INFINITY);
                if let (Some(logit), Some(kept)) = (logits.get_mut(*token as usize), kept) {
                    *logit = kept;
                }
            }
        }
    }
}

/// Excludes the tokens whose bit is not set, and those that have none.
fn exclude(mask: &[u32], logits: &mut [f32]) {
    let mut words = mask.iter();
    for logits in logits.chunks_mut(u32::BITS as usize) {
        match words.next().copied().unwrap_or(0) {
            u32::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}

/// What a token has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    GoesOn,
    /// Nothing may follow.
    Complete,
}

#[derive(Clone)]
pub struct Constraint {
    phase: Phase,
    rules: Arc<Rules>,
}

/// What does not change from token to token.
struct Rules {
    grammar: Option<Grammar>,
    thinking: Thinking,
    /// How the end of thoughts is spelled, without whitespace around it.
    close: Vec<u8>,
    /// What ends a sequence of this model, whether or not the request goes on past it.
    end_tokens: Arc<[u32]>,
    ignore_eos: bool,
    tokenizer: Arc<Tokenizer>,
}

#[derive(Clone)]
enum Phase {
    /// The first so many tokens of `open` have been said. `answer`: as part of the answer, if the grammar allows them.
    Opening {
        said: usize,
        answer: Option<Box<Phase>>,
    },
    Thinking(Thoughts),
    Answer(Box<Matcher>),
    Free,
}

#[derive(Clone, Default)]
struct Thoughts {
    count: usize,
    /// The last ones: as many as the end of thoughts has.
    last: Vec<u32>,
    /// The last bytes.
    tail: Vec<u8>,
}

impl Constraint {
    /// `None`: the sequence may say what it likes.
    pub fn new(
        grammar: Option<Grammar>,
        thinking: Option<Thinking>,
        ignore_eos: bool,
        tokenizer: &Arc<Tokenizer>,
    ) -> Option<Self> {
        let budget = thinking.as_ref().is_some_and(|thinking| thinking.tokens_max.is_some());
        if grammar.is_none() && !budget {
            return None;
        }
        let thinking = thinking.filter(|thinking| !thinking.close.is_empty());
        let begin = thinking.as_ref().map(|thinking| (thinking.begun, thinking.open.is_empty()));
        let nothing = Thinking { open: Vec::new(), close: Vec::new(), begun: false, tokens_max: None };
        let thinking = thinking.unwrap_or(nothing);
        let close: Vec<u8> = thinking.close.iter().flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
        let rules = Rules {
            grammar,
            close: close.trim_ascii().to_vec(),
            thinking,
            end_tokens: tokenizer.end_tokens().into(),
            ignore_eos,
            tokenizer: Arc::clone(tokenizer),
        };
        let phase = match begin {
            Some((true, _)) => Phase::Thinking(Thoughts::default()),
            Some((false, false)) => Phase::Opening { said: 0, answer: Some(Box::new(rules.answer())) },
            Some((false, true)) | None => rules.answer(),
        };
        Some(Self { phase, rules: Arc::new(rules) })
    }

    /// Which tokens may come next.
    ///
    /// # Errors
    /// Why the grammar can't be followed any further.
    pub fn allowed(&mut self) -> Result<Allowed, String> {
        self.phase.allowed(&self.rules)
    }

    /// Takes the next token, one that was allowed.
    pub fn advance(&mut self, token: u32) -> Result<Progress, String> {
        self.phase.advance(token, &self.rules)
    }

    /// The tokens that must come next, as far as that is known: drafts that are right.
    pub fn forced(&mut self) -> Vec<u32> {
        match &mut self.phase {
            Phase::Answer(matcher) => matcher.forced(),
            Phase::Opening { said, answer: None } => self.rules.thinking.open[*said..].to_vec(),
            Phase::Thinking(thoughts) if thoughts.are_over(&self.rules) => {
                self.rules.thinking.close[thoughts.close_said(&self.rules)..].to_vec()
            }
            Phase::Opening { .. } | Phase::Thinking(_) | Phase::Free => Vec::new(),
        }
    }

    /// This state and those after the first tokens of `draft`, as far as they are allowed, each with what may follow it.
    pub fn look_ahead(mut self, draft: &[u32]) -> Result<Vec<(Self, Allowed)>, String> {
        let mut allowed = self.allowed()?;
        let mut states = Vec::with_capacity(1 + draft.len());
        for &token in draft.iter() {
            if !allowed.permits(token) {
                break;
            }
            let mut next = self.clone();
            // A guess that leads nowhere is not followed; if it comes true, that is found out then.
            let Ok(Progress::GoesOn) = next.advance(token) else { break };
            let Ok(next_allowed) = next.allowed() else { break };
            states.push((self, allowed));
            (self, allowed) = (next, next_allowed);
        }
        states.push((self, allowed));
        Ok(states)
    }
}

impl Rules {
    /// The start of the answer.
    fn answer(&self) -> Phase {
        match &self.grammar {
            Some(grammar) => Phase::Answer(Box::new(grammar.matcher())),
            None => Phase::Free,
        }
    }
}

impl Phase {
    fn allowed(&mut self, rules: &Rules) -> Result<Allowed, String> {
        match self {
            Self::Free => Ok(Allowed::All),
            Self::Answer(matcher) => {
                let mut mask = matcher.mask()?;
                if rules.ignore_eos {
                    go_on(&mut mask, &rules.end_tokens);
                }
                Ok(Allowed::Only(mask))
            }
            Self::Thinking(thoughts) => Ok(match thoughts.are_over(rules) {
                true => Allowed::Just(rules.thinking.close[thoughts.close_said(rules)]),
                // An answer is still to come.
                false if rules.grammar.is_some() => Allowed::AllBut(Arc::clone(&rules.end_tokens)),
                false => Allowed::All,
            }),
            Self::Opening { said, answer } => {
                let open = rules.thinking.open[*said];
                match answer {
                    None => Ok(Allowed::Just(open)),
                    Some(answer) => answer.allowed(rules).map(|allowed| match allowed {
                        Allowed::Only(mut mask) => {
                            mask.allow_token(open);
                            Allowed::Only(mask)
                        }
                        other => other,
                    }),
                }
            }
        }
    }

    fn advance(&mut self, token: u32, rules: &Rules) -> Result<Progress, String> {
        match self {
            Self::Free => Ok(Progress::GoesOn),
            Self::Answer(matcher) => {
                matcher.advance(token)?;
                Ok(if matcher.is_complete() { Progress::Complete } else { Progress::GoesOn })
            }
            Self::Thinking(thoughts) => {
                if thoughts.push(token, rules) {
                    *self = rules.answer();
                }
                Ok(Progress::GoesOn)
            }
            Self::Opening { said, answer } => {
                if rules.thinking.open[*said] != token {
                    let Some(answer) = answer.take() else { return Err("thoughts were not opened".into()) };
                    *self = *answer;
                    return self.advance(token, rules);
                }
                *said += 1;
                if *said == rules.thinking.open.len() {
                    *self = Self::Thinking(Thoughts::default());
                } else if let Some(taken) = answer
                    && !taken.take_if_permitted(token, rules)
                {
                    *answer = None;
                }
                Ok(Progress::GoesOn)
            }
        }
    }

    /// Of an answer that may turn out to be an opening: whether it has gone on.
    fn take_if_permitted(&mut self, token: u32, rules: &Rules) -> bool {
        let permitted = match self {
            Self::Answer(matcher) => matches!(matcher.permits(token), Ok(true)),
            _ => true,
        };
        permitted && self.advance(token, rules) == Ok(Progress::GoesOn)
    }
}

/// Takes the end tokens out, unless nothing else is left.
fn go_on(mask: &mut SimpleVob, end_tokens: &[u32]) {
    let ends: Vec<u32> = end_tokens.iter().copied().filter(|&end| mask.is_allowed(end)).collect();
    ends.iter().for_each(|&end| mask.disallow_token(end));
    if mask.is_zero() {
        ends.iter().for_each(|&end| mask.allow_token(end));
    }
}

impl Thoughts {
    /// Whether the budget is used up.
    fn are_over(&self, rules: &Rules) -> bool {
        rules.thinking.tokens_max.is_some_and(|max| self.count >= max)
    }

    /// How many tokens of their end have been said: fewer than it has.
    fn close_said(&self, rules: &Rules) -> usize {
        let close = &rules.thinking.close;
        (0..close.len()).rev().find(|&said| self.last.ends_with(&close[..said])).unwrap_or(0)
    }

    /// True if this token ends them. They end where the end is spelled out, however it is cut into tokens.
    fn push(&mut self, token: u32, rules: &Rules) -> bool {
        self.count += 1;
        self.last.push(token);
        self.tail.extend_from_slice(rules.tokenizer.token_bytes(token));
        let keep = |length: usize, max: usize| length.saturating_sub(max);
        self.last.drain(..keep(self.last.len(), rules.thinking.close.len()));
        let ended = self.last == rules.thinking.close
            || (!rules.close.is_empty() && self.tail.trim_ascii_end().ends_with(&rules.close));
        // Whitespace may stand in the same token as the end.
        self.tail.drain(..keep(self.tail.len(), rules.close.len() + 64));
        ended
    }
}
