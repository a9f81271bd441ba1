//! Replies: what a handler gives back. A value; the connection turns it into bytes.
//!
//! Knows no connection. A reply has its body, or a [pipe](super::pipe) that its body comes through, or stands for an
//! answer that a [`Responder`] gives later.

mod hooks;
mod into_reply;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::broadcast::Hub;
use super::pipe::Body;
use super::request::Request;
use super::responder::{Answer, Pending, Responder};
use super::types::Status;
use super::upgrade::{Upgrade, Upgraded};
use crate::reactor::FileRange;

pub use hooks::Done;
use hooks::Hooks;
pub(crate) use hooks::{Later, OnEnd};
pub use into_reply::IntoReply;

/// The answer to one request.
#[derive(Debug)]
#[must_use = "a reply does nothing unless a handler returns it or a responder sends it"]
pub struct Reply {
    status: Status,
    content_type: Cow<'static, str>,
    /// Rendered lines, `name: value\r\n` each, checked when they were added.
    headers: String,
    content: Content,
    hooks: Option<Box<Hooks>>,
}

/// What follows the head.
#[derive(Debug)]
pub(crate) enum Content {
    Whole(Cow<'static, [u8]>),
    /// The same bytes for many clients.
    Shared(Arc<[u8]>),
    File(FileRange),
    /// Bytes that come through a pipe; `ping` is sent when there was nothing else for a while.
    /// Boxed, since all replies are as large as the largest.
    Stream {
        body: Box<Body>,
        ping: Option<&'static [u8]>,
    },
    /// The events of a broadcast, from now on.
    Events {
        hub: Arc<Hub>,
        ping: &'static [u8],
    },
    /// An answer still to come.
    Later(Pending),
    /// Another protocol takes the connection over.
    Upgrade(Upgrade),
}

/// A header line that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidHeader {
    /// The name is no token (RFC 9110 §5.6.2).
    Name,
    /// The connection writes this one itself: `Content-Length`, `Transfer-Encoding`, `Connection`, `Keep-Alive`, `Date`.
    Framing,
    /// The value has a control character in it, such as CR, LF or NUL (RFC 9110 §5.5).
    Value,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidHeader::Name => "the header name is no token",
            InvalidHeader::Framing => "this header belongs to the framing, which the connection does",
            InvalidHeader::Value => "the header value has a control character in it",
        })
    }
}

