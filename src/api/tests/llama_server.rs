//! llama-server's routes.

use serde_json::{Value, json};

use super::toy::{Echo, Fixture, body, events};
use crate::engine::request::Prompt;

const COMPLETION: &str = "/completion";

#[test]
fn a_completion_answers_at_once() {
    let it = Fixture::new();
    let answer = body(&it.post(COMPLETION, r#"{"prompt":"Hi\nyou","return_tokens":true,"n_predict":4}"#));
    assert_eq!((&answer["content"], &answer["tokens"]), (&json!("Hi\ny"), &json!([72, 105, 10, 121])));
    assert_eq!(
        (&answer["stop"], &answer["stop_type"], &answer["stopping_word"]),
        (&json!(true), &json!("limit"), &json!(""))
    );
    assert_eq!((&answer["tokens_predicted"], &answer["tokens_evaluated"]), (&json!(4), &json!(6)));
    assert_eq!((&answer["prompt"], &answer["has_new_line"]), (&json!("Hi\nyou"), &json!(true)));
    assert_eq!(answer["generation_settings"]["n_predict"], 4);
    let timings = &answer["timings"];
    assert_eq!((&timings["cache_n"], &timings["prompt_n"], &timings["predicted_n"]), (&json!(1), &json!(5), &json!(4)));
    assert!(timings["predicted_per_second"].is_f64());
    assert_eq!(it.asked().prompt, Prompt::Marked("Hi\nyou".into()));

    let answer = body(&it.post("/completions", r#"{"prompt":"one. two","stop":["."]}"#));
    assert_eq!(
        (&answer["stop_type"], &answer["stopping_word"], &answer["tokens"]),
        (&json!("word"), &json!("."), &json!([]))
    );
}

#[test]
fn prompts_come_in_every_shape() {
    let it = Fixture::new();
    for (prompt, text) in [
        (json!([72, 105]), "Hi"),
        (json!([72, "e", 121]), "Hey"),
        (json!(["Hi"]), "Hi"),
        (json!({"prompt_string": "Hi"}), "Hi"),
    ] {
        let answer = body(&it.post(COMPLETION, &json!({"prompt": prompt}).to_string()));
        assert_eq!((&answer["content"], &answer["prompt"]), (&json!(text), &json!(text)), "{prompt}");
    }
    let answers = body(&it.post(COMPLETION, r#"{"prompt":["Hi",[72,101,121]]}"#));
    let told: Vec<_> = answers.as_array().unwrap().iter().map(|a| (a["index"].clone(), a["content"].clone())).collect();
    assert_eq!(told, [(json!(0), json!("Hi")), (json!(1), json!("Hey"))]);
}

#[test]
fn a_completion_streams() {
    let it = Fixture::new();
    let ask = r#"{"prompt":"Hey","stream":true,"timings_per_token":true,"n_probs":2}"#;
    let chunks: Vec<Value> =
        events(&it.post(COMPLETION, ask)).iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let (last, before) = chunks.split_last().unwrap();
    let text: String = before.iter().map(|chunk| chunk["content"].as_str().unwrap()).collect();
    assert_eq!((text.as_str(), before.len()), ("Hey", 3));
    assert_eq!((&before[1]["tokens"], &before[1]["tokens_predicted"]), (&json!([101]), &json!(2)));
    assert_eq!(before[1]["completion_probabilities"][0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(before[2]["timings"]["predicted_n"], 3);
    assert!(before.iter().all(|chunk| chunk["stop"] == false));
    assert_eq!((&last["stop"], &last["content"], &last["stop_type"]), (&json!(true), &json!(""), &json!("eos")));
    assert!(last.get("completion_probabilities").is_none());
}

#[test]
fn defaults_are_llama_servers() {
    let it = Fixture::new();
    let _ = it.post(COMPLETION, r#"{"prompt":"Hi","seed":-1}"#);
    let asked = it.asked();
    assert_eq!((asked.sampling.temperature, asked.sampling.top_k, asked.sampling.min_p), (0.8, 40, 0.05));
    assert_eq!((asked.max_tokens, asked.sampling.seed), (usize::MAX, None));
    let answer = body(&it.post(
        COMPLETION,
        r#"{"prompt":"Hi","response_fields":["content","timings/cache_n","generation_settings/top_k","no/such"]}"#,
    ));
    assert_eq!(answer, json!({"content": "Hi", "cache_n": 1, "top_k": 40}));
    let reply =
        it.post(COMPLETION, r#"{"prompt":"Hi","cache_prompt":true,"id_slot":-1,"n_keep":5,"cache_prompt":false}"#);
    assert_eq!(reply.header_value("x-ignored-params"), Some("n_keep, cache_prompt"));
    let _ = it.post(COMPLETION, r#"{"prompt":"Hi","json_schema":{"type":"integer"}}"#);
    assert!(it.asked().grammar.is_some());
}

#[test]
fn tokens_and_back() {
    let it = Fixture::new();
    let tokens = |ask: Value| body(&it.post("/tokenize", &ask.to_string()))["tokens"].clone();
    assert_eq!(tokens(json!({"content": "Hi"})), json!([72, 105]));
    assert_eq!(tokens(json!({"content": "a<|endoftext|>"})), json!([97, 256]));
    assert_eq!(tokens(json!({"content": "<|endoftext|>", "parse_special": false})).as_array().unwrap().len(), 13);
    assert_eq!(tokens(json!({"content": [1, "a", 2]})), json!([1, 97, 2]));
    assert_eq!(tokens(json!({})), json!([]));
    let pieces = json!([{"id": 72, "piece": "H"}, {"id": 195, "piece": [195]}, {"id": 164, "piece": [164]}]);
    assert_eq!(tokens(json!({"content": "Hä", "with_pieces": true})), pieces);
    let long = "long ".repeat(10_000);
    let all = tokens(json!({"content": long}));
    let back = body(&it.post("/detokenize", &json!({"tokens": all}).to_string()));
    assert_eq!(back["content"], long);
    let spelt = body(&it.post("/detokenize", r#"{"tokens":[97,256]}"#));
    assert_eq!(spelt["content"], "a<|endoftext|>");
}

#[test]
fn templates_are_applied() {
    let it = Fixture::new();
    let ask =
        json!({"messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": {"enable_thinking": false}});
    assert_eq!(body(&it.post("/apply-template", &ask.to_string())), json!({"prompt": "Hi"}));
    let reply = it.post("/apply-template", r#"{"messages":[{"role":"user","content":"no template"}]}"#);
    assert_eq!((reply.status().code(), &body(&reply)["error"]["type"]), (400, &json!("invalid_request_error")));
}

#[test]
fn properties_and_slots() {
    let it = Fixture::new();
    let props = body(&it.get("/props"));
    assert_eq!((&props["total_slots"], &props["model_path"]), (&json!(4), &json!("echo")));
    assert_eq!(props["default_generation_settings"]["n_ctx"], 100);
    assert_eq!(props["default_generation_settings"]["params"]["samplers"].as_array().unwrap().len(), 9);
    assert!(props["chat_template"].as_str().unwrap().contains("messages"));
    let slots = body(&it.get("/slots"));
    let busy = slots.as_array().unwrap().iter().map(|slot| slot["is_processing"].as_bool().unwrap());
    assert_eq!(busy.collect::<Vec<_>>(), [true, true, false, false]);
    assert_eq!(it.get("/slots?fail_on_no_slot=1").status().code(), 200);
    assert_eq!(it.get("/slots?model=none").status().code(), 404);
    assert_eq!(body(&it.get("/models"))["data"][0]["id"], "echo");
    assert_eq!(it.get("/v1/health").status().code(), 200);
}

#[test]
fn a_middle_is_filled_in_where_the_model_can() {
    let ask = r#"{"input_prefix":"ab","input_suffix":"c","prompt":"d","stream":false}"#;
    let it = Fixture::serving(Echo::filling());
    assert_eq!(it.post("/infill", ask).status().code(), 200);
    assert_eq!(it.asked().prompt, Prompt::Tokens(vec![257, 97, 98, 100, 258, 99, 259]));
    let reply = Fixture::new().post("/infill", ask);
    let error = body(&reply)["error"].clone();
    assert_eq!((reply.status().code(), &error["code"]), (400, &json!(400)));
    assert!(error["message"].as_str().unwrap().starts_with("input_suffix: "), "{error}");
}

#[test]
fn refusals_are_llama_servers() {
    let it = Fixture::new();
    #[track_caller]
    fn check(it: &Fixture, path: &str, ask: &str, kind: &str, begins: &str) {
        let reply = it.post(path, ask);
        let error = body(&reply)["error"].clone();
        assert_eq!((reply.status().code(), &error["code"], &error["type"]), (400, &json!(400), &json!(kind)), "{ask}");
        assert!(error["message"].as_str().unwrap().starts_with(begins), "{ask}: {error}");
    }
    let invalid = "invalid_request_error";
    let long = json!({"prompt": "x".repeat(2000)}).to_string();
    check(&it, COMPLETION, &long, "exceed_context_size_error", "");
    check(&it, COMPLETION, "{}", invalid, "prompt: missing");
    check(&it, COMPLETION, r#"{"prompt":"a","grammar":"root ::= \"a\""}"#, invalid, "grammar: ");
    check(&it, COMPLETION, r#"{"prompt":"a","post_sampling_probs":true}"#, invalid, "post_sampling_probs: ");
    check(&it, COMPLETION, r#"{"prompt":"a","return_progress":true}"#, invalid, "return_progress: ");
    check(&it, COMPLETION, r#"{"prompt":"a","samplers":["magic"]}"#, invalid, "samplers[0]: ");
    check(&it, COMPLETION, r#"{"prompt":"a","temperatur":1}"#, invalid, "temperatur: unknown field; did you mean");
    check(&it, COMPLETION, r#"{"prompt":"a","json_schema":[]}"#, invalid, "json_schema: ");
    check(&it, "/tokenize", r#"{"content":1}"#, invalid, "content: ");
    check(&it, "/detokenize", r#"{"tokens":[1,999]}"#, invalid, "tokens[1]: ");
    check(&it, "/infill", r#"{"input_prefix":"a"}"#, invalid, "input_suffix: missing");
    check(&it, "/apply-template", "{}", invalid, "messages: missing");
}

#[test]
fn odd_numbers_never_get_through() {
    let it = Fixture::new();
    let names = [
        "n_predict",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "repeat_last_n",
        "seed",
        "n_probs",
        "id_slot",
        "n_keep",
        "min_keep",
        "t_max_predict_ms",
        "n_cmpl",
        "mirostat",
        "xtc_probability",
        "dry_multiplier",
        "dynatemp_range",
        "max_tokens",
    ];
    for name in names {
        for value in super::odd_values() {
            let ask = format!(r#"{{"prompt":"a","{name}":{value}}}"#);
            let reply = it.post(COMPLETION, &ask);
            match reply.status().code() {
                200 => {}
                400 => {
                    let answer = body(&reply);
                    let message = answer["error"]["message"].as_str().unwrap();
                    assert!(value == "NaN" || message.starts_with(name), "{ask}: {message}");
                }
                status => panic!("{status}: {ask}"),
            }
        }
    }
}
