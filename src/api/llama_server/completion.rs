//! `POST /completion`.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    api::{
        answer::Mode,
        ask::{Ask, Format, Input},
        error::ApiError,
        fields::{Fields, kind, token_list},
        generation,
        request_id::RequestId,
        sampling,
        state::Api,
    },
    engine::{grammar::GrammarSource, request::Prompt},
    http::{Reply, Request},
};

use super::{
    settings,
    wire::{CompletionWire, Telling},
};

const PROMPTS_MAX: usize = 256;
const PARTS_MAX: usize = 1 << 16;
/// Most likely tokens that are told with each.
const PROBS_MAX: i64 = 20;
const STOP_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;
const RESPONSE_FIELDS_MAX: usize = 64;
const RESPONSE_FIELD_BYTES_MAX: usize = 256;
/// What changes nothing here: every prompt is kept for those that begin alike, no context is ever shifted, and sequences
/// have no places of their own.
const IGNORED: [&str; 6] = ["n_keep", "n_discard", "id_slot", "cache_prompt", "min_keep", "n_indent"];
/// What can't be had, unless it is empty, 0 or false.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("grammar", "GBNF is not read here: use json_schema, or the Lark field `grammar` of /v1/completions"),
    ("post_sampling_probs", "probabilities are the model's own, before sampling: use n_probs alone"),
    ("return_progress", "a prompt's progress is not told"),
    ("image_data", "images are not supported"),
    ("lora", "there are no adapters"),
    ("t_max_predict_ms", "an answer's time is not bounded: use n_predict, or leave"),
    ("n_cmpl", "send the prompt more than once, or use n of /v1/completions"),
];

/// Continues prompts.
pub fn completion(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let prompt = fields.take("prompt");
    let options = Options::read(&mut fields, api)?;
    let Some(prompt) = prompt else {
        return fields.missing("prompt", "a text, a list of token ids and texts, or a list of these");
    };
    let prompts = read_prompts(prompt)?;
    fields.finish()?;
    let ask = Ask { input: Input::Prompts(prompts), ..options.ask };
    start(api, request, Options { ask, ..options })
}

/// Starts what was asked for.
pub fn start(api: &Arc<Api>, request: &Request<'_>, options: Options) -> Result<Reply, ApiError> {
    let Options { ask, mode, telling, ignored } = options;
    let id = RequestId::fresh();
    let wire = CompletionWire::new(&ask, mode, telling);
    let reply = generation::start(api, request, &id, ask, mode, wire)?;
    Ok(match &ignored[..] {
        [] => reply,
        names => reply.header("x-ignored-params", names.join(", ")),
    })
}

/// All but the prompt.
pub struct Options {
    pub ask: Ask,
    pub mode: Mode,
    pub telling: Telling,
    pub ignored: Vec<&'static str>,
}

