//! The envelope of the native API: `{"success":true,"data":…}` and `{"success":false,"error":…}`.

use serde_json::{Value, json};

use crate::http::{Reply, Status};

use super::error::ApiError;

/// 200 with `data` in the envelope.
pub fn success(data: &Value) -> Reply {
    envelope(Status::OK, &json!({ "success": true, "data": data }))
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Reply {
        let status = Status::from_code(error.status()).unwrap_or(Status::INTERNAL_SERVER_ERROR);
        let reply = envelope(status, &json!({ "success": false, "error": error.to_json() }));
        match error.retry_after_seconds() {
            Some(seconds) => reply.header("Retry-After", seconds.to_string()),
            None => reply,
        }
    }
}

/// A JSON answer. Answers are made for one request at one moment: nobody may keep them.
pub fn envelope(status: Status, body: &Value) -> Reply {
    Reply::bytes(status, "application/json", body.to_string().into_bytes()).header("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::RequestError;

    #[track_caller]
    fn check(error: ApiError, status: u16, code: &str, param: Option<&str>) {
        let reply = Reply::from(error);
        let body: Value = serde_json::from_slice(reply.body()).unwrap();
        assert_eq!((reply.status().code(), reply.content_type()), (status, "application/json"));
        assert_eq!((&body["success"], &body["error"]["code"]), (&json!(false), &json!(code)));
        assert_eq!(body["error"]["param"], json!(param));
        assert_eq!(reply.header_value("retry-after").is_some(), status == 503);
    }

    #[test]
    fn engine_errors_on_the_wire() {
        use RequestError::*;
        check(EmptyPrompt.into(), 400, "empty_prompt", Some("prompt"));
        check(ContextExceeded { prompt: 9, context: 8 }.into(), 400, "context_length_exceeded", Some("prompt"));
        check(UnknownToken { id: 9, vocabulary: 8 }.into(), 400, "unknown_token", Some("prompt"));
        check(CacheExceeded { needed_blocks: 9, total_blocks: 8 }.into(), 400, "cache_size_exceeded", Some("prompt"));
        check(QueueFull { length: 3 }.into(), 503, "queue_full", None);
        check(QueueTimeout.into(), 504, "queue_timeout", None);
        check(Timeout.into(), 504, "timeout", None);
        check(ShuttingDown.into(), 503, "shutting_down", None);
        check(BadLogits.into(), 500, "model_failed", None);
        check(Internal("disk /dev/sda on fire".into()).into(), 500, "internal_error", None);
        let words = ApiError::from(Internal("disk /dev/sda on fire".into())).to_string();
        assert!(!words.contains("sda"), "{words}");
    }
}
