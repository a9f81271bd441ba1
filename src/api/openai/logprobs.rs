//! Log-probabilities as chat and completions write them.

use serde_json::{Map, Value, json};

use crate::api::answer::Scored;

/// `{"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}` of a chat.
pub fn of_chat(scored: &[Scored]) -> Value {
    json!({ "content": list(scored), "refusal": null })
}

/// `[{"token", "logprob", "bytes", "top_logprobs"}]`.
pub fn list(scored: &[Scored]) -> Vec<Value> {
    let one = |token: &Scored| {
        let mut fields = Map::new();
        fields.insert("token".into(), token.text().into());
        fields.insert("logprob".into(), finite(token.logprob));
        fields.insert("bytes".into(), token.bytes.as_slice().into());
        fields
    };
    scored
        .iter()
        .map(|token| {
            let mut fields = one(token);
            let top: Vec<Value> = token.top.iter().map(|token| Value::Object(one(token))).collect();
            fields.insert("top_logprobs".into(), top.into());
            Value::Object(fields)
        })
        .collect()
}

/// `{"tokens", "token_logprobs", "top_logprobs", "text_offset"}` of a completion. `offset` is where the first token's text
/// begins, in characters; gives where the last one's ends. The first token of a prompt has no probability.
pub fn of_completion(scored: &[Scored], offset: usize) -> (Value, usize) {
    let mut end = offset;
    let mut offsets = Vec::with_capacity(scored.len());
    for token in scored {
        offsets.push(end);
        end += token.text().chars().count();
    }
    let top = |token: &Scored| -> Value {
        let pairs = token.top.iter().map(|token| (token.text(), finite(token.logprob)));
        if token.logprob.is_nan() { Value::Null } else { Value::Object(pairs.collect()) }
    };
    let logprobs = json!({
        "tokens": scored.iter().map(Scored::text).collect::<Vec<_>>(),
        "token_logprobs": scored.iter().map(|token| finite(token.logprob)).collect::<Vec<_>>(),
        "top_logprobs": scored.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    });
    (logprobs, end)
}

/// What is impossible, and what is not known, has no number in JSON: OpenAI writes −9999 for the former.
fn finite(logprob: f32) -> Value {
    match logprob {
        l if l.is_nan() => Value::Null,
        l if l.is_infinite() => (-9999.0).into(),
        l => f64::from(l).into(),
    }
}
