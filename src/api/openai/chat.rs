//! `POST /v1/chat/completions`: <https://platform.openai.com/docs/api-reference/chat>.

use std::{fmt::Write, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::{Begun, Choice, Frames, Framing, Piece, Total, Wire, push_json_string},
        ask::{Ask, Chat, Input},
        error::ApiError,
        family::Family,
        fields::{Fields, kind},
        generation,
        request_id::RequestId,
        state::Api,
    },
    engine::dialect::Delta,
    http::{Reply, Request},
};

use super::{
    FINGERPRINT, finish_word, format, logprobs, messages, now,
    request::{self, Telling},
    tools, usage,
};

/// Most likely tokens that are told with each.
const TOP_LOGPROBS_MAX: i64 = 20;
/// What of OpenAI's is not here.
const UNSUPPORTED: [&str; 7] =
    ["audio", "functions", "function_call", "moderation", "prediction", "store", "web_search_options"];

/// Answers a conversation.
pub fn chat(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, telling) = parse(request.body(), api.settings.queue_timeout)?;
    let id = RequestId::fresh();
    let wire = ChatWire::new(&id, &ask, telling);
    generation::start(api, request, &id, ask, telling.mode, wire)
}

fn parse(body: &[u8], queue_timeout: Duration) -> Result<(Ask, Telling), ApiError> {
    let mut fields = Fields::parse(body)?;
    let mut chat = Chat::default();
    let Some(messages) = fields.take("messages") else { return fields.missing("messages", "the conversation") };
    (chat.messages, chat.continues) = messages::read(messages)?;
    tools::read(&mut fields, &mut chat)?;
    read_continuation(&mut fields, &mut chat)?;
    let mut ask = Ask::new(Input::Prompts(Vec::new()));
    let telling = request::read(&mut fields, &mut ask, queue_timeout)?;
    // The answer may be as long as the context allows.
    ask.request.max_tokens = usize::MAX;
    for name in ["max_tokens", "max_completion_tokens"] {
        if let Some(n) = fields.integer(name, 1..=1_000_000_000)? {
            ask.request.max_tokens = n as usize;
        }
    }
    read_logprobs(&mut fields, &mut ask)?;
    ask.format = format::read(&mut fields)?;
    read_thoughts(&mut fields, &mut ask, &mut chat)?;
    request::refuse_unsupported(&mut fields, &UNSUPPORTED)?;
    if let Some(modalities) = fields.take("modalities")
        && modalities != json!(["text"])
    {
        return Err(ApiError::unsupported("modalities", "there is only [\"text\"]"));
    }
    if let Some(verbosity) = fields.text("verbosity")?
        && verbosity != "medium"
    {
        return Err(ApiError::unsupported("verbosity", "there is only medium"));
    }
    if let Some(format) = ask.format.as_ref().filter(|_| chat.must_call()) {
        return fields.refuse(format.param, "can't be combined with tools that must be called".to_owned());
    }
    fields.finish()?;
    ask.input = Input::Chat(chat);
    Ok((ask, telling))
}

/// `continue_final_message` and `add_generation_prompt`, as vLLM has them.
fn read_continuation(fields: &mut Fields, chat: &mut Chat) -> Result<(), ApiError> {
    let continues = fields.flag("continue_final_message")?;
    let opens = fields.flag("add_generation_prompt")?;
    chat.continues |= continues == Some(true);
    if chat.continues && chat.messages.last().is_none_or(|last| last["role"] != "assistant") {
        return fields.refuse("continue_final_message", "the last message must be the assistant's".to_owned());
    }
    if opens.is_some_and(|opens| opens == chat.continues) {
        let message = "must be true, or false with continue_final_message: true";
        return fields.refuse("add_generation_prompt", message.to_owned());
    }
    Ok(())
}

fn read_logprobs(fields: &mut Fields, ask: &mut Ask) -> Result<(), ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
    if top.is_some() && !wanted {
        return fields.refuse("top_logprobs", "only allowed with logprobs: true".to_owned());
    }
    ask.request.logprobs = wanted.then(|| top.unwrap_or(0) as usize);
    Ok(())
}

