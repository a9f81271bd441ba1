//! The body of an answer: from framed bytes to the body, in any pieces.
//!
//! Knows no connection. A body is complete only where its framing says so: the end of the connection completes one that
//! has no other end, and cuts any other (RFC 9112 §8).

use super::error::{AnswerFault, ErrorKind};
use super::head::Framing;
use crate::http::h1;
use crate::http::h1::decode::Decoder;
use crate::http::h1::violation::Violation;

#[derive(Debug)]
pub(crate) struct BodyDecoder {
    framed: Framed,
    /// Bytes that may still come.
    left_max: u64,
    bytes_max: u64,
}

#[derive(Debug)]
enum Framed {
    Inside(Decoder),
    UntilClose,
}

/// What came of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Bytes of the input that were used.
    pub used: usize,
    pub complete: bool,
}

impl BodyDecoder {
    /// A decoder for a body of at most `bytes_max` bytes. One that is declared longer is refused at once.
    pub fn new(framing: Framing, bytes_max: u64) -> Result<BodyDecoder, ErrorKind> {
        let framed = match framing {
            Framing::Empty => inside(h1::head::Framing::Length(0), bytes_max)?,
            Framing::Length(length) => inside(h1::head::Framing::Length(length), bytes_max)?,
            Framing::Chunked => inside(h1::head::Framing::Chunked, bytes_max)?,
            Framing::UntilClose => Framed::UntilClose,
        };
        Ok(BodyDecoder { framed, left_max: bytes_max, bytes_max })
    }

    /// Decodes the front of `input` to the end of `body`; `ended` is whether nothing will come behind it.
    pub fn decode(&mut self, input: &[u8], ended: bool, body: &mut Vec<u8>) -> Result<Decoded, ErrorKind> {
        match &mut self.framed {
            Framed::Inside(decoder) => {
                let decoded = decoder.decode(input, body).map_err(|violation| fault(violation, self.bytes_max));
                let (used, complete) = decoded?;
                if ended && !complete { Err(ErrorKind::Closed) } else { Ok(Decoded { used, complete }) }
            }
            Framed::UntilClose => {
                let left = self.left_max.checked_sub(input.len() as u64);
                self.left_max = left.ok_or(ErrorKind::TooLarge { bytes_max: self.bytes_max })?;
                body.extend_from_slice(input);
                Ok(Decoded { used: input.len(), complete: ended })
            }
        }
    }
}

/// Framing bytes that a chunked body may have beyond what its data earns.
const CHUNK_OVERHEAD_BYTES_MAX: usize = 16 << 10;

fn inside(framing: h1::head::Framing, bytes_max: u64) -> Result<Framed, ErrorKind> {
    let decoder = Decoder::new(framing, CHUNK_OVERHEAD_BYTES_MAX).limited(bytes_max);
    decoder.map(Framed::Inside).map_err(|violation| fault(violation, bytes_max))
}

/// The decoder is the server's: what it calls a client's violation is a fault of the answer here.
fn fault(violation: Violation, bytes_max: u64) -> ErrorKind {
    match violation {
        Violation::BodyTooLarge => ErrorKind::TooLarge { bytes_max },
        Violation::ChunkOverhead => ErrorKind::Protocol(AnswerFault::ChunkOverhead),
        _ => ErrorKind::Protocol(AnswerFault::BadChunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 20;

    /// The body that comes of `parts`, the last of which ends the connection, and the bytes used.
    fn decode(framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, usize), ErrorKind> {
        let (mut decoder, mut body, mut total) = (BodyDecoder::new(framing, BYTES_MAX)?, Vec::new(), 0);
        for (index, part) in parts.iter().enumerate() {
            let Decoded { used, complete } = decoder.decode(part, index + 1 == parts.len(), &mut body)?;
            total += used;
            if complete {
                return Ok((body, total));
            }
        }
        panic!("neither complete nor cut")
    }

    #[track_caller]
    fn check(framing: Framing, input: &[u8], expected: Result<(&[u8], usize), ErrorKind>) {
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            let expected = expected.clone().map(|(body, used)| (body.to_vec(), used));
            assert_eq!(decode(framing, &[first, second]), expected, "{framing:?} split at {at}");
        }
    }

    #[test]
    fn bodies() {
        use Framing::*;
        check(Empty, b"", Ok((b"", 0)));
        check(Empty, b"HTTP", Ok((b"", 0)));
        check(Length(5), b"hello", Ok((b"hello", 5)));
        check(Length(5), b"helloHTTP", Ok((b"hello", 5)));
        check(Length(20), &[7; 20], Ok((&[7; 20], 20)));
        check(Chunked, b"5\r\nhello\r\n0\r\n\r\nHTTP", Ok((b"hello", 15)));
        check(UntilClose, b"", Ok((b"", 0)));
        check(UntilClose, b"hello", Ok((b"hello", 5)));
    }

    #[test]
    fn a_body_that_is_cut_is_never_complete() {
        let chunked = b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n";
        for at in 0..chunked.len() {
            check(Framing::Chunked, &chunked[..at], Err(ErrorKind::Closed));
        }
        for at in 0..5 {
            check(Framing::Length(5), &b"hello"[..at], Err(ErrorKind::Closed));
        }
    }

    #[test]
    fn bodies_have_a_bound() {
        let too_large = || Err(ErrorKind::TooLarge { bytes_max: BYTES_MAX });
        check(Framing::Length(21), b"", too_large());
        check(Framing::UntilClose, &[7; 21], too_large());
        check(Framing::Chunked, b"15\r\n", too_large());
        check(Framing::Chunked, b"14\r\n01234567890123456789\r\n1\r\n", too_large());
        let unbounded = BodyDecoder::new(Framing::Chunked, u64::MAX).unwrap();
        assert!(matches!(unbounded.framed, Framed::Inside(_)));
        for bad in [&b"x\r\n"[..], b"5\nhello\r\n"] {
            check(Framing::Chunked, bad, Err(ErrorKind::Protocol(AnswerFault::BadChunk)));
        }
    }
}
