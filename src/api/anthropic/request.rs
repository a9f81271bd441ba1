//! The fields of a request: what both endpoints take, and what only an answer needs.

use std::time::Duration;

use serde_json::Value;

use crate::{
    api::{
        answer::Mode,
        ask::{Ask, Chat, Format, Input, ThoughtsWanted},
        error::ApiError,
        fields::{Fields, kind},
    },
    engine::grammar::GrammarSource,
};

use super::{conversation, tools};

const STOP_MAX: usize = 64;
const STOP_BYTES_MAX: usize = 256;
/// What of Anthropic's is not here.
const UNSUPPORTED: [&str; 9] = [
    "billing_policy",
    "compaction",
    "container",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "mcp_servers",
    "thread",
];

/// How an answer is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telling {
    pub mode: Mode,
    pub shows_thoughts: bool,
    /// Tokens asked for; 0: the prompt is read into the cache, and nothing is answered.
    pub max_tokens: usize,
}

/// Reads a request for an answer.
pub fn message(body: &[u8], queue_timeout: Duration) -> Result<(Ask, Telling), ApiError> {
    let mut fields = Fields::parse(body)?;
    let (mut ask, shows_thoughts) = common(&mut fields)?;
    let Some(max_tokens) = fields.integer("max_tokens", 0..=1_000_000_000)? else {
        return fields.missing("max_tokens", "how long the answer may be");
    };
    let max_tokens = max_tokens as usize;
    let stream = fields.flag("stream")?.unwrap_or(false);
    match ask.thoughts.tokens_max {
        Some(budget) if budget >= max_tokens => {
            return fields.refuse("thinking.budget_tokens", "must be less than max_tokens".to_owned());
        }
        _ if max_tokens == 0 && stream => {
            return fields.refuse("max_tokens", "0, which only reads the prompt, can't be streamed".to_owned());
        }
        _ => {}
    }
    let request = &mut ask.request;
    // The first token comes with the prompt.
    request.max_tokens = max_tokens.max(1);
    request.queue_timeout = queue_timeout;
    request.stop = fields.texts("stop_sequences", STOP_MAX, STOP_BYTES_MAX)?;
    let sampling = &mut request.sampling;
    sampling.temperature = fields.number("temperature", 0.0..=1.0)?.unwrap_or(1.0);
    sampling.top_p = fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0);
    sampling.top_k = fields.integer("top_k", 0..=1_000_000)?.unwrap_or(0) as u32;
    read_labels(&mut fields)?;
    read_context_management(&mut fields)?;
    for name in UNSUPPORTED {
        match fields.take(name) {
            None => {}
            Some(Value::Array(none)) if none.is_empty() => {}
            Some(_) => return Err(ApiError::unsupported(name, "this server does not support it")),
        }
    }
    fields.finish()?;
    let mode = if stream { Mode::Stream } else { Mode::Whole };
    Ok((ask, Telling { mode, shows_thoughts, max_tokens }))
}

/// Reads a request to count a prompt's tokens.
pub fn count(body: &[u8]) -> Result<Ask, ApiError> {
    let mut fields = Fields::parse(body)?;
    let (ask, _) = common(&mut fields)?;
    fields.finish()?;
    Ok(ask)
}

/// What makes the prompt, and what it is to be answered with; and whether thoughts are shown.
fn common(fields: &mut Fields) -> Result<(Ask, bool), ApiError> {
    let mut chat = Chat::default();
    conversation::read(fields, &mut chat)?;
    tools::read(fields, &mut chat)?;
    let mut thoughts = ThoughtsWanted::default();
    let shows_thoughts = read_thinking(fields, &mut thoughts, &mut chat)?;
    let format = read_output(fields, &mut chat)?;
    if let Some(format) = &format {
        let other = match () {
            _ if chat.must_call() => "tools that must be called",
            _ if chat.continues => "a last message of the assistant, to be gone on with",
            _ => "",
        };
        if !other.is_empty() {
            return fields.refuse(format.param, format!("can't be combined with {other}"));
        }
    }
    read_cache_control(fields)?;
    if fields.text("speed")?.is_some_and(|speed| speed != "standard") {
        return Err(ApiError::unsupported("speed", "there is one speed: standard"));
    }
    let model = fields.text("model")?;
    Ok((Ask { model, format, thoughts, ..Ask::new(Input::Chat(chat)) }, shows_thoughts))
}

