//! Which API a path belongs to, and how that API says no.

use serde_json::{Value, json};

use crate::http::{Reply, Status};

use super::{error::ApiError, reply};

/// The APIs, by the shape of their errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Our own: `{"success": false, "error": {"code", "message", "param"}}`.
    Native,
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}, "request_id"}`; the id comes by [`sign`](Self::sign).
    Anthropic,
    /// `{"error": "…"}`.
    Ollama,
    /// `{"error": {"code", "message", "type"}}`, the code being the status.
    LlamaServer,
}

/// Paths of llama-server that are no other API's.
const LLAMA_SERVER: [&str; 8] =
    ["/completion", "/completions", "/tokenize", "/detokenize", "/apply-template", "/props", "/slots", "/infill"];

impl Family {
    /// The API that a path belongs to.
    pub fn of(path: &str) -> Self {
        let under =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match path {
            _ if under("/v1/messages") => Self::Anthropic,
            _ if under("/v1") || path == "/rerank" => Self::OpenAi,
            _ if under("/api") => Self::Ollama,
            _ if LLAMA_SERVER.iter().any(|prefix| under(prefix)) => Self::LlamaServer,
            _ => Self::Native,
        }
    }

    /// The answer to a request that is refused, or failed before its answer began.
    pub fn refuse(self, error: &ApiError) -> Reply {
        let status = Status::from_code(error.status()).unwrap_or(Status::INTERNAL_SERVER_ERROR);
        let reply = reply::json(status, &self.body(error));
        match error.retry_after_seconds() {
            Some(seconds) => reply.header("Retry-After", seconds.to_string()),
            None => reply,
        }
    }

    /// What stands in such an answer, and in the last piece of a stream that fails.
    pub fn body(self, error: &ApiError) -> Value {
        let message = error.to_string();
        match self {
            Self::Native => json!({ "success": false, "error": error.to_json() }),
            Self::OpenAi => json!({ "error": {
                "message": message,
                "type": openai_type(error.status()),
                "param": error.param(),
                "code": error.code(),
            }}),
            Self::Anthropic => json!({
                "type": "error",
                "error": { "type": anthropic_type(error.status()), "message": message },
            }),
            // Its clients look for these words.
            Self::Ollama => match error {
                ApiError::UnknownModel { name, .. } => {
                    let name: String = name.chars().take(64).collect();
                    json!({ "error": format!("model '{name}' not found: {message}") })
                }
                _ => json!({ "error": message }),
            },
            Self::LlamaServer => {
                json!({ "error": { "code": error.status(), "message": message, "type": llama_server_type(error) } })
            }
        }
    }

    /// Puts the request's id where the API has it beside `x-request-id`: Anthropic in a header of its own, and in errors.
    pub fn sign(self, reply: Reply, id: &str) -> Reply {
        if self != Self::Anthropic {
            return reply;
        }
        let reply = reply.header("request-id", id);
        let id = id.to_owned();
        reply.map(move |reply| match serde_json::from_slice(reply.body()) {
            Ok(Value::Object(mut body)) if reply.status().code() >= 400 => {
                body.insert("request_id".into(), id.into());
                reply.with_body(Value::Object(body).to_string().into_bytes())
            }
            _ => reply,
        })
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// <https://docs.anthropic.com/en/api/errors>
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

fn llama_server_type(error: &ApiError) -> &'static str {
    match (error.code(), error.status()) {
        ("context_length_exceeded", _) => "exceed_context_size_error",
        (_, 401) => "authentication_error",
        (_, 403) => "permission_error",
        (_, 404) => "not_found_error",
        (_, 400..=499) => "invalid_request_error",
        (_, 501) => "not_supported_error",
        (_, 503) => "unavailable_error",
        _ => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_apis() {
        for (path, family) in [
            ("/generate", Family::Native),
            ("/v1/chat/completions", Family::OpenAi),
            ("/v1/nothing", Family::OpenAi),
            ("/rerank", Family::OpenAi),
            ("/v1x", Family::Native),
            ("/v1/messages", Family::Anthropic),
            ("/v1/messages/count_tokens", Family::Anthropic),
            ("/v1/messagesx", Family::OpenAi),
            ("/api/chat", Family::Ollama),
            ("/tokenize", Family::LlamaServer),
            ("/slots/3", Family::LlamaServer),
        ] {
            assert_eq!(Family::of(path), family, "{path}");
        }
    }

    #[test]
    fn each_says_no_in_its_own_way() {
        let error = ApiError::UnknownModel { name: "x".into(), known: vec!["y".into()] };
        for family in [Family::Native, Family::OpenAi, Family::Anthropic, Family::Ollama, Family::LlamaServer] {
            let reply = family.refuse(&error);
            assert_eq!(reply.status().code(), 404);
            assert!(String::from_utf8_lossy(reply.body()).contains("no model is called"), "{family:?}");
        }
        let body = Family::OpenAi.body(&error);
        assert_eq!(body["error"]["code"], "model_not_found");
        assert_eq!(
            (&body["error"]["type"], &body["error"]["param"]),
            (&"invalid_request_error".into(), &"model".into())
        );
        assert_eq!(Family::Anthropic.body(&error)["error"]["type"], "not_found_error");
        assert_eq!(Family::LlamaServer.body(&error)["error"]["code"], 404);
        let signed = Family::Anthropic.sign(Family::Anthropic.refuse(&error), "a-7");
        let body: Value = serde_json::from_slice(signed.body()).unwrap();
        assert_eq!((signed.header_value("request-id"), &body["request_id"]), (Some("a-7"), &"a-7".into()));
    }
}
