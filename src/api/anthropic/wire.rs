//! How an answer is written: a message of content blocks, or the events that build one.
//!
//! ```text
//! message_start, ping, (content_block_start, content_block_delta*, content_block_stop)+, message_delta, message_stop
//! ```
//!
//! Blocks never overlap, and there is always one: an answer of nothing is an empty text.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::{Begun, Call, Choice, Frames, Framing, Piece, Total, Wire, push_json_string},
        error::ApiError,
        family::Family,
        request_id::RequestId,
    },
    engine::{
        dialect::Delta,
        request::{FinishReason, Usage},
    },
};

use super::request::Telling;

/// A message on its way.
pub struct MessageWire {
    request_id: RequestId,
    /// The answer's own id, which those of its calls are made of.
    id: RequestId,
    telling: Telling,
    /// The block that is being told.
    open: Option<Block>,
    /// Its number, or the next one's.
    index: usize,
    /// `stop_reason` and `stop_sequence`, once they are known.
    stop: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

impl MessageWire {
    pub fn new(request_id: &RequestId, telling: Telling) -> Self {
        let (request_id, id) = (request_id.clone(), RequestId::fresh());
        Self { request_id, id, telling, open: None, index: 0, stop: Value::Null }
    }

    /// The message without what only its end knows.
    fn envelope(&self, model: &str, content: Vec<Value>, usage: Value) -> Map<String, Value> {
        Map::from_iter([
            ("id".into(), format!("msg_{}", self.id).into()),
            ("type".into(), "message".into()),
            ("role".into(), "assistant".into()),
            ("model".into(), model.into()),
            ("content".into(), content.into()),
            ("stop_reason".into(), Value::Null),
            ("stop_sequence".into(), Value::Null),
            ("usage".into(), usage),
        ])
    }

    /// `toolu_` and 24 digits, different for each call.
    fn call_id(&self, call: usize) -> String {
        format!("toolu_{}{call:08x}", &self.id.as_str()[..16])
    }

    /// Sees to it that a block of this kind is open; `begin` is what a new one begins with.
    fn ensure(&mut self, block: Block, begin: impl FnOnce(&Self) -> Value, out: &mut Frames) {
        if self.open == Some(block) && block != Block::ToolUse {
            return;
        }
        self.close(out);
        let content_block = begin(self);
        let event = json!({ "type": "content_block_start", "index": self.index, "content_block": content_block });
        out.named("content_block_start", &event);
        self.open = Some(block);
    }

    fn close(&mut self, out: &mut Frames) {
        let Some(block) = self.open.take() else { return };
        if block == Block::Thinking {
            // Clients wait for it. Nobody here needs thoughts to be proven.
            self.delta("signature_delta", "signature", "", out);
        }
        out.named("content_block_stop", &json!({ "type": "content_block_stop", "index": self.index }));
        self.index += 1;
    }

