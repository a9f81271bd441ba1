//! Why a request has no answer: what happened, and with which server.

use std::fmt;
use std::net::SocketAddr;

use super::url::BadUrl;
use crate::http::reply::Reply;
use crate::http::types::Status;

/// A request that got no answer, or an answer that broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    authority: String,
    kind: ErrorKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL cannot be asked.
    BadUrl(BadUrl),
    /// The host's name has no address, or the resolver failed.
    Resolve(String),
    /// No address of the host took the connection; this was the last.
    Connect {
        /// The address that was tried last.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Something took longer than its [timeout](super::Timeouts).
    Timeout(Phase),
    /// The server closed before its answer was complete.
    Closed,
    /// The server's answer is not HTTP/1.1, or may be read in more than one way.
    Protocol(AnswerFault),
    /// The body of the request broke off, or is not as long as was declared.
    RequestBody,
    /// Too many requests are under way or waiting for this host.
    Busy,
    /// The body of the answer is longer than the request allows.
    TooLarge {
        /// What was allowed.
        bytes_max: u64,
    },
    /// [`fetch`](super::Client::fetch) was called on the event loop that would have had to answer it meanwhile.
    OnLoop,
    /// Nobody waits for the answer any more.
    Abandoned,
    /// The client, or the server that it is a part of, is stopping.
    Stopped,
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The look-up of the name.
    Resolve,
    /// The connection to one address.
    Connect,
    /// The wait for a free connection.
    Queue,
    /// The server took no more of the request.
    Send,
    /// The request was sent; no answer began.
    FirstByte,
    /// The answer came to a stop.
    Idle,
    /// All together.
    Total,
}

/// What a server did wrong in an answer. The connection is of no use after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerFault {
    /// No status line, or a malformed one, or a header line that is none.
    BadHead,
    /// A line that does not end with CR LF.
    BadLineEnd,
    /// A head over the limit, or with more than 100 lines.
    HeadTooLarge,
    /// More interim answers than anybody needs.
    TooManyInterim,
    /// 101 without having been asked for.
    Switched,
    /// A Content-Length that is no number, or several that differ.
    LengthInvalid,
    /// Content-Length and Transfer-Encoding in one answer.
    LengthAndCoding,
    /// A transfer coding other than `chunked`.
    CodingUnknown,
    /// A transfer coding in an answer of HTTP/1.0.
    CodingInHttp10,
    /// A malformed chunk.
    BadChunk,
    /// Much more framing than data in a chunked body.
    ChunkOverhead,
}

impl ClientError {
    pub(crate) fn new(authority: impl fmt::Display, kind: ErrorKind) -> ClientError {
        ClientError { authority: authority.to_string(), kind }
    }

    /// The host and port that were asked; empty for a URL that could not be read.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What happened, to decide by: ask again, ask another server, or give up.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What a gateway answers: 504 when it took too long, 503 when there was no room, else 502 (RFC 9110 §15.6); 500 for
    /// a mistake of the program.
    pub fn status(&self) -> Status {
        match self.kind {
            ErrorKind::Timeout(Phase::Queue) | ErrorKind::Busy | ErrorKind::Stopped => Status::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout(_) => Status::GATEWAY_TIMEOUT,
            ErrorKind::OnLoop => Status::INTERNAL_SERVER_ERROR,
            _ => Status::BAD_GATEWAY,
        }
    }
}

impl From<BadUrl> for ClientError {
    fn from(bad: BadUrl) -> ClientError {
        ClientError::new("", ErrorKind::BadUrl(bad))
    }
}

/// The status, and a sentence: what went wrong behind this server is logged, and not told to its clients.
impl From<ClientError> for Reply {
    fn from(error: ClientError) -> Reply {
        log::debug!("no answer: {error}");
        let status = error.status();
        let reason = match status {
            Status::GATEWAY_TIMEOUT => "the server behind this one took too long",
            Status::SERVICE_UNAVAILABLE => "too many requests are waiting",
            Status::BAD_GATEWAY => "the server behind this one gave no valid answer",
            _ => "the request could not be passed on",
        };
        let reply = Reply::refusal(status, reason);
        if status == Status::SERVICE_UNAVAILABLE { reply.header("Retry-After", "1") } else { reply }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.authority.is_empty() { self.kind.fmt(f) } else { write!(f, "{}: {}", self.authority, self.kind) }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::BadUrl(bad) => bad.fmt(f),
            ErrorKind::Resolve(reason) => write!(f, "the host's name could not be resolved: {reason}"),
            ErrorKind::Connect { addr, reason } => write!(f, "no connection to {addr}: {reason}"),
            ErrorKind::Timeout(phase) => phase.fmt(f),
            ErrorKind::Closed => f.write_str("the server closed the connection before its answer was complete"),
            ErrorKind::Protocol(fault) => write!(f, "the answer is not valid: {fault}"),
            ErrorKind::RequestBody => f.write_str("the body of the request broke off, or has not its declared length"),
            ErrorKind::Busy => f.write_str("too many requests for this host are waiting"),
            ErrorKind::TooLarge { bytes_max } => write!(f, "the body of the answer has more than {bytes_max} bytes"),
            ErrorKind::OnLoop => f.write_str("an event loop cannot wait for its own answer: use send() or reply()"),
            ErrorKind::Abandoned => f.write_str("nobody waits for the answer any more"),
            ErrorKind::Stopped => f.write_str("the client is stopping"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Resolve => "looking up the host's name took too long",
            Phase::Connect => "connecting took too long",
            Phase::Queue => "no connection became free in time",
            Phase::Send => "the server stopped taking the request",
            Phase::FirstByte => "the answer did not begin in time",
            Phase::Idle => "the answer came to a stop",
            Phase::Total => "the answer was not complete in time",
        })
    }
}

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnswerFault::BadHead => "its head is not HTTP/1.1",
            AnswerFault::BadLineEnd => "a line of its head does not end with CR LF",
            AnswerFault::HeadTooLarge => "its head is too large",
            AnswerFault::TooManyInterim => "too many interim answers came before it",
            AnswerFault::Switched => "it switches protocols, which was not asked for",
            AnswerFault::LengthInvalid => "its Content-Length is not one number",
            AnswerFault::LengthAndCoding => "it has both Content-Length and Transfer-Encoding",
            AnswerFault::CodingUnknown => "its transfer coding is not chunked",
            AnswerFault::CodingInHttp10 => "it is HTTP/1.0 with a Transfer-Encoding",
            AnswerFault::BadChunk => "a chunk of its body is malformed",
            AnswerFault::ChunkOverhead => "its chunks have too much framing for their data",
        })
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_gateway_replies_that_tell_no_address() {
        let addr = SocketAddr::from(([10, 1, 2, 3], 80));
        for (kind, status) in [
            (ErrorKind::Connect { addr, reason: "refused".into() }, 502),
            (ErrorKind::Resolve("unknown".into()), 502),
            (ErrorKind::Protocol(AnswerFault::BadChunk), 502),
            (ErrorKind::Closed, 502),
            (ErrorKind::Timeout(Phase::FirstByte), 504),
            (ErrorKind::Timeout(Phase::Queue), 503),
            (ErrorKind::Busy, 503),
        ] {
            let error = ClientError::new("secret:8080", kind);
            assert!(error.to_string().starts_with("secret:8080: "));
            let reply = Reply::from(error);
            let text = str::from_utf8(reply.body()).unwrap();
            assert_eq!(reply.status().code(), status, "{text}");
            assert!(!text.contains("10.1.2.3") && !text.contains("secret"), "{text}");
            assert_eq!(reply.header_value("retry-after").is_some(), status == 503);
        }
    }
}