/// `thinking`. Models that can do without thoughts don't think unless it asks for them.
fn read_thinking(fields: &mut Fields, thoughts: &mut ThoughtsWanted, chat: &mut Chat) -> Result<bool, ApiError> {
    let mut enabled = false;
    let mut shows = true;
    if let Some(mut thinking) = fields.object("thinking")? {
        match thinking.text("type")?.as_deref() {
            Some("enabled") => {
                let Some(budget) = thinking.integer("budget_tokens", 1..=1_000_000_000)? else {
                    return thinking.missing("budget_tokens", "how many tokens of thought there may be");
                };
                thoughts.tokens_max = Some(budget as usize);
                thoughts.needed = Some("thinking");
                enabled = true;
            }
            Some("adaptive") => enabled = true,
            Some("disabled") => {}
            Some("between_tools") => {
                return Err(ApiError::unsupported("thinking.type", "there are enabled, adaptive and disabled"));
            }
            Some(_) => return thinking.refuse("type", "must be enabled, adaptive or disabled".to_owned()),
            None => return thinking.missing("type", "enabled, adaptive or disabled"),
        }
        if enabled {
            match thinking.text("display")?.as_deref() {
                None | Some("summarized") => {}
                Some("omitted") => shows = false,
                Some(_) => return thinking.refuse("display", "must be summarized or omitted".to_owned()),
            }
        }
        thinking.finish()?;
    }
    chat.variables.insert("enable_thinking".into(), enabled.into());
    Ok(shows)
}

/// `output_config`, and `output_format` as it was called before.
fn read_output(fields: &mut Fields, chat: &mut Chat) -> Result<Option<Format>, ApiError> {
    let mut format = match fields.object("output_format")? {
        Some(format) => Some(read_format(format, "output_format.schema")?),
        None => None,
    };
    let Some(mut config) = fields.object("output_config")? else { return Ok(format) };
    if let Some(effort) = config.text("effort")? {
        // Templates that know efforts know three.
        let effort = match effort.as_str() {
            "low" | "medium" | "high" => effort.as_str(),
            "xhigh" | "max" => "high",
            _ => return config.refuse("effort", "must be low, medium, high, xhigh or max".to_owned()),
        };
        chat.variables.insert("reasoning_effort".into(), effort.into());
    }
    if let Some(inner) = config.object("format")? {
        if format.is_some() {
            return config.refuse("format", "can't be combined with output_format".to_owned());
        }
        format = Some(read_format(inner, "output_config.format.schema")?);
    }
    config.finish()?;
    Ok(format)
}

/// `{"type": "json_schema", "schema"}`; `param` is where the schema stands.
fn read_format(mut fields: Fields, param: &'static str) -> Result<Format, ApiError> {
    match fields.text("type")?.as_deref() {
        Some("json_schema") => {}
        Some(_) => return fields.refuse("type", "must be json_schema".to_owned()),
        None => return fields.missing("type", "json_schema"),
    }
    let Some(schema) = fields.take("schema") else { return fields.missing("schema", "the JSON schema") };
    if !schema.is_object() {
        return fields.refuse("schema", format!("expected an object, not {}", kind(&schema)));
    }
    fields.finish()?;
    Ok(Format { source: GrammarSource::JsonSchema(schema), param })
}

/// `cache_control` of the object that is being read: every prompt is kept for the next that begins alike.
pub fn read_cache_control(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(mut control) = fields.object("cache_control")? else { return Ok(()) };
    if control.text("type")?.as_deref() != Some("ephemeral") {
        return control.refuse("type", "must be ephemeral".to_owned());
    }
    if !matches!(control.text("ttl")?.as_deref(), None | Some("5m" | "1h")) {
        return control.refuse("ttl", "must be 5m or 1h".to_owned());
    }
    // Claude Code's, with a beta header: whose prompts share a cache.
    control.text("scope")?;
    control.finish()
}

/// `context_management`: what leaves the conversation as it is, as coding agents ask for it.
fn read_context_management(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(mut management) = fields.object("context_management")? else { return Ok(()) };
    let edits = management.take("edits");
    management.finish()?;
    let keeps_all = |edit: &Value| edit["type"] == "clear_thinking_20251015" && edit["keep"] == "all";
    match edits {
        None => Ok(()),
        Some(Value::Array(edits)) if edits.iter().all(keeps_all) => Ok(()),
        Some(_) => Err(ApiError::unsupported("context_management.edits", "this server does not edit conversations")),
    }
}

/// Labels of the caller's own, which change nothing here.
fn read_labels(fields: &mut Fields) -> Result<(), ApiError> {
    if let Some(mut metadata) = fields.object("metadata")? {
        metadata.text("user_id")?;
        metadata.finish()?;
    }
    match fields.text("service_tier")?.as_deref() {
        None | Some("auto" | "standard_only") => Ok(()),
        Some(_) => fields.refuse("service_tier", "must be auto or standard_only".to_owned()),
    }
}
