//! `/v1/responses`.

use serde_json::{Value, json};

use super::toy::{Fixture, body, events};
use crate::{
    engine::request::{FinishReason, Flow},
    http::{Method, Request},
};

const RESPONSES: &str = "/v1/responses";
const CALL: &str =
    "<think>\nhm\n</think>\n\nSo:<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";

fn ask(it: &Fixture, ask: &Value) -> Value {
    body(&it.post(RESPONSES, &ask.to_string()))
}

fn get(it: &Fixture, id: &Value) -> Value {
    body(&it.get(&format!("{RESPONSES}/{}", id.as_str().unwrap())))
}

fn tools() -> Value {
    json!([{"type": "function", "name": "add", "parameters": {"type": "object"}}])
}

/// The events of a stream, whose numbers have no gap.
fn stream(it: &Fixture, ask: &Value) -> Vec<Value> {
    let mut ask = ask.clone();
    ask["stream"] = true.into();
    let reply = it.post(RESPONSES, &ask.to_string());
    let text = String::from_utf8(reply.body().to_vec()).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let events: Vec<Value> = events(&reply).iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    for (i, event) in events.iter().enumerate() {
        assert_eq!((&event["sequence_number"], &event["type"]), (&json!(i), &json!(names[i])), "{event}");
    }
    events
}