impl std::error::Error for InvalidHeader {}

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
        Reply::new(status, content_type.into(), Content::Whole(body.into()))
    }

    /// 200 with bytes that several replies share; a large body is sent from where it is, without a copy.
    pub fn shared(content_type: impl Into<Cow<'static, str>>, body: Arc<[u8]>) -> Reply {
        Reply::new(Status::OK, content_type.into(), Content::Shared(body))
    }

    /// 200 with a part of an open file, sent from the page cache where the system can. A file that turns out to be shorter
    /// than its range cuts the connection.
    pub fn file(content_type: impl Into<Cow<'static, str>>, range: FileRange) -> Reply {
        Reply::new(Status::OK, content_type.into(), Content::File(range))
    }

    /// No body.
    pub fn empty(status: Status) -> Reply {
        Reply::bytes(status, "", &[][..])
    }

    /// An error in the shape that the router gives its own ([`Router::on_error`](super::Router::on_error)), for a `reason`
    /// that is a sentence without a full stop, and nothing internal.
    pub fn refusal(status: Status, reason: impl Into<Cow<'static, str>>) -> Reply {
        let reason = reason.into();
        let mut reply = Reply::text(format!("{status}: {reason}\n")).with_status(status);
        reply.hooks().refusal = Some(reason);
        reply
    }

    /// A streamed answer with the status, content type and headers of `head`, whose body is whatever comes through `body`.
    pub fn stream(head: Reply, body: Body) -> Reply {
        head.with_stream(body, None)
    }

    /// A reply that stands for an answer still to come, and the right to give it.
    ///
    /// The responder may go to another thread. Header lines added to this reply go in front of those of the answer;
    /// its status does not count. If the responder is dropped unanswered, the client gets a 500.
    pub fn later() -> (Reply, Responder) {
        let (pending, responder) = Responder::pair();
        (Reply::new(Status::OK, Cow::Borrowed(""), Content::Later(pending)), responder)
    }

    /// 101: leaves HTTP for `protocol` (RFC 9110 §7.8). `take_over` gets the connection's bytes both ways; it is called on
    /// the event loop, so it hands them to a thread or keeps them. A client that did not ask for this protocol gets a 426.
    pub fn upgrade(
        request: &Request<'_>,
        protocol: &'static str,
        take_over: impl FnOnce(Upgraded) + Send + 'static,
    ) -> Reply {
        let offered = request.upgrade().unwrap_or_default();
        if !offered.split(',').any(|offer| offer.trim().eq_ignore_ascii_case(protocol)) {
            let reply = Reply::text(format!("this resource speaks {protocol}\n"));
            return reply.with_status(Status::UPGRADE_REQUIRED).header("Upgrade", protocol);
        }
        let content = Content::Upgrade(Upgrade::new(take_over));
        let reply = Reply::new(Status::SWITCHING_PROTOCOLS, Cow::Borrowed(""), content);
        reply.header("Upgrade", protocol)
    }

    fn new(status: Status, content_type: Cow<'static, str>, content: Content) -> Reply {
        Reply { status, content_type, headers: String::new(), content, hooks: None }
    }

    /// The same reply with another status (RFC 9110 §15). 204 and 304 are sent without a body, whatever it is.
    pub fn with_status(mut self, status: Status) -> Reply {
        self.status = status;
        self
    }

    /// Adds a header line. `Content-Type` replaces the type.
    ///
    /// A line that cannot be sent ([`InvalidHeader`]) is a mistake of the program: it is left out, and logged. Use
    /// [`try_header`](Reply::try_header) where a name or value comes from outside.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Reply {
        if let Err(e) = self.push_header(name, value.as_ref()) {
            log::error!("a reply may not have the header {name:?}: {e}; the line is left out");
        }
        self
    }

    /// Adds a header line. `Content-Type` replaces the type.
    ///
    /// # Errors
    /// When the line cannot be sent.
    pub fn try_header(mut self, name: &str, value: impl AsRef<str>) -> Result<Reply, InvalidHeader> {
        self.push_header(name, value.as_ref())?;
        Ok(self)
    }

    fn push_header(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        check_header(name, value)?;
        if name.eq_ignore_ascii_case("content-type") {
            self.content_type = Cow::Owned(value.to_string());
        } else {
            for part in [name, ": ", value, "\r\n"] {
                self.headers.push_str(part);
            }
        }
        Ok(())
    }

    /// Changes the answer before it is sent: at once when it is there, else when it arrives, on the event loop.
    pub fn map(mut self, change: impl FnOnce(Reply) -> Reply + Send + 'static) -> Reply {
        if !self.is_later() {
            return change(self);
        }
        self.hooks().maps.push(Box::new(change));
        self
    }

    /// Calls `done` once, on the event loop, when the last byte of the answer has been handed to the connection, or its
    /// client has left.
    pub fn on_done(mut self, done: impl FnOnce(&Done) + Send + 'static) -> Reply {
        self.hooks().done.push(Box::new(done));
        self
    }

    /// How long a later answer may take to begin. After that the client gets a 504, and the producer is told that its
    /// client has gone. The shortest one set counts.
    pub fn answer_within(mut self, timeout: Duration) -> Reply {
        if self.is_later() {
            let within = &mut self.hooks().within;
            *within = Some(within.map_or(timeout, |other| other.min(timeout)));
        }
        self
    }

    fn hooks(&mut self) -> &mut Hooks {
        self.hooks.get_or_insert_default()
    }

    /// The status; that of a later answer is not known yet, and reads as 200.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The value of `Content-Type`; empty when none is sent.
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

    /// The body, where it is bytes in memory; empty for streams and files, and while the answer is still to come.
    pub fn body(&self) -> &[u8] {
        match &self.content {
            Content::Whole(bytes) => bytes,
            Content::Shared(bytes) => bytes,
            Content::File(_)
            | Content::Stream { .. }
            | Content::Events { .. }
            | Content::Later(_)
            | Content::Upgrade(_) => &[],
        }
    }

    /// Bytes of the body, where that is known before it is sent: not for streams of no declared length, nor for an answer
    /// still to come.
    pub fn body_bytes(&self) -> Option<u64> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Shared(bytes) => Some(bytes.len() as u64),
            Content::File(range) => Some(range.len),
            Content::Stream { body, .. } => body.length(),
            Content::Events { .. } | Content::Later(_) | Content::Upgrade(_) => None,
        }
    }

    /// Whether this stands for an answer still to come.
    pub fn is_later(&self) -> bool {
        matches!(self.content, Content::Later(_))
    }

    /// Waits for a later or streamed answer to its end and gives it as a whole, the way a client would see it; for tests
    /// and for calls inside the process. `None`: not complete within `timeout`, or its stream was cut off.
    pub fn wait(self, timeout: Duration) -> Option<Reply> {
        let deadline = Instant::now() + timeout;
        let mut reply = match self.into_ready() {
            Ok(reply) => reply,
            Err((pending, later)) => match pending.wait_until(deadline)? {
                Answer::Reply(answer) => later.complete(answer),
                Answer::Never => later.complete(Reply::empty(Status::INTERNAL_SERVER_ERROR)),
            },
        };
        let body = match reply.content {
            Content::Stream { body, .. } => body.collect_until(deadline)?,
            Content::File(range) => range.read().ok()?,
            content => return Some(Reply { content, ..reply }),
        };
        reply.content = Content::Whole(body.into());
        Some(reply)
    }

    /// Takes out the header lines with this name that were added to this reply. The content type stays.
    pub fn without_header(mut self, name: &str) -> Reply {
        let is_other = |line: &&str| line.split(':').next().is_none_or(|key| !key.eq_ignore_ascii_case(name));
        self.headers = self.headers.split_inclusive("\r\n").filter(is_other).collect();
        self
    }

    /// Puts rendered lines in front of those that are there.
    pub(crate) fn with_lines_in_front(mut self, lines: &str) -> Reply {
        self.headers.insert_str(0, lines);
        self
    }

    /// Header lines as they are sent.
    pub(crate) fn header_lines(&self) -> &str {
        &self.headers
    }

    /// The same head with another body: that of a stream.
    pub(crate) fn with_stream(mut self, body: Body, ping: Option<&'static [u8]>) -> Reply {
        self.content = Content::Stream { body: Box::new(body), ping };
        self
    }

    pub(crate) fn with_events(mut self, hub: Arc<Hub>, ping: &'static [u8]) -> Reply {
        self.content = Content::Events { hub, ping };
        self
    }

    /// The reason of a [refusal](Reply::refusal) that has no shape yet.
    pub(crate) fn refusal_reason(&self) -> Option<&str> {
        self.hooks.as_ref()?.refusal.as_deref()
    }

    /// A refusal in its shape: with the type and body of `shape`, and the lines of both.
    pub(crate) fn shaped_as(mut self, shape: Reply) -> Reply {
        self.hooks().refusal = None;
        if let Content::Whole(_) | Content::Shared(_) = shape.content {
            (self.content, self.content_type) = (shape.content, shape.content_type);
        }
        self.headers.push_str(&shape.headers);
        self
    }

    /// The same head with another body.
    pub fn with_body(mut self, body: impl Into<Cow<'static, [u8]>>) -> Reply {
        self.content = Content::Whole(body.into());
        self
    }

    /// The reply when it is there, or where it will arrive and what to do with it then.
    pub(crate) fn into_ready(self) -> Result<Reply, (Pending, Later)> {
        match self.content {
            Content::Later(pending) => Err((pending, Later::new(self.headers, self.hooks))),
            _ => Ok(self),
        }
    }

    /// What the connection needs of a reply that is there: its head, what follows, and whom to tell of its end.
    pub(crate) fn into_parts(mut self) -> (Reply, Content, OnEnd) {
        let content = std::mem::replace(&mut self.content, Content::Whole(Cow::Borrowed(&[])));
        let on_end = OnEnd::new(self.status, self.hooks.take());
        (self, content, on_end)
    }

    /// Whether this is bytes in memory, and nobody waits for its end.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.content, Content::Whole(_) | Content::Shared(_)) && self.hooks.is_none()
    }
}

