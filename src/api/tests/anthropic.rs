//! Anthropic's API.

use serde_json::{Value, json};

use super::toy::{Fixture, body};
use crate::{
    engine::request::Prompt,
    http::{Method, Reply, Request},
};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

/// A conversation of one message, with further fields.
fn ask(said: &str, more: Value) -> String {
    let mut ask = json!({"model": "echo", "max_tokens": 999, "messages": [{"role": "user", "content": said}]});
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask.to_string()
}

fn tools() -> Value {
    json!([{"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}])
}

pub const CALL: &str = "<think>\nhm\n</think>\n\nSo:<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";

/// The events of a stream: each has the name that its data has as a type.
pub fn events(reply: &Reply) -> Vec<Value> {
    let text = String::from_utf8(reply.body().to_vec()).unwrap();
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap_or_else(|| panic!("{event:?}"));
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    text.split_terminator("\n\n").map(event).collect()
}

/// The message that a stream's events build, as the official client builds it; fails if blocks overlap or events are out of
/// order.
pub fn rebuild(events: &[Value]) -> Value {
    let [start, ping, between @ .., delta, stop] = events else { panic!("{events:?}") };
    assert_eq!(
        [&start["type"], &ping["type"], &delta["type"], &stop["type"]],
        ["message_start", "ping", "message_delta", "message_stop"]
    );
    let mut message = start["message"].clone();
    assert_eq!((&message["content"], &message["stop_reason"]), (&json!([]), &Value::Null));
    let mut blocks: Vec<Value> = Vec::new();
    let mut open: Option<(Value, String)> = None;
    for event in between {
        assert_eq!(event["index"], blocks.len(), "{event}");
        match (event["type"].as_str().unwrap(), &mut open) {
            ("content_block_start", None) => open = Some((event["content_block"].clone(), String::new())),
            ("content_block_delta", Some((block, input))) => {
                let delta = &event["delta"];
                let (field, of) = match delta["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("signature", "thinking"),
                    "input_json_delta" => ("partial_json", "tool_use"),
                    other => panic!("{other}"),
                };
                assert_eq!(block["type"], of, "{event}");
                let more = delta[field].as_str().unwrap();
                match of {
                    "tool_use" => input.push_str(more),
                    _ => block[field] = (block[field].as_str().unwrap().to_owned() + more).into(),
                }
            }
            ("content_block_stop", Some(_)) => {
                let (mut block, input) = open.take().unwrap();
                if !input.is_empty() {
                    block["input"] = serde_json::from_str(&input).unwrap();
                }
                blocks.push(block);
            }
            (_, state) => panic!("{event} while {state:?} is open"),
        }
    }
    assert!(open.is_none(), "{open:?} was never stopped");
    message["content"] = blocks.into();
    for name in ["stop_reason", "stop_sequence"] {
        message[name] = delta["delta"][name].clone();
    }
    message["usage"].as_object_mut().unwrap().extend(delta["usage"].as_object().unwrap().clone());
    message
}

/// Without what differs from answer to answer: ids.
fn plain(mut message: Value) -> Value {
    let id = message.as_object_mut().unwrap().remove("id").unwrap();
    assert!(id.as_str().unwrap().starts_with("msg_"), "{id}");
    for block in message["content"].as_array_mut().unwrap() {
        if let Some(id) = block.as_object_mut().unwrap().remove("id") {
            let digits = id.as_str().unwrap().strip_prefix("toolu_").unwrap();
            assert!(digits.len() == 24 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
    }
    message
}

/// Asks for the answer at once and as a stream, which must build the same, and checks content, reason and sequence.
#[track_caller]
fn check(said: &str, more: Value, content: Value, stop: (&str, Option<&str>)) {
    let it = Fixture::new();
    let whole = it.post(MESSAGES, &ask(said, more.clone()));
    assert_eq!(whole.status().code(), 200, "{}", body(&whole));
    let whole = plain(body(&whole));
    assert_eq!(whole["content"], content);
    assert_eq!((whole["stop_reason"].as_str(), whole["stop_sequence"].as_str()), (Some(stop.0), stop.1));
    let mut streamed = more;
    streamed["stream"] = true.into();
    let reply = it.post(MESSAGES, &ask(said, streamed));
    assert_eq!((reply.status().code(), reply.content_type()), (200, "text/event-stream"));
    assert_eq!(plain(rebuild(&events(&reply))), whole);
}

#[test]
fn answers_of_every_shape() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let thinking = |thoughts: &str| json!({"type": "thinking", "thinking": thoughts, "signature": ""});
    let call = |input: Value| json!({"type": "tool_use", "name": "add", "input": input});
    let thought = json!({"thinking": {"type": "enabled", "budget_tokens": 99}});
    let hidden = json!({"thinking": {"type": "adaptive", "display": "omitted"}});
    check("Hi!", json!({}), json!([text("Hi!")]), ("end_turn", None));
    check("a\"\\\n\u{1}", json!({}), json!([text("a\"\\\n\u{1}")]), ("end_turn", None));
    check("<think>\nhm\n</think>\n\nHi!", thought.clone(), json!([thinking("hm"), text("Hi!")]), ("end_turn", None));
    check("<think>\nhm\n</think>\n\nHi!", hidden, json!([thinking(""), text("Hi!")]), ("end_turn", None));
    check("<think>\nhm\n</think>", thought, json!([thinking("hm")]), ("end_turn", None));
    let tools = json!({"tools": tools()});
    let content = json!([thinking("hm"), text("So:"), call(json!({"a": 1})), call(json!({}))]);
    check(CALL, tools.clone(), content, ("tool_use", None));
    let one = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": [1, \"}\"]}}\n</tool_call>";
    check(one, tools, json!([call(json!({"a": [1, "}"]}))]), ("tool_use", None));
    check("Hi, you", json!({"stop_sequences": ["x", ", "]}), json!([text("Hi")]), ("stop_sequence", Some(", ")));
    check("Hi, you", json!({"stop_sequences": ["Hi"]}), json!([text("")]), ("stop_sequence", Some("Hi")));
    check("Hi, you", json!({"max_tokens": 4}), json!([text("Hi, ")]), ("max_tokens", None));
}

#[test]
fn without_tools_a_call_is_text() {
    let it = Fixture::new();
    for more in [json!({}), json!({"tools": tools(), "tool_choice": {"type": "none"}})] {
        let content = &body(&it.post(MESSAGES, &ask(CALL, more)))["content"];
        assert_eq!((&content[1]["type"], &content[2]), (&json!("text"), &Value::Null));
        assert!(content[1]["text"].as_str().unwrap().contains("<tool_call>"));
    }
}

#[test]
fn the_cache_is_not_input() {
    let it = Fixture::new();
    let usage = &body(&it.post(MESSAGES, &ask("Hello", json!({}))))["usage"];
    assert_eq!((&usage["input_tokens"], &usage["cache_read_input_tokens"]), (&json!(4), &json!(1)));
    assert_eq!((&usage["cache_creation_input_tokens"], &usage["output_tokens"]), (&json!(0), &json!(5)));
    assert_eq!(body(&it.post(COUNT, r#"{"messages":[{"role":"user","content":"Hello"}]}"#))["input_tokens"], 5);
    let start = &events(&it.post(MESSAGES, &ask("Hello", json!({"stream": true}))))[0]["message"]["usage"];
    assert_eq!((&start["input_tokens"], &start["output_tokens"]), (&json!(4), &json!(0)));
}

#[test]
fn no_tokens_only_read_the_prompt() {
    let it = Fixture::new();
    let answer = body(&it.post(MESSAGES, &ask("Hello", json!({"max_tokens": 0}))));
    assert_eq!((&answer["content"], &answer["stop_reason"]), (&json!([]), &json!("max_tokens")));
    assert_eq!((it.asked().max_tokens, &answer["usage"]["output_tokens"]), (1, &json!(0)));
    assert_eq!(it.post(MESSAGES, &ask("Hello", json!({"max_tokens": 0, "stream": true}))).status().code(), 400);
}

#[test]
fn what_is_asked_for_reaches_the_engine() {
    let it = Fixture::new();
    let _ = it.post(MESSAGES, &ask("Hi", json!({})));
    let asked = it.asked();
    assert_eq!((asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k), (1.0, 1.0, 0));
    assert_eq!((asked.max_tokens, asked.prompt), (999, Prompt::Rendered("Hi".into())));
    let more = json!({"temperature": 0, "top_p": 0.5, "top_k": 3, "system": "Be brief.", "service_tier": "auto",
        "metadata": {"user_id": "u"}, "thinking": {"type": "enabled", "budget_tokens": 7}, "mcp_servers": [],
        "cache_control": {"type": "ephemeral"}, "output_config": {"effort": "max"}, "speed": "standard",
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}});
    assert_eq!(it.post(MESSAGES, &ask("Hi", more)).status().code(), 200);
    let asked = it.asked();
    assert_eq!((asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k), (0.0, 0.5, 3));
    assert_eq!(asked.thinking.unwrap().tokens_max, Some(7));
    // Prefill: what the assistant has begun is gone on with.
    let more = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "The answer"}]});
    assert_eq!(body(&it.post(MESSAGES, &ask("", more)))["content"][0]["text"], "The answer");
}

#[test]
fn answers_are_held_to_schemas_and_choices() {
    let it = Fixture::new();
    let schema = json!({"type": "json_schema", "schema": {"type": "integer"}});
    for more in [
        json!({"output_config": {"format": schema}}),
        json!({"output_format": schema}),
        json!({"tools": tools(), "tool_choice": {"type": "any"}}),
        json!({"tools": tools(), "tool_choice": {"type": "tool", "name": "add"}}),
    ] {
        assert_eq!(it.post(MESSAGES, &ask("Hi", more.clone())).status().code(), 200, "{more}");
        assert!(it.asked().grammar.is_some(), "{more}");
    }
}

#[test]
fn counting_takes_what_asking_takes() {
    let it = Fixture::new();
    let more = json!({"system": "s", "tools": tools(), "tool_choice": {"type": "any"}, "speed": null,
        "thinking": {"type": "adaptive"}, "output_config": {}, "cache_control": {"type": "ephemeral"}});
    let count = |mut it: Value| {
        it.as_object_mut().unwrap().remove("max_tokens");
        it.to_string()
    };
    for said in ["Hello", &"long ".repeat(2000)] {
        let ask: Value = serde_json::from_str(&ask(said, more.clone())).unwrap();
        assert_eq!(body(&it.post(COUNT, &count(ask)))["input_tokens"], said.len());
    }
    for (said, more, param) in [("Hi", json!({"stream": true}), "stream"), ("refuse me", json!({}), "messages")] {
        let ask: Value = serde_json::from_str(&ask(said, more)).unwrap();
        let reply = it.post(COUNT, &count(ask));
        let error = body(&reply);
        assert_eq!((reply.status().code(), &error["error"]["type"]), (400, &json!("invalid_request_error")));
        assert!(error["error"]["message"].as_str().unwrap().starts_with(param), "{error}");
    }
}

#[test]
fn refusals_are_anthropics() {
    let it = Fixture::new();
    let check = |path: &str, ask: &str, status: u16, error_type: &str, words: &str| {
        let reply = it.post(path, ask);
        let answer = body(&reply);
        assert_eq!((reply.status().code(), &answer["type"]), (status, &json!("error")), "{ask}: {answer}");
        assert_eq!(answer["error"]["type"], error_type, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().starts_with(words), "{answer}");
        let ids = [reply.header_value("request-id"), reply.header_value("x-request-id")];
        assert_eq!(ids, [answer["request_id"].as_str(); 2]);
        assert!(ids[0].is_some());
    };
    let bad = |more: Value, words: &str| check(MESSAGES, &ask("Hi", more), 400, "invalid_request_error", words);
    check(MESSAGES, &ask("Hi", json!({"model": "claude"})), 404, "not_found_error", "no model is called");
    check(COUNT, r#"{"model":"x","messages":[{"role":"user","content":"a"}]}"#, 404, "not_found_error", "no model");
    check("/v1/messages/batches", "{}", 404, "not_found_error", "");
    check(MESSAGES, "{", 400, "invalid_request_error", "the body is not");
    check(MESSAGES, &ask(&"x".repeat(2000), json!({})), 400, "invalid_request_error", "the prompt");
    check(MESSAGES, &ask("refuse me", json!({})), 400, "invalid_request_error", "messages: roles must alternate");
    check(MESSAGES, &ask(&"x".repeat(13), json!({})), 500, "api_error", "");
    bad(json!({"max_tokens": null}), "max_tokens: missing");
    bad(json!({"max_token": 1}), "max_token: unknown field; did you mean max_tokens?");
    bad(json!({"container": "x"}), "container: this server does not");
    bad(json!({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}), "context_management.edits: ");
    bad(json!({"mcp_servers": [{}]}), "mcp_servers: this server does not");
    bad(json!({"thinking": {"type": "enabled"}}), "thinking.budget_tokens: missing");
    bad(json!({"thinking": {"type": "enabled", "budget_tokens": 999}}), "thinking.budget_tokens: must be less");
    bad(json!({"thinking": {"type": "disabled", "budget_tokens": 9}}), "thinking.budget_tokens: unknown");
    bad(json!({"thinking": {"type": "between_tools"}}), "thinking.type: there are");
    bad(json!({"thinking": true}), "thinking: expected an object");
    bad(json!({"output_config": {"effort": "huge"}}), "output_config.effort: must be");
    bad(json!({"output_config": {"format": {"type": "text"}}}), "output_config.format.type: must be");
    bad(json!({"output_config": {"format": {"type": "json_schema"}}}), "output_config.format.schema: missing");
    let format = |schema: Value| json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}});
    bad(format(json!({"properties": {"a": {"type": "number", "multipleOf": "x"}}})), "output_config.format.schema: ");
    let mut both = format(json!({}));
    both["messages"] = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "{"}]);
    bad(both.clone(), "output_config.format.schema: can't be combined with a last message");
    both["messages"] = json!([{"role": "user", "content": "a"}]);
    both["output_format"] = both["output_config"]["format"].clone();
    bad(both, "output_config.format: can't be combined");
    bad(json!({"metadata": {"name": "x"}}), "metadata.name: unknown");
    bad(json!({"service_tier": "priority"}), "service_tier: must be");
    bad(json!({"speed": "fast"}), "speed: there is one");
    bad(json!({"stop_sequences": ["a", ""]}), "stop_sequences[1]: ");
    bad(json!({"system": 1}), "system: expected");
    let sent = Request::new(Method::Post, MESSAGES).with_header("x-request-id", "mine-1").with_body(b"{}");
    let reply = it.handle(sent);
    assert_eq!((reply.header_value("request-id"), &body(&reply)["request_id"]), (Some("mine-1"), &json!("mine-1")));
}

