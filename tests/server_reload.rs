//! The real binary replaces its model: while streams run, again and again, and not for a bad file.

#![cfg(feature = "server")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use common::{
    client::TIMEOUT,
    model,
    server::{Server, eventually, sconce},
    tiny::Tiny,
};
use sconce::engine::models::Architecture;
use serde_json::{Value, json};

/// Another model of the same shape as [`model::bytes`].
fn other() -> Vec<u8> {
    let shape =
        Tiny { context: model::CONTEXT, hidden: 64, heads: 4, feed_forward: 128, ..Tiny::new(Architecture::Qwen3) };
    Tiny { seed: 2, ..shape }.write().bytes
}

/// A server with a configuration file and a model file of its own.
struct Stage {
    folder: PathBuf,
    server: Server,
}

impl Stage {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.gguf"), model::bytes()).unwrap();
        fs::write(folder.join("b.gguf"), other()).unwrap();
        configure(&folder, "path = \"a.gguf\"");
        let mut command = sconce();
        command.args(["--port", "0", "--log", "off", "--config"]).arg(folder.join("models.toml"));
        Self { server: Server::spawn(command), folder }
    }

    fn configure(&self, model: &str) {
        configure(&self.folder, model);
    }

    fn reloads(&self, outcome: &str) -> f64 {
        self.server.metric(&format!("sconce_reloads_total{{outcome={outcome:?}}}"))
    }

    /// Sends SIGHUP and waits for one more of this outcome.
    fn reload(&self, outcome: &str) {
        let before = self.reloads(outcome);
        self.server.signal("HUP");
        eventually(TIMEOUT, outcome, || self.reloads(outcome) == before + 1.0);
    }

    /// Engines with a thread, the served one among them.
    fn engines(&self) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.server.pid())).into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("engine ")).count()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Replaced as a whole, as editors and deployments do it.
fn configure(folder: &Path, model: &str) {
    fs::write(folder.join("new.toml"), format!("[[model]]\n{model}\nthreads = 1\n")).unwrap();
    fs::rename(folder.join("new.toml"), folder.join("models.toml")).unwrap();
}

fn ask(max_tokens: usize) -> String {
    json!({"prompt": "The flame", "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true}).to_string()
}

fn tokens(server: &Server) -> Value {
    let answer = server.post("/generate", &ask(12));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["token_ids"].clone()
}

#[test]
fn streams_finish_with_their_model_and_no_request_is_lost() {
    let it = Stage::new("swap");
    let server = &it.server;
    let long = server.post("/generate", &ask(3000)).json()["data"]["token_ids"].clone();
    let of_a = tokens(server);

    let mut stream = server.client();
    stream.send_request("POST", "/generate_stream", &[], ask(3000).as_bytes());
    assert_eq!(stream.read_head().status, 200);
    let mut streamed: Vec<Value> = Vec::new();
    let mut take = |event: &str| {
        let event: Value = serde_json::from_str(event).unwrap();
        streamed.extend(event["token_ids"].as_array().unwrap().iter().cloned());
    };
    take(&stream.read_event().unwrap());

    // Meanwhile others ask without a break, on connections of their own and on one that stays.
    let stop = AtomicBool::new(false);
    let (answered, of_b) = thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut answered) = (server.client(), 0);
                    while !stop.load(Relaxed) {
                        let answer = client.request("POST", "/generate", &[], ask(2).as_bytes());
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        assert_eq!(server.get("/readyz").status, 200);
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        it.configure("path = \"b.gguf\"");
        it.reload("replaced");
        let of_b = tokens(server);
        stop.store(true, Relaxed);
        (asking.into_iter().map(|asking| asking.join().unwrap()).sum::<usize>(), of_b)
    });
    assert!(answered > 0 && of_a != of_b);
    assert_eq!(server.get("/health").json()["data"]["model"], "b");
    assert_eq!(server.metric("sconce_ready"), 1.0);

    loop {
        match stream.read_event().unwrap().as_str() {
            "[DONE]" => break,
            event => take(event),
        }
    }
    assert_eq!(json!(streamed), long, "the stream went on with another model");
    assert_eq!(tokens(server), of_b);
    if cfg!(target_os = "linux") {
        eventually(TIMEOUT, "the old engine has ended", || it.engines() == 1);
    }
}

#[test]
fn a_bad_file_keeps_the_old_model() {
    let it = Stage::new("bad");
    let of_a = tokens(&it.server);
    it.reload("unchanged");
    for bad in ["path = \"none.gguf\"", "path = \"b.gguf\"\ncontext = 1", "path = ", "path = \"models.toml\""] {
        it.configure(bad);
        it.reload("refused");
        assert_eq!(tokens(&it.server), of_a, "{bad}");
    }
    // A model whose file was cut, by name the same as is served.
    it.configure("path = \"a.gguf\"");
    let bytes = model::bytes();
    fs::OpenOptions::new().write(true).open(it.folder.join("a.gguf")).unwrap().set_len(bytes.len() as u64 / 2).unwrap();
    it.reload("refused");
    assert_eq!(tokens(&it.server), of_a);
    assert_eq!(it.server.get("/readyz").status, 200);
    fs::write(it.folder.join("a.gguf"), other()).unwrap();
    it.reload("replaced");
    assert_ne!(tokens(&it.server), of_a);
}

#[test]
fn a_changed_configuration_is_seen_without_a_signal() {
    let it = Stage::new("seen");
    let of_a = tokens(&it.server);
    it.configure("path = \"a.gguf\"\nname = \"renamed\"");
    eventually(TIMEOUT, "it is served", || it.server.get("/health").json()["data"]["model"] == "renamed");
    assert_eq!(tokens(&it.server), of_a);
    assert_eq!(it.reloads("replaced"), 1.0);
    let info = it.server.get("/health").json()["data"]["model_info"].clone();
    assert_eq!((&info["architecture"], &info["weights_type"]), (&json!("qwen3"), &json!("q8_0")));
}

/// A signal that ends the server while the old model still has a stream tells that one, too.
#[test]
fn a_drain_reaches_the_old_model() {
    let it = Stage::new("drain");
    let mut stream = it.server.client();
    stream.send_request("POST", "/generate_stream", &[], ask(model::CONTEXT).as_bytes());
    assert!(stream.read_event().is_some());
    it.configure("path = \"b.gguf\"");
    it.reload("replaced");
    it.server.signal("TERM");
    let mut last = String::new();
    while let Some(event) = stream.read_event() {
        last = event;
    }
    assert_eq!(last, "[DONE]");
}
