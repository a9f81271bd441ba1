//! `POST /generate` and `POST /generate_stream`: one path, two ways of delivery.

use std::{fmt::Write, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::{Begun, Choice, Frames, Framing, Mode, Piece, Total, Wire, push_json_string},
        error::ApiError,
        generation,
        request_id::RequestId,
        state::Api,
    },
    engine::{
        dialect::Delta,
        request::{FinishReason, Timeline, Usage},
    },
    http::{Reply, Request},
};

use super::ask;

/// Answers once, when all is generated; with `"stream": true` as [`generate_stream`].
pub fn generate(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, stream) = ask::parse(request.body(), api.settings.queue_timeout)?;
    let mode = if stream == Some(true) { Mode::Stream } else { Mode::Whole };
    let id = RequestId::fresh();
    generation::start(api, request, &id, ask, mode, Native::new(id.clone()))
}

/// Answers with server-sent events while the text is generated.
pub fn generate_stream(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, stream) = ask::parse(request.body(), api.settings.queue_timeout)?;
    if stream == Some(false) {
        return Err(ApiError::field("stream", "this path always streams; /generate answers once"));
    }
    let id = RequestId::fresh();
    generation::start(api, request, &id, ask, Mode::Stream, Native::new(id.clone()))
}

/// The native API's answers.
struct Native {
    id: RequestId,
    /// Events sent so far, which number them.
    events: u64,
}

impl Native {
    fn new(id: RequestId) -> Self {
        Self { id, events: 0 }
    }

    /// An event is written as JSON without building it first: there is one for each token. `tail` is the members after
    /// `token_ids`.
    fn event(&mut self, deltas: &[Delta], token_ids: &[u32], tail: &str, out: &mut Frames) {
        let Self { id, events } = self;
        out.piece(|line| {
            // Writing to a String can't fail.
            let _ = write!(line, "{{\"id\":\"{id}\",\"index\":{events},\"text\":");
            match deltas {
                [Delta::Text(text)] => push_json_string(line, text),
                deltas => push_json_string(line, &text_of(deltas)),
            }
            line.push_str(",\"token_ids\":[");
            for (i, token) in token_ids.iter().enumerate() {
                let _ = write!(line, "{}{token}", if i == 0 { "" } else { "," });
            }
            let _ = write!(line, "],{tail}}}");
        });
        *events += 1;
    }
}

/// Nothing is split here, so all of it is text.
fn text_of(deltas: &[Delta]) -> String {
    let texts = deltas.iter().filter_map(|delta| match delta {
        Delta::Text(text) => Some(&**text),
        _ => None,
    });
    texts.collect()
}

impl Wire for Native {
    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn piece(&mut self, _: usize, piece: &Piece, out: &mut Frames) {
        self.event(piece.deltas, piece.token_ids, "\"finish_reason\":null", out);
    }

    fn end(&mut self, _: usize, all: &Choice, out: &mut Frames) {
        let account = Value::Object(account_of(all)).to_string();
        self.event(&[], &[], account.trim_start_matches('{').trim_end_matches('}'), out);
    }

    fn finish(&mut self, _: &Total, out: &mut Frames) {
        out.piece(|line| line.push_str("[DONE]"));
    }

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        out.json(&json!({ "error": error.to_json() }));
    }

    fn whole(&mut self, _: &Begun, choices: &[Choice], _: &Total) -> Value {
        let mut data = Map::new();
        for choice in choices {
            data.insert("id".into(), self.id.as_str().into());
            data.insert("text".into(), choice.text.as_str().into());
            data.insert("token_ids".into(), choice.token_ids.as_slice().into());
            data.extend(account_of(choice));
        }
        json!({ "success": true, "data": data })
    }
}

fn account_of(choice: &Choice) -> Map<String, Value> {
    choice.end.as_ref().map(|end| account(end.reason, end.usage, &end.timeline)).unwrap_or_default()
}

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
