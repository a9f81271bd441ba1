//! Body decoders: from framed bytes to the body, in any pieces.
//!
//! The chunk decoder is our own: httparse takes an empty size for 0 and lets LF and NUL through inside extensions, and
//! each of these has been used to smuggle requests (CVE-2025-22871, CVE-2023-39326). Framing is paid for from a budget
//! that grows with the data, so that a client cannot keep us busy with chunks of one byte or endless extensions.

use super::bytes::{TEXT, TOKEN};
use super::head::Framing;
use super::violation::Violation;

/// Framing bytes that each byte of data earns: a chunk of one byte has five.
const OVERHEAD_PER_BYTE: u64 = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Decoder {
    Length { left: u64 },
    Chunked(Chunked),
}

impl Decoder {
    /// For a body of this framing. When it comes in chunks they may have `overhead_bytes_max` of framing beyond what its
    /// data earns.
    pub fn new(framing: Framing, overhead_bytes_max: usize) -> Decoder {
        match framing {
            Framing::Length(length) => Decoder::Length { left: length },
            Framing::Chunked => Decoder::Chunked(Chunked {
                state: State::Size { digits: 0 },
                size: 0,
                data_bytes: 0,
                overhead_bytes: 0,
                body_bytes_max: u64::MAX,
                overhead_bytes_max: overhead_bytes_max as u64,
            }),
        }
    }

    /// The same, for a body of at most `body_bytes_max`. Refused where more is declared already; chunks show it later.
    pub fn limited(self, body_bytes_max: u64) -> Result<Decoder, Violation> {
        match self {
            Decoder::Length { left } if left > body_bytes_max => Err(Violation::BodyTooLarge),
            Decoder::Length { left } => Ok(Decoder::Length { left }),
            Decoder::Chunked(chunked) => Ok(Decoder::Chunked(Chunked { body_bytes_max, ..chunked })),
        }
    }

    /// The next run of data in `input`, where it is. Gives it with the bytes used up to its end and whether the body is
    /// complete; without data, `input` is used up or the body complete.
    pub fn next<'i>(&mut self, input: &'i [u8]) -> Result<Piece<'i>, Violation> {
        match self {
            Decoder::Length { left } => {
                let data = take(input, left).0;
                Ok(Piece { data, used: data.len(), complete: *left == 0 })
            }
            Decoder::Chunked(chunked) => chunked.next(input),
        }
    }

    /// Decodes the front of `input` to the end of `body`. Gives the bytes used, and whether the body is complete.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<(usize, bool), Violation> {
        let mut rest = input;
        loop {
            let piece = self.next(rest)?;
            body.extend_from_slice(piece.data);
            rest = rest.split_at(piece.used).1;
            if piece.complete || rest.is_empty() {
                return Ok((input.len() - rest.len(), piece.complete));
            }
        }
    }
}

/// A run of data of a body, in the input.
#[derive(Debug)]
pub(crate) struct Piece<'i> {
    pub data: &'i [u8],
    /// Bytes of the input to consume, the data among them.
    pub used: usize,
    /// Whether the body ends here.
    pub complete: bool,
}

/// As much of `input` as is `left`, and what is behind it.
fn take<'i>(input: &'i [u8], left: &mut u64) -> (&'i [u8], &'i [u8]) {
    let count = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= count as u64;
    input.split_at(count)
}