    /// More of the open block.
    fn delta(&self, kind: &str, field: &str, text: &str, out: &mut Frames) {
        out.named_piece("content_block_delta", |line| {
            let index = self.index;
            line.push_str("{\"type\":\"content_block_delta\",\"index\":");
            // Writing to a String can't fail.
            let _ = write!(line, "{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":");
            push_json_string(line, text);
            line.push_str("}}");
        });
    }

    fn tell(&mut self, delta: &Delta, out: &mut Frames) {
        match delta {
            Delta::Thought(thought) => {
                self.ensure(Block::Thinking, |_| thinking(""), out);
                if self.telling.shows_thoughts {
                    self.delta("thinking_delta", "thinking", thought, out);
                }
            }
            Delta::Text(text) => {
                self.ensure(Block::Text, |_| said(""), out);
                self.delta("text_delta", "text", text, out);
            }
            Delta::ToolCall { index, name } => {
                self.ensure(Block::ToolUse, |wire| tool_use(&wire.call_id(*index), name, json!({})), out);
            }
            Delta::Arguments { fragment, .. } => self.delta("input_json_delta", "partial_json", fragment, out),
        }
    }

    fn content(&self, choice: &Choice) -> Vec<Value> {
        let mut content = Vec::new();
        if self.telling.max_tokens == 0 {
            return content;
        }
        if !choice.thoughts.is_empty() {
            content.push(thinking(if self.telling.shows_thoughts { &choice.thoughts } else { "" }));
        }
        let silent = choice.thoughts.is_empty() && choice.calls.is_empty();
        if !choice.text.is_empty() || silent {
            content.push(said(&choice.text));
        }
        let call = |(i, call): (usize, &Call)| tool_use(&self.call_id(i), &call.name, input(call));
        content.extend(choice.calls.iter().enumerate().map(call));
        content
    }

    /// `stop_reason` and `stop_sequence`.
    fn stop(&self, choice: &Choice) -> Value {
        let Some(end) = &choice.end else { return json!({}) };
        let reason = match end.reason {
            _ if self.telling.max_tokens == 0 => "max_tokens",
            _ if end.stop.is_some() => "stop_sequence",
            FinishReason::Length if end.usage.completion_tokens < self.telling.max_tokens => {
                "model_context_window_exceeded"
            }
            FinishReason::Length => "max_tokens",
            _ if choice.calls_tools() => "tool_use",
            // Nobody reads what is told of a cancelled one.
            _ => "end_turn",
        };
        json!({ "stop_reason": reason, "stop_sequence": end.stop })
    }

    fn usage(&self, total: &Total) -> Value {
        let mut usage = total.usage;
        if self.telling.max_tokens == 0 {
            usage.completion_tokens = 0;
        }
        let mut counts = counts(usage);
        counts["output_tokens_details"] = json!({ "thinking_tokens": total.thought_tokens });
        counts
    }
}

impl Wire for MessageWire {
    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn begin(&mut self, begun: &Begun, out: &mut Frames) {
        let &Begun { prompt_tokens, cached_tokens, .. } = begun;
        let usage = counts(Usage { prompt_tokens, cached_tokens, completion_tokens: 0 });
        let message = self.envelope(begun.model.name(), Vec::new(), usage);
        out.named("message_start", &json!({ "type": "message_start", "message": message }));
        out.named("ping", &json!({ "type": "ping" }));
    }

    fn piece(&mut self, _choice: usize, piece: &Piece, out: &mut Frames) {
        for delta in piece.deltas {
            self.tell(delta, out);
        }
    }

    fn end(&mut self, _choice: usize, all: &Choice, out: &mut Frames) {
        self.stop = self.stop(all);
        if self.open.is_none() && self.index == 0 {
            self.ensure(Block::Text, |_| said(""), out);
        }
        self.close(out);
    }

    fn finish(&mut self, total: &Total, out: &mut Frames) {
        let event = json!({ "type": "message_delta", "delta": self.stop, "usage": self.usage(total) });
        out.named("message_delta", &event);
        out.named("message_stop", &json!({ "type": "message_stop" }));
    }

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        let mut event = Family::Anthropic.body(error);
        event["request_id"] = self.request_id.as_str().into();
        out.named("error", &event);
    }

    fn whole(&mut self, begun: &Begun, choices: &[Choice], total: &Total) -> Value {
        // There is one.
        let nothing = Choice::default();
        let choice = choices.first().unwrap_or(&nothing);
        let mut message = self.envelope(begun.model.name(), self.content(choice), self.usage(total));
        if let Value::Object(stop) = self.stop(choice) {
            message.extend(stop);
        }
        Value::Object(message)
    }
}

fn thinking(thoughts: &str) -> Value {
    json!({ "type": "thinking", "thinking": thoughts, "signature": "" })
}

fn said(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn tool_use(id: &str, name: &str, input: Value) -> Value {
    json!({ "type": "tool_use", "id": id, "name": name, "input": input })
}

/// A call's arguments. Where the answer was cut in the middle of them there is no object to give.
fn input(call: &Call) -> Value {
    serde_json::from_str(&call.arguments).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

/// `usage`. What was read from the cache is not counted as input; what goes into it costs nothing beside.
fn counts(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "service_tier": "standard",
    })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        api::{
            Backend,
            answer::{ChoiceSink, Delivery, Mode, Reading, Setting},
            metrics::{Endpoint, Metrics},
            tests::{
                anthropic::{CALL, events, rebuild},
                toy::Echo,
            },
        },
        engine::{
            error::RequestError,
            request::{Event, Sink, StopCause, Timeline},
        },
        http::Reply,
    };