/// `reasoning_effort` (OpenAI's), `thinking_token_budget` (vLLM's), `reasoning_format` (llama-server's) and
/// `chat_template_kwargs`.
fn read_thoughts(fields: &mut Fields, ask: &mut Ask, chat: &mut Chat) -> Result<(), ApiError> {
    if fields.take("chat_template").is_some() {
        return Err(ApiError::unsupported(
            "chat_template",
            "templates of clients are not run; set `template` for the model",
        ));
    }
    if let Some(effort) = fields.text("reasoning_effort")? {
        request::read_effort(&effort, "reasoning_effort", ask, chat)?;
    }
    match fields.take("chat_template_kwargs") {
        None => {}
        Some(Value::Object(variables)) => chat.variables.extend(variables),
        Some(other) => {
            return fields.refuse("chat_template_kwargs", format!("expected an object, not {}", kind(&other)));
        }
    }
    let budget = fields.integer("thinking_token_budget", 0..=1_000_000_000)?;
    ask.thoughts.tokens_max = budget.map(|tokens| tokens as usize);
    match fields.text("reasoning_format")?.as_deref() {
        None | Some("auto" | "deepseek") => {}
        Some("none") => ask.thoughts.split = false,
        Some(_) => return fields.refuse("reasoning_format", "must be auto, deepseek or none".to_owned()),
    }
    Ok(())
}

/// The answers of a chat.
struct ChatWire {
    /// `{"id", "object", "created"`: what all chunks begin with, and the same of the whole.
    id: String,
    created: u64,
    model: String,
    choices: usize,
    telling: Telling,
    has_logprobs: bool,
    /// What a chunk begins with, up to the number of the choice.
    head: String,
    /// The ids of calls: one for each choice and call.
    calls: RequestId,
}

impl ChatWire {
    fn new(id: &RequestId, ask: &Ask, telling: Telling) -> Self {
        Self {
            id: format!("chatcmpl-{id}"),
            created: now(),
            model: String::new(),
            choices: ask.choices,
            telling,
            has_logprobs: ask.request.logprobs.is_some(),
            head: String::new(),
            calls: RequestId::fresh(),
        }
    }

    /// What answer and chunks have in common.
    fn envelope(&self, object: &str) -> Map<String, Value> {
        let envelope = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        });
        match envelope {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// A chunk of one choice, whose `delta` is written as JSON.
    fn chunk(
        &self,
        choice: usize,
        delta: impl FnOnce(&mut String),
        logprobs: Option<Value>,
        finish: &str,
        out: &mut Frames,
    ) {
        out.piece(|line| {
            line.push_str(&self.head);
            // Writing to a String can't fail.
            let _ = write!(line, "{choice},\"delta\":");
            delta(line);
            let _ = match logprobs {
                Some(logprobs) => write!(line, ",\"logprobs\":{logprobs}"),
                None => write!(line, ",\"logprobs\":null"),
            };
            let _ = write!(line, ",\"finish_reason\":{finish}}}]");
            line.push_str(if self.telling.include_usage { ",\"usage\":null}" } else { "}" });
        });
    }

    /// `call_` and 24 digits, different for each call.
    fn call_id(&self, choice: usize, call: usize) -> String {
        format!("call_{}{choice:04x}{call:04x}", &self.calls.as_str()[..16])
    }

    fn message(&self, index: usize, choice: &Choice) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        let silent = choice.text.is_empty() && !choice.calls.is_empty();
        let content = if silent { Value::Null } else { choice.text.as_str().into() };
        message.insert("content".into(), content);
        message.insert("refusal".into(), Value::Null);
        if !choice.thoughts.is_empty() {
            message.insert("reasoning_content".into(), choice.thoughts.as_str().into());
            message.insert("reasoning".into(), choice.thoughts.as_str().into());
        }
        if !choice.calls.is_empty() {
            let call = |(i, call): (usize, &crate::api::answer::Call)| {
                json!({
                    "id": self.call_id(index, i),
                    "type": "function",
                    "function": { "name": call.name, "arguments": call.arguments },
                })
            };
            message.insert("tool_calls".into(), choice.calls.iter().enumerate().map(call).collect());
        }
        Value::Object(message)
    }
}

