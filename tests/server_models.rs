//! The real binary with several models: by name and alias, loaded when they are asked for, unloaded when idle or for
//! room, replaced while streams run.

#![cfg(feature = "server")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use common::{
    client::{Answer, Client, TIMEOUT},
    model,
    server::{Server, eventually, run, sconce},
    tiny::Tiny,
};
use sconce::engine::models::Architecture;
use serde_json::{Value, json};

/// A folder with models and a configuration that is its own.
struct Folder(PathBuf);

impl Folder {
    /// `a` and `b` are of one shape and differ in their weights; `demo` is the embedded model.
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("models-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let shape =
            Tiny { context: model::CONTEXT, hidden: 64, heads: 4, feed_forward: 128, ..Tiny::new(Architecture::Qwen3) };
        fs::write(folder.join("a.gguf"), model::bytes()).unwrap();
        fs::write(folder.join("b.gguf"), Tiny { seed: 2, ..shape }.write().bytes).unwrap();
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/sconce-demo.gguf"), folder.join("demo.gguf")).unwrap();
        Self(folder)
    }

    /// Replaced as a whole, as editors and deployments do it.
    fn configure(&self, server: &str, models: &[&str]) {
        let models: String = models.iter().map(|model| format!("[[model]]\n{model}\nthreads = 1\n")).collect();
        fs::write(self.0.join("new.toml"), format!("[server]\n{server}\n{models}")).unwrap();
        fs::rename(self.0.join("new.toml"), self.config()).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.0.join("models.toml")
    }

    fn serve(&self) -> Server {
        let mut command = sconce();
        command.args(["--port", "0", "--log", "off", "--config"]).arg(self.config());
        Server::spawn(command)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const A: &str = "path = \"a.gguf\"";
const B: &str = "path = \"b.gguf\"";

fn ask(model: Option<&str>, max_tokens: usize) -> String {
    let mut ask = json!({"prompt": "The flame", "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true});
    ask.as_object_mut().unwrap().extend(model.map(|model| ("model".to_owned(), model.into())));
    ask.to_string()
}

fn generate(server: &Server, model: Option<&str>) -> Answer {
    server.post("/generate", &ask(model, 12))
}

#[track_caller]
fn tokens(server: &Server, model: Option<&str>) -> Value {
    let answer = generate(server, model);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["token_ids"].clone()
}

/// A stream that has begun.
fn stream(server: &Server, model: &str, max_tokens: usize) -> Client {
    let mut client = server.client();
    client.send_request("POST", "/generate_stream", &[], ask(Some(model), max_tokens).as_bytes());
    assert_eq!(client.read_head().status, 200);
    assert!(client.read_event().is_some());
    client
}

/// Reads to the end; gives the number of tokens and the last event.
fn drain(mut stream: Client) -> (usize, String) {
    let (mut count, mut last) = (0, String::new());
    while let Some(event) = stream.read_event() {
        let tokens = serde_json::from_str::<Value>(&event).ok();
        count += tokens.and_then(|event| event["token_ids"].as_array().map(Vec::len)).unwrap_or(0);
        last = event;
    }
    (count, last)
}

fn gauge(server: &Server, name: &str, model: &str) -> f64 {
    server.metric(&format!("sconce_model_{name}{{model={model:?}}}"))
}

fn loads(server: &Server, model: &str) -> f64 {
    server.metric(&format!("sconce_model_loads_total{{model={model:?},outcome=\"loaded\"}}"))
}

#[test]
fn models_by_name_and_alias() {
    let it = Folder::new("names");
    let alias = format!("{A}\naliases = [\"gpt-4o\", \"x/y:z\"]");
    it.configure("", &[&alias, B, "path = \"demo.gguf\"\nname = \"toy\"\nload = \"start\""]);
    let server = it.serve();
    assert_eq!([loads(&server, "a"), loads(&server, "b"), loads(&server, "toy")], [1.0, 0.0, 1.0]);
    assert_eq!(server.get("/readyz").status, 200);
    let of_a = tokens(&server, None);
    for name in ["a", "gpt-4o", "x/y:z"] {
        assert_eq!(tokens(&server, Some(name)), of_a, "{name}");
    }
    // The first who ask for b come together, and it is loaded once.
    let of_b = thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| tokens(&server, Some("b")))).collect();
        let mut answers: Vec<Value> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    });
    assert_ne!(of_a, of_b);
    assert_ne!(tokens(&server, Some("toy")), of_a);
    assert_eq!([loads(&server, "a"), loads(&server, "b")], [1.0, 1.0]);

