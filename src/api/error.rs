//! What can be wrong with a request, and the one place that decides status, code and words for it.
//!
//! Messages are for the client: they name fields and numbers, never paths, addresses or other clients' data.

use std::{borrow::Cow, fmt};

use crate::engine::{error::RequestError, grammar::GrammarError};

/// A request that is answered with an error.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// The body is not JSON, or not an object.
    NotJson(String),
    /// A field is unknown, missing, of the wrong type or out of range.
    Field { param: String, message: String },
    /// A field, or a value of one, that others support and this server does not.
    Unsupported { param: String, message: String },
    /// What the answer is to look like, as `param` says it, can't be had.
    Grammar { param: &'static str, error: GrammarError },
    /// The engine refused or failed; where the prompt is to blame, `param` is the field that it came in.
    Engine { error: RequestError, param: Cow<'static, str> },
    /// A `Host` this server does not answer to: a page elsewhere may be steering the browser (DNS rebinding).
    Misdirected { host: String },
    /// Nothing is served under this name.
    UnknownModel { name: String, known: Vec<String> },
    /// No response of this id is kept.
    UnknownResponse { id: String },
    /// None that a request goes on from.
    UnknownPrevious { id: String },
    /// The models are not known yet, or this one is being loaded and can't be unloaded.
    Loading,
    /// The model could not be loaded.
    NotLoaded { model: String, retry_after_seconds: u32 },
    /// The model does not fit beside those that are busy; `left_bytes` is what the others could give.
    NoRoom { model: String, needed_bytes: u64, left_bytes: u64, busy: Vec<String> },
    /// Too much text work is waiting already.
    Busy,
    /// Refused below the handlers: no such path, a wrong method, broken HTTP. Status and words come from there.
    Refused { status: u16, message: String },
}

impl ApiError {
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field { param: param.into(), message: message.into() }
    }

    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { param: param.into(), message: message.into() }
    }

    /// The same, where the prompt came in this field.
    pub fn about(self, param: impl Into<Cow<'static, str>>) -> Self {
        match self {
            Self::Engine { error, .. } => Self::Engine { error, param: param.into() },
            other => other,
        }
    }

    /// `error` is about what `param` asks for.
    pub fn grammar(param: &'static str, error: GrammarError) -> Self {
        if let GrammarError::Internal(why) = &error {
            log::error!("a grammar could not be compiled: {why}");
        }
        Self::Grammar { param, error }
    }

    /// The HTTP status the blame deserves.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotJson(_) | Self::Field { .. } | Self::Unsupported { .. } => 400,
            Self::UnknownPrevious { .. } => 400,
            Self::UnknownResponse { .. } => 404,
            Self::Grammar { error, .. } => match error {
                GrammarError::Invalid { .. } => 400,
                GrammarError::Busy => 503,
                GrammarError::Internal(_) => 500,
            },
            Self::UnknownModel { .. } => 404,
            Self::Misdirected { .. } => 421,
            Self::Busy | Self::Loading | Self::NotLoaded { .. } | Self::NoRoom { .. } => 503,
            Self::Refused { status, .. } => *status,
            Self::Engine { error, .. } => match error {
                RequestError::EmptyPrompt
                | RequestError::ContextExceeded { .. }
                | RequestError::UnknownToken { .. }
                | RequestError::Parameter { .. }
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
            Self::Unsupported { .. } => "unsupported_parameter",
            Self::Grammar { error, .. } => match error {
                GrammarError::Invalid { .. } => "invalid_grammar",
                GrammarError::Busy => "overloaded",
                GrammarError::Internal(_) => "internal_error",
            },
            Self::UnknownModel { .. } => "model_not_found",
            Self::UnknownResponse { .. } => "not_found",
            Self::UnknownPrevious { .. } => "previous_response_not_found",
            Self::Misdirected { .. } => "misdirected_request",
            Self::Busy => "overloaded",
            Self::Loading => "loading",
            Self::NotLoaded { .. } => "no_model",
            Self::NoRoom { .. } => "no_memory",
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
            Self::Engine { error, .. } => match error {
                RequestError::EmptyPrompt => "empty_prompt",
                RequestError::ContextExceeded { .. } => "context_length_exceeded",
                RequestError::UnknownToken { .. } => "unknown_token",
                RequestError::Parameter { .. } => "invalid_request",
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
            Self::Field { param, .. } | Self::Unsupported { param, .. } => Some(param),
            Self::Grammar { param, error: GrammarError::Invalid { .. } } => Some(param),
            Self::UnknownModel { .. } => Some("model"),
            Self::UnknownPrevious { .. } => Some("previous_response_id"),
            Self::Engine { error: RequestError::Parameter { name, .. }, .. } => Some(name),
            Self::Engine {
                error:
                    RequestError::EmptyPrompt
                    | RequestError::ContextExceeded { .. }
                    | RequestError::UnknownToken { .. }
                    | RequestError::CacheExceeded { .. },
                param,
            } => Some(param),
            _ => None,
        }
    }

    /// Seconds after which to try again, where trying again helps.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self {
            Self::Busy | Self::Loading | Self::Grammar { error: GrammarError::Busy, .. } => Some(1),
            Self::NotLoaded { retry_after_seconds, .. } => Some(*retry_after_seconds),
            Self::NoRoom { .. } => Some(5),
            Self::Engine { error: RequestError::QueueFull { .. }, .. } => Some(2),
            Self::Engine { error: RequestError::ShuttingDown, .. } => Some(5),
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
            Self::Field { param, message } | Self::Unsupported { param, message } => write!(f, "{param}: {message}"),
            Self::Grammar { param, error: error @ GrammarError::Invalid { .. } } => write!(f, "{param}: {error}"),
            // The reason of an internal error is for the log, not for the client.
            Self::Grammar { error: GrammarError::Internal(_), .. } => f.write_str("internal error"),
            Self::Grammar { error, .. } => error.fmt(f),
            // The reason of an internal error is for the log, not for the client.
            Self::Engine { error: RequestError::Internal(_), .. } => f.write_str("internal error"),
            Self::Engine { error, .. } => error.fmt(f),
            Self::Misdirected { host } => write!(
                f,
                "this server does not answer to the host {host:?}; use localhost, or add the name to `hosts` in models.toml"
            ),
            Self::UnknownModel { name, known } => {
                let name = brief(name);
                write!(f, "no model is called {name:?}; there is {}", known.join(", "))
            }
            Self::UnknownResponse { id } => write!(f, "Response with id '{}' not found.", brief(id)),
            Self::UnknownPrevious { id } => write!(f, "Previous response with id '{}' not found.", brief(id)),
            Self::Loading => f.write_str("the model is being loaded; try again shortly"),
            Self::NotLoaded { model, .. } => {
                write!(f, "model {model} could not be loaded; whoever runs this server finds the reason in its log")
            }
            Self::NoRoom { model, needed_bytes, left_bytes, busy } => {
                let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
                let (needed, left) = (gib(*needed_bytes), gib(*left_bytes));
                write!(f, "model {model} needs {needed:.1} GiB of memory; {left:.1} are left")?;
                match &busy[..] {
                    [] => Ok(()),
                    [one] => write!(f, ", and {one} is busy"),
                    more => write!(f, ", and {} are busy", more.join(", ")),
                }
            }
            Self::Busy => f.write_str("too many texts are being processed; try again shortly"),
            Self::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl std::error::Error for ApiError {}

/// A client's text is not echoed at length.
fn brief(text: &str) -> String {
    text.chars().take(64).collect()
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        if let RequestError::Internal(why) = &error {
            log::error!("the engine failed a request: {why}");
        }
        Self::Engine { error, param: "prompt".into() }
    }
}
