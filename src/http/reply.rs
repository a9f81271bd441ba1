//! Replies: what a handler gives back. A value; the connection turns it into bytes.
//!
//! Knows no connection. A reply either has its whole body, or stands for an answer that a [`Responder`] gives later.

use std::borrow::Cow;
use std::time::Duration;

use super::responder::{Pending, Responder};
use super::types::Status;

/// The answer to one request.
#[derive(Debug)]
pub struct Reply {
    status: Status,
    content_type: Cow<'static, str>,
    /// Rendered lines, `name: value\r\n` each, checked when they were added.
    headers: String,
    body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Whole(Cow<'static, [u8]>),
    Later(Pending),
}

impl Reply {
    /// 200 with plain text.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Reply {
        let body = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Reply::bytes(Status::OK, "text/plain; charset=utf-8", body)
    }

    /// A body of any type. An empty content type sends none.
    pub fn bytes(
        status: Status,
        content_type: impl Into<Cow<'static, str>>,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Reply {
        Reply { status, content_type: content_type.into(), headers: String::new(), body: Body::Whole(body.into()) }
    }

    /// No body.
    pub fn empty(status: Status) -> Reply {
        Reply::bytes(status, "", &[][..])
    }

    /// A reply that stands for an answer still to come, and the right to give it.
    ///
    /// The responder may go to another thread. Header lines added to this reply go in front of those of the answer;
    /// its status does not count. If the responder is dropped unanswered, the client gets a 500.
    pub fn later() -> (Reply, Responder) {
        let (pending, responder) = Responder::pair();
        let reply = Reply { body: Body::Later(pending), ..Reply::empty(Status::OK) };
        (reply, responder)
    }

    pub fn with_status(mut self, status: Status) -> Reply {
        self.status = status;
        self
    }

    /// Adds a header line.
    ///
    /// CR, LF and NUL in the value become spaces (RFC 9110 §5.5), so that no value can start a line of its own.
    /// `Content-Type` replaces the type. A name that is no token, or belongs to the framing (`Content-Length`,
    /// `Transfer-Encoding`, `Connection`, `Date`), is a mistake of the program: the line is left out, and logged.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Reply {
        let value = value.as_ref();
        if name.eq_ignore_ascii_case("content-type") {
            self.content_type = Cow::Owned(clean_value(value).into_owned());
        } else if !is_token(name) || FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            log::error!("a reply may not set the header {name:?}; the line is left out");
        } else {
            for part in [name, ": ", &clean_value(value), "\r\n"] {
                self.headers.push_str(part);
            }
        }
        self
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The first value of a header line that was added to this reply.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        if name.eq_ignore_ascii_case("content-type") {
            return Some(&*self.content_type).filter(|value| !value.is_empty());
        }
        let lines = self.headers.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body; empty while the answer is still to come.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Whole(bytes) => bytes,
            Body::Later(_) => &[],
        }
    }

    /// Whether this stands for an answer still to come.
    pub fn is_later(&self) -> bool {
        matches!(self.body, Body::Later(_))
    }

    /// Waits for a later answer to its end and gives it as a whole, the way a client would see it; for tests and for
    /// calls inside the process. `None`: not complete within `timeout`, or its stream was cut off.
    pub fn wait(self, timeout: Duration) -> Option<Reply> {
        match self.body {
            Body::Whole(_) => Some(self),
            Body::Later(pending) => pending.wait(timeout).map(|answer| answer.with_lines_in_front(&self.headers)),
        }
    }

    /// Header lines as they are sent.
    pub(crate) fn header_lines(&self) -> &str {
        &self.headers
    }

    pub(crate) fn with_lines_in_front(mut self, lines: &str) -> Reply {
        self.headers.insert_str(0, lines);
        self
    }

    pub(crate) fn with_body(mut self, body: Vec<u8>) -> Reply {
        self.body = Body::Whole(Cow::Owned(body));
        self
    }

    /// The answer itself, or the lines to put in front of the one to come.
    pub(crate) fn into_answer(self) -> Result<Reply, (String, Pending)> {
        match self.body {
            Body::Whole(_) => Ok(self),
            Body::Later(pending) => Err((self.headers, pending)),
        }
    }
}

/// Headers that the connection writes itself.
const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "keep-alive", "date"];

/// A token of RFC 9110 §5.6.2, the grammar of header names.
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn clean_value(value: &str) -> Cow<'_, str> {
    if value.contains(['\r', '\n', '\0']) {
        Cow::Owned(value.replace(['\r', '\n', '\0'], " "))
    } else {
        Cow::Borrowed(value)
    }
}

/// What handlers may return: a reply, a status, text, or a `Result` whose error becomes a reply, so that `?` works.
pub trait IntoReply {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_cannot_start_a_line() {
        let reply = Reply::text("").header("x-a", "1\r\nset-cookie: a\0b");
        assert_eq!(reply.header_lines(), "x-a: 1  set-cookie: a b\r\n");
        assert_eq!(reply.header_value("X-A"), Some("1  set-cookie: a b"));
    }

    #[test]
    fn bad_and_framing_names_are_left_out() {
        for name in ["", "a b", "a\r\nb", "a:", "é", "Content-Length", "TRANSFER-ENCODING", "connection", "Date"] {
            assert_eq!(Reply::text("").header(name, "x").header_lines(), "", "{name:?}");
        }
    }

    #[test]
    fn content_type_replaces() {
        let reply = Reply::text("x").header("content-TYPE", "a/b");
        assert_eq!((reply.content_type(), reply.header_lines()), ("a/b", ""));
    }

    #[test]
    fn results_become_replies() {
        struct Refused;
        impl From<Refused> for Reply {
            fn from(_: Refused) -> Reply {
                Reply::empty(Status::FORBIDDEN)
            }
        }
        assert_eq!(Ok::<_, Refused>("yes").into_reply().body(), b"yes");
        assert_eq!(Err::<Reply, _>(Refused).into_reply().status(), Status::FORBIDDEN);
    }
}
