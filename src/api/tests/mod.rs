//! The routes with a toy in the engine's place and no socket.

pub mod anthropic;
mod embeddings;
mod llama_server;
mod ollama;
mod openai;
mod rerank;
mod responses;
pub mod toy;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use serde_json::json;

use super::{Api, Backend, ReloadOutcome, Settings, router};
use crate::{
    engine::request::Prompt,
    http::{Method, Request},
};
use toy::{Echo, Fixture, SOON, body};

#[test]
fn generate_answers_once() {
    let it = Fixture::new();
    let reply = it.post("/generate", r#"{"prompt":"Hi!"}"#);
    let answer = body(&reply);
    let data = &answer["data"];
    assert_eq!((reply.status().code(), &answer["success"]), (200, &json!(true)));
    assert_eq!((&data["text"], &data["token_ids"]), (&json!("Hi!"), &json!([72, 105, 33])));
    assert_eq!(data["finish_reason"], "stop");
    let usage = json!({"prompt_tokens":3,"completion_tokens":3,"total_tokens":6,"cached_tokens":1});
    assert_eq!(data["usage"], usage);
    assert!(data["response_time"].is_f64() && data["tokens_per_second"].is_number());
    assert_eq!(reply.header_value("x-request-id"), data["id"].as_str());
}

#[test]
fn generate_with_stream_is_generate_stream() {
    let it = Fixture::new();
    for (path, body) in [("/generate_stream", r#"{"prompt":"ab"}"#), ("/generate", r#"{"prompt":"ab","stream":true}"#)]
    {
        let reply = it.post(path, body);
        let text = String::from_utf8(reply.body().to_vec()).unwrap();
        assert_eq!((reply.status().code(), reply.content_type()), (200, "text/event-stream"), "{path}");
        assert_eq!(text.matches("data: {").count(), 3, "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(reply.header_value("x-request-id").is_some());
    }
    assert_eq!(it.post("/generate_stream", r#"{"prompt":"ab","stream":false}"#).status().code(), 400);
}

#[test]
fn messages_go_through_the_template() {
    let it = Fixture::new();
    let data = &body(&it.post("/generate", r#"{"messages":[{"role":"user","content":"Hi"}]}"#))["data"];
    assert_eq!(data["text"], "Hi");
    assert_eq!(it.echo.asked.lock().unwrap().as_ref().unwrap().prompt, Prompt::Rendered("Hi".to_owned()));
    for (said, words) in [("refuse me", "roles must alternate"), ("no template", "no chat template")] {
        for path in ["/generate", "/generate_stream"] {
            let reply = it.post(path, &json!({"messages": [{"role": "user", "content": said}]}).to_string());
            let answer = body(&reply);
            assert_eq!((reply.status().code(), &answer["error"]["param"]), (400, &json!("messages")));
            assert!(answer["error"]["message"].as_str().unwrap().contains(words));
        }
    }
    let long = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(100_000));
    assert_eq!(body(&it.post("/generate", &long))["error"]["code"], "context_length_exceeded");
}

#[test]
fn refusals_have_status_code_and_param() {
    let it = Fixture::new();
    let long = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(1001));
    for (path, json, status, code, param) in [
        ("/generate", "", 400, "invalid_json", None),
        ("/generate", "[]", 400, "invalid_json", None),
        ("/generate", r#"{"prompt":"a","promt":1}"#, 400, "invalid_request", Some("promt")),
        ("/generate", r#"{"prompt":""}"#, 400, "empty_prompt", Some("prompt")),
        ("/generate", &long, 400, "context_length_exceeded", Some("prompt")),
        ("/generate_stream", &long, 400, "context_length_exceeded", Some("prompt")),
        ("/encode", "{}", 400, "invalid_request", Some("text")),
        ("/encode", r#"{"text":1}"#, 400, "invalid_request", Some("text")),
        ("/encode", r#"{"text":"a","x":1}"#, 400, "invalid_request", Some("x")),
        ("/decode", "{}", 400, "invalid_request", Some("tokens")),
        ("/decode", r#"{"tokens":[1,-1]}"#, 400, "invalid_request", Some("tokens[1]")),
        ("/decode", r#"{"tokens":[1,2,999]}"#, 400, "invalid_request", Some("tokens[2]")),
        ("/nothing", "{}", 404, "not_found", None),
        ("/health", "{}", 405, "method_not_allowed", None),
    ] {
        let reply = it.post(path, json);
        let answer = body(&reply);
        assert_eq!((reply.status().code(), &answer["success"]), (status, &json!(false)), "{path} {json}");
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["param"]),
            (&json!(code), &json!(param)),
            "{path} {json}"
        );
        assert!(reply.header_value("x-request-id").is_some(), "{path} {json}");
    }
    assert_eq!(it.get("/generate").header_value("allow"), Some("POST, OPTIONS"));
}

#[test]
fn a_panic_is_a_500_in_the_envelope() {
    let it = Fixture::new();
    let reply = it.post("/generate", &format!(r#"{{"prompt":"{}"}}"#, "x".repeat(13)));
    assert_eq!((reply.status().code(), &body(&reply)["error"]["code"]), (500, &json!("internal_error")));
    assert_eq!(it.post("/generate", r#"{"prompt":"a"}"#).status().code(), 200);
}

#[test]
fn encode_and_decode() {
    let it = Fixture::new();
    for text in ["Hi", "", &"long ".repeat(10_000)] {
        let request = json!({ "text": text, "add_special": false }).to_string();
        let data = &body(&it.post("/encode", &request))["data"];
        assert_eq!(data["length"], text.len());
        let request = json!({ "tokens": data["tokens"] }).to_string();
        assert_eq!(body(&it.post("/decode", &request))["data"]["text"], text);
    }
    assert_eq!(body(&it.post("/encode", r#"{"text":"a"}"#))["data"]["tokens"], json!([1, 97]));
}

#[test]
fn request_ids() {
    let it = Fixture::new();
    for path in ["/health", "/nothing", "/"] {
        let given = it.handle(Request::new(Method::Get, path).with_header("X-Request-Id", "my.id-1"));
        assert_eq!(given.header_value("x-request-id"), Some("my.id-1"), "{path}");
        let made = it.handle(Request::new(Method::Get, path).with_header("X-Request-Id", "no good"));
        assert_eq!(made.header_value("x-request-id").map(str::len), Some(32), "{path}");
    }
    let request = Request::new(Method::Post, "/generate").with_body(br#"{"prompt":"a"}"#);
    let reply = it.handle(request.with_header("X-Request-Id", "mine"));
    assert_eq!(reply.header_value("x-request-id"), Some("mine"));
}

#[test]
fn health_has_every_field() {
    let it = Fixture::new();
    let reply = it.get("/health");
    let data = body(&reply)["data"].clone();
    assert_eq!(reply.status().code(), 200);
    assert_eq!(
        (&data["status"], &data["healthy"], &data["model_loaded"]),
        (&json!("healthy"), &json!(true), &json!(true))
    );
    for name in ["scheduler", "model_executor", "tokenizer", "request_queue"] {
        assert_eq!(data["components"][name], true, "{name}");
    }
    for name in [
        "queue_size",
        "active_requests",
        "average_wait_time",
        "requests_per_second",
        "average_response_time",
        "tokens_per_second",
        "kv_cache_usage",
        "uptime_seconds",
    ] {
        assert!(data["metrics"][name].is_number(), "{name}");
    }
    assert_eq!((&data["metrics"]["queue_size"], &data["metrics"]["kv_cache_usage"]), (&json!(3), &json!(0.25)));
    assert_eq!((&data["model"], &data["model_info"]["architecture"]), (&json!("echo"), &json!("parrot")));
    assert!(data["dependencies"].is_object() && data["version"].is_string());
}

#[test]
fn nothing_is_generated_before_the_model_is_there() {
    let api = Api::new(Settings::default()).unwrap();
    let router = router(&api);
    for (path, json) in
        [("/generate", r#"{"prompt":"a"}"#), ("/encode", r#"{"text":"a"}"#), ("/decode", r#"{"tokens":[]}"#)]
    {
        let reply = router.handle(Request::new(Method::Post, path).with_body(json.as_bytes()));
        let reply = reply.wait(SOON).unwrap();
        assert_eq!((reply.status().code(), &body(&reply)["error"]["code"]), (503, &json!("loading")), "{path}");
        assert_eq!(reply.header_value("retry-after"), Some("1"));
    }
    let readyz = router.handle(Request::new(Method::Get, "/readyz"));
    assert_eq!((readyz.status().code(), readyz.body()), (503, &b"loading 0 %\n"[..]));
    assert!(readyz.header_value("retry-after").is_some());
    assert_eq!(router.handle(Request::new(Method::Get, "/livez")).status().code(), 200);
    let health = router.handle(Request::new(Method::Get, "/health"));
    assert_eq!((health.status().code(), &body(&health)["data"]["model_loaded"]), (503, &json!(false)));
    assert_eq!(router.handle(Request::new(Method::Get, "/metrics")).status().code(), 200);
}

#[test]
fn readiness_follows_drain_and_engine() {
    let it = Fixture::new();
    assert_eq!(it.get("/readyz").status().code(), 200);
    it.echo.alive.store(false, Relaxed);
    assert_eq!((it.get("/readyz").status().code(), it.get("/health").status().code()), (503, 503));
    assert_eq!(body(&it.get("/health"))["data"]["status"], "unhealthy");
    assert_eq!(it.get("/livez").status().code(), 200);
    it.echo.alive.store(true, Relaxed);
    it.api.set_draining();
    let reply = it.get("/readyz");
    assert_eq!((reply.status().code(), reply.body()), (503, &b"draining\n"[..]));
    assert_eq!(body(&it.get("/health"))["data"]["status"], "degraded");
}

#[test]
fn a_model_takes_the_place_of_another() {
    let it = Fixture::new();
    let ask = r#"{"prompt":"a"}"#;
    let other = Echo::new();
    it.api.set_backend(Arc::clone(&other) as Arc<dyn Backend>);
    assert_eq!(it.post("/generate", ask).status().code(), 200);
    assert!(other.asked.lock().unwrap().is_some() && it.echo.asked.lock().unwrap().is_none());
    it.api.count_reload(ReloadOutcome::Failed);
    let page = String::from_utf8(it.get("/metrics").body().to_vec()).unwrap();
    assert!(page.contains("sconce_reloads_total{outcome=\"failed\"} 1\n") && page.contains("sconce_ready 1\n"));
}

#[test]
fn metrics_count_what_was_answered() {
    let it = Fixture::new();
    drop(it.post("/generate", r#"{"prompt":"abc"}"#));
    drop(it.post("/generate_stream", r#"{"prompt":"ab"}"#));
    drop(it.post("/generate_stream", r#"{"prompt":""}"#));
    drop(it.post("/generate", "{"));
    drop(it.get("/nothing"));
    let reply = it.get("/metrics");
    assert_eq!(reply.content_type(), "text/plain; version=0.0.4; charset=utf-8");
    let page = String::from_utf8(reply.body().to_vec()).unwrap();
    for line in [
        "sconce_requests_total{endpoint=\"/generate\",status=\"200\"} 1",
        "sconce_requests_total{endpoint=\"/generate\",status=\"400\"} 1",
        "sconce_requests_total{endpoint=\"/generate_stream\",status=\"200\"} 1",
        "sconce_requests_total{endpoint=\"/generate_stream\",status=\"400\"} 1",
        "sconce_requests_total{endpoint=\"other\",status=\"404\"} 1",
        "sconce_generated_tokens_total 5",
        "sconce_time_to_first_token_seconds_count 2",
        "sconce_requests_running 2",
        "sconce_queue_size 3",
        "sconce_preemptions_total 5",
        "vllm:num_requests_waiting{model_name=\"echo\"} 3",
    ] {
        assert!(page.lines().any(|l| l == line), "no {line:?} in\n{page}");
    }
}

#[test]
fn foreign_hosts_are_misdirected_whatever_the_method() {
    let it = Fixture::new();
    for (host, known) in [("localhost:8080", true), ("sconce.lan", true), ("evil.example", false)] {
        for method in [Method::Get, Method::Post, Method::Put, Method::Delete, Method::Options, Method::Patch] {
            let reply = it.handle(Request::new(method, "/health").with_header("Host", host));
            assert_eq!(reply.status().code() != 421, known, "{method} {host}");
        }
    }
}

#[test]
fn the_page_and_its_files() {
    let it = Fixture::new();
    for (path, kind) in
        [("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css"), ("/icon.svg", "image/svg+xml")]
    {
        let reply = it.get(path);
        assert!(reply.content_type().starts_with(kind) && !reply.body().is_empty(), "{path}");
        let policy = reply.header_value("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let html = String::from_utf8(it.get("/").body().to_vec()).unwrap();
    assert!(!html.contains("onclick=") && !html.contains("style="), "the policy forbids inline script and style");
    let script = String::from_utf8(it.get("/app.js").body().to_vec()).unwrap();
    assert!(!script.contains("innerHTML") && !script.contains("insertAdjacentHTML"), "model output is never markup");
}

/// What a numeric field may be sent as.
fn odd_values() -> [&'static str; 21] {
    [
        "-9223372036854775808",
        "-1",
        "0",
        "1",
        "128",
        "129",
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
    ]
}
