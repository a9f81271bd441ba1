//! The fields that chat and text completions share.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::api::{
    answer::Mode,
    ask::{Ask, Chat},
    error::ApiError,
    fields::{Fields, kind},
    generation::CHOICES_MAX,
    sampling,
};

const STOP_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;
const STOP_TOKENS_MAX: usize = 64;
const METADATA_MAX: usize = 16;

/// How an answer is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telling {
    pub mode: Mode,
    /// A last chunk with `usage`.
    pub include_usage: bool,
}

/// Reads what both have into `ask`. `queue_timeout` is the server's, which `timeout_ms` may shorten.
pub fn read(fields: &mut Fields, ask: &mut Ask, queue_timeout: Duration) -> Result<Telling, ApiError> {
    ask.model = fields.text("model")?;
    let request = &mut ask.request;
    // OpenAI's defaults, where ours are others.
    request.sampling.temperature = 1.0;
    request.sampling.top_p = 1.0;
    request.sampling.top_k = 0;
    sampling::read(fields, &mut request.sampling)?;
    request.stop = fields.texts("stop", STOP_MAX, STOP_BYTES_MAX)?;
    request.stop_tokens = fields.tokens("stop_token_ids", STOP_TOKENS_MAX)?.unwrap_or_default();
    request.ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
    request.priority = fields.integer("priority", -100..=100)?.unwrap_or(0) as i32;
    let timeout = fields.integer("timeout_ms", 1..=queue_timeout.as_millis() as i64)?;
    request.queue_timeout = timeout.map_or(queue_timeout, |ms| Duration::from_millis(ms as u64));
    ask.choices = fields.integer("n", 1..=CHOICES_MAX as i64)?.unwrap_or(1) as usize;
    read_labels(fields)?;
    read_telling(fields)
}

/// Says of each of these fields that it can't be had, if it is there with another value than those that change nothing.
pub fn refuse_unsupported(fields: &mut Fields, names: &[&'static str]) -> Result<(), ApiError> {
    for name in names {
        match fields.take(name) {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Array(items)) if items.is_empty() => {}
            Some(_) => return Err(ApiError::unsupported(*name, "this server does not support it")),
        }
    }
    Ok(())
}

/// Labels of the caller's own, which change nothing here: those that are given.
pub fn read_labels(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut labels = Map::new();
    for name in ["user", "safety_identifier", "prompt_cache_key"] {
        if let Some(text) = fields.text(name)? {
            labels.insert(name.into(), text.into());
        }
    }
    if let Some(metadata) = fields.take("metadata") {
        match &metadata {
            Value::Object(pairs) if pairs.len() <= METADATA_MAX && pairs.values().all(Value::is_string) => {}
            Value::Object(_) => {
                return fields.refuse("metadata", format!("at most {METADATA_MAX} pairs of strings are allowed"));
            }
            other => return fields.refuse("metadata", format!("expected an object, not {}", kind(other))),
        }
        labels.insert("metadata".into(), metadata);
    }
    if let Some(tier) = fields.text("service_tier")?
        && !["auto", "default"].contains(&tier.as_str())
    {
        return Err(ApiError::unsupported("service_tier", "there is one tier: auto or default"));
    }
    Ok(labels)
}

/// How much is to be thought, as the field `param` says it: what the chat template is told.
pub fn read_effort(effort: &str, param: &'static str, ask: &mut Ask, chat: &mut Chat) -> Result<(), ApiError> {
    if !["none", "minimal", "low", "medium", "high", "xhigh"].contains(&effort) {
        return Err(ApiError::field(param, "must be none, minimal, low, medium, high or xhigh"));
    }
    chat.variables.insert("enable_thinking".into(), (effort != "none").into());
    if effort != "none" {
        ask.thoughts.needed = Some(param);
        chat.variables.insert("reasoning_effort".into(), effort.into());
    }
    Ok(())
}

fn read_telling(fields: &mut Fields) -> Result<Telling, ApiError> {
    let stream = fields.flag("stream")?.unwrap_or(false);
    let mode = if stream { Mode::Stream } else { Mode::Whole };
    let Some(options) = fields.take("stream_options") else { return Ok(Telling { mode, include_usage: false }) };
    if !stream {
        return fields.refuse("stream_options", "only allowed with stream: true".to_owned());
    }
    let mut options = Fields::inside(options, "stream_options")?;
    let include_usage = options.flag("include_usage")?.unwrap_or(false);
    // Padding against eavesdroppers on the sizes of chunks is OpenAI's own.
    options.flag("include_obfuscation")?;
    options.finish()?;
    Ok(Telling { mode, include_usage })
}
