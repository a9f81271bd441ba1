//! What a client can do wrong, and the answer it deserves. The connection closes after each of them: where one message
//! is malformed, nobody can know where the next one begins.

use crate::http::types::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    BadHead,
    BadHeader,
    BadLineEnd,
    BadVersion,
    MethodUnknown,
    TargetTooLong,
    TargetInvalid,
    Misdirected,
    HeadTooLarge,
    TooManyHeaders,
    HostMissing,
    HostTwice,
    HostInvalid,
    LengthInvalid,
    LengthTwice,
    LengthAndCoding,
    CodingInvalid,
    CodingUnknown,
    CodingInHttp10,
    BodyTooLarge,
    BadChunk,
    ChunkOverhead,
    ExpectationUnknown,
    HeadTimeout,
    BodyTimeout,
}

impl Violation {
    /// The status the peer deserves.
    pub fn status(self) -> Status {
        match self {
            Violation::BadHead
            | Violation::BadHeader
            | Violation::BadLineEnd
            | Violation::TargetInvalid
            | Violation::HostMissing
            | Violation::HostTwice
            | Violation::HostInvalid
            | Violation::LengthInvalid
            | Violation::LengthTwice
            | Violation::LengthAndCoding
            | Violation::CodingInvalid
            | Violation::CodingInHttp10
            | Violation::BadChunk
            | Violation::ChunkOverhead => Status::BAD_REQUEST,
            Violation::HeadTimeout | Violation::BodyTimeout => Status::REQUEST_TIMEOUT,
            Violation::BodyTooLarge => Status::CONTENT_TOO_LARGE,
            Violation::Misdirected => Status::MISDIRECTED_REQUEST,
            Violation::TargetTooLong => Status::URI_TOO_LONG,
            Violation::ExpectationUnknown => Status::EXPECTATION_FAILED,
            Violation::HeadTooLarge | Violation::TooManyHeaders => Status::HEADER_FIELDS_TOO_LARGE,
            Violation::MethodUnknown | Violation::CodingUnknown => Status::NOT_IMPLEMENTED,
            Violation::BadVersion => Status::VERSION_NOT_SUPPORTED,
        }
    }

    /// What happened, for the person at the other end.
    pub fn reason(self) -> &'static str {
        match self {
            Violation::BadHead => "the request line is not one of HTTP/1.1",
            Violation::BadHeader => "a header line is malformed",
            Violation::BadLineEnd => "a line of the head does not end with CR LF",
            Violation::BadVersion => "only HTTP/1 is spoken here",
            Violation::MethodUnknown => "the method is not implemented",
            Violation::TargetTooLong => "the request target is too long",
            Violation::TargetInvalid => "the request target is not valid",
            Violation::Misdirected => "the target is https, and this connection is not",
            Violation::HeadTooLarge => "the head is too large",
            Violation::TooManyHeaders => "there are too many header lines",
            Violation::HostMissing => "there is no Host header",
            Violation::HostTwice => "there is more than one Host header",
            Violation::HostInvalid => "the Host header is not valid",
            Violation::LengthInvalid => "Content-Length is not a number",
            Violation::LengthTwice => "there is more than one Content-Length",
            Violation::LengthAndCoding => "there are both Content-Length and Transfer-Encoding",
            Violation::CodingInvalid => "Transfer-Encoding does not end with one chunked",
            Violation::CodingUnknown => "the transfer coding is not known, only chunked",
            Violation::CodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding",
            Violation::BodyTooLarge => "the body is too large",
            Violation::BadChunk => "the chunked body is malformed",
            Violation::ChunkOverhead => "the chunked body has too much framing for its data",
            Violation::ExpectationUnknown => "the expectation is not known, only 100-continue",
            Violation::HeadTimeout => "the head took too long",
            Violation::BodyTimeout => "the body took too long",
        }
    }
}