    let unknown = generate(&server, Some("gpt-5"));
    let error = unknown.json()["error"].clone();
    assert_eq!((unknown.status, &error["code"], &error["param"]), (404, &json!("model_not_found"), &json!("model")));
    assert!(error["message"].as_str().unwrap().contains("there is a, b, toy"), "{error}");
    let text = json!({"text": "x", "model": "b", "add_special": false}).to_string();
    assert_eq!(server.post("/encode", &text).json()["data"]["length"], 1);

    let list = server.get("/v1/models").json()["data"].clone();
    let names: Vec<&Value> = list.as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["a", "b", "toy"]);
    assert_eq!(server.get("/v1/models/gpt-4o").json()["id"], "a");
    assert_eq!(server.get("/v1/models/none").status, 404);
    assert_eq!(server.get("/health").json()["data"]["model"], "a");
}

#[test]
fn an_idle_model_is_unloaded_and_comes_back() {
    let it = Folder::new("idle");
    it.configure("", &[A, &format!("{B}\nidle_seconds = 1")]);
    let server = it.serve();
    let of_b = tokens(&server, Some("b"));
    assert_eq!(gauge(&server, "loaded", "b"), 1.0);
    // A stream that is not read goes on for longer than that, and keeps it.
    let held = stream(&server, "b", 2000);
    eventually(TIMEOUT, "it is live", || gauge(&server, "live_requests", "b") == 1.0);
    assert_eq!(drain(held).1, "[DONE]");
    eventually(TIMEOUT, "it is unloaded", || gauge(&server, "loaded", "b") == 0.0);
    eventually(TIMEOUT, "its memory is free", || gauge(&server, "memory_bytes", "b") == 0.0);
    assert_eq!((server.get("/readyz").status, gauge(&server, "loaded", "a")), (200, 1.0));
    assert_eq!((tokens(&server, Some("b")), loads(&server, "b")), (of_b, 2.0));
}

#[test]
fn without_room_for_both_they_take_turns_and_a_busy_one_stays() {
    let it = Folder::new("room");
    let kv = "kv_memory = \"3 MiB\"";
    it.configure("models_memory = \"5 MiB\"", &[&format!("{A}\n{kv}"), &format!("{B}\n{kv}")]);
    let server = it.serve();
    let mut busy = stream(&server, "a", model::CONTEXT);
    let refused = generate(&server, Some("b"));
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, &error["code"]), (503, &json!("no_memory")), "{error}");
    assert!(error["message"].as_str().unwrap().ends_with("and a is busy"), "{error}");
    assert!(refused.header("retry-after").is_some());
    assert!(busy.read_event().is_some());
    assert_eq!(drain(busy).1, "[DONE]");

    let of_b = tokens(&server, Some("b"));
    assert_eq!([gauge(&server, "loaded", "a"), gauge(&server, "loaded", "b")], [0.0, 1.0]);
    let of_a = tokens(&server, Some("a"));
    assert_ne!(of_a, of_b);
    assert_eq!([gauge(&server, "loaded", "a"), gauge(&server, "loaded", "b")], [1.0, 0.0]);
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn a_reload_adds_and_removes_models_while_streams_run() {
    let it = Folder::new("reload");
    it.configure("", &[A, &format!("{B}\nload = \"start\"")]);
    let server = it.serve();
    let reloads = |outcome: &str| server.metric(&format!("sconce_reloads_total{{outcome={outcome:?}}}"));
    let reload = |outcome: &str| {
        let before = reloads(outcome);
        server.signal("HUP");
        eventually(TIMEOUT, outcome, || reloads(outcome) == before + 1.0);
    };
    let (of_a, of_b) = (tokens(&server, Some("a")), tokens(&server, Some("b")));
    let running = stream(&server, "b", 3000);

    // One that can't be had keeps everything as it was.
    fs::write(it.0.join("bad.gguf"), b"no model").unwrap();
    it.configure("", &[A, "path = \"bad.gguf\""]);
    reload("refused");
    it.configure("", &[A, A]);
    reload("refused");
    assert_eq!((tokens(&server, Some("a")), tokens(&server, Some("b"))), (of_a.clone(), of_b.clone()));

    it.configure(
        "",
        &[&format!("{A}\naliases = [\"b\"]"), "path = \"demo.gguf\"\nname = \"toy\"", &format!("{B}\nname = \"c\"")],
    );
    reload("replaced");
    assert_eq!(tokens(&server, Some("b")), of_a, "an alias now");
    assert_eq!(tokens(&server, Some("c")), of_b);
    assert_eq!(generate(&server, Some("toy")).status, 200);
    assert_eq!(loads(&server, "a"), 1.0, "it was not touched");
    assert_eq!(drain(running), (3000 - 1, "[DONE]".to_owned()));
    reload("unchanged");
    // The default goes.
    it.configure("", &[&format!("{B}\nname = \"c\"")]);
    reload("replaced");
    assert_eq!((tokens(&server, None), loads(&server, "c")), (of_b, 1.0));
    assert_eq!(generate(&server, Some("a")).status, 404);
}

