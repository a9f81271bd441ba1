//! A response object, but for what is generated: what it says of the request, and how it stands.

use serde_json::{Map, Value, json};

use crate::{
    api::{answer::Total, error::ApiError, openai::now},
    engine::request::FinishReason,
};

/// How a response stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Nothing has been computed.
    Queued,
    InProgress,
    Completed,
    /// It ran out of tokens.
    Incomplete,
    Cancelled,
    Failed(ApiError),
}

impl State {
    pub fn ended_by(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop(_) => Self::Completed,
            FinishReason::Length => Self::Incomplete,
            FinishReason::Cancelled => Self::Cancelled,
        }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }

    /// Nothing more comes.
    pub fn has_ended(&self) -> bool {
        !matches!(self, Self::Queued | Self::InProgress)
    }
}

/// What stays the same of a response.
pub struct Shell {
    fields: Map<String, Value>,
}

impl Shell {
    /// `fields` are the request's as they are told, with defaults for those that were not given.
    pub fn new(id: &str, fields: Map<String, Value>) -> Self {
        let head = json!({
            "id": format!("resp_{id}"),
            "object": "response",
            "created_at": now(),
            "completed_at": null,
            "status": null,
            "error": null,
            "incomplete_details": null,
            "model": "",
            "output": [],
        });
        let mut all = match head {
            Value::Object(head) => head,
            _ => Map::new(),
        };
        all.extend(fields);
        all.insert("usage".into(), Value::Null);
        Self { fields: all }
    }

    pub fn id(&self) -> &str {
        self.fields["id"].as_str().unwrap_or_default()
    }

    pub fn set_model(&mut self, name: &str) {
        self.fields.insert("model".into(), name.into());
    }

    /// The response as it stands, with the items of its output.
    pub fn written(&self, state: &State, output: &[Value], total: Option<&Total>) -> Value {
        let mut response = self.fields.clone();
        response.insert("status".into(), state.word().into());
        response.insert("output".into(), output.into());
        match state {
            State::Completed => drop(response.insert("completed_at".into(), now().into())),
            State::Incomplete => {
                response.insert("incomplete_details".into(), json!({ "reason": "max_output_tokens" }));
            }
            State::Failed(error) => drop(response.insert("error".into(), told(error))),
            State::Queued | State::InProgress | State::Cancelled => {}
        }
        if let Some(total) = total {
            response.insert("usage".into(), usage(total));
        }
        Value::Object(response)
    }
}

/// `error`, by OpenAI's few words for it.
fn told(error: &ApiError) -> Value {
    let code = match error.status() {
        429 | 503 => "rate_limit_exceeded",
        400..=499 => "invalid_prompt",
        _ => "server_error",
    };
    json!({ "code": code, "message": error.to_string() })
}

fn usage(total: &Total) -> Value {
    let usage = total.usage;
    json!({
        "input_tokens": usage.prompt_tokens,
        // Nothing is charged for what goes into the cache.
        "input_tokens_details": { "cached_tokens": usage.cached_tokens, "cache_write_tokens": 0 },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": total.thought_tokens },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
