//! The real binary generates: whole, streamed, from text, tokens and messages.

#![cfg(feature = "server")]

mod common;

use common::server::Server;
use serde_json::{Value, json};

#[test]
fn whole_and_streamed_answers_agree() {
    let server = Server::start(&[]);
    let ask = json!({"prompt": "The flame", "max_tokens": 24, "temperature": 0.0, "ignore_eos": true}).to_string();
    let whole = server.post("/generate", &ask);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = whole.json()["data"].clone();
    assert_eq!(
        whole["usage"],
        json!({"prompt_tokens": 9, "completion_tokens": 24, "total_tokens": 33, "cached_tokens": 0})
    );
    assert_eq!((&whole["finish_reason"], whole["token_ids"].as_array().map(Vec::len)), (&json!("length"), Some(24)));
    assert!(whole["response_time"].as_f64() > Some(0.0) && whole["tokens_per_second"].as_f64() > Some(0.0));

    let answer = server.post("/generate_stream", &ask);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!((answer.header("cache-control"), answer.header("x-accel-buffering")), (Some("no-store"), Some("no")));
    let events = answer.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let events: Vec<Value> =
        events[..events.len() - 1].iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let (last, pieces) = events.split_last().unwrap();
    let text: String = events.iter().map(|event| event["text"].as_str().unwrap()).collect();
    let token_ids: Vec<&Value> = events.iter().flat_map(|event| event["token_ids"].as_array().unwrap()).collect();
    assert_eq!(json!(text), whole["text"]);
    assert_eq!(json!(token_ids), whole["token_ids"]);
    assert_eq!((&last["finish_reason"], &last["usage"]), (&whole["finish_reason"], &whole["usage"]));
    for (i, event) in events.iter().enumerate() {
        assert_eq!((&event["index"], &event["id"]), (&json!(i), &last["id"]));
    }
    assert!(pieces.iter().all(|event| event["finish_reason"].is_null()));
    assert_eq!(answer.header("x-request-id"), last["id"].as_str());
}

#[test]
fn the_same_seed_gives_the_same_text_whoever_else_is_served() {
    let server = Server::demo();
    let ask = |seed: u64| json!({"prompt": "Once", "max_tokens": 32, "temperature": 1.5, "seed": seed}).to_string();
    let alone = server.post("/generate", &ask(7)).json()["data"]["token_ids"].clone();
    let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send_request("POST", "/generate", &[], ask(7 + i as u64 % 2).as_bytes());
    }
    let answers: Vec<Value> = clients.iter_mut().map(|c| c.read_answer().json()["data"]["token_ids"].clone()).collect();
    for (i, tokens) in answers.iter().enumerate() {
        assert_eq!(*tokens == alone, i % 2 == 0, "client {i}");
    }
}

#[test]
fn prompts_as_text_tokens_and_messages() {
    let server = Server::start(&[]);
    let generate = |input: Value| {
        let mut ask = json!({"max_tokens": 8, "temperature": 0, "ignore_eos": true});
        ask.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        server.post("/generate", &ask.to_string()).json()["data"].clone()
    };
    let text = generate(json!({"prompt": "Hi"}));
    let tokens = generate(json!({"prompt": [72, 105]}));
    assert_eq!(text["token_ids"], tokens["token_ids"]);
    let chat = generate(json!({"messages": [{"role": "user", "content": "Hi"}]}));
    // <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n: three control tokens, the rest byte by byte.
    assert_eq!(chat["usage"]["prompt_tokens"], 3 + "user\nHi\nassistant\n".len());
}

#[test]
fn stop_strings_and_tokens_end_it() {
    let server = Server::start(&[]);
    let ask = |more: Value| {
        let mut ask = json!({"prompt": "Stop here", "max_tokens": 40, "temperature": 0, "ignore_eos": true});
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/generate", &ask.to_string()).json()["data"].clone()
    };
    let free = ask(json!({}));
    let ids = free["token_ids"].as_array().unwrap();
    let stop_token = ids[20].clone();
    let first = ids.iter().position(|id| *id == stop_token).unwrap();
    let stopped = ask(json!({"stop_token_ids": [stop_token]}));
    assert_eq!(
        (&stopped["finish_reason"], &stopped["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(first + 1))
    );

    let text = free["text"].as_str().unwrap();
    let stop: String = text.chars().skip(10).take(2).collect();
    let stopped = ask(json!({"stop": [stop]}));
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"], text[..text.find(&stop).unwrap()]);
}

#[test]
fn encode_and_decode_round_trip() {
    let server = Server::start(&[]);
    for text in ["Hello, world", "", "人工智能 🕯️ e\u{301}", "a\0b\n\t", &"many words ".repeat(20_000)] {
        let encoded = server.post("/encode", &json!({"text": text, "add_special": false}).to_string()).json();
        let data = &encoded["data"];
        assert_eq!(data["length"].as_u64(), data["tokens"].as_array().map(|t| t.len() as u64), "{encoded}");
        let decoded = server.post("/decode", &json!({"tokens": data["tokens"]}).to_string()).json();
        assert!(decoded["data"]["text"] == text, "{} bytes came back otherwise", text.len());
    }
    let answer = server.post("/decode", r#"{"tokens": [1, 2, 99999]}"#);
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("tokens[2]")));
}

#[test]
fn many_requests_on_one_connection() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let ask = json!({"prompt": "a", "max_tokens": 2, "ignore_eos": true}).to_string();
    for i in 0..20 {
        let id = format!("turn-{i}");
        let path = if i % 2 == 0 { "/generate" } else { "/generate_stream" };
        let answer = client.request("POST", path, &[("X-Request-Id", &id)], ask.as_bytes());
        assert_eq!((answer.status, answer.header("x-request-id")), (200, Some(id.as_str())));
    }
    // Sent at once, answered in order.
    for path in ["/livez", "/health", "/nothing", "/metrics"] {
        client.send_request("GET", path, &[], b"");
    }
    let statuses: Vec<u16> = (0..4).map(|_| client.read_answer().status).collect();
    assert_eq!(statuses, [200, 200, 404, 200]);
}

#[test]
fn the_page_is_served() {
    let server = Server::start(&[]);
    for path in ["/", "/app.js", "/style.css", "/icon.svg"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-security-policy").unwrap().contains("script-src 'self'"));
        let tag = answer.header("etag").unwrap();
        assert_eq!(server.client().request("GET", path, &[("If-None-Match", tag)], b"").status, 304, "{path}");
    }
}