#[test]
fn a_response_at_once() {
    let it = Fixture::new();
    let answer = ask(&it, &json!({"model": "echo", "input": "Hi!", "metadata": {"a": "b"}, "temperature": 0.7}));
    assert_eq!(
        (&answer["object"], &answer["status"], &answer["model"]),
        (&json!("response"), &json!("completed"), &json!("echo"))
    );
    assert!(answer["id"].as_str().unwrap().starts_with("resp_") && answer["created_at"].is_u64());
    let message = &answer["output"][0];
    assert_eq!(message["content"], json!([{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi!"}]));
    assert_eq!(
        (&message["type"], &message["role"], &message["status"]),
        (&json!("message"), &json!("assistant"), &json!("completed"))
    );
    assert_eq!(
        answer["usage"],
        json!({
            "input_tokens": 3, "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 6,
        })
    );
    for (name, value) in [
        ("temperature", json!(0.7)),
        ("metadata", json!({"a": "b"})),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("truncation", json!("disabled")),
        ("text", json!({"format": {"type": "text"}, "verbosity": "medium"})),
        ("store", json!(true)),
    ] {
        assert_eq!(answer[name], value, "{name}");
    }
    assert_eq!(get(&it, &answer["id"]), answer);
}

#[test]
fn thoughts_text_and_calls_are_items() {
    let it = Fixture::new();
    let answer = ask(&it, &json!({"input": CALL, "tools": tools()}));
    let output = answer["output"].as_array().unwrap();
    let kinds: Vec<&Value> = output.iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(output[0]["content"], json!([{"type": "reasoning_text", "text": "hm"}]));
    assert_eq!(output[0]["summary"], json!([]));
    assert_eq!((&output[2]["name"], &output[2]["arguments"]), (&json!("add"), &json!("{\"a\": 1}")));
    assert!(output[2]["call_id"].as_str().unwrap().starts_with("call_") && output[2]["id"] != output[2]["call_id"]);
    assert_eq!(answer["tools"][0]["strict"], true);
    assert!(answer["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0);
}

#[test]
fn a_stream_nests_strictly_and_comes_to_the_same() {
    let it = Fixture::new();
    let asked = json!({"input": CALL, "tools": tools()});
    let events = stream(&it, &asked);
    let mut kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let joined = |kind: &str| -> String {
        let deltas = events.iter().filter(|event| event["type"] == kind);
        deltas.map(|event| event["delta"].as_str().unwrap()).collect()
    };
    assert_eq!(joined("response.reasoning_text.delta"), "hm");
    assert_eq!(joined("response.output_text.delta"), "So:");
    assert_eq!(joined("response.function_call_arguments.delta"), "{\"a\": 1}");
    // Each event of an item bears its id and its place.
    let added: Vec<&Value> = events.iter().filter(|event| event["type"] == "response.output_item.added").collect();
    for event in events.iter().filter(|event| event.get("item_id").is_some()) {
        let index = event["output_index"].as_u64().unwrap() as usize;
        assert_eq!((&added[index]["item"]["id"], &added[index]["output_index"]), (&event["item_id"], &json!(index)));
    }
    assert_eq!((&added[0]["item"]["content"], &added[0]["item"]["status"]), (&json!([]), &json!("in_progress")));

    let last = &events.last().unwrap()["response"];
    let whole = ask(&it, &asked);
    let plain = |response: &Value| {
        let mut items = response["output"].clone();
        for item in items.as_array_mut().unwrap() {
            (item["id"], item["call_id"]) = (Value::Null, Value::Null);
        }
        (items, response["usage"].clone(), response["status"].clone())
    };
    assert_eq!(plain(last), plain(&whole));
    assert_eq!(&get(&it, &last["id"]), last);
    assert_eq!(events[0]["response"]["id"], last["id"]);
    assert_eq!(
        (&events[0]["response"]["status"], &events[0]["response"]["output"]),
        (&json!("in_progress"), &json!([]))
    );
}

#[test]
fn too_few_tokens_are_incomplete() {
    let it = Fixture::new();
    let asked = json!({"input": "Hello", "max_output_tokens": 2});
    let answer = ask(&it, &asked);
    assert_eq!(
        (&answer["status"], &answer["incomplete_details"]),
        (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
    );
    assert_eq!((&answer["output"][0]["status"], &answer["max_output_tokens"]), (&json!("incomplete"), &json!(2)));
    let events = stream(&it, &asked);
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.incomplete"), &json!("incomplete")));
}

#[test]
fn log_probabilities_are_of_the_text() {
    let it = Fixture::new();
    let asked =
        json!({"input": "<think>\nhm\n</think>\n\nHi", "include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let whole = ask(&it, &asked)["output"][1]["content"][0]["logprobs"].clone();
    let tokens: Vec<&Value> = whole.as_array().unwrap().iter().map(|token| &token["token"]).collect();
    assert_eq!(tokens, ["H", "i"]);
    assert_eq!((&whole[0]["bytes"], &whole[0]["top_logprobs"].as_array().unwrap().len()), (&json!([72]), &2));
    let events = stream(&it, &asked);
    let done = events.iter().find(|event| event["type"] == "response.output_text.done").unwrap();
    assert_eq!(done["logprobs"], whole);
}

#[test]
fn a_conversation_goes_on_from_what_is_kept() {
    let it = Fixture::new();
    let first = ask(&it, &json!({"input": "One", "instructions": "Be brief."}));
    let second = ask(&it, &json!({"input": "Two", "previous_response_id": first["id"]}));
    assert_eq!(second["previous_response_id"], first["id"]);
    let list = |path: &str| body(&it.get(&format!("{RESPONSES}/{}/input_items{path}", second["id"].as_str().unwrap())));
    let all = list("?order=asc");
    let texts: Vec<&Value> = all["data"].as_array().unwrap().iter().map(|item| &item["content"][0]["text"]).collect();
    assert_eq!(texts, ["One", "One", "Two"]);
    assert_eq!(all["data"][1], first["output"][0]);
    assert_eq!((&all["object"], &all["has_more"]), (&json!("list"), &json!(false)));
    let page = list(&format!("?limit=1&after={}", all["last_id"].as_str().unwrap()));
    assert_eq!((&page["data"][0], &page["has_more"]), (&all["data"][1], &json!(true)));
    // What it went on from may go.
    assert_eq!(
        it.handle(Request::new(Method::Delete, &format!("{RESPONSES}/{}", first["id"].as_str().unwrap())))
            .status()
            .code(),
        200
    );
    assert_eq!(ask(&it, &json!({"input": "Three", "previous_response_id": second["id"]}))["status"], "completed");
    let lost = ask(&it, &json!({"input": "Two", "previous_response_id": first["id"]}));
    assert_eq!(
        (&lost["error"]["code"], &lost["error"]["param"]),
        (&json!("previous_response_not_found"), &json!("previous_response_id"))
    );
}

#[test]
fn what_is_not_stored_is_not_kept() {
    let it = Fixture::new();
    for asked in [json!({"input": "Hi", "store": false}), json!({"input": "Hi", "store": false, "stream": true})] {
        let reply = it.post(RESPONSES, &asked.to_string());
        let id = match asked.get("stream") {
            None => body(&reply)["id"].clone(),
            Some(_) => serde_json::from_str::<Value>(&events(&reply)[0]).unwrap()["response"]["id"].clone(),
        };
        assert_eq!(get(&it, &id)["error"]["code"], "not_found");
    }
    for path in ["resp_none", "resp_none/input_items"] {
        assert_eq!(it.get(&format!("{RESPONSES}/{path}")).status().code(), 404);
    }
    assert_eq!(it.post(&format!("{RESPONSES}/resp_none/cancel"), "").status().code(), 404);
    assert_eq!(it.handle(Request::new(Method::Delete, "/v1/responses/resp_none")).status().code(), 404);
}

#[test]
fn in_the_background() {
    let it = Fixture::new();
    let answer = ask(&it, &json!({"input": "Hi", "background": true}));
    assert_eq!(
        (&answer["status"], &answer["output"], &answer["background"]),
        (&json!("queued"), &json!([]), &json!(true))
    );
    let done = get(&it, &answer["id"]);
    assert_eq!((&done["status"], &done["output"][0]["content"][0]["text"]), (&json!("completed"), &json!("Hi")));
    // What has ended stays as it is.
    let path = format!("{RESPONSES}/{}/cancel", answer["id"].as_str().unwrap());
    assert_eq!(body(&it.post(&path, "")), done);
    // A failure is told to who asks.
    let long = ask(&it, &json!({"input": "x".repeat(1001), "background": true}));
    let failed = get(&it, &long["id"]);
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("invalid_prompt")));
    // One that nobody can serve is refused at once.
    let reply = it.post(RESPONSES, r#"{"input": "Hi", "background": true, "model": "none"}"#);
    assert_eq!((reply.status().code(), &body(&reply)["error"]["code"]), (404, &json!("model_not_found")));
    let now = ask(&it, &json!({"input": "Hi"}));
    let reply = it.post(&format!("{RESPONSES}/{}/cancel", now["id"].as_str().unwrap()), "");
    assert_eq!(reply.status().code(), 400);
    let page = String::from_utf8(it.get("/metrics").body().to_vec()).unwrap();
    assert!(
        page.contains("sconce_requests_total{endpoint=\"/v1/responses\",status=\"200\"} 2\n"),
        "each counts once: {page}"
    );
}

#[test]
fn cancelled_in_the_background() {
    for delete in [false, true] {
        let it = Fixture::new();
        let answer = ask(&it, &json!({"input": "hold on", "background": true}));
        assert_eq!(get(&it, &answer["id"])["status"], "in_progress");
        let mut sink = it.echo.held.lock().unwrap().take().expect("a generation");
        assert_eq!(sink.flow(), Flow::Continue);
        let path = format!("{RESPONSES}/{}", answer["id"].as_str().unwrap());
        if delete {
            assert_eq!(body(&it.handle(Request::new(Method::Delete, &path)))["deleted"], true);
        } else {
            assert_eq!(body(&it.post(&format!("{path}/cancel"), ""))["status"], "cancelled");
        }
        assert_eq!(sink.flow(), Flow::Cancel, "the engine drops it");
        sink.on_event(super::toy::finished(FinishReason::Cancelled));
        let after = it.get(&path);
        match delete {
            true => assert_eq!(after.status().code(), 404),
            false => assert_eq!(body(&after)["status"], "cancelled"),
        }
    }
}

#[test]
fn a_stream_that_breaks_off_has_failed() {
    let it = Fixture::new();
    let events = stream(&it, &json!({"input": "break off"}));
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    assert_eq!(
        (&last["response"]["error"]["code"], &last["response"]["output"][0]["status"]),
        (&json!("server_error"), &json!("incomplete"))
    );
    assert_eq!(get(&it, &last["response"]["id"]), last["response"]);
    let lost = ask(&it, &json!({"input": "Hi", "previous_response_id": last["response"]["id"]}));
    assert_eq!(lost["error"]["param"], "previous_response_id");
}

#[test]
fn errors_name_the_field() {
    let it = Fixture::new();
    for (more, param) in [
        (json!({"input": null}), "input"),
        (json!({"input": [{"role": "user", "content": 1}]}), "input[0].content"),
        (json!({"input": "refuse me"}), "input"),
        (json!({"input": "no template"}), "input"),
        (json!({"input": "x".repeat(1001)}), "input"),
        (json!({"instructions": 1}), "instructions"),
        (json!({"store": "yes"}), "store"),
        (json!({"background": true, "stream": true}), "background"),
        (json!({"background": true, "store": false}), "background"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"max_output_tokens": i64::MIN}), "max_output_tokens"),
        (json!({"max_output_tokens": 1e308}), "max_output_tokens"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"top_p": -1}), "top_p"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].name"),
        (json!({"tools": [{"type": "function", "name": "f", "function": {}}]}), "tools[0].function"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"reasoning": {"effort": "much"}}), "reasoning.effort"),
        (json!({"reasoning": {"summary": "detailed"}}), "reasoning.summary"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
        (json!({"text": {"format": {"type": "json_schema", "name": "a"}}}), "text.format.schema"),
        (json!({"text": {"verbosity": "low"}}), "text.verbosity"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"include": ["file_search_call.results"]}), "include[0]"),
        (json!({"include": "a"}), "include"),
        (json!({"top_logprobs": 21}), "top_logprobs"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (json!({"metadata": {"a": 1}}), "metadata"),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"max_tool_calls": 3}), "max_tool_calls"),
        (json!({"messages": []}), "messages"),
    ] {
        let mut asked = json!({"input": "Hi"});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = it.post(RESPONSES, &asked.to_string());
        assert_eq!((reply.status().code(), &body(&reply)["error"]["param"]), (400, &json!(param)), "{more}");
    }
    let id = ask(&it, &json!({"input": "Hi"}))["id"].as_str().unwrap().to_owned();
    for (query, param) in [
        ("?stream=true", "stream"),
        ("?colour=red", "colour"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=x", "limit"),
        ("/input_items?order=up", "order"),
        ("/input_items?after=x", "after"),
        ("/input_items?before=x", "before"),
    ] {
        let reply = it.get(&format!("{RESPONSES}/{id}{query}"));
        assert_eq!((reply.status().code(), &body(&reply)["error"]["param"]), (400, &json!(param)), "{query}");
    }
}
