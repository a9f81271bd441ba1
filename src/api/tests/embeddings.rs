//! `/v1/embeddings`.

use serde_json::{Value, json};

use super::toy::{Fixture, body};
use crate::{
    api::Makes,
    engine::encoder::Encoded,
    http::{Method, Request},
};

const EMBEDDINGS: &str = "/v1/embeddings";

fn encoder() -> Fixture {
    Fixture::making(Makes::Vectors { width: 4 })
}

fn vectors(it: &Fixture, ask: Value) -> Vec<Value> {
    let answer = body(&it.post(EMBEDDINGS, &ask.to_string()));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("echo")), "{answer}");
    let data = answer["data"].as_array().unwrap();
    for (i, entry) in data.iter().enumerate() {
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(i)));
    }
    data.iter().map(|entry| entry["embedding"].clone()).collect()
}

#[test]
fn every_shape_of_input() {
    let it = encoder();
    let (a, bc) = (json!([1.0, 97.0, 1.0, 1.0]), json!([2.0, 98.0, 1.0, 1.0]));
    for (input, expected) in [
        (json!("a"), vec![&a]),
        (json!(["a", "bc"]), vec![&a, &bc]),
        (json!([97]), vec![&a]),
        (json!([[97], [98, 99]]), vec![&a, &bc]),
    ] {
        let got = vectors(&it, json!({"model": "echo", "input": input}));
        assert_eq!(got.iter().collect::<Vec<_>>(), expected, "{input}");
    }
    let answer = body(&it.post(EMBEDDINGS, r#"{"input": ["a", "bc"], "user": "me"}"#));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
}

#[test]
fn base64_is_of_little_endian_floats() {
    let it = encoder();
    let got = vectors(&it, json!({"input": "a", "encoding_format": "base64"}));
    // 1, 97, 1 and 1: 0000803f 0000c242 0000803f 0000803f.
    assert_eq!(got, [json!("AACAPwAAwkIAAIA/AACAPw==")]);
}

#[test]
fn fewer_dimensions_have_the_length_of_one() {
    let it = encoder();
    let got = vectors(&it, json!({"input": [[3, 4], [0, 1]], "dimensions": 2}));
    let length = 13f32.sqrt();
    for (got, expected) in got[0].as_array().unwrap().iter().zip([2.0 / length, 3.0 / length]) {
        assert!((got.as_f64().unwrap() - f64::from(expected)).abs() < 1e-6);
    }
    assert_eq!(got[1], json!([1.0, 0.0]));
    assert_eq!(vectors(&it, json!({"input": [3, 4], "dimensions": 4})), [json!([2.0, 3.0, 1.0, 1.0])]);
}

#[test]
fn long_inputs_are_cut_only_if_told_to() {
    let it = encoder();
    let long = "x".repeat(101);
    assert_eq!(it.post(EMBEDDINGS, &json!({"input": long}).to_string()).status().code(), 400);
    assert_eq!(vectors(&it, json!({"input": long, "truncate": true}))[0][0], json!(100.0));
}

/// More than is written on the encoder's thread.
#[test]
fn many_inputs() {
    let it = encoder();
    let many = vec!["ab"; 2048];
    assert_eq!(vectors(&it, json!({"input": many})).len(), 2048);
    let page = String::from_utf8(it.get("/metrics").body().to_vec()).unwrap();
    for line in [
        "sconce_encoded_inputs_total 2048",
        "sconce_prompt_tokens_total 4096",
        "sconce_requests_total{endpoint=\"/v1/embeddings\",status=\"200\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "no {line:?} in\n{page}");
    }
}

#[test]
fn errors_name_the_field() {
    let it = encoder();
    let long = "x".repeat(101);
    for (ask, param, code) in [
        (json!({}), "input", "invalid_request"),
        (json!({"input": null}), "input", "invalid_request"),
        (json!({"input": {}}), "input", "invalid_request"),
        (json!({"input": []}), "input", "invalid_request"),
        (json!({"input": vec!["a"; 2049]}), "input", "invalid_request"),
        (json!({"input": ["a", 1]}), "input[1]", "invalid_request"),
        (json!({"input": [1, "a"]}), "input[1]", "invalid_request"),
        (json!({"input": [[1], [-1]]}), "input[1][0]", "invalid_request"),
        (json!({"input": ""}), "input", "empty_prompt"),
        (json!({"input": ["a", ""]}), "input[1]", "empty_prompt"),
        (json!({"input": [[1], []]}), "input[1]", "empty_prompt"),
        (json!({"input": ["a", long]}), "input[1]", "context_length_exceeded"),
        (json!({"input": "a", "encoding_format": "hex"}), "encoding_format", "invalid_request"),
        (json!({"input": "a", "dimensions": 0}), "dimensions", "invalid_request"),
        (json!({"input": "a", "dimensions": 5}), "dimensions", "invalid_request"),
        (json!({"input": "a", "dimensions": 1e308}), "dimensions", "invalid_request"),
        (json!({"input": "a", "dimensions": i64::MIN}), "dimensions", "invalid_request"),
        (json!({"input": "a", "truncate": 1}), "truncate", "invalid_request"),
        (json!({"input": "a", "user": 1}), "user", "invalid_request"),
        (json!({"input": "a", "size": 1}), "size", "invalid_request"),
    ] {
        let reply = it.post(EMBEDDINGS, &ask.to_string());
        let error = &body(&reply)["error"];
        assert_eq!(
            (reply.status().code(), &error["param"], &error["code"]),
            (400, &json!(param), &json!(code)),
            "{ask}"
        );
    }
}

#[test]
fn each_model_does_what_it_can() {
    for (makes, path, ask) in [
        (Makes::Text { width: None }, EMBEDDINGS, json!({"input": "a"})),
        (Makes::Scores, EMBEDDINGS, json!({"input": "a"})),
        (Makes::Text { width: Some(4) }, "/v1/rerank", json!({"query": "a", "documents": ["b"]})),
        (Makes::Vectors { width: 4 }, "/v1/rerank", json!({"query": "a", "documents": ["b"]})),
        (Makes::Vectors { width: 4 }, "/v1/completions", json!({"prompt": "a"})),
        (Makes::Scores, "/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}]})),
    ] {
        let it = Fixture::making(makes);
        let reply = it.post(path, &ask.to_string());
        assert_eq!(
            (reply.status().code(), &body(&reply)["error"]["param"]),
            (400, &json!("model")),
            "{makes:?} {path}"
        );
    }
    let both = Fixture::making(Makes::Text { width: Some(4) });
    assert_eq!(vectors(&both, json!({"input": "a", "dimensions": 4})).len(), 1);
    assert_eq!(both.post("/v1/completions", r#"{"prompt": "a"}"#).status().code(), 200);
    let reply = encoder().post(EMBEDDINGS, r#"{"input": "a", "model": "none"}"#);
    assert_eq!((reply.status().code(), &body(&reply)["error"]["code"]), (404, &json!("model_not_found")));
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let it = encoder();
    let reply = it.router.handle(Request::new(Method::Post, EMBEDDINGS).with_body(br#"{"input": ["wait"]}"#));
    let (left, done) = it.echo.waiting.lock().unwrap().take().expect("somebody waits");
    assert!(!left());
    drop(reply);
    assert!(left());
    done(Ok(Encoded { outputs: vec![vec![1.0; 4]], prompt_tokens: 4 }));
    let page = String::from_utf8(it.get("/metrics").body().to_vec()).unwrap();
    assert!(page.contains("sconce_requests_total{endpoint=\"/v1/embeddings\",status=\"499\"} 1\n"), "{page}");
}
