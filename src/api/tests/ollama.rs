//! Ollama's API.

use serde_json::{Value, json};

use super::toy::{Echo, Fixture, body};
use crate::{
    api::Makes,
    engine::request::Prompt,
    http::{Method, Reply, Request},
};

const CHAT: &str = "/api/chat";
const GENERATE: &str = "/api/generate";
const CALLS: &str = "<think>\nhm\n</think>\n\nSo:<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2}}\n</tool_call>";

/// A body for `model`, with further fields.
fn ask(more: Value) -> String {
    let mut ask = json!({"model": "echo"});
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask.to_string()
}

fn chat(said: &str, more: Value) -> String {
    let mut ask = json!({"model": "echo", "messages": [{"role": "user", "content": said}]});
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask.to_string()
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}])
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!((reply.status().code(), reply.content_type()), (200, "application/x-ndjson"));
    let text = String::from_utf8(reply.body().to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last line's members beside the text.
#[track_caller]
fn check_account(last: &Value, reason: &str) {
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!(reason)), "{last}");
    for name in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
        assert!(last[name].is_u64(), "{name}: {last}");
    }
}

#[test]
fn a_chat_streams_unless_told_not_to() {
    let it = Fixture::new();
    let streamed = lines(&it.post(CHAT, &chat("Hi!", json!({}))));
    let text: String = streamed.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    let (last, before) = streamed.split_last().unwrap();
    assert_eq!((text.as_str(), before.len()), ("Hi!", 3));
    assert!(before.iter().all(|line| line["done"] == false && line["message"]["role"] == "assistant"));
    assert!(streamed.iter().all(|line| line["model"] == "echo" && line["created_at"].as_str().unwrap().ends_with('Z')));
    check_account(last, "stop");
    assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(3), &json!(3)));

    let whole = body(&it.post(CHAT, &chat("Hi!", json!({"stream": false}))));
    assert_eq!(whole["message"], json!({"role": "assistant", "content": "Hi!"}));
    check_account(&whole, "stop");
    let cut = body(&it.post(CHAT, &chat("Hi!", json!({"stream": false, "options": {"num_predict": 2}}))));
    assert_eq!(cut["message"]["content"], "Hi");
    check_account(&cut, "length");
}

#[test]
fn thoughts_and_calls_are_told_apart() {
    let it = Fixture::new();
    let whole = body(&it.post(CHAT, &chat(CALLS, json!({"stream": false, "tools": tools(), "think": true}))));
    let message = &whole["message"];
    assert_eq!((&message["content"], &message["thinking"]), (&json!("So:"), &json!("hm")));
    let arguments = |message: &Value| -> Vec<Value> {
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        calls.map(|call| call["function"]["arguments"].clone()).collect()
    };
    assert_eq!(arguments(message), [json!({"a": 1}), json!({"a": 2})]);
    assert!(message["tool_calls"][1]["id"].as_str().unwrap().starts_with("call_"));
    check_account(&whole, "stop");

    let streamed = lines(&it.post(CHAT, &chat(CALLS, json!({"tools": tools()}))));
    let joined = |name: &str| -> String { streamed.iter().filter_map(|line| line["message"][name].as_str()).collect() };
    assert_eq!((joined("content"), joined("thinking")), ("So:".into(), "hm".into()));
    let calls: Vec<Value> = streamed.iter().flat_map(|line| arguments(&line["message"])).collect();
    assert_eq!(calls, arguments(message));
    let ids: Vec<&Value> = streamed.iter().map(|line| &line["message"]["tool_calls"][0]["id"]).collect();
    assert!(ids.iter().filter(|id| id.is_string()).count() == 2, "each call is told once: {ids:?}");

    // Cut in its arguments, a call is none.
    let cut = chat(CALLS, json!({"stream": false, "tools": tools(), "options": {"num_predict": 65}}));
    let cut = body(&it.post(CHAT, &cut));
    assert!(cut["message"].get("tool_calls").is_none(), "{cut}");
    check_account(&cut, "length");
}

