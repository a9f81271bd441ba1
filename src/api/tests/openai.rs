//! OpenAI's API.

use serde_json::{Value, json};

use super::toy::{Fixture, body, events};
use crate::engine::request::Prompt;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A conversation of one message, with further fields.
fn chat(said: &str, more: Value) -> String {
    let mut ask = json!({"model": "echo", "messages": [{"role": "user", "content": said}]});
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask.to_string()
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}])
}

const CALL: &str =
    "<think>\nhm\n</think>\n\nSo:<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";

#[test]
fn models_are_listed() {
    let it = Fixture::new();
    let list = body(&it.get("/v1/models"));
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("echo")));
    assert_eq!(body(&it.get("/v1/models/echo"))["object"], "model");
    let reply = it.get("/v1/models/none/such");
    assert_eq!((reply.status().code(), &body(&reply)["error"]["code"]), (404, &json!("model_not_found")));
}

#[test]
fn a_chat_answers_at_once() {
    let it = Fixture::new();
    let answer = body(&it.post(CHAT, &chat("<think>\nhm\n</think>\n\nHi!", json!({}))));
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-") && answer["created"].is_u64());
    let choice = &answer["choices"][0];
    let message = json!({"role": "assistant", "content": "Hi!", "refusal": null,
        "reasoning_content": "hm", "reasoning": "hm"});
    assert_eq!((&choice["message"], &choice["finish_reason"]), (&message, &json!("stop")));
    assert_eq!(choice["logprobs"], Value::Null);
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 1);
    assert!(usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0);
    let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
}

#[test]
fn tool_calls_at_once_and_streamed_are_the_same() {
    let it = Fixture::new();
    let message = &body(&it.post(CHAT, &chat(CALL, json!({"tools": tools()}))))["choices"][0];
    assert_eq!((&message["finish_reason"], &message["message"]["content"]), (&json!("tool_calls"), &json!("So:")));
    let call = &message["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({"name": "add", "arguments": "{\"a\": 1}"}));
    assert!(call["id"].as_str().unwrap().starts_with("call_"));

    let chunks = events(&it.post(CHAT, &chat(CALL, json!({"tools": tools(), "stream": true}))));
    let chunks: Vec<Value> =
        chunks[..chunks.len() - 1].iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let deltas = || chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
    let joined = |name: &str| -> String { deltas().filter_map(|delta| delta[name].as_str()).collect() };
    assert_eq!(deltas().next().unwrap(), &json!({"role": "assistant", "content": ""}));
    assert_eq!((joined("content"), joined("reasoning_content")), ("So:".into(), "hm".into()));
    let calls: Vec<&Value> = deltas().map(|delta| &delta["tool_calls"][0]).filter(|call| call.is_object()).collect();
    assert_eq!((&calls[0]["function"]["name"], &calls[0]["type"]), (&json!("add"), &json!("function")));
    assert!(calls[0]["id"].is_string() && calls[1..].iter().all(|call| call["id"].is_null() && call["index"] == 0));
    let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert_eq!(arguments, "{\"a\": 1}");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn without_tools_a_call_is_text() {
    let it = Fixture::new();
    for more in [json!({}), json!({"tools": tools(), "tool_choice": "none"})] {
        let answer = body(&it.post(CHAT, &chat(CALL, more)));
        let message = &answer["choices"][0]["message"];
        assert!(message["content"].as_str().unwrap().contains("<tool_call>") && message.get("tool_calls").is_none());
    }
}

#[test]
fn a_streamed_chat_ends_with_usage_if_asked() {
    let it = Fixture::new();
    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "n": 2});
    let chunks = events(&it.post(CHAT, &chat("Hey", more)));
    assert_eq!(chunks.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        chunks[..chunks.len() - 1].iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(6)));
    assert_eq!(last["usage"]["prompt_tokens"], 3, "a prompt that two share counts once");
    assert!(
        before.iter().all(|chunk| chunk["usage"] == Value::Null && chunk.as_object().unwrap().contains_key("usage"))
    );
    for index in 0..2 {
        let mut of = before.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        let text: String = of.clone().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!((text.as_str(), &of.next_back().unwrap()["finish_reason"]), ("Hey", &json!("stop")));
    }
    let without = events(&it.post(CHAT, &chat("Hey", json!({"stream": true}))));
    assert!(without.iter().all(|chunk| !chunk.contains("usage")));
}

