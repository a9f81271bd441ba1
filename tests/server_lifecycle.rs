//! The real binary from start to end: what it refuses to start with, clients that leave, load, and the drain.

#![cfg(feature = "server")]

mod common;

use std::{
    net::TcpListener,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    client::TIMEOUT,
    model,
    server::{Server, eventually, run, sconce},
};
use serde_json::{Value, json};

fn endless() -> String {
    json!({"prompt": "a", "max_tokens": model::CONTEXT, "temperature": 0, "ignore_eos": true}).to_string()
}

#[test]
fn a_hundred_clients_that_leave_cost_nothing_afterwards() {
    let server = Server::start(&["--running-max", "64"]);
    let mut clients: Vec<_> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send_request("POST", "/generate_stream", &[], endless().as_bytes());
    }
    assert_eq!(clients[0].read_head().status, 200);
    assert!(clients[0].read_event().is_some());
    assert!(server.metric("sconce_requests_running") > 0.0);
    drop(clients);
    eventually(Duration::from_secs(1), "all gauges are at 0", || {
        ["sconce_requests_running", "sconce_queue_size", "sconce_kv_blocks_used"]
            .iter()
            .all(|name| server.metric(name) == 0.0)
    });
    assert_eq!(server.metric("sconce_generations_total{reason=\"cancelled\"}"), 100.0);
    assert_eq!(server.post("/generate", r#"{"prompt":"a","max_tokens":3}"#).status, 200);
}

#[test]
fn whole_answers_are_cancelled_too() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send_request("POST", "/generate", &[], endless().as_bytes());
    eventually(TIMEOUT, "it runs", || server.metric("sconce_requests_running") == 1.0);
    drop(client);
    eventually(Duration::from_secs(1), "it is gone", || server.metric("sconce_requests_running") == 0.0);
}

#[test]
fn health_answers_while_long_prompts_are_read() {
    let server = Server::start(&[]);
    let long = json!({"prompt": "x".repeat(1500), "max_tokens": 20, "ignore_eos": true}).to_string();
    let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send_request("POST", "/generate_stream", &[], long.as_bytes());
    }
    eventually(TIMEOUT, "they run", || server.metric("sconce_requests_running") > 0.0);
    let mut probe = server.client();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        let answer = probe.request("GET", "/health", &[], b"");
        slowest = slowest.max(start.elapsed());
        assert_eq!((answer.status, &answer.json()["data"]["status"]), (200, &json!("healthy")));
    }
    // Far above what is measured on a quiet machine, far below a prompt.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    for client in &mut clients {
        assert!(client.read_answer().text().ends_with("data: [DONE]\n\n"));
    }
}

#[test]
fn a_signal_drains_running_streams() {
    let mut server = Server::start(&["--drain-seconds", "30"]);
    let ask = json!({"prompt": "a", "max_tokens": 300, "ignore_eos": true}).to_string();
    let mut client = server.client();
    client.send_request("POST", "/generate_stream", &[], ask.as_bytes());
    assert_eq!(client.read_head().status, 200);
    server.signal("TERM");
    let mut last = String::new();
    while let Some(event) = client.read_event() {
        last = event;
    }
    assert_eq!(last, "[DONE]");
    assert_eq!(server.wait(TIMEOUT).code(), Some(0));
}

