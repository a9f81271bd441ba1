//! What can be wrong with a request, and the one place that decides status, code and words for it.
//!
//! Messages are for the client: they name fields and numbers, never paths, addresses or other clients' data.

use std::fmt;

use crate::engine::error::RequestError;

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// The body is not JSON, or not an object.
    NotJson(String),
    /// A field is unknown, missing, of the wrong type or out of range.
    Field { param: String, message: String },
    /// The engine refused or failed.
    Engine(RequestError),
    /// A `Host` this server does not answer to: a page elsewhere may be steering the browser (DNS rebinding).
    Misdirected { host: String },
    /// Nothing is served under this name.
    UnknownModel { name: String, known: Vec<String> },
    /// The model is still being loaded, or another in its place.
    Loading,
    /// There is no model: the last one could not be loaded.
    NoModel,
    /// Too much text work is waiting already.
    Busy,
    /// Refused below the handlers: no such path, a wrong method, broken HTTP. Status and words come from there.
    Refused { status: u16, message: String },
}

impl ApiError {
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { param: param.into(), message: message.into() }
    }

    /// The HTTP status the blame deserves.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotJson(_) | Self::Field { .. } => 400,
            Self::UnknownModel { .. } => 404,
            Self::Misdirected { .. } => 421,
            Self::Busy | Self::Loading | Self::NoModel => 503,
            Self::Refused { status, .. } => *status,
            Self::Engine(error) => match error {
                RequestError::EmptyPrompt
                | RequestError::ContextExceeded { .. }
                | RequestError::UnknownToken { .. }
                | RequestError::CacheExceeded { .. } => 400,
                RequestError::QueueFull { .. } | RequestError::ShuttingDown => 503,
                RequestError::QueueTimeout | RequestError::Timeout => 504,
                RequestError::BadLogits | RequestError::Grammar(_) | RequestError::Internal(_) => 500,
            },
        }
    }

    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "invalid_json",
            Self::Field { .. } => "invalid_request",
            Self::UnknownModel { .. } => "model_not_found",
            Self::Misdirected { .. } => "misdirected_request",
            Self::Busy => "overloaded",
            Self::Loading => "loading",
            Self::NoModel => "no_model",
            Self::Refused { status, .. } => match status {
                404 => "not_found",
                405 => "method_not_allowed",
                408 => "request_timeout",
                413 => "body_too_large",
                414 => "target_too_long",
                431 => "headers_too_large",
                501 => "not_implemented",
                503 => "overloaded",
                500.. => "internal_error",
                _ => "bad_request",
            },
            Self::Engine(error) => match error {
                RequestError::EmptyPrompt => "empty_prompt",
                RequestError::ContextExceeded { .. } => "context_length_exceeded",
                RequestError::UnknownToken { .. } => "unknown_token",
                RequestError::CacheExceeded { .. } => "cache_size_exceeded",
                RequestError::QueueFull { .. } => "queue_full",
                RequestError::QueueTimeout => "queue_timeout",
                RequestError::Timeout => "timeout",
                RequestError::ShuttingDown => "shutting_down",
                RequestError::BadLogits => "model_failed",
                RequestError::Grammar(_) => "grammar_failed",
                RequestError::Internal(_) => "internal_error",
            },
        }
    }

    /// The field to blame, if one is.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Field { param, .. } => Some(param),
            Self::UnknownModel { .. } => Some("model"),
            Self::Engine(
                RequestError::EmptyPrompt
                | RequestError::ContextExceeded { .. }
                | RequestError::UnknownToken { .. }
                | RequestError::CacheExceeded { .. },
            ) => Some("prompt"),
            _ => None,
        }
    }

    /// Seconds after which to try again, where trying again helps.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self {
            Self::Busy | Self::Loading => Some(1),
            Self::NoModel => Some(60),
            Self::Engine(RequestError::QueueFull { .. }) => Some(2),
            Self::Engine(RequestError::ShuttingDown) => Some(5),
            _ => None,
        }
    }

    /// `{"code","message","param"}`, as it stands in every error answer and in an event of a stream that fails.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "code": self.code(), "message": self.to_string(), "param": self.param() })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "the body is not a JSON object: {why}"),
            Self::Field { param, message } => write!(f, "{param}: {message}"),
            // The reason of an internal error is for the log, not for the client.
            Self::Engine(RequestError::Internal(_)) => f.write_str("internal error"),
            Self::Engine(error) => error.fmt(f),
            Self::Misdirected { host } => write!(
                f,
                "this server does not answer to the host {host:?}; use localhost, or add the name to `hosts` in models.toml"
            ),
            Self::UnknownModel { name, known } => {
                let name: String = name.chars().take(64).collect();
                write!(f, "no model is called {name:?}; there is {}", known.join(", "))
            }
            Self::Loading => f.write_str("the model is being loaded; try again shortly"),
            Self::NoModel => {
                f.write_str("the model could not be loaded; whoever runs this server finds the reason in its log")
            }
            Self::Busy => f.write_str("too many texts are being processed; try again shortly"),
            Self::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        if let RequestError::Internal(why) = &error {
            log::error!("the engine failed a request: {why}");
        }
        Self::Engine(error)
    }
}
