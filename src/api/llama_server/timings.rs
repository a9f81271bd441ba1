//! `timings`: what a completion has cost, in tokens and milliseconds.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{api::answer::End, engine::request::Usage};

/// Of an answer that has ended.
pub fn of(end: &End) -> Value {
    let timeline = &end.timeline;
    let finished = timeline.finished.unwrap_or(timeline.received);
    let admitted = timeline.admitted.unwrap_or(finished);
    let first = timeline.first_token.unwrap_or(finished);
    tell(end.usage, first.saturating_duration_since(admitted), finished.saturating_duration_since(first))
}

/// Of one that has come so far. Tokens from the cache are not counted as prompt.
pub fn tell(usage: Usage, prompt: Duration, answer: Duration) -> Value {
    let prompt_tokens = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
    let (prompt_ms, prompt_each, prompt_rate) = rates(prompt_tokens, prompt);
    let (predicted_ms, predicted_each, predicted_rate) = rates(usage.completion_tokens, answer);
    json!({
        "cache_n": usage.cached_tokens,
        "prompt_n": prompt_tokens,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_each,
        "prompt_per_second": prompt_rate,
        "predicted_n": usage.completion_tokens,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_each,
        "predicted_per_second": predicted_rate,
    })
}

/// Milliseconds, milliseconds for each, and how many a second; 0 where there is none.
fn rates(count: usize, time: Duration) -> (f64, f64, f64) {
    let ms = time.as_secs_f64() * 1e3;
    let each = if count == 0 { 0.0 } else { ms / count as f64 };
    let rate = if ms == 0.0 { 0.0 } else { count as f64 / ms * 1e3 };
    (ms, each, rate)
}