impl Options {
    /// Reads what completion and infill share.
    pub fn read(fields: &mut Fields, api: &Api) -> Result<Self, ApiError> {
        let mut ask = Ask::new(Input::Prompts(Vec::new()));
        ask.model = fields.text("model")?;
        ask.request = settings::defaults();
        let request = &mut ask.request;
        request.queue_timeout = api.settings.queue_timeout;
        sampling::read(fields, &mut request.sampling)?;
        // Both are "any".
        let any = [u64::MAX, u64::from(u32::MAX)];
        request.sampling.seed = request.sampling.seed.filter(|seed| !any.contains(seed));
        for name in ["max_tokens", "n_predict"] {
            if let Some(n) = fields.integer(name, -1..=1_000_000_000)? {
                // −1 is "as many as there is room for".
                request.max_tokens = usize::try_from(n).unwrap_or(usize::MAX);
            }
        }
        request.stop = fields.texts("stop", STOP_MAX, STOP_BYTES_MAX)?;
        request.ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
        let probs = fields.integer("n_probs", 0..=PROBS_MAX)?.filter(|n| *n > 0);
        request.logprobs = probs.map(|n| n as usize);
        ask.format = match fields.take("json_schema") {
            None => None,
            Some(schema @ (Value::Object(_) | Value::Bool(_))) => {
                Some(Format { source: GrammarSource::JsonSchema(schema), param: "json_schema" })
            }
            Some(other) => {
                return fields.refuse("json_schema", format!("expected a JSON schema, not {}", kind(&other)));
            }
        };
        let stream = fields.flag("stream")?.unwrap_or(false);
        let mode = if stream { Mode::Stream } else { Mode::Whole };
        let telling = Telling {
            tokens: fields.flag("return_tokens")?.unwrap_or(false),
            timings: fields.flag("timings_per_token")?.unwrap_or(false),
            fields: fields.texts("response_fields", RESPONSE_FIELDS_MAX, RESPONSE_FIELD_BYTES_MAX)?,
        };
        for (name, why) in UNSUPPORTED {
            if fields.take(name).is_some_and(|value| !says_nothing(&value)) {
                return Err(ApiError::unsupported(name, why));
            }
        }
        let ignored = read_ignored(fields)?;
        Ok(Self { ask, mode, telling, ignored })
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64().is_some_and(|n| n <= 0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

/// The names of those that were given with another meaning than what is done anyhow.
fn read_ignored(fields: &mut Fields) -> Result<Vec<&'static str>, ApiError> {
    let mut ignored = Vec::new();
    for name in IGNORED {
        let done_anyhow = match fields.take(name) {
            None => true,
            Some(Value::Bool(flag)) => flag == (name == "cache_prompt"),
            Some(Value::Number(number)) => {
                number.as_f64().is_some_and(|n| n == if name == "id_slot" { -1.0 } else { 0.0 })
            }
            Some(_) => return fields.refuse(name, "expected a number, true or false".to_owned()),
        };
        if !done_anyhow {
            ignored.push(name);
        }
    }
    Ok(ignored)
}

/// One prompt, or a list of prompts.
fn read_prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    let items = match value {
        // A list with a number in it is one prompt.
        Value::Array(items) if !items.iter().any(Value::is_number) => items,
        one => return Ok(vec![read_prompt(one, "prompt")?]),
    };
    if !(1..=PROMPTS_MAX).contains(&items.len()) {
        let message = format!("{} prompts, 1 to {PROMPTS_MAX} are allowed", items.len());
        return Err(ApiError::field("prompt", message));
    }
    items.into_iter().enumerate().map(|(i, item)| read_prompt(item, &format!("prompt[{i}]"))).collect()
}

/// A text, a list of token ids and texts, or `{"prompt_string", "multimodal_data"}`. The spelling of special tokens means
/// them.
pub fn read_prompt(value: Value, at: &str) -> Result<Prompt, ApiError> {
    match value {
        Value::String(text) => Ok(Prompt::Marked(text)),
        Value::Array(items) if items.iter().all(Value::is_number) => {
            token_list(items.into(), at, usize::MAX).map(Prompt::Tokens)
        }
        Value::Array(items) => read_parts(items, at).map(Prompt::Parts),
        item @ Value::Object(_) => {
            let mut fields = Fields::inside(item, at)?;
            let text = fields.text("prompt_string")?;
            if fields.take("multimodal_data").is_some_and(|data| !says_nothing(&data)) {
                return Err(ApiError::unsupported(format!("{at}.multimodal_data"), "images are not supported"));
            }
            let Some(text) = text else { return fields.missing("prompt_string", "the text") };
            fields.finish()?;
            Ok(Prompt::Marked(text))
        }
        other => Err(ApiError::field(at, format!("expected a string or a list, not {}", kind(&other)))),
    }
}

/// Token ids and texts, of which only a first one gets BOS.
pub fn read_parts(items: Vec<Value>, at: &str) -> Result<Vec<Prompt>, ApiError> {
    if items.len() > PARTS_MAX {
        return Err(ApiError::field(at, format!("{} parts, {PARTS_MAX} are allowed beside texts", items.len())));
    }
    let part = |(i, item)| match item {
        Value::String(text) if i == 0 => Ok(Prompt::Marked(text)),
        Value::String(text) => Ok(Prompt::Rendered(text)),
        number => token_list(Value::Array(vec![number]), at, 1)
            .map(Prompt::Tokens)
            .map_err(|_| ApiError::field(format!("{at}[{i}]"), "expected a token id or a text")),
    };
    items.into_iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prompts_of_every_shape() {
        let text = |text: &str| Prompt::Marked(text.into());
        for (value, expected) in [
            (json!("a"), vec![text("a")]),
            (json!([1, 2]), vec![Prompt::Tokens(vec![1, 2])]),
            (
                json!([12, "s", 3]),
                vec![Prompt::Parts(vec![
                    Prompt::Tokens(vec![12]),
                    Prompt::Rendered("s".into()),
                    Prompt::Tokens(vec![3]),
                ])],
            ),
            (json!(["a", [1, 2]]), vec![text("a"), Prompt::Tokens(vec![1, 2])]),
            (json!([["a", 1]]), vec![Prompt::Parts(vec![text("a"), Prompt::Tokens(vec![1])])]),
            (json!({"prompt_string": "a"}), vec![text("a")]),
        ] {
            assert_eq!(read_prompts(value.clone()).unwrap(), expected, "{value}");
        }
        for (value, param) in [
            (json!(1), "prompt"),
            (json!([]), "prompt"),
            (json!([1, -2]), "prompt[1]"),
            (json!([1, {}]), "prompt[1]"),
            (json!(["a", null]), "prompt[1]"),
            (json!({"prompt_string": "a", "multimodal_data": ["x"]}), "prompt.multimodal_data"),
            (json!({}), "prompt.prompt_string"),
        ] {
            assert_eq!(read_prompts(value.clone()).unwrap_err().param(), Some(param), "{value}");
        }
    }
}
