//! What a client asks of `/generate` and `/generate_stream`: JSON in, a checked [`Ask`] out.
//!
//! The one table of fields and ranges of the native API. Knows no tokenizer, no template and no engine.

use std::time::Duration;

use serde_json::Value;

use crate::{
    api::{
        backend::{Backend, RenderError},
        error::ApiError,
        fields::{Fields, kind, token_list},
    },
    engine::request::{GenerateRequest, Prompt, SamplingParams},
};

/// Stop strings of one request, and the bytes of each.
const STOP_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;
const STOP_TOKENS_MAX: usize = 64;
const MESSAGES_MAX: usize = 1024;

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub input: Input,
    /// How to generate; its prompt is empty until `input` has been rendered.
    pub request: GenerateRequest,
    /// `stream` as the client set it.
    pub stream: Option<bool>,
}

/// What to continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Prompt(Prompt),
    /// A conversation, to be written out by the model's chat template.
    Messages(Vec<Message>),
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

impl Input {
    /// Size in bytes, as a measure of the work of rendering it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Prompt(Prompt::Text(text) | Prompt::Rendered(text)) => text.len(),
            Self::Prompt(Prompt::Tokens(tokens)) => tokens.len() * size_of::<u32>(),
            Self::Messages(messages) => messages.iter().map(|m| m.role.len() + m.content.len()).sum(),
        }
    }
}

impl Ask {
    /// Reads a body. `queue_timeout` is the server's, which `timeout_ms` may shorten.
    pub fn parse(body: &[u8], queue_timeout: Duration) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let prompt = fields.take("prompt");
        let messages = fields.take("messages");
        let defaults = SamplingParams::default();
        let mut request = GenerateRequest::new(Prompt::Tokens(Vec::new()));

        if let Some(n) = fields.integer("max_tokens", 1..=1_000_000)? {
            request.max_tokens = n as usize;
        }
        request.sampling = SamplingParams {
            temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(defaults.temperature),
            top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(defaults.top_p),
            top_k: fields.integer("top_k", 0..=1_000_000)?.map_or(defaults.top_k, |k| k as u32),
            min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(defaults.min_p),
            repetition_penalty: fields.number("repetition_penalty", 0.1..=10.0)?.unwrap_or(defaults.repetition_penalty),
            seed: fields.seed("seed")?,
            ..defaults
        };
        request.stop = fields.texts("stop", STOP_MAX, STOP_BYTES_MAX)?;
        request.stop_tokens = fields.tokens("stop_token_ids", STOP_TOKENS_MAX)?.unwrap_or_default();
        request.ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
        request.priority = fields.integer("priority", -100..=100)?.unwrap_or(0) as i32;
        let stream = fields.flag("stream")?;
        let timeout = fields.integer("timeout_ms", 1..=queue_timeout.as_millis() as i64)?;
        request.queue_timeout = timeout.map_or(queue_timeout, |ms| Duration::from_millis(ms as u64));

        let input = match (prompt, messages) {
            (Some(prompt), None) => Input::Prompt(read_prompt(prompt)?),
            (None, Some(messages)) => Input::Messages(read_messages(messages)?),
            (None, None) => return fields.missing("prompt", "a text, a list of token ids, or `messages` instead"),
            (Some(_), Some(_)) => return fields.refuse("messages", "give either prompt or messages".to_owned()),
        };
        fields.finish()?;
        Ok(Self { input, request, stream })
    }

    /// The request with its prompt written out; messages go through the model's template.
    pub fn into_request(self, backend: &dyn Backend) -> Result<GenerateRequest, ApiError> {
        let prompt = match self.input {
            Input::Prompt(prompt) => prompt,
            Input::Messages(messages) => match backend.render(&messages) {
                Ok(text) => Prompt::Rendered(text),
                Err(RenderError::Refused(why)) => return Err(ApiError::field("messages", why)),
                Err(RenderError::NoTemplate) => {
                    let message = "the model has no chat template; send a prompt, or set `template` for the model";
                    return Err(ApiError::field("messages", message));
                }
            },
        };
        Ok(GenerateRequest { prompt, ..self.request })
    }
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

fn read_messages(value: Value) -> Result<Vec<Message>, ApiError> {
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
        messages.push(Message { role, content });
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Ask, ApiError> {
        Ask::parse(body.as_bytes(), Duration::from_secs(300))
    }

    #[test]
    fn a_full_request() {
        let ask = parse(
            r#"{"prompt":"Hi","max_tokens":5,"temperature":0.5,"top_p":0.9,"top_k":3,"min_p":0.1,"repetition_penalty":1.1,
                "seed":7,"stop":["a","b"],"stop_token_ids":[1],"ignore_eos":true,"priority":-3,"stream":true,"timeout_ms":50}"#,
        )
        .unwrap();
        assert_eq!(ask.input, Input::Prompt(Prompt::Text("Hi".into())));
        assert_eq!(ask.stream, Some(true));
        let request = ask.request;
        assert_eq!(request.max_tokens, 5);
        assert_eq!(request.sampling.seed, Some(7));
        assert_eq!(request.sampling.top_k, 3);
        assert_eq!(request.stop, ["a", "b"]);
        assert_eq!(request.stop_tokens, [1]);
        assert!(request.ignore_eos);
        assert_eq!(request.priority, -3);
        assert_eq!(request.queue_timeout, Duration::from_millis(50));
    }

    #[test]
    fn inputs() {
        assert_eq!(parse(r#"{"prompt":[1,2]}"#).unwrap().input, Input::Prompt(Prompt::Tokens(vec![1, 2])));
        let ask = parse(r#"{"messages":[{"role":"user","content":"Hi"}]}"#).unwrap();
        assert_eq!(ask.input, Input::Messages(vec![Message { role: "user".into(), content: "Hi".into() }]));
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
    }

    /// Every numeric field, every odd value: an error that names the field, or a request within its ranges.
    #[test]
    fn odd_numbers_never_get_through() {
        let names = [
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
            "1000000",
            "1000001",
            "9223372036854775808",
            "18446744073709551616",
            "1e308",
            "-1e308",
            "1e-320",
            "0.5",
            "\"1\"",
            "null",
            "true",
            "[]",
            "{}",
        ];
        for name in names {
            for value in values {
                match parse(&format!(r#"{{"prompt":"a","{name}":{value}}}"#)) {
                    Err(error) => assert_eq!(error.param(), Some(name), "{name}: {value}"),
                    Ok(Ask { request, .. }) => {
                        let s = &request.sampling;
                        assert!((1..=1_000_000).contains(&request.max_tokens));
                        assert!((0.0..=2.0).contains(&s.temperature) && (0.0..=1.0).contains(&s.top_p));
                        assert!((0.0..=1.0).contains(&s.min_p) && (0.1..=10.0).contains(&s.repetition_penalty));
                        assert!(request.queue_timeout <= Duration::from_secs(300));
                    }
                }
            }
        }
    }
}
