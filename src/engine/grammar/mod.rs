//! Structured output: what a generation may say is held to a grammar, token by token.
//!
//! ```text
//! source ─▶ Compiler (threads of its own, limits, cache) ─▶ Grammar ─▶ Constraint, one a sequence
//!                                                                          │ with each step: which tokens may come next
//! plan ─▶ Masks::ask ─▶ forward ─▶ Masks::collect ─▶ sample within the masks ─▶ advance
//! ```
//!
//! The matching is llguidance's (Earley's algorithm over a lexer of regular-expression derivatives); what is ours: the
//! vocabulary, the limits, which schemas are taken, the thoughts before an answer, and when masks are computed. Knows tokens
//! and bytes; no logits but to exclude some, no wire format and no model.
//!
//! Fails closed: a source that can't be held to in full is refused, with the place in it; a matcher that fails ends its
//! request with an error. No answer is ever generated without the mask that its grammar asks for.
//!
//! **Whitespace.** Free whitespace would let a model write blanks without end. What follows a schema is written in one way,
//! as Python's `json.dumps` does: `", "` between items, `": "` after keys, nothing else. That leaves the least to choose, so
//! that much of an answer is known before it is generated. An answer that may be any JSON object may be laid out as the
//! model likes within bounds: between two tokens of JSON either a few blanks, or one line break and an indentation.

mod cache;
mod compiler;
mod constraint;
mod json;
mod lark;
mod limits;
mod masks;
mod matcher;
mod schema;
mod source;
#[cfg(test)]
pub(in crate::engine) mod tests;
mod vocabulary;

use std::fmt;

pub use compiler::Compiler;
pub(in crate::engine) use constraint::{Allowed, Constraint, Progress};
pub(in crate::engine) use masks::{Ahead, Masks};
pub use matcher::Grammar;
use serde_json::Value;

/// What answers are to follow.
#[derive(Debug, Clone, PartialEq)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// What this JSON schema (draft 2020-12, most of it) describes.
    JsonSchema(Value),
    /// What this regular expression (syntax of the `regex` crate, no look-around) matches from start to end.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A grammar in llguidance's variant of Lark. Special tokens are named `<|like_this|>`, or `<[TOOL_CALLS]>` where a
    /// name has no angle brackets of its own.
    Lark(String),
}

/// Why there is no grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrammarError {
    /// The source is wrong, asks for what is not supported, or for too much. `pointer` is the JSON pointer (RFC 6901) to
    /// the place in a schema; empty: all of it.
    Invalid { pointer: String, message: String },
    /// Too many grammars are being compiled: later.
    Busy,
    /// The compiler itself failed.
    Internal(String),
}

impl GrammarError {
    pub(self) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { pointer: String::new(), message: message.into() }
    }
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { pointer, message } if pointer.is_empty() => write!(f, "{message}"),
            Self::Invalid { pointer, message } => write!(f, "at {pointer}: {message}"),
            Self::Busy => write!(f, "too many grammars are being compiled; try again"),
            Self::Internal(why) => write!(f, "the grammar compiler failed: {why}"),
        }
    }
}

impl std::error::Error for GrammarError {}