#[test]
fn a_stream_that_outlives_the_drain_gets_an_error() {
    let mut server = Server::start(&["--drain-seconds", "0"]);
    let mut client = server.client();
    client.send_request("POST", "/generate_stream", &[], endless().as_bytes());
    assert_eq!(client.read_head().status, 200);
    assert!(client.read_event().is_some());
    server.signal("TERM");
    let mut last = String::new();
    while let Some(event) = client.read_event() {
        last = event;
    }
    let error: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(error["error"]["code"], "shutting_down");
    assert_eq!(server.wait(TIMEOUT).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain-seconds", "3600", "--context", "4096"]);
    let mut client = server.client();
    client.send_request("POST", "/generate_stream", &[], endless().as_bytes());
    assert!(client.read_event().is_some());
    server.signal("INT");
    // New connections are refused: the first signal has been seen.
    eventually(TIMEOUT, "it drains", || std::net::TcpStream::connect(server.address).is_err());
    server.signal("INT");
    server.wait(TIMEOUT);
}

#[track_caller]
fn check_refusal(command: Command, code: i32, parts: &[&str]) {
    let shown = format!("{command:?}");
    let (status, _, stderr) = run(command);
    assert_eq!(status, Some(code), "{shown}: {stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "one line: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{shown}: {stderr:?} lacks {part:?}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn with(args: &[&str]) -> Command {
    let mut command = sconce();
    command.args(args);
    command
}

/// A file with this content, of a name of its own.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn what_it_refuses_to_start_with() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    check_refusal(with(&["--port", &port]), 1, &[&port, "taken", "--port"]);
    check_refusal(with(&["--model", "no/such.gguf"]), 78, &["--model", "no/such.gguf", "no such file"]);
    check_refusal(with(&["--host", "0.0.0.0"]), 78, &["0.0.0.0", "--allow-open"]);
    check_refusal(with(&["--port", "70000"]), 78, &["--port", "70000", "65535"]);
    check_refusal(with(&["--config", "no.toml"]), 78, &["no.toml"]);
    check_refusal(with(&["--threads", "0"]), 78, &["--threads = 0", "must be 1 to", "CPUs"]);
    check_refusal(with(&["--threads", "100000"]), 78, &["--threads = 100000", "must be 1 to"]);
    check_refusal(with(&["--kv-memory", "1 KiB"]), 78, &["--kv-memory", "must be 64 KiB to"]);
    check_refusal(with(&["--kv-memory", "900 TiB"]), 78, &["--kv-memory", "must be 64 KiB to"]);
    check_refusal(with(&["--context", "100000"]), 78, &["context = 100000", "32 to 1024"]);
    check_refusal(with(&["--context", "1000", "--kv-memory", "64 KiB"]), 78, &["context = 1000", "kv_memory"]);
    check_refusal(with(&["--running-max", "0"]), 78, &["--running-max = 0", "1 to 4096"]);
    check_refusal(with(&["--gap-ms", "0"]), 78, &["--gap-ms = 0", "1 to 60000"]);
    check_refusal(with(&["--quantize", "q3_k"]), 78, &["--quantize", "q8_0", "q4_k"]);
    check_refusal(with(&["--kv-type", "f64"]), 78, &["--kv-type", "f16", "q8_0"]);
    let mut from_environment = with(&[]);
    from_environment.env("SCONCE_THREADS", "many");
    check_refusal(from_environment, 78, &["SCONCE_THREADS", "many"]);
    let config = file("bad.toml", b"[server]\nport = 1\nprot = 2\n");
    check_refusal(with(&["--config", config.to_str().unwrap()]), 78, &["bad.toml:3:1", "prot"]);
    let template = file("bad.jinja", b"{% for m in messages %}{{ m }");
    check_refusal(with(&["--port", "0", "--template", template.to_str().unwrap()]), 78, &["bad.jinja"]);
    let (status, _, stderr) = run(with(&["--frobnicate"]));
    assert_eq!((status, stderr.contains("--frobnicate")), (Some(2), true));
}

#[test]
fn models_it_refuses_to_serve() {
    let good = model::bytes();
    let mut rows = vec![
        ("empty.gguf", Vec::new()),
        ("text.gguf", b"just some text, no model at all".to_vec()),
        ("cut.gguf", good[..good.len() / 2].to_vec()),
        ("head.gguf", good[..100].to_vec()),
    ];
    let mut other = good.clone();
    let at = other.windows(5).position(|w| w == b"qwen3").unwrap();
    other[at..at + 5].copy_from_slice(b"qwenX");
    rows.push(("other.gguf", other));
    for (name, bytes) in rows {
        let path = file(name, &bytes);
        for command in ["serve", "check"] {
            let mut command = with(&[command, "--model", path.to_str().unwrap()]);
            command.args(["--port", "0"]);
            check_refusal(command, 78, &[name]);
        }
    }
}

#[test]
fn check_tells_what_would_be_served() {
    let config = file(
        "good.toml",
        format!("[server]\nport = 0\n[[model]]\nname = \"tiny\"\npath = {:?}\n", model::tiny()).as_bytes(),
    );
    let (status, stdout, stderr) = run(with(&["check", "--config", config.to_str().unwrap()]));
    assert_eq!(status, Some(0), "{stderr}");
    for part in ["tiny", "qwen3", "4096"] {
        assert!(stdout.contains(part), "{stdout}");
    }
}

#[test]
fn generate_prints_what_the_server_answers() {
    let server = Server::start(&[]);
    let ask = json!({"prompt": "Hello", "max_tokens": 20, "temperature": 0, "ignore_eos": true}).to_string();
    let served = server.post("/generate", &ask).json()["data"].clone();
    let model = model::tiny();
    let args = [
        "generate",
        "--raw",
        "Hello",
        "-n",
        "20",
        "--temperature",
        "0",
        "--ignore-eos",
        "--model",
        model.to_str().unwrap(),
    ];
    let (status, stdout, stderr) = run(with(&args));
    assert_eq!((status, stdout.trim_end_matches('\n')), (Some(0), served["text"].as_str().unwrap()), "{stderr}");
    let (status, stdout, stderr) = run(with(&[&args[..], &["--json"]].concat()));
    assert_eq!(status, Some(0), "{stderr}");
    let printed: Value = serde_json::from_str(&stdout).unwrap();
    for field in ["text", "token_ids", "finish_reason", "usage"] {
        assert_eq!(printed[field], served[field], "{field}");
    }
    check_refusal(with(&["generate", "x", "--temperature", "9"]), 2, &["temperature", "0 to 2"]);
}