#[test]
fn generate_answers_with_its_context() {
    let it = Fixture::new();
    let streamed = lines(&it.post(GENERATE, &ask(json!({"prompt": "Hey", "system": "Be brief."}))));
    let text: String = streamed.iter().map(|line| line["response"].as_str().unwrap()).collect();
    let (last, before) = streamed.split_last().unwrap();
    assert_eq!(text, "Hey");
    assert!(before.iter().all(|line| line.get("context").is_none()));
    let context = json!([72, 101, 121, 72, 101, 121]);
    assert_eq!(last["context"], context);
    check_account(last, "stop");

    let again = body(&it.post(GENERATE, &ask(json!({"prompt": "Yo", "context": context, "stream": false}))));
    assert_eq!(again["response"], "HeyHeyYo");
    assert_eq!(again["context"].as_array().unwrap().len(), 16);
    let expected = vec![Prompt::Tokens(vec![72, 101, 121, 72, 101, 121]), Prompt::Rendered("Yo".into())];
    assert_eq!(it.asked().prompt, Prompt::Parts(expected));

    let raw = body(&it.post(GENERATE, &ask(json!({"prompt": "<|x|>", "raw": true, "stream": false}))));
    assert_eq!((&raw["response"], raw.get("context")), (&json!("<|x|>"), None));
    assert_eq!(it.asked().prompt, Prompt::Marked("<|x|>".into()));
}

