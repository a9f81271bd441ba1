//! How answers are written down: a JSON text a line, the last one with `done` and what it has cost; or all in one.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::{Begun, Call, Choice, Frames, Framing, Piece, Scored, Total, Wire, push_json_string},
        ask::Ask,
        error::ApiError,
        family::Family,
        request_id::RequestId,
    },
    engine::{dialect::Delta, request::FinishReason},
};

use super::time;

/// What a text comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `message: {role, content, thinking, tool_calls}`
    Chat,
    /// `response` and `thinking`.
    Generate,
}

/// An answer of either kind.
pub struct OllamaWire {
    shape: Shape,
    /// As the client named it, as JSON.
    model: String,
    has_logprobs: bool,
    /// The call that is being told, which is sent whole.
    call: Option<Call>,
    calls_sent: usize,
    /// Calls are named after it.
    id: RequestId,
    /// Tokens of prompt and answer, which the client may send again; `None`: not told.
    context: Option<Vec<u32>>,
    done_reason: &'static str,
}

impl OllamaWire {
    pub fn new(shape: Shape, model: &str, ask: &Ask, id: &RequestId) -> Self {
        Self {
            shape,
            model: Value::from(model).to_string(),
            has_logprobs: ask.request.logprobs.is_some(),
            call: None,
            calls_sent: 0,
            id: id.clone(),
            context: ask.tells_prompts.then(Vec::new),
            done_reason: "stop",
        }
    }

    /// A line: everything up to `done`, then `tail`, the members after it.
    fn line(&self, out: &mut Frames, text: &str, thoughts: &str, calls: &[Value], tail: impl FnOnce(&mut String)) {
        out.piece(|line| {
            // Writing to a String can't fail.
            let now = time::rfc3339(SystemTime::now());
            let _ = write!(line, "{{\"model\":{},\"created_at\":\"{now}\",", self.model);
            line.push_str(match self.shape {
                Shape::Chat => "\"message\":{\"role\":\"assistant\",\"content\":",
                Shape::Generate => "\"response\":",
            });
            push_json_string(line, text);
            if !thoughts.is_empty() {
                line.push_str(",\"thinking\":");
                push_json_string(line, thoughts);
            }
            for (i, call) in calls.iter().enumerate() {
                let _ = write!(line, "{}{call}", if i == 0 { ",\"tool_calls\":[" } else { "," });
            }
            line.push_str(if calls.is_empty() { "" } else { "]" });
            line.push_str(if self.shape == Shape::Chat { "}" } else { "" });
            tail(line);
            line.push('}');
        });
    }

    /// The call that has been told to its end, as it is sent. One that was cut off is not: half of its arguments would be
    /// other arguments.
    fn take_call(&mut self) -> Option<Value> {
        let call = self.call.take()?;
        let arguments = arguments(&call.arguments)?;
        let index = self.calls_sent;
        self.calls_sent += 1;
        Some(json!({
            "id": format!("call_{}{index:02x}", &self.id.as_str()[..8]),
            "function": { "index": index, "name": call.name, "arguments": arguments },
        }))
    }

    /// The members of the last line.
    fn account(&self, total: &Total) -> Map<String, Value> {
        let mut account = Map::new();
        account.insert("done".into(), true.into());
        account.insert("done_reason".into(), self.done_reason.into());
        if let Some(context) = &self.context {
            account.insert("context".into(), context.as_slice().into());
        }
        let waited = total.admitted.saturating_duration_since(total.received);
        for (name, value) in [
            ("total_duration", nanos(total.duration())),
            ("load_duration", nanos(waited)),
            ("prompt_eval_count", total.usage.prompt_tokens as u64),
            ("prompt_eval_duration", nanos(total.prompt_duration())),
            ("eval_count", total.usage.completion_tokens as u64),
            ("eval_duration", nanos(total.answer_duration())),
        ] {
            account.insert(name.into(), value.into());
        }
        account
    }

    /// Takes note of how the answer ended.
    fn note_end(&mut self, all: &Choice) {
        let length = all.end.as_ref().is_some_and(|end| end.reason == FinishReason::Length);
        self.done_reason = if length { "length" } else { "stop" };
        if let Some(context) = &mut self.context {
            context.extend(&all.token_ids);
        }
    }

