//! `/v1/rerank`.

use serde_json::{Value, json};

use super::toy::{Fixture, body};
use crate::api::Makes;

#[test]
fn the_best_come_first() {
    let it = Fixture::making(Makes::Scores);
    let ask = json!({"model": "echo", "query": "abcd", "documents": ["xy", {"text": "abcd"}, "ab", "ba"]});
    for path in ["/v1/rerank", "/rerank"] {
        let answer = body(&it.post(path, &ask.to_string()));
        let expected = json!([
            {"index": 1, "relevance_score": 1.0},
            {"index": 2, "relevance_score": 0.5},
            {"index": 3, "relevance_score": 0.5},
            {"index": 0, "relevance_score": 0.0},
        ]);
        assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("echo")));
        assert_eq!(answer["results"], expected);
        assert_eq!(answer["usage"], json!({"prompt_tokens": 26, "total_tokens": 26}));
    }
}

#[test]
fn some_of_them_with_their_texts() {
    let it = Fixture::making(Makes::Scores);
    let results = |more: Value| {
        let mut ask = json!({"query": "ab", "documents": ["x", "ab"]});
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body(&it.post("/v1/rerank", &ask.to_string()))["results"].clone()
    };
    let best = json!([{"index": 1, "relevance_score": 1.0, "document": {"text": "ab"}}]);
    assert_eq!(results(json!({"top_n": 1, "return_documents": true})), best);
    assert_eq!(results(json!({"top_n": 9})).as_array().unwrap().len(), 2);
}

#[test]
fn errors_name_the_field() {
    let it = Fixture::making(Makes::Scores);
    let long = "x".repeat(101);
    for (ask, param) in [
        (json!({"documents": ["a"]}), "query"),
        (json!({"query": "", "documents": ["a"]}), "query"),
        (json!({"query": 1, "documents": ["a"]}), "query"),
        (json!({"query": "a"}), "documents"),
        (json!({"query": "a", "documents": "a"}), "documents"),
        (json!({"query": "a", "documents": []}), "documents"),
        (json!({"query": "a", "documents": vec!["a"; 2049]}), "documents"),
        (json!({"query": "a", "documents": ["a", 1]}), "documents[1]"),
        (json!({"query": "a", "documents": ["a", ""]}), "documents[1]"),
        (json!({"query": "a", "documents": [{}]}), "documents[0].text"),
        (json!({"query": "a", "documents": [{"text": "a", "id": 1}]}), "documents[0].id"),
        (json!({"query": "a", "documents": ["a"], "top_n": 0}), "top_n"),
        (json!({"query": "a", "documents": ["a"], "top_n": -1}), "top_n"),
        (json!({"query": "a", "documents": ["a"], "top_n": 1e308}), "top_n"),
        (json!({"query": "a", "documents": ["a"], "max_chunks": 1}), "max_chunks"),
        (json!({"query": "a", "documents": ["b", long], "truncate": false}), "documents[1]"),
    ] {
        let reply = it.post("/v1/rerank", &ask.to_string());
        let error = &body(&reply)["error"];
        assert_eq!((reply.status().code(), &error["param"]), (400, &json!(param)), "{ask}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let cut = it.post("/rerank", &json!({"query": "x", "documents": [long]}).to_string());
    assert_eq!(body(&cut)["results"][0]["relevance_score"], 1.0);
}