    const SOON: Duration = Duration::from_secs(10);

    /// What a stream tells when a model says these pieces, and then this happens.
    fn told(pieces: &[&str], end: Event) -> Vec<Value> {
        let (reply, responder) = Reply::later();
        let telling = Telling { mode: Mode::Stream, shows_thoughts: true, max_tokens: 999 };
        let id = RequestId::from_header(Some("r-1"));
        let setting = Setting {
            mode: Mode::Stream,
            family: Family::Anthropic,
            param: "messages",
            endpoint: Endpoint::OTHER,
            metrics: Arc::new(Metrics::new(Instant::now())),
            ping_interval: SOON,
        };
        let delivery = Delivery::new(responder, Box::new(MessageWire::new(&id, telling)), setting);
        let echo = Echo::new();
        let reader = echo.dialect().reader(["add"], false);
        delivery.expect(echo, 1, 1, Vec::new());
        let mut sink = ChoiceSink::new(delivery, 0, Reading::Dialect(Box::new(reader)));
        sink.on_event(Event::Started { prompt_tokens: 5, cached_tokens: 2, scored: None });
        for piece in pieces {
            sink.on_event(Event::Piece { text: (*piece).to_owned(), token_ids: vec![1], logprobs: Vec::new() });
        }
        sink.on_event(end);
        drop(sink);
        events(&reply.wait(SOON).unwrap())
    }

    fn finished() -> Event {
        let received = Instant::now();
        let timeline = Timeline { received, admitted: None, first_token: None, finished: None, preemptions: 0 };
        let usage = Usage { prompt_tokens: 5, completion_tokens: 7, cached_tokens: 2 };
        Event::Finished { reason: FinishReason::Stop(StopCause::Token(0)), usage, timeline }
    }

    #[test]
    fn blocks_are_nested_wherever_the_answer_is_cut() {
        for at in 0..=CALL.len() {
            let message = rebuild(&told(&[&CALL[..at], &CALL[at..]], finished()));
            let blocks = message["content"].as_array().unwrap();
            let types: Vec<&Value> = blocks.iter().map(|block| &block["type"]).collect();
            assert_eq!(types, ["thinking", "text", "tool_use", "tool_use"], "cut at {at}");
            assert_eq!((&blocks[0]["thinking"], &blocks[1]["text"]), (&json!("hm"), &json!("So:")), "cut at {at}");
            assert_eq!((&blocks[2]["input"], &blocks[3]["input"]), (&json!({"a": 1}), &json!({})), "cut at {at}");
            assert_ne!(blocks[2]["id"], blocks[3]["id"]);
        }
    }

    #[test]
    fn characters_are_told_as_they_are() {
        let message = rebuild(&told(&["🕯 é", "\u{2028}\0"], finished()));
        assert_eq!(message["content"], json!([{"type": "text", "text": "🕯 é\u{2028}\0"}]));
    }

    #[test]
    fn an_answer_of_nothing_is_an_empty_text() {
        let message = rebuild(&told(&[], finished()));
        assert_eq!(message["content"], json!([{"type": "text", "text": ""}]));
        assert_eq!((&message["usage"]["input_tokens"], &message["usage"]["output_tokens"]), (&json!(3), &json!(7)));
    }

    #[test]
    fn an_error_in_the_middle_is_the_last_event() {
        let told = told(&["Hi"], Event::Failed(RequestError::Timeout));
        let error = told.last().unwrap();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("timeout_error")));
        assert_eq!(error["request_id"], "r-1");
        assert_eq!(told[told.len() - 2]["delta"]["text"], "Hi");
    }
}
