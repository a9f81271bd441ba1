//! What may be returned in a reply's place.

use super::Reply;
use crate::http::types::Status;

/// What handlers may return: a reply, a status, text, or a `Result` whose error becomes a reply, so that `?` works.
pub trait IntoReply {
    /// What the client is to get.
    fn into_reply(self) -> Reply;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Reply {
        self
    }
}

impl IntoReply for Status {
    fn into_reply(self) -> Reply {
        Reply::empty(self)
    }
}

impl IntoReply for &'static str {
    fn into_reply(self) -> Reply {
        Reply::text(self)
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Reply {
        Reply::text(self)
    }
}

impl<T: IntoReply, E: Into<Reply>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Reply {
        match self {
            Ok(value) => value.into_reply(),
            Err(error) => error.into(),
        }
    }
}