/// RFC 9112 §7.1.
///
/// ```text
/// Size ─▶ (SizeBlank) ─▶ (Extension) ─▶ SizeLf ─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size …
///                                         └─ size 0 ─▶ TrailerStart ⇄ TrailerName ─▶ TrailerValue ─▶ TrailerLf
///                                                           └─▶ EndLf ─▶ Done
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Of this chunk: the size as far as it was read, then the data still to come.
    size: u64,
    data_bytes: u64,
    overhead_bytes: u64,
    body_bytes_max: u64,
    overhead_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        digits: u8,
    },
    /// White space before an extension, which a recipient must tolerate.
    SizeBlank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Chunked {
    fn next<'i>(&mut self, input: &'i [u8]) -> Result<Piece<'i>, Violation> {
        let mut rest = input;
        while self.state != State::Done {
            let Some((&byte, after)) = rest.split_first() else { break };
            if self.state == State::Data {
                let (data, after) = take(rest, &mut self.size);
                self.data_bytes += data.len() as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Piece { data, used: input.len() - after.len(), complete: false });
            }
            self.overhead_bytes += 1;
            if self.overhead_bytes > self.overhead_bytes_max.saturating_add(OVERHEAD_PER_BYTE * self.data_bytes) {
                return Err(Violation::ChunkOverhead);
            }
            self.state = self.after(byte)?;
            rest = after;
        }
        Ok(Piece { data: &[], used: input.len() - rest.len(), complete: self.state == State::Done })
    }

    /// The state after one byte of framing.
    fn after(&mut self, byte: u8) -> Result<State, Violation> {
        let is_text = TEXT.has(byte);
        Ok(match (self.state, byte) {
            (State::Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).map_or(0, u64::from);
                if digits == 16 {
                    return Err(Violation::BadChunk);
                }
                self.size = self.size << 4 | digit;
                State::Size { digits: digits + 1 }
            }
            (State::Size { digits: 1.. }, b' ' | b'\t') | (State::SizeBlank, b' ' | b'\t') => State::SizeBlank,
            (State::Size { digits: 1.. }, b';') | (State::SizeBlank, b';') => State::Extension,
            (State::Size { digits: 1.. }, b'\r') | (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if is_text => State::Extension,
            (State::SizeLf, b'\n') if self.size == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') if self.size > self.body_bytes_max.saturating_sub(self.data_bytes) => {
                return Err(Violation::BodyTooLarge);
            }
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerStart | State::TrailerName, _) if TOKEN.has(byte) => State::TrailerName,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(Violation::BadChunk),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(parts: &[&[u8]], body_bytes_max: u64) -> Result<(Vec<u8>, usize, bool), Violation> {
        let mut decoder = Decoder::new(Framing::Chunked, 16 << 10).limited(body_bytes_max)?;
        let (mut body, mut used, mut done) = (Vec::new(), 0, false);
        for part in parts {
            let (count, complete) = decoder.decode(part, &mut body)?;
            used += count;
            done = complete;
        }
        Ok((body, used, done))
    }

    /// The same outcome, wherever the input is cut in two.
    #[track_caller]
    fn check(input: &[u8], expected: Result<(&[u8], usize, bool), Violation>) {
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            let seen = decode(&[first, second], 100);
            let expected = expected.map(|(body, used, done)| (body.to_vec(), used, done));
            assert_eq!(seen, expected, "{:?} split at {at}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn chunked_bodies() {
        check(b"5\r\nhello\r\n0\r\n\r\n", Ok((b"hello", 15, true)));
        check(b"5\r\nhello\r\n0\r\n\r\nGET", Ok((b"hello", 15, true)));
        check(b"00005\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", Ok((b"hello!", 27, true)));
        check(b"a;x=\"y z\";q\r\n0123456789\r\n0;last\r\n\r\n", Ok((b"0123456789", 35, true)));
        check(b"1 ;x\r\na\r\n1\t;\r\nb\r\n0\r\n\r\n", Ok((b"ab", 22, true)));
        check(b"0\r\nTrailer: x\r\nOther:\r\n\r\n", Ok((b"", 25, true)));
        check(b"5\r\nhel", Ok((b"hel", 6, false)));
        check(b"64\r\n", Ok((b"", 4, false)));
    }

    #[test]
    fn malformed_chunks() {
        for input in [
            &b"\r\n"[..],
            b";ext\r\n",
            b" 5\r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5 x\r\nhello\r\n",
            b"5_0\r\n",
            b"g\r\n",
            b"5\nhello\r\n",
            b"5\rhello\r\n",
            b"5;a\nb\r\nhello\r\n",
            b"5;a\0\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"0\r\nXY\r\n",
            b"0\r\n\n",
            b"0\r\n name: x\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            b"0\r\nname : x\r\n\r\n",
            b"0\r\nname: x\n\r\n",
            b"0\r\nname: x\0\r\n\r\n",
            b"00000000000000005\r\n",
        ] {
            check(input, Err(Violation::BadChunk));
        }
    }

    #[test]
    fn bodies_have_a_bound() {
        check(b"65\r\n", Err(Violation::BodyTooLarge));
        check(b"ffffffffffffffff\r\n", Err(Violation::BodyTooLarge));
        check(b"1\r\na\r\n64\r\n", Err(Violation::BodyTooLarge));
    }

    #[test]
    fn framing_has_a_bound_but_one_byte_chunks_fit_it() {
        let small = b"1\r\na\r\n".repeat(100_000);
        assert!(decode(&[&small], 1 << 20).is_ok());
        let mut long = b"1;".to_vec();
        long.resize(20 << 10, b'x');
        assert_eq!(decode(&[&long], 1 << 20), Err(Violation::ChunkOverhead));
        let trailers = [&b"0\r\n"[..], &b"a: b\r\n".repeat(4000)].concat();
        assert_eq!(decode(&[&trailers], 1 << 20), Err(Violation::ChunkOverhead));
    }

    #[test]
    fn a_length_takes_no_more_than_it_says() {
        let (mut decoder, mut body) = (Decoder::Length { left: 5 }, Vec::new());
        assert_eq!(decoder.decode(b"he", &mut body), Ok((2, false)));
        assert_eq!(decoder.decode(b"lloGET", &mut body), Ok((3, true)));
        assert_eq!(body, b"hello");
    }
}