/// Headers that the connection writes itself.
const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "keep-alive", "date"];

/// A token of RFC 9110 §5.6.2, the grammar of header names.
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether a line may be sent.
pub(crate) fn check_header(name: &str, value: &str) -> Result<(), InvalidHeader> {
    if !is_token(name) {
        Err(InvalidHeader::Name)
    } else if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
        Err(InvalidHeader::Framing)
    } else if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        Err(InvalidHeader::Value)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_sent_are_errors_at_the_call() {
        for (name, value, error) in [
            ("", "x", InvalidHeader::Name),
            ("a b", "x", InvalidHeader::Name),
            ("a\r\nb", "x", InvalidHeader::Name),
            ("a:", "x", InvalidHeader::Name),
            ("é", "x", InvalidHeader::Name),
            ("Content-Length", "5", InvalidHeader::Framing),
            ("TRANSFER-ENCODING", "x", InvalidHeader::Framing),
            ("connection", "x", InvalidHeader::Framing),
            ("Date", "x", InvalidHeader::Framing),
            ("x-a", "1\r\nset-cookie: a", InvalidHeader::Value),
            ("x-a", "1\n2", InvalidHeader::Value),
            ("x-a", "1\0", InvalidHeader::Value),
            ("content-type", "a/b\r\n", InvalidHeader::Value),
        ] {
            assert_eq!(Reply::text("").try_header(name, value).unwrap_err(), error, "{name:?}: {value:?}");
            let reply = Reply::text("").header(name, value);
            assert_eq!((reply.header_lines(), reply.content_type()), ("", "text/plain; charset=utf-8"), "{name:?}");
        }
        let reply = Reply::text("").try_header("x-a", "1, \t2 é").unwrap();
        assert_eq!((reply.header_lines(), reply.header_value("X-A")), ("x-a: 1, \t2 é\r\n", Some("1, \t2 é")));
    }

    #[test]
    fn hooks_reach_answers_now_and_later() {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let hook = |reply: Reply, name: &'static str| {
            let told = Arc::clone(&told);
            reply.map(move |r| r.header("x-map", name)).on_done(move |done| told.lock().unwrap().push((name, *done)))
        };
        let now = hook(Reply::text("now"), "now");
        assert_eq!(now.header_value("x-map"), Some("now"));
        now.into_parts().2.tell(3, true);

        let (reply, responder) = Reply::later();
        responder.send(hook(Reply::text("later"), "inner").with_status(Status::CREATED));
        let reply = hook(reply, "outer").wait(Duration::from_secs(10)).unwrap();
        assert_eq!(reply.header_lines(), "x-map: inner\r\nx-map: outer\r\n");
        reply.into_parts().2.tell(2, false);
        let done = |status, body_bytes, complete| Done { status, body_bytes, complete };
        let expected = [
            ("now", done(Status::OK, 3, true)),
            ("outer", done(Status::CREATED, 2, false)),
            ("inner", done(Status::CREATED, 2, false)),
        ];
        assert_eq!(*told.lock().unwrap(), expected);
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
