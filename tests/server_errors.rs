//! The real binary refuses what is wrong: the right status, the envelope, the field, and it goes on serving.

#![cfg(feature = "server")]

mod common;

use common::{client::Answer, model, server::Server};
use serde_json::json;

#[track_caller]
fn check_error(answer: &Answer, status: u16, code: &str, param: Option<&str>) {
    let body = answer.json();
    assert_eq!((answer.status, &body["success"]), (status, &json!(false)), "{body}");
    assert_eq!((&body["error"]["code"], &body["error"]["param"]), (&json!(code), &json!(param)), "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|words| !words.is_empty()), "{body}");
    assert!(answer.header("x-request-id").is_some(), "{body}");
}

#[test]
fn bodies_that_are_wrong() {
    let server = Server::start(&[]);
    for (path, body, code, param) in [
        ("/generate", "", "invalid_json", None),
        ("/generate", "{", "invalid_json", None),
        ("/generate", "\u{feff}{}", "invalid_json", None),
        ("/generate", "[1]", "invalid_json", None),
        ("/generate", "{\"prompt\":\"a\"} x", "invalid_json", None),
        ("/generate", "{\"prompt\":\"\\ud800\"}", "invalid_json", None),
        ("/generate", "{}", "invalid_request", Some("prompt")),
        ("/generate", "{\"prompt\":5}", "invalid_request", Some("prompt")),
        ("/generate", "{\"prompt\":[1,null]}", "invalid_request", Some("prompt[1]")),
        ("/generate", "{\"prompt\":\"a\",\"max_token\":1}", "invalid_request", Some("max_token")),
        ("/generate", "{\"prompt\":\"a\",\"max_tokens\":0}", "invalid_request", Some("max_tokens")),
        ("/generate", "{\"prompt\":\"a\",\"max_tokens\":\"9\"}", "invalid_request", Some("max_tokens")),
        ("/generate", "{\"prompt\":\"a\",\"temperature\":-1}", "invalid_request", Some("temperature")),
        ("/generate", "{\"prompt\":\"a\",\"stop\":[\"\"]}", "invalid_request", Some("stop[0]")),
        ("/generate", "{\"messages\":[{\"role\":\"x\"}]}", "invalid_request", Some("messages[0].role")),
        ("/generate_stream", "{\"prompt\":\"a\",\"top_p\":2}", "invalid_request", Some("top_p")),
        ("/encode", "{\"text\":[]}", "invalid_request", Some("text")),
        ("/decode", "{\"tokens\":[1.5]}", "invalid_request", Some("tokens[0]")),
    ] {
        check_error(&server.post(path, body), 400, code, param);
    }
    check_error(&server.post("/generate", "{\"prompt\":[999999]}"), 400, "unknown_token", Some("prompt"));
    check_error(&server.post("/generate", "{\"prompt\":[]}"), 400, "empty_prompt", Some("prompt"));
    let deep = format!("{{\"prompt\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
    check_error(&server.post("/generate", &deep), 400, "invalid_json", None);
}

#[test]
fn a_prompt_beyond_the_context_names_both_numbers() {
    let server = Server::start(&["--context", "128"]);
    let long = json!({"prompt": "x".repeat(500), "max_tokens": 1}).to_string();
    for path in ["/generate", "/generate_stream"] {
        let answer = server.post(path, &long);
        check_error(&answer, 400, "context_length_exceeded", Some("prompt"));
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("500") && message.contains("128"), "{message}");
    }
    // What fits is generated up to the context's end.
    let fits = json!({"prompt": "x".repeat(100), "max_tokens": 1000, "ignore_eos": true}).to_string();
    let data = server.post("/generate", &fits).json()["data"].clone();
    assert_eq!(data["finish_reason"], "length");
    assert!(data["usage"]["total_tokens"].as_u64().unwrap() <= 128, "{data}");
}

/// Every numeric field against every odd value: refused by name, or a valid answer; the server lives on.
#[test]
fn odd_numbers_in_every_field() {
    let server = Server::start(&[]);
    let fields = [
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "seed",
        "priority",
        "timeout_ms",
    ];
    let values = [
        "-9223372036854775808",
        "-1",
        "0",
        "1",
        "2",
        "9223372036854775808",
        "18446744073709551616",
        "1e308",
        "-1e308",
        "1e-320",
        "0.5",
        "NaN",
        "Infinity",
        "\"1\"",
        "null",
        "true",
        "[]",
        "{}",
    ];
    let mut client = server.client();
    for field in fields {
        for value in values {
            let most = if field == "max_tokens" { "" } else { "\"max_tokens\":2," };
            let body = format!("{{\"prompt\":\"a\",{most}\"{field}\":{value}}}");
            let answer = client.request("POST", "/generate", &[], body.as_bytes());
            match answer.status {
                200 => assert!(answer.json()["data"]["finish_reason"].is_string(), "{body}"),
                400 => {
                    let param = answer.json()["error"]["param"].clone();
                    assert!(
                        param == field || (param.is_null() && ["NaN", "Infinity"].contains(&value)),
                        "{body}: {param}"
                    );
                }
                // A millisecond may really be over before the request is admitted.
                504 if field == "timeout_ms" => {}
                status => panic!("{body}: {status}"),
            }
        }
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn unknown_paths_and_wrong_methods() {
    let server = Server::start(&[]);
    for path in ["/nothing", "/generate/", "/..%2fCargo.toml", "/app.js/", "/%2e%2e/Cargo.toml"] {
        check_error(&server.get(path), 404, "not_found", None);
    }
    for (method, path, allow) in
        [("GET", "/generate", "POST"), ("DELETE", "/health", "GET"), ("PUT", "/encode", "POST"), ("POST", "/", "GET")]
    {
        let answer = server.client().request(method, path, &[], b"");
        check_error(&answer, 405, "method_not_allowed", None);
        assert!(answer.header("allow").unwrap().contains(allow), "{method} {path}");
    }
}

#[test]
fn broken_http_is_answered_in_the_envelope_and_closed() {
    let server = Server::start(&["--body-bytes-max", "64 KiB"]);
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(20_000));
    let long_head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    for (bytes, status) in [
        ("GARBAGE\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello", 400),
        (
            "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n", 413),
        ("FROB / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (&long_path, 414),
        (&long_head, 431),
    ] {
        let mut client = server.client();
        client.send(bytes.as_bytes());
        let answer = client.read_answer();
        let start: String = bytes.chars().take(60).collect();
        assert_eq!(answer.status, status, "{start:?}");
        assert_eq!(answer.json()["success"], false, "{start:?}");
        assert!(answer.header("x-request-id").is_some(), "{start:?}");
        assert_eq!(client.rest(), b"", "{start:?}");
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn foreign_hosts_are_refused_while_bound_to_loopback() {
    let server = Server::start(&[]);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/health", "/generate", "/"] {
            let answer = server.client().request(method, path, &[("Host", "evil.example")], b"");
            check_error(&answer, 421, "misdirected_request", None);
        }
    }
    assert_eq!(server.client().request("GET", "/health", &[("Host", "localhost:1")], b"").status, 200);
}

#[test]
fn a_full_queue_is_503_and_a_late_one_504() {
    let server = Server::start(&["--running-max", "1", "--queue-max", "2"]);
    let long = json!({"prompt": "a", "max_tokens": model::CONTEXT, "ignore_eos": true}).to_string();
    let mut first = server.client();
    first.send_request("POST", "/generate_stream", &[], long.as_bytes());
    assert_eq!(first.read_head().status, 200);

    // Behind a running one this waits until its deadline.
    let late = json!({"prompt": "a", "timeout_ms": 50}).to_string();
    check_error(&server.post("/generate_stream", &late), 504, "queue_timeout", None);

    let mut waiting: Vec<_> = (0..2).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.send_request("POST", "/generate", &[], long.as_bytes());
    }
    common::server::eventually(common::client::TIMEOUT, "two wait", || server.metric("sconce_queue_size") == 2.0);
    let answer = server.post("/generate_stream", &long);
    check_error(&answer, 503, "queue_full", None);
    assert!(answer.header("retry-after").is_some());
}