/// Large enough that it is still being loaded when the signal comes.
fn write_large(path: &Path) {
    let shape = Tiny {
        hidden: 1024,
        layers: 8,
        heads: 16,
        kv_heads: 8,
        head_dim: 64,
        feed_forward: 4096,
        ..Tiny::new(Architecture::Qwen3)
    };
    fs::write(path, shape.write().bytes).unwrap();
}

#[test]
fn a_signal_while_a_model_is_loaded_tells_those_who_wait() {
    let it = Folder::new("signal");
    write_large(&it.0.join("large.gguf"));
    it.configure("", &[A, "path = \"large.gguf\""]);
    let mut server = it.serve();
    let mut client = server.client();
    client.send_request("POST", "/generate", &[], ask(Some("large"), 1).as_bytes());
    eventually(TIMEOUT, "it is asked for", || {
        gauge(&server, "waiting_requests", "large") + loads(&server, "large") > 0.0
    });
    server.signal("TERM");
    let answer = client.read_answer();
    if answer.status != 200 {
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("shutting_down")));
    }
    assert_eq!(server.wait(TIMEOUT).code(), Some(0));
}

#[test]
fn a_model_that_cannot_be_loaded_is_tried_again_later() {
    let it = Folder::new("fails");
    it.configure("", &[A, B]);
    let server = it.serve();
    let whole = fs::read(it.0.join("b.gguf")).unwrap();
    fs::write(it.0.join("b.gguf"), &whole[..whole.len() / 2]).unwrap();
    for _ in 0..3 {
        let failed = generate(&server, Some("b"));
        assert_eq!((failed.status, &failed.json()["error"]["code"]), (503, &json!("no_model")));
        assert!(failed.header("retry-after").is_some());
    }
    assert_eq!(
        server.metric("sconce_model_loads_total{model=\"b\",outcome=\"failed\"}"),
        1.0,
        "it waits before it tries"
    );
    assert_eq!((generate(&server, None).status, server.get("/readyz").status), (200, 200));
    fs::write(it.0.join("b.gguf"), &whole).unwrap();
    eventually(TIMEOUT, "it is tried again", || generate(&server, Some("b")).status == 200);
}

#[test]
fn models_named_on_the_command_line() {
    let it = Folder::new("flags");
    let serve = |flags: &[&str]| {
        let mut command = sconce();
        command
            .args(flags)
            .args(["--threads", "1", "--model"])
            .arg(it.0.join("a.gguf"))
            .arg("--model")
            .arg(it.0.join("b.gguf"));
        command
    };
    let server = Server::spawn(serve(&["--port", "0", "--log", "off"]));
    assert_eq!(tokens(&server, None), tokens(&server, Some("a")));
    assert_ne!(tokens(&server, None), tokens(&server, Some("b")));
    let (status, stdout, stderr) = run(serve(&["check"]));
    assert_eq!(status, Some(0), "{stderr}");
    for part in ["model    a from", "model    b from", "as a, or by no name", "at the start", "on first use"] {
        assert!(stdout.contains(part), "{stdout}");
    }
}
