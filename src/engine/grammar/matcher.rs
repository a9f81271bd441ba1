//! A compiled grammar, and where one sequence is in it.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
};

use llguidance::{TokenParser, api::StopReason, toktrie::SimpleVob};

use super::{limits::SHARED_STATES_MAX, source::brief};
use crate::engine::tokenizer::Tokenizer;

/// A compiled grammar; clones are the same one. Belongs to the tokenizer that it was compiled for.
#[derive(Clone)]
pub struct Grammar(Arc<Compiled>);

struct Compiled {
    tokenizer: Arc<Tokenizer>,
    /// At its start, its lexer as compilation left it: only copied, never advanced.
    fresh: Mutex<TokenParser>,
    /// At its start too. Its lexer is shared by the sequences of many requests, who find what others have worked out.
    shared: Mutex<TokenParser>,
}

impl Grammar {
    /// Of a parser at the grammar's start.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, parser: TokenParser) -> Self {
        let shared = Mutex::new(parser.deep_clone());
        Self(Arc::new(Compiled { tokenizer, fresh: Mutex::new(parser), shared }))
    }

    /// Whether its tokens are those of `tokenizer`.
    pub fn is_for(&self, tokenizer: &Arc<Tokenizer>) -> bool {
        Arc::ptr_eq(&self.0.tokenizer, tokenizer)
    }

    /// A matcher at the start.
    pub(super) fn matcher(&self) -> Matcher {
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // A lexer that a panic has left behind panics once more.
        let stats = panic::catch_unwind(AssertUnwindSafe(|| shared.parser.lexer_stats()));
        if stats.is_err() || stats.is_ok_and(|stats| stats.error || stats.num_states > SHARED_STATES_MAX) {
            *shared = self.alone();
        }
        Matcher { inner: llguidance::Matcher::new(Ok(shared.clone())), grammar: self.clone(), tokens: Vec::new() }
    }

    /// A parser at the start that shares nothing.
    fn alone(&self) -> TokenParser {
        self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner).deep_clone()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// The same compiled grammar.
impl PartialEq for Grammar {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Where a sequence is in its grammar.
pub(super) struct Matcher {
    inner: llguidance::Matcher,
    grammar: Grammar,
    /// What it has taken.
    tokens: Vec<u32>,
}

impl Clone for Matcher {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), grammar: self.grammar.clone(), tokens: self.tokens.clone() }
    }
}

impl Matcher {
    /// The tokens that may come next, at least one; end tokens among them where the grammar may end.
    pub fn mask(&mut self) -> Result<SimpleVob, String> {
        self.attempt(|inner| inner.compute_mask())
    }

    /// Takes a token that the mask allows.
    pub fn advance(&mut self, token: u32) -> Result<(), String> {
        self.attempt(|inner| inner.consume_token(token))?;
        self.tokens.push(token);
        Ok(())
    }

    /// Whether the mask allows a token, for less than the mask costs.
    pub fn permits(&mut self, token: u32) -> Result<bool, String> {
        self.attempt(|inner| inner.validate_tokens(&[token])).map(|valid| valid == 1)
    }

    /// Whether nothing can follow.
    pub fn is_complete(&self) -> bool {
        matches!(self.inner.stop_reason(), StopReason::NoExtension | StopReason::EndOfSentence)
    }

    /// Tokens that must come next, as the tokenizer would write them.
    pub fn forced(&mut self) -> Vec<u32> {
        if self.is_complete() { Vec::new() } else { self.inner.compute_ff_tokens() }
    }

    /// What fails may do so because of another: of a lexer that both use, and that has grown to its limit or was left behind
    /// by a panic. So it is tried once more with one of its own.
    fn attempt<T, E: fmt::Display>(
        &mut self,
        what: impl Fn(&mut llguidance::Matcher) -> Result<T, E>,
    ) -> Result<T, String> {
        if let Ok(done) = what(&mut self.inner) {
            return Ok(done);
        }
        let mut alone = llguidance::Matcher::new(Ok(self.grammar.alone()));
        for &token in &self.tokens {
            alone.consume_token(token).map_err(|error| brief(&error))?;
        }
        self.inner = alone;
        what(&mut self.inner).map_err(|error| brief(&error))
    }
}

#[cfg(test)]
impl Matcher {
    /// Panics where the lexer that others use too is locked.
    pub fn break_lexer(&mut self) {
        let broken = self.inner.test_trigger_lexer_error();
        assert!(broken.is_err());
    }
}
