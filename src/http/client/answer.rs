//! An answer as callers see it: its head, and its body as it arrives.

use std::io;

use super::error::ClientError;
use super::headers::Headers;
use crate::http::pipe::Body;
use crate::http::reply::Reply;
use crate::http::types::{Status, Version};

/// The answer of another server. The body arrives while it is read: what its reader does not take, the server is not
/// asked for. Dropped before its end, the connection is closed.
#[derive(Debug)]
pub struct Answer {
    /// The final status; interim answers (1xx) have been passed over (RFC 9110 §15.2).
    pub status: Status,
    /// What the server speaks.
    pub version: Version,
    /// All header lines of the head.
    pub headers: Headers,
    /// Decoded from its chunks. If the connection broke off, or took too long, it reads as an error, never as an end.
    pub body: Body,
}

impl Answer {
    /// The first value of a header; names compare without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Reads the whole body, blocking: for threads other than event loops.
    ///
    /// # Errors
    /// When the body is longer than `bytes_max`, or was cut off.
    pub fn collect(self, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.body.collect(bytes_max)
    }

    /// Passes the answer on to a client of this server, without the headers about the connection on which it came
    /// (RFC 9110 §7.6.1). The body is streamed; an answer that is cut reaches the client cut.
    pub fn into_reply(self) -> Reply {
        // The connection writes a date of its own.
        let lines = self.headers.end_to_end().filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
        let head = lines.fold(Reply::empty(self.status), |head, (name, value)| head.header(name, value));
        Reply::stream(head, self.body)
    }
}

/// What a caller gets: an answer whose body is still arriving, or why there is none.
pub(crate) type Outcome = Result<Answer, ClientError>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_answer_is_passed_on_without_its_connection() {
        let line = |name, value: &'static str| httparse::Header { name, value: value.as_bytes() };
        let headers = Headers::of(&[
            line("Date", "x"),
            line("content-type", "a/b"),
            line("Transfer-Encoding", "chunked"),
            line("Connection", "x-hop"),
            line("X-Hop", "1"),
            line("Set-Cookie", "a"),
            line("Set-Cookie", "b"),
        ]);
        let answer = Answer { status: Status::CREATED, version: Version::Http11, headers, body: Body::whole("hello") };
        let reply = answer.into_reply().wait(Duration::from_secs(10)).unwrap();
        assert_eq!((reply.status(), reply.content_type(), reply.body()), (Status::CREATED, "a/b", &b"hello"[..]));
        assert_eq!(reply.header_lines(), "Set-Cookie: a\r\nSet-Cookie: b\r\n");
    }
}