#[test]
fn answers_have_their_request_id() {
    let it = Fixture::new();
    for more in [json!({}), json!({"stream": true})] {
        let reply = it.post(MESSAGES, &ask("Hi", more));
        let id = reply.header_value("request-id").map(str::to_owned);
        assert!(id.is_some() && id.as_deref() == reply.header_value("x-request-id"));
    }
}

/// Every numeric field, every odd value: an error that names the field, or an answer.
#[test]
fn odd_numbers_never_get_through() {
    let it = Fixture::new();
    let values = [
        "-9223372036854775808",
        "-1",
        "0",
        "1",
        "1000000000",
        "1000000001",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "1e308",
        "-1e308",
        "1e-320",
        "0.5",
        "\"1\"",
        "null",
        "true",
        "[]",
        "{}",
        "NaN",
    ];
    for name in ["max_tokens", "temperature", "top_p", "top_k", "thinking.budget_tokens"] {
        for value in values {
            let field = match name.split_once('.') {
                Some((outer, inner)) => format!(r#""{outer}":{{"type":"enabled","{inner}":{value}}}"#),
                None => format!(r#""{name}":{value}"#),
            };
            let needed = if name == "max_tokens" { "" } else { r#""max_tokens":9,"# };
            let ask = format!(r#"{{{needed}"messages":[{{"role":"user","content":"a"}}],{field}}}"#);
            let reply = it.post(MESSAGES, &ask);
            let answer = body(&reply);
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            match reply.status().code() {
                200 => {}
                400 if value == "NaN" => assert!(message.starts_with("the body"), "{message}"),
                400 => assert!(message.starts_with(&format!("{name}: ")), "{ask}: {message}"),
                status => panic!("{status}: {ask}"),
            }
        }
    }
}