#[test]
fn a_middle_is_filled_in_where_the_model_can() {
    let without = Fixture::new();
    let fill = ask(json!({"prompt": "ab", "suffix": "c", "stream": false}));
    let reply = without.post(GENERATE, &fill);
    let error = body(&reply)["error"].as_str().unwrap().to_owned();
    assert_eq!((reply.status().code(), error.starts_with("suffix: ")), (400, true), "{error}");

    let it = Fixture::serving(Echo::filling());
    assert_eq!(it.post(GENERATE, &fill).status().code(), 200);
    let asked = it.asked();
    assert_eq!(asked.prompt, Prompt::Tokens(vec![257, 97, 98, 258, 99, 259]));
    assert_eq!(asked.stop_tokens, [260]);
    let openai = r#"{"prompt":"ab","suffix":"c"}"#;
    assert_eq!(it.post("/v1/completions", openai).status().code(), 200);
    assert_eq!(it.asked().prompt, asked.prompt);
    assert_eq!(without.post("/v1/completions", openai).status().code(), 400);
    assert_eq!(without.post("/v1/completions", r#"{"prompt":"ab","suffix":""}"#).status().code(), 200);
}

#[test]
fn options_and_formats_arrive() {
    let it = Fixture::new();
    let more = json!({
        "format": {"type": "object"}, "keep_alive": "5m", "truncate": true,
        "options": {"temperature": 0.3, "seed": 7, "num_ctx": 100, "num_thread": 4, "stop": ["!"]},
    });
    let reply = it.post(CHAT, &chat("Hi!", more));
    assert_eq!(reply.header_value("x-ignored-params"), Some("num_thread, truncate"));
    let asked = it.asked();
    assert_eq!((asked.sampling.temperature, asked.sampling.seed), (0.3, Some(7)));
    assert_eq!((&*asked.stop[0], asked.grammar.is_some()), ("!", true));
    let _ = it.post(CHAT, &chat("Hi!", json!({"format": "json"})));
    assert!(it.asked().grammar.is_some());
    let _ = it.post(CHAT, &chat("Hi!", json!({"format": ""})));
    assert!(it.asked().grammar.is_none());
    let answer = body(&it.post(CHAT, &chat("Hi", json!({"stream": false, "logprobs": true, "top_logprobs": 2}))));
    assert_eq!(answer["logprobs"][0]["token"], "H");
    assert_eq!(answer["logprobs"][1]["top_logprobs"].as_array().unwrap().len(), 2);
}

#[test]
fn without_a_prompt_a_model_is_loaded_or_unloaded() {
    let it = Fixture::new();
    for (path, name) in [(CHAT, "message"), (GENERATE, "response")] {
        let loaded = body(&it.post(path, &ask(json!({}))));
        assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
        assert!(loaded.get(name).is_some(), "{loaded}");
        assert_eq!(body(&it.get("/api/ps"))["models"].as_array().unwrap().len(), 1);
        let unloaded = body(&it.post(path, &ask(json!({"keep_alive": 0}))));
        assert_eq!(unloaded["done_reason"], "unload");
    }
}

#[test]
fn models_go_by_tags() {
    let it = Fixture::new();
    let listed = &body(&it.get("/api/tags"))["models"][0];
    assert_eq!((&listed["name"], &listed["model"]), (&json!("echo:latest"), &json!("echo:latest")));
    assert_eq!(listed["digest"].as_str().unwrap().len(), 64);
    assert_eq!(listed["details"]["family"], "parrot");
    for name in ["echo", "echo:latest"] {
        let answer = body(&it.post(CHAT, &chat("Hi", json!({"model": name, "stream": false}))));
        assert_eq!(answer["model"], name);
        let shown = body(&it.post("/api/show", &json!({"model": name}).to_string()));
        assert_eq!(shown["model_info"]["parrot.context_length"], 100);
        assert_eq!(shown["capabilities"], json!(["completion", "tools", "thinking"]));
    }
    for (path, ask) in [
        (CHAT, chat("Hi", json!({"model": "echo:8b"}))),
        (GENERATE, json!({"model": "none", "prompt": "Hi"}).to_string()),
        ("/api/show", json!({"model": "none"}).to_string()),
    ] {
        let reply = it.post(path, &ask);
        let error = body(&reply)["error"].as_str().unwrap().to_owned();
        assert_eq!((reply.status().code(), error.contains("not found")), (404, true), "{path}: {error}");
    }
    assert!(body(&it.get("/api/version"))["version"].is_string());
    assert_eq!(it.handle(Request::new(Method::Head, "/api/version")).status().code(), 200);
}

#[test]
fn what_is_not_done_says_so() {
    let it = Fixture::new();
    for (method, path) in [
        (Method::Post, "/api/pull"),
        (Method::Post, "/api/create"),
        (Method::Post, "/api/copy"),
        (Method::Delete, "/api/delete"),
        (Method::Post, "/api/blobs/sha256:00"),
    ] {
        let reply = it.handle(Request::new(method, path).with_body(br#"{"model":"x"}"#));
        assert_eq!(reply.status().code(), 501, "{path}");
        assert!(body(&reply)["error"].as_str().unwrap().contains("not done"), "{path}");
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let it = Fixture::new();
    #[track_caller]
    fn check(it: &Fixture, path: &str, ask: &str, begins: &str) {
        let reply = it.post(path, ask);
        let error = body(&reply)["error"].as_str().unwrap().to_owned();
        assert_eq!((reply.status().code(), error.starts_with(begins)), (400, true), "{ask}: {error}");
    }
    check(&it, CHAT, r#"{"messages":[]}"#, "model: ");
    check(&it, CHAT, r#"{"model":""}"#, "model: ");
    check(&it, CHAT, &chat("a", json!({"x": 1})), "x: unknown field");
    check(&it, CHAT, &chat("a", json!({"options": {"temprature": 1}})), "options.temprature: ");
    check(&it, CHAT, &chat("a", json!({"options": {"num_ctx": 101}})), "options.num_ctx: ");
    check(&it, CHAT, &chat("a", json!({"format": "xml"})), "format: ");
    check(&it, CHAT, &chat("a", json!({"format": {"type": "nothing"}})), "format: ");
    check(&it, CHAT, &chat("a", json!({"think": "a lot"})), "think: ");
    check(&it, CHAT, &chat("a", json!({"keep_alive": "soon"})), "keep_alive: ");
    check(
        &it,
        CHAT,
        &ask(json!({"messages": [{"role": "user", "content": "a", "images": ["x"]}]})),
        "messages[0].images: ",
    );
    check(&it, CHAT, &chat(&"x".repeat(2000), json!({})), "");
    check(&it, GENERATE, &ask(json!({"prompt": "a", "template": "{{ .Prompt }}"})), "template: ");
    check(&it, GENERATE, &ask(json!({"prompt": "a", "images": ["x"]})), "images: ");
    check(&it, GENERATE, &ask(json!({"prompt": "a", "raw": true, "system": "b"})), "raw: ");
    check(&it, GENERATE, &ask(json!({"prompt": "a", "raw": true, "think": true})), "think: ");
    check(&it, GENERATE, &ask(json!({"prompt": "a", "context": [-1]})), "context[0]: ");
    check(&it, GENERATE, &ask(json!({"prompt": 1})), "prompt: ");
    check(&it, "/api/show", "{}", "model: ");
}

#[test]
fn texts_become_vectors() {
    let it = Fixture::making(Makes::Vectors { width: 4 });
    let embed = |more: Value| body(&it.post("/api/embed", &ask(more)));
    let (a, bc) = (json!([1.0, 97.0, 1.0, 1.0]), json!([2.0, 98.0, 1.0, 1.0]));
    let answer = embed(json!({"input": "a"}));
    assert_eq!((&answer["model"], &answer["embeddings"]), (&json!("echo"), &json!([a])));
    assert_eq!((&answer["prompt_eval_count"], answer["total_duration"].is_u64()), (&json!(1), true));
    assert_eq!(embed(json!({"input": ["a", "bc"], "model": "echo:latest"}))["embeddings"], json!([a, bc]));
    assert_eq!(embed(json!({"input": "a", "dimensions": 2}))["embeddings"][0].as_array().unwrap().len(), 2);
    for nothing in [json!({}), json!({"input": ""}), json!({"input": []})] {
        assert_eq!(embed(nothing)["embeddings"], json!([]));
    }
    let old = |more: Value| body(&it.post("/api/embeddings", &ask(more)));
    assert_eq!((old(json!({"prompt": "a"})), old(json!({}))), (json!({"embedding": a}), json!({"embedding": []})));

    let decoder = Fixture::new();
    for (it, more, begins) in [
        (&it, json!({"input": 1}), "input: "),
        (&it, json!({"input": ["a", 1]}), "input[1]: "),
        (&it, json!({"input": "a", "dimensions": 5}), "dimensions: "),
        (&it, json!({"input": "a", "options": {"x": 1}}), "options.x: "),
        (&decoder, json!({"input": "a"}), "model: "),
    ] {
        let reply = it.post("/api/embed", &ask(more));
        let error = body(&reply)["error"].as_str().unwrap().to_owned();
        assert_eq!((reply.status().code(), error.starts_with(begins)), (400, true), "{error}");
    }
    assert_eq!(it.post(CHAT, &chat("a", json!({}))).status().code(), 400);
}

/// Every numeric field, every odd value: an error that names the field, or an answer.
#[test]
fn odd_numbers_never_get_through() {
    let it = Fixture::new();
    let options = [
        "num_predict",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "repeat_last_n",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "num_ctx",
        "num_thread",
        "tfs_z",
    ];
    let in_options = |name: &str, value: &str| format!(r#""options":{{"{name}":{value}}}"#);
    for value in super::odd_values() {
        let top = ("top_logprobs", format!(r#""logprobs":true,"top_logprobs":{value}"#));
        for (name, more) in options.iter().map(|name| (*name, in_options(name, value))).chain([top]) {
            let ask = format!(r#"{{"model":"echo","messages":[{{"role":"user","content":"a"}}],{more}}}"#);
            let reply = it.post(CHAT, &ask);
            match reply.status().code() {
                200 => {}
                400 => {
                    let answer = body(&reply);
                    assert!(value == "NaN" || answer["error"].as_str().unwrap().contains(name), "{ask}: {answer}");
                }
                status => panic!("{status}: {ask}"),
            }
        }
    }
}
