//! `POST /infill`: what stands between two texts, for models with tokens for that.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    api::{
        ask::{Ask, Input, Suffix},
        error::ApiError,
        fields::Fields,
        state::Api,
    },
    engine::request::Prompt,
    http::{Reply, Request},
};

use super::completion::{Options, read_prompt, start};

/// Fills in a middle: `prompt`, if there is one, goes after `input_prefix`.
pub fn infill(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let prefix = fields.text("input_prefix")?;
    let suffix = fields.text("input_suffix")?;
    let prompt = fields.take("prompt");
    match fields.take("input_extra") {
        None => {}
        Some(Value::Array(none)) if none.is_empty() => {}
        Some(_) => {
            return Err(ApiError::unsupported("input_extra", "other files are not taken: put them into input_prefix"));
        }
    }
    let options = Options::read(&mut fields, api)?;
    let Some(prefix) = prefix else { return fields.missing("input_prefix", "the text before") };
    let Some(suffix) = suffix else { return fields.missing("input_suffix", "the text after") };
    let mut parts = vec![Prompt::Text(prefix)];
    if let Some(prompt) = prompt {
        parts.push(read_prompt(prompt, "prompt")?);
    }
    fields.finish()?;
    let ask = Ask {
        input: Input::Prompts(vec![Prompt::Parts(parts)]),
        suffix: Some(Suffix { text: suffix, param: "input_suffix" }),
        ..options.ask
    };
    start(api, request, Options { ask, ..options })
}