    fn note_prompt(&mut self, begun: &Begun) {
        if let (Some(context), Some(prompt)) = (&mut self.context, begun.prompts.first()) {
            context.clone_from(prompt);
        }
    }
}

impl Wire for OllamaWire {
    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn begin(&mut self, begun: &Begun, _: &mut Frames) {
        self.note_prompt(begun);
    }

    fn piece(&mut self, _: usize, piece: &Piece, out: &mut Frames) {
        let (mut text, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
        for delta in piece.deltas {
            match delta {
                Delta::Text(new) => text.push_str(new),
                Delta::Thought(new) => thoughts.push_str(new),
                Delta::ToolCall { name, .. } => {
                    calls.extend(self.take_call());
                    self.call = Some(Call { name: name.clone(), arguments: String::new() });
                }
                Delta::Arguments { fragment, .. } => {
                    if let Some(call) = &mut self.call {
                        call.arguments.push_str(fragment);
                    }
                }
            }
        }
        let scored = if self.has_logprobs { piece.scored } else { &[] };
        if text.is_empty() && thoughts.is_empty() && calls.is_empty() && scored.is_empty() {
            return;
        }
        self.line(out, &text, &thoughts, &calls, |line| {
            line.push_str(",\"done\":false");
            if !scored.is_empty() {
                // Writing to a String can't fail.
                let _ = write!(line, ",\"logprobs\":{}", logprobs(scored));
            }
        });
    }

    fn end(&mut self, _: usize, all: &Choice, out: &mut Frames) {
        if let Some(call) = self.take_call() {
            self.line(out, "", "", &[call], |line| line.push_str(",\"done\":false"));
        }
        self.note_end(all);
    }

    fn finish(&mut self, total: &Total, out: &mut Frames) {
        let account = Value::Object(self.account(total)).to_string();
        self.line(out, "", "", &[], |line| {
            line.push(',');
            line.push_str(account.trim_start_matches('{').trim_end_matches('}'));
        });
    }

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        out.json(&Family::Ollama.body(error));
    }

    fn whole(&mut self, begun: &Begun, choices: &[Choice], total: &Total) -> Value {
        self.note_prompt(begun);
        let mut answer = Map::new();
        answer.insert("model".into(), serde_json::from_str(&self.model).unwrap_or_default());
        answer.insert("created_at".into(), time::rfc3339(SystemTime::now()).into());
        for choice in choices {
            let mut calls = Vec::new();
            for call in &choice.calls {
                self.call = Some(call.clone());
                calls.extend(self.take_call());
            }
            let mut said = Map::new();
            let name = if self.shape == Shape::Chat { "content" } else { "response" };
            said.insert(name.into(), choice.text.as_str().into());
            if !choice.thoughts.is_empty() {
                said.insert("thinking".into(), choice.thoughts.as_str().into());
            }
            if !calls.is_empty() {
                said.insert("tool_calls".into(), calls.into());
            }
            match self.shape {
                Shape::Chat => {
                    said.insert("role".into(), "assistant".into());
                    answer.insert("message".into(), Value::Object(said));
                }
                Shape::Generate => answer.extend(said),
            }
            if self.has_logprobs {
                answer.insert("logprobs".into(), logprobs(&choice.scored));
            }
            self.note_end(choice);
        }
        answer.extend(self.account(total));
        Value::Object(answer)
    }
}

/// A call's arguments as an object, which some models write as a text.
fn arguments(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(if text.trim().is_empty() { "{}" } else { text }) {
        Ok(Value::Object(arguments)) => Some(arguments),
        Ok(Value::String(text)) => serde_json::from_str(&text).ok(),
        _ => None,
    }
}

/// `[{"token", "logprob", "bytes", "top_logprobs"}]`
fn logprobs(scored: &[Scored]) -> Value {
    let one = |token: &Scored| {
        // What is impossible has no number in JSON.
        let logprob = if token.logprob.is_finite() { f64::from(token.logprob) } else { -9999.0 };
        json!({ "token": token.text(), "logprob": logprob, "bytes": token.bytes })
    };
    let all = scored.iter().map(|token| {
        let mut told = one(token);
        if !token.top.is_empty() {
            told["top_logprobs"] = token.top.iter().map(one).collect();
        }
        told
    });
    all.collect()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
