//! OpenAI's API: <https://platform.openai.com/docs/api-reference>. Statuses, shapes and order of events are its; what
//! others have added to it and clients use (`top_k`, `reasoning_content`, …) is taken too, under their names.

mod chat;
mod completions;
mod embeddings;
mod format;
mod logprobs;
pub mod messages;
mod models;
mod request;
mod responses;
pub mod tools;

pub use chat::chat;
pub use completions::completions;
pub use embeddings::embeddings;
pub use models::{model, models};
pub use responses::{Responses, cancel_response, create_response, delete_response, response, response_input};

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    api::answer::{Choice, Total},
    engine::request::FinishReason,
};

/// Seconds since 1970, as `created`.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Names what would make the same seed give another answer: this program's version.
const FINGERPRINT: &str = concat!("sconce-", env!("CARGO_PKG_VERSION"));

/// `usage`.
fn usage(total: &Total) -> Value {
    let usage = total.usage;
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
        "completion_tokens_details": { "reasoning_tokens": total.thought_tokens },
    })
}

/// `finish_reason`.
fn finish_word(choice: &Choice) -> &'static str {
    match choice.end.as_ref().map(|end| end.reason) {
        _ if choice.calls_tools() => "tool_calls",
        Some(FinishReason::Length) => "length",
        // Nobody reads what is told of a cancelled one.
        _ => "stop",
    }
}
