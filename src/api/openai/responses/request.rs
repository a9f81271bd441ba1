//! The body of `POST /v1/responses`.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::Mode,
        ask::{Ask, Chat, Input},
        error::ApiError,
        fields::{Fields, kind},
        openai::{format, request, tools},
        request_id::RequestId,
        sampling,
    },
    engine::{
        dialect::{Tool, ToolChoice},
        grammar::GrammarSource,
    },
};

use super::{
    items::{self, ITEMS_MAX},
    kept::Responses,
    shell::Shell,
};

/// Most likely tokens that are told with each.
const TOP_LOGPROBS_MAX: i64 = 20;
/// What of OpenAI's is not here.
const UNSUPPORTED: [&str; 6] =
    ["conversation", "context_management", "max_tool_calls", "moderation", "prompt", "prompt_cache_retention"];

/// A checked request.
pub struct Create {
    pub ask: Ask,
    pub shell: Shell,
    /// The items of the whole conversation, as they are kept.
    pub items: Vec<Arc<str>>,
    /// It is kept.
    pub store: bool,
    pub delivered: Delivered,
}

/// When it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    Now(Mode),
    /// In the background, for whoever asks.
    Later,
}

pub fn parse(body: &[u8], id: &RequestId, responses: &Responses, queue_timeout: Duration) -> Result<Create, ApiError> {
    let mut fields = Fields::parse(body)?;
    let mut chat = Chat::default();
    let mut ask = Ask::new(Input::Prompts(Vec::new()));
    ask.param = Some("input");
    ask.model = fields.text("model")?;
    let input = fields.take("input");
    let instructions = fields.text("instructions")?;
    let previous = fields.text("previous_response_id")?;
    let store = fields.flag("store")?.unwrap_or(true);
    let delivered = read_delivery(&mut fields, store)?;
    tools::read_as(&mut fields, &mut chat, |fields, _| read_tool(fields))?;
    read_limits(&mut fields, &mut ask, queue_timeout)?;
    let thoughts = read_reasoning(&mut fields, &mut ask, &mut chat)?;
    let text = read_text(&mut fields, &mut ask)?;
    let top_logprobs = read_logprobs(&mut fields, &mut ask)?;
    let labels = request::read_labels(&mut fields)?;
    if fields.text("truncation")?.is_some_and(|word| word != "disabled") {
        return Err(ApiError::unsupported("truncation", "there is only disabled: nothing is cut silently"));
    }
    request::refuse_unsupported(&mut fields, &UNSUPPORTED)?;
    if let Some(format) = ask.format.as_ref().filter(|_| chat.must_call()) {
        return fields.refuse(format.param, "can't be combined with tools that must be called".to_owned());
    }
    let Some(input) = input else { return fields.missing("input", "a text, or a list of items") };
    fields.finish()?;

    let items = conversation(previous.as_deref(), input, responses)?;
    let told: Vec<Value> = items.iter().filter_map(|item| serde_json::from_str(item).ok()).collect();
    let system = instructions.iter().map(|text| json!({ "role": "system", "content": text }));
    chat.messages = system.chain(items::messages(&told)).collect();
    let sampling = &ask.request.sampling;
    let told = json!({
        "background": delivered == Delivered::Later,
        "instructions": instructions,
        "max_output_tokens": Some(ask.request.max_tokens).filter(|tokens| *tokens != usize::MAX),
        "max_tool_calls": null,
        "parallel_tool_calls": chat.parallel,
        "previous_response_id": previous,
        "reasoning": thoughts,
        "service_tier": "default",
        "store": store,
        "temperature": decimal(sampling.temperature),
        "text": text,
        "tool_choice": told_choice(chat.tool_choice.as_ref()),
        "tools": chat.tools.iter().map(told_tool).collect::<Vec<_>>(),
        "top_logprobs": top_logprobs,
        "top_p": decimal(sampling.top_p),
        "truncation": "disabled",
        "user": null,
        "metadata": {},
    });
    let mut shell = match told {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    shell.extend(labels);
    ask.input = Input::Chat(chat);
    Ok(Create { ask, shell: Shell::new(id.as_str(), shell), items, store, delivered })
}

/// The items of the response before, if there is one, and those of `input`.
fn conversation(previous: Option<&str>, input: Value, responses: &Responses) -> Result<Vec<Arc<str>>, ApiError> {
    let mut items = match previous {
        None => Vec::new(),
        Some(id) => match responses.conversation(id) {
            Some(Ok(items)) => items,
            Some(Err(state)) => {
                let message = format!("this response is {state}; there is nothing to go on from");
                return Err(ApiError::field("previous_response_id", message));
            }
            None => return Err(ApiError::UnknownPrevious { id: id.to_owned() }),
        },
    };
    items.extend(items::read(input)?.iter().map(items::text));
    match items.len() {
        count if count > ITEMS_MAX => {
            Err(ApiError::field("input", format!("{count} items in all, {ITEMS_MAX} are allowed")))
        }
        _ => Ok(items),
    }
}

/// `stream`, `stream_options` and `background`.
fn read_delivery(fields: &mut Fields, store: bool) -> Result<Delivered, ApiError> {
    let stream = fields.flag("stream")?.unwrap_or(false);
    let background = fields.flag("background")?.unwrap_or(false);
    if let Some(options) = fields.take("stream_options") {
        if !stream {
            return fields.refuse("stream_options", "only allowed with stream: true".to_owned());
        }
        let mut options = Fields::inside(options, "stream_options")?;
        // Padding against eavesdroppers on the sizes of events is OpenAI's own.
        options.flag("include_obfuscation")?;
        options.finish()?;
    }
    match (background, stream) {
        (true, true) => Err(ApiError::unsupported("background", "a response in the background is not streamed")),
        (true, false) if !store => fields.refuse("background", "only allowed with store: true".to_owned()),
        (true, false) => Ok(Delivered::Later),
        (false, true) => Ok(Delivered::Now(Mode::Stream)),
        (false, false) => Ok(Delivered::Now(Mode::Whole)),
    }
}

/// The sampler's parameters, and how long all may take.
fn read_limits(fields: &mut Fields, ask: &mut Ask, queue_timeout: Duration) -> Result<(), ApiError> {
    let request = &mut ask.request;
    // OpenAI's defaults, where ours are others.
    (request.sampling.temperature, request.sampling.top_p, request.sampling.top_k) = (1.0, 1.0, 0);
    sampling::read(fields, &mut request.sampling)?;
    // The answer may be as long as the context allows.
    let max_tokens = fields.integer("max_output_tokens", 1..=1_000_000_000)?;
    request.max_tokens = max_tokens.map_or(usize::MAX, |tokens| tokens as usize);
    request.priority = fields.integer("priority", -100..=100)?.unwrap_or(0) as i32;
    let timeout = fields.integer("timeout_ms", 1..=queue_timeout.as_millis() as i64)?;
    request.queue_timeout = timeout.map_or(queue_timeout, |ms| Duration::from_millis(ms as u64));
    Ok(())
}

/// `{"type": "function", "name", "description", "parameters", "strict"}`. Strict unless it says otherwise.
fn read_tool(fields: &mut Fields) -> Result<Tool, ApiError> {
    tools::read_function_fields(fields, true)
}

fn told_tool(tool: &Tool) -> Value {
    json!({
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    })
}

fn told_choice(choice: Option<&ToolChoice>) -> Value {
    match choice {
        None | Some(ToolChoice::Auto) => "auto".into(),
        Some(ToolChoice::None) => "none".into(),
        Some(ToolChoice::Required) => "required".into(),
        Some(ToolChoice::Named(name)) => json!({ "type": "function", "name": name }),
    }
}

/// `reasoning`, as it is told.
fn read_reasoning(fields: &mut Fields, ask: &mut Ask, chat: &mut Chat) -> Result<Value, ApiError> {
    let Some(reasoning) = fields.take("reasoning") else { return Ok(json!({ "effort": null, "summary": null })) };
    let mut fields = Fields::inside(reasoning, "reasoning")?;
    let effort = fields.text("effort")?;
    let mut summary = fields.text("summary")?;
    if let Some(older) = fields.text("generate_summary")? {
        summary = Some(older);
    }
    fields.finish()?;
    if let Some(effort) = &effort {
        request::read_effort(effort, "reasoning.effort", ask, chat)?;
    }
    if summary.as_ref().is_some_and(|word| word != "auto") {
        return Err(ApiError::unsupported("reasoning.summary", "there is only auto: thoughts are told in full"));
    }
    Ok(json!({ "effort": effort, "summary": summary }))
}

/// `text`, as it is told.
fn read_text(fields: &mut Fields, ask: &mut Ask) -> Result<Value, ApiError> {
    let mut told = json!({ "type": "text" });
    if let Some(text) = fields.take("text") {
        let mut fields = Fields::inside(text, "text")?;
        if let Some(value) = fields.take("format") {
            ask.format = format::text_format(value.clone())?;
            told = value;
        }
        if fields.text("verbosity")?.is_some_and(|word| word != "medium") {
            return Err(ApiError::unsupported("text.verbosity", "there is only medium"));
        }
        fields.finish()?;
    }
    if let Some(GrammarSource::JsonSchema(_)) = ask.format.as_ref().map(|format| &format.source) {
        // Answers are held to schemas whether that is asked for or not.
        told["strict"] = true.into();
    }
    Ok(json!({ "format": told, "verbosity": "medium" }))
}

/// `include` and `top_logprobs`.
fn read_logprobs(fields: &mut Fields, ask: &mut Ask) -> Result<i64, ApiError> {
    let mut wanted = false;
    match fields.take("include") {
        None => {}
        Some(Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                match item.as_str() {
                    Some("message.output_text.logprobs") => wanted = true,
                    _ => {
                        let message = "only message.output_text.logprobs is supported";
                        return Err(ApiError::unsupported(format!("include[{i}]"), message));
                    }
                }
            }
        }
        Some(other) => return fields.refuse("include", format!("expected a list, not {}", kind(&other))),
    }
    let top = fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?.unwrap_or(0);
    if top > 0 && !wanted {
        let message = "only allowed with include: [\"message.output_text.logprobs\"]";
        return fields.refuse("top_logprobs", message.to_owned());
    }
    ask.request.logprobs = wanted.then_some(top as usize);
    Ok(top)
}

/// A parameter as it was written: 0.7, not the 0.699999988079071 that it is in 32 bits.
fn decimal(value: f32) -> Value {
    value.to_string().parse().map_or(Value::Null, |value: f64| value.into())
}
