//! The native API: one file an endpoint, what is asked and what is answered side by side.

mod ask;
mod decode;
mod encode;
mod generate;
mod stream;
mod whole;

pub use ask::{Ask, Message};
pub use decode::decode;
pub use encode::encode;
pub use generate::{generate, generate_stream};

use crate::engine::request::{FinishReason, Timeline, Usage};
use serde_json::{Map, Value, json};

/// The reason as it stands in answers.
fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop(_) => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}

/// What an answer says of its cost: `finish_reason`, `usage`, `response_time` in seconds and `tokens_per_second` over
/// that time.
pub fn account(reason: FinishReason, usage: Usage, timeline: &Timeline) -> Map<String, Value> {
    let end = timeline.finished.or(timeline.first_token).unwrap_or(timeline.received);
    let seconds = (end - timeline.received).as_secs_f64();
    let rate = if seconds > 0.0 { usage.completion_tokens as f64 / seconds } else { 0.0 };
    let account = json!({
        "finish_reason": finish_word(reason),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "response_time": (seconds * 1e6).round() / 1e6,
        "tokens_per_second": (rate * 1e3).round() / 1e3,
    });
    match account {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
