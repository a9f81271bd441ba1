//! What a client asks of `/generate` and `/generate_stream`: JSON in, a checked [`Ask`] out.
//!
//! The one table of fields of the native API; those of the sampler are in [`sampling`]. Knows no tokenizer, no template
//! and no engine.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    api::{
        ask::{Ask, Chat, Input},
        error::ApiError,
        fields::{Fields, kind, token_list},
        sampling,
    },
    engine::request::Prompt,
};

/// Stop strings of one request, and the bytes of each.
const STOP_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;
const STOP_TOKENS_MAX: usize = 64;
const MESSAGES_MAX: usize = 1024;

/// Reads a body; gives `stream` as the client set it, too. `queue_timeout` is the server's, which `timeout_ms` may shorten.
pub fn parse(body: &[u8], queue_timeout: Duration) -> Result<(Ask, Option<bool>), ApiError> {
    let mut fields = Fields::parse(body)?;
    let prompt = fields.take("prompt");
    let messages = fields.take("messages");
    let model = fields.text("model")?;
    let mut ask = Ask::new(Input::Prompts(Vec::new()));
    let request = &mut ask.request;

    if let Some(n) = fields.integer("max_tokens", 1..=1_000_000)? {
        request.max_tokens = n as usize;
    }
    sampling::read(&mut fields, &mut request.sampling)?;
    request.stop = fields.texts("stop", STOP_MAX, STOP_BYTES_MAX)?;
    request.stop_tokens = fields.tokens("stop_token_ids", STOP_TOKENS_MAX)?.unwrap_or_default();
    request.ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
    request.priority = fields.integer("priority", -100..=100)?.unwrap_or(0) as i32;
    let stream = fields.flag("stream")?;
    let timeout = fields.integer("timeout_ms", 1..=queue_timeout.as_millis() as i64)?;
    request.queue_timeout = timeout.map_or(queue_timeout, |ms| Duration::from_millis(ms as u64));

    ask.model = model;
    ask.input = match (prompt, messages) {
        (Some(prompt), None) => Input::Prompts(vec![read_prompt(prompt)?]),
        (None, Some(messages)) => Input::Chat(Chat { messages: read_messages(messages)?, ..Chat::default() }),
        (None, None) => return fields.missing("prompt", "a text, a list of token ids, or `messages` instead"),
        (Some(_), Some(_)) => return fields.refuse("messages", "give either prompt or messages".to_owned()),
    };
    // The text is told as the model wrote it, thoughts and all.
    ask.thoughts.split = false;
    fields.finish()?;
    Ok((ask, stream))
}

fn read_prompt(value: Value) -> Result<Prompt, ApiError> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(_) => token_list(value, "prompt", usize::MAX).map(Prompt::Tokens),
        other => {
            Err(ApiError::field("prompt", format!("expected a string or a list of token ids, not {}", kind(&other))))
        }
    }
}

fn read_messages(value: Value) -> Result<Vec<Value>, ApiError> {
    let Value::Array(items) = value else {
        return Err(ApiError::field("messages", format!("expected a list of messages, not {}", kind(&value))));
    };
    if !(1..=MESSAGES_MAX).contains(&items.len()) {
        let message = format!("{} messages, 1 to {MESSAGES_MAX} are allowed", items.len());
        return Err(ApiError::field("messages", message));
    }
    let mut messages = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let mut fields = Fields::inside(item, &format!("messages[{i}]"))?;
        let role = match fields.text("role")? {
            Some(role) if ["system", "user", "assistant", "tool"].contains(&role.as_str()) => role,
            Some(_) => return fields.refuse("role", "must be system, user, assistant or tool".to_owned()),
            None => return fields.missing("role", "system, user, assistant or tool"),
        };
        let Some(content) = fields.text("content")? else { return fields.missing("content", "the text") };
        fields.finish()?;
        messages.push(json!({ "role": role, "content": content }));
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<(Ask, Option<bool>), ApiError> {
        super::parse(body.as_bytes(), Duration::from_secs(300))
    }

    #[test]
    fn a_full_request() {
        let (ask, stream) = parse(
            r#"{"model":"m","prompt":"Hi","max_tokens":5,"temperature":0.5,"top_p":0.9,"top_k":3,"min_p":0.1,"seed":7,
                "repetition_penalty":1.1,"stop":["a","b"],"stop_token_ids":[1],"ignore_eos":true,"priority":-3,"stream":true,
                "timeout_ms":50}"#,
        )
        .unwrap();
        assert_eq!(ask.input, Input::Prompts(vec![Prompt::Text("Hi".into())]));
        assert_eq!((ask.model.as_deref(), stream), (Some("m"), Some(true)));
        let request = ask.request;
        assert_eq!(request.max_tokens, 5);
        assert_eq!((request.sampling.seed, request.sampling.top_k), (Some(7), 3));
        assert_eq!(request.stop, ["a", "b"]);
        assert_eq!(request.stop_tokens, [1]);
        assert!(request.ignore_eos);
        assert_eq!(request.priority, -3);
        assert_eq!(request.queue_timeout, Duration::from_millis(50));
    }

    #[test]
    fn inputs() {
        assert_eq!(parse(r#"{"prompt":[1,2]}"#).unwrap().0.input, Input::Prompts(vec![Prompt::Tokens(vec![1, 2])]));
        let (ask, _) = parse(r#"{"messages":[{"role":"user","content":"Hi"}]}"#).unwrap();
        let messages = vec![json!({ "role": "user", "content": "Hi" })];
        assert_eq!(ask.input, Input::Chat(Chat { messages, ..Chat::default() }));
        assert_eq!(ask.request.queue_timeout, Duration::from_secs(300));
    }

    #[test]
    fn errors_name_the_field() {
        #[track_caller]
        fn check(body: &str, param: &str) {
            let error = parse(body).expect_err(body);
            assert_eq!((error.status(), error.param()), (400, Some(param)), "{body}: {error}");
        }
        check(r#"{}"#, "prompt");
        check(r#"{"prompt":null}"#, "prompt");
        check(r#"{"prompt":1}"#, "prompt");
        check(r#"{"prompt":["a"]}"#, "prompt[0]");
        check(r#"{"prompt":"a","messages":[]}"#, "messages");
        check(r#"{"messages":[]}"#, "messages");
        check(r#"{"messages":"a"}"#, "messages");
        check(r#"{"messages":[1]}"#, "messages[0]");
        check(r#"{"messages":[{"content":"a"}]}"#, "messages[0].role");
        check(r#"{"messages":[{"role":"robot","content":"a"}]}"#, "messages[0].role");
        check(r#"{"messages":[{"role":"user"}]}"#, "messages[0].content");
        check(r#"{"messages":[{"role":"user","content":"a","x":1}]}"#, "messages[0].x");
        check(r#"{"prompt":"a","max_tokens":0}"#, "max_tokens");
        check(r#"{"prompt":"a","temperature":-1}"#, "temperature");
        check(r#"{"prompt":"a","top_p":1.1}"#, "top_p");
        check(r#"{"prompt":"a","stream":"yes"}"#, "stream");
        check(r#"{"prompt":"a","stop":[""]}"#, "stop[0]");
        check(r#"{"prompt":"a","n":2}"#, "n");
        check(r#"{"prompt":"a","timeout_ms":0}"#, "timeout_ms");
        check(r#"{"prompt":"a","model":1}"#, "model");
    }
}
