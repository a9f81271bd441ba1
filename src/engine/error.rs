//! Errors of the engine, by who is to blame.

use std::fmt;

use super::blocks::BLOCK_TOKENS;

/// The request can't be served; says why in words for the client.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestError {
    /// Nothing to continue.
    EmptyPrompt,
    /// Prompt tokens and the model's context, both in tokens.
    ContextExceeded { prompt: usize, context: usize },
    /// A token id the model does not have.
    UnknownToken { id: u32, vocabulary: usize },
    /// A parameter out of its bounds, by its name here.
    Parameter { name: &'static str, why: String },
    /// Larger than the whole KV cache.
    CacheExceeded { needed_blocks: usize, total_blocks: usize },
    /// The queue is full.
    QueueFull { length: usize },
    /// Not admitted in time.
    QueueTimeout,
    /// Not finished in time.
    Timeout,
    /// The engine is stopping.
    ShuttingDown,
    /// The model gave no usable logits (NaN).
    BadLogits,
    /// The grammar can't be followed, or not this one with this model: why.
    Grammar(String),
    /// The engine itself failed.
    Internal(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPrompt => write!(f, "the prompt is empty"),
            Self::ContextExceeded { prompt, context } => {
                write!(f, "the prompt has {prompt} tokens, the model's context holds {context}")
            }
            Self::UnknownToken { id, vocabulary } => {
                write!(f, "token {id} is not in the model's vocabulary of {vocabulary}")
            }
            Self::Parameter { name, why } => write!(f, "{name} {why}"),
            Self::CacheExceeded { needed_blocks, total_blocks } => {
                let (needed, total) = (needed_blocks * BLOCK_TOKENS, total_blocks * BLOCK_TOKENS);
                write!(
                    f,
                    "the request needs {needed_blocks} KV blocks ({needed} tokens), the cache has {total_blocks} ({total} tokens)"
                )
            }
            Self::QueueFull { length } => write!(f, "the queue is full ({length} requests)"),
            Self::QueueTimeout => write!(f, "the request waited in the queue past its deadline"),
            Self::Timeout => write!(f, "the request was not finished within its timeout"),
            Self::ShuttingDown => write!(f, "the server is shutting down"),
            Self::BadLogits => write!(f, "the model produced no usable output for this request"),
            Self::Grammar(why) => write!(f, "the grammar can't be followed: {why}"),
            Self::Internal(why) => write!(f, "internal error: {why}"),
        }
    }
}

impl std::error::Error for RequestError {}