#[test]
fn logprobs_say_what_else_might_have_been() {
    let it = Fixture::new();
    let answer = body(&it.post(CHAT, &chat("Hi", json!({"logprobs": true, "top_logprobs": 2}))));
    let content = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!(content.as_array().unwrap().len(), 2);
    assert_eq!(
        (&content[0]["token"], &content[0]["bytes"], &content[0]["logprob"]),
        (&json!("H"), &json!([72]), &json!(-0.5))
    );
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);

    let ask = r#"{"prompt":["Hi","you"],"logprobs":1,"echo":true,"max_tokens":9}"#;
    let answer = body(&it.post(COMPLETIONS, ask));
    let second = &answer["choices"][1];
    assert_eq!((&second["index"], &second["text"]), (&json!(1), &json!("youyou")));
    assert_eq!(second["logprobs"]["tokens"], json!(["y", "o", "u"]));
    assert_eq!(second["logprobs"]["text_offset"], json!([3, 4, 5]));
    assert_eq!(second["logprobs"]["top_logprobs"][0], json!({"y": -0.5}));
}

#[test]
fn completions_stream_and_stop() {
    let it = Fixture::new();
    let answer = body(&it.post(COMPLETIONS, r#"{"prompt":"one. two","stop":["."]}"#));
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]),
        (&json!("one"), &json!("stop"))
    );
    let answer = body(&it.post(COMPLETIONS, r#"{"prompt":[72,105,33],"max_tokens":2}"#));
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]),
        (&json!("Hi"), &json!("length"))
    );
    assert_eq!(it.asked().prompt, Prompt::Tokens(vec![72, 105, 33]));

    let chunks = events(&it.post(COMPLETIONS, r#"{"prompt":"Hi","echo":true,"stream":true}"#));
    let text: String = chunks
        .iter()
        .filter_map(|chunk| serde_json::from_str::<Value>(chunk).ok())
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((text.as_str(), chunks.last().unwrap().as_str()), ("HiHi", "[DONE]"));
}

#[test]
fn defaults_are_openais() {
    let it = Fixture::new();
    let _ = it.post(CHAT, &chat("Hi", json!({})));
    let asked = it.asked();
    assert_eq!((asked.sampling.temperature, asked.sampling.top_p, asked.sampling.top_k), (1.0, 1.0, 0));
    assert_eq!(asked.max_tokens, usize::MAX);
    let _ = it.post(COMPLETIONS, r#"{"prompt":"Hi"}"#);
    assert_eq!(it.asked().max_tokens, 16);
}

#[test]
fn answers_can_be_held_to_a_schema() {
    let it = Fixture::new();
    let schema = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}});
    assert_eq!(it.post(CHAT, &chat("Hi", schema(json!({"type": "integer"})))).status().code(), 200);
    assert!(it.asked().grammar.is_some());
    let reply = it.post(CHAT, &chat("Hi", schema(json!({"properties": {"a": {"type": "number", "multipleOf": "x"}}}))));
    let error = &body(&reply)["error"];
    assert_eq!(
        (reply.status().code(), &error["param"]),
        (400, &json!("response_format.json_schema.schema")),
        "{error}"
    );
    assert!(error["message"].as_str().unwrap().contains("/properties/a"), "{error}");
    let forced = json!({"tools": tools(), "tool_choice": "required"});
    assert_eq!(it.post(CHAT, &chat("Hi", forced)).status().code(), 200);
    assert!(it.asked().grammar.is_some());
}

#[test]
fn thoughts_have_a_switch_and_a_budget() {
    let it = Fixture::new();
    let _ = it.post(CHAT, &chat("Hi", json!({"thinking_token_budget": 7})));
    assert_eq!(it.asked().thinking.unwrap().tokens_max, Some(7));
    let answer = body(&it.post(CHAT, &chat("<think>hm</think>Hi", json!({"reasoning_format": "none"}))));
    assert_eq!(answer["choices"][0]["message"]["content"], "<think>hm</think>Hi");
}