impl Wire for ChatWire {
    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn begin(&mut self, begun: &Begun, out: &mut Frames) {
        self.model = begun.model.name().to_owned();
        let envelope = Value::Object(self.envelope("chat.completion.chunk")).to_string();
        self.head = format!("{},\"choices\":[{{\"index\":", envelope.trim_end_matches('}'));
        for choice in 0..self.choices {
            self.chunk(choice, |line| line.push_str(r#"{"role":"assistant","content":""}"#), None, "null", out);
        }
    }

    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Frames) {
        // All tokens of the piece go with its first chunk.
        let mut logprobs = (self.has_logprobs && !piece.scored.is_empty()).then(|| logprobs::of_chat(piece.scored));
        for delta in piece.deltas {
            self.chunk(choice, |line| self.write_delta(line, choice, delta), logprobs.take(), "null", out);
        }
        if logprobs.is_some() {
            self.chunk(choice, |line| line.push_str("{}"), logprobs, "null", out);
        }
    }

    fn end(&mut self, choice: usize, all: &Choice, out: &mut Frames) {
        self.chunk(choice, |line| line.push_str("{}"), None, &format!("\"{}\"", finish_word(all)), out);
    }

    fn finish(&mut self, total: &Total, out: &mut Frames) {
        if self.telling.include_usage {
            let mut chunk = self.envelope("chat.completion.chunk");
            chunk.insert("choices".into(), json!([]));
            chunk.insert("usage".into(), usage(total));
            out.json(&Value::Object(chunk));
        }
        out.piece(|line| line.push_str("[DONE]"));
    }

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        out.json(&Family::OpenAi.body(error));
    }

    fn whole(&mut self, begun: &Begun, choices: &[Choice], total: &Total) -> Value {
        self.model = begun.model.name().to_owned();
        let choice = |(index, choice): (usize, &Choice)| {
            json!({
                "index": index,
                "message": self.message(index, choice),
                "logprobs": if self.has_logprobs { logprobs::of_chat(&choice.scored) } else { Value::Null },
                "finish_reason": finish_word(choice),
            })
        };
        let choices: Vec<Value> = choices.iter().enumerate().map(choice).collect();
        let mut answer = self.envelope("chat.completion");
        answer.insert("choices".into(), choices.into());
        answer.insert("usage".into(), usage(total));
        Value::Object(answer)
    }
}

impl ChatWire {
    fn write_delta(&self, line: &mut String, choice: usize, delta: &Delta) {
        // Writing to a String can't fail.
        match delta {
            Delta::Text(text) => {
                line.push_str("{\"content\":");
                push_json_string(line, text);
            }
            Delta::Thought(text) => {
                for (name, head) in [("reasoning_content", '{'), ("reasoning", ',')] {
                    let _ = write!(line, "{head}\"{name}\":");
                    push_json_string(line, text);
                }
            }
            Delta::ToolCall { index, name } => {
                let id = self.call_id(choice, *index);
                let _ = write!(line, "{{\"tool_calls\":[{{\"index\":{index},\"id\":\"{id}\",\"type\":\"function\",");
                line.push_str("\"function\":{\"name\":");
                push_json_string(line, name);
                line.push_str(",\"arguments\":\"\"}}]");
            }
            Delta::Arguments { index, fragment } => {
                let _ = write!(line, "{{\"tool_calls\":[{{\"index\":{index},\"function\":{{\"arguments\":");
                push_json_string(line, fragment);
                line.push_str("}}]");
            }
        }
        line.push('}');
    }
}