#[test]
fn refusals_are_openais() {
    let it = Fixture::new();
    #[track_caller]
    fn check(it: &Fixture, path: &str, ask: &str, status: u16, code: &str, param: &str) {
        let reply = it.post(path, ask);
        let error = &body(&reply)["error"];
        assert_eq!(
            (reply.status().code(), &error["code"], &error["param"]),
            (status, &json!(code), &json!(param)),
            "{ask}"
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    check(&it, CHAT, &chat("Hi", json!({"model": "gpt-4"})), 404, "model_not_found", "model");
    check(&it, CHAT, &chat(&"x".repeat(2000), json!({})), 400, "context_length_exceeded", "messages");
    check(&it, COMPLETIONS, &json!({"prompt": "x".repeat(2000)}).to_string(), 400, "context_length_exceeded", "prompt");
    check(&it, CHAT, &chat("refuse me", json!({})), 400, "invalid_request", "messages");
    check(&it, CHAT, &chat("Hi", json!({"audio": {}})), 400, "unsupported_parameter", "audio");
    check(&it, CHAT, &chat("Hi", json!({"functions": [{}]})), 400, "unsupported_parameter", "functions");
    check(&it, CHAT, &chat("Hi", json!({"chat_template": "x"})), 400, "unsupported_parameter", "chat_template");
    check(&it, CHAT, &chat("Hi", json!({"top_logprobs": 2})), 400, "invalid_request", "top_logprobs");
    check(&it, CHAT, &chat("Hi", json!({"stream_options": {}})), 400, "invalid_request", "stream_options");
    check(&it, CHAT, &chat("Hi", json!({"n": 129})), 400, "invalid_request", "n");
    check(&it, CHAT, &chat("Hi", json!({"best_of": 1})), 400, "invalid_request", "best_of");
    check(
        &it,
        CHAT,
        &chat("Hi", json!({"continue_final_message": true})),
        400,
        "invalid_request",
        "continue_final_message",
    );
    check(&it, COMPLETIONS, r#"{"prompt":"a","best_of":2}"#, 400, "unsupported_parameter", "best_of");
    check(&it, COMPLETIONS, r#"{"prompt":[]}"#, 400, "invalid_request", "prompt");
    check(&it, COMPLETIONS, r#"{"prompt":[[1],"a",2]}"#, 400, "invalid_request", "prompt[2]");
    check(&it, COMPLETIONS, r#"{}"#, 400, "invalid_request", "prompt");
    for (path, status) in [("/v1/nothing", 404), (CHAT, 405)] {
        let reply = it.get(path);
        assert_eq!(reply.status().code(), status);
        assert!(body(&reply)["error"]["type"].is_string());
    }
}

/// Every numeric field, every odd value: an error that names the field, or an answer.
#[test]
fn odd_numbers_never_get_through() {
    let it = Fixture::new();
    let names = [
        "temperature",
        "top_p",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "top_k",
        "min_p",
        "typical_p",
        "top_n_sigma",
        "repetition_penalty",
        "repeat_last_n",
        "dry_multiplier",
        "dry_base",
        "dry_allowed_length",
        "dry_penalty_last_n",
        "xtc_probability",
        "xtc_threshold",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "dynatemp_range",
        "dynatemp_exponent",
        "priority",
        "timeout_ms",
        "thinking_token_budget",
    ];
    for name in names {
        for value in super::odd_values() {
            let ask = format!(r#"{{"messages":[{{"role":"user","content":"a"}}],"{name}":{value}}}"#);
            let reply = it.post(CHAT, &ask);
            match reply.status().code() {
                200 => {}
                400 if value == "NaN" => assert_eq!(body(&reply)["error"]["code"], "invalid_json"),
                400 => assert_eq!(body(&reply)["error"]["param"], name, "{value}"),
                status => panic!("{status}: {ask}"),
            }
        }
    }
}
