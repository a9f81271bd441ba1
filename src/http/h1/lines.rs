//! The header lines of a head: the grammar of RFC 9112 §5, and where the lines are.
//!
//! Knows no field by name. A line is kept as four numbers, so that a table of lines borrows nothing and needs no clearing
//! between requests. Strict: a line ends with CR LF and nothing else, and is never folded (§5.2).

use super::bytes::{blank_run, text_run, token_run, trim_blank};
use super::head::Stop;
use super::violation::Violation;

/// The most header lines of one head.
pub(crate) const HEADERS_MAX: usize = 100;

/// Room for the header lines of one head.
#[derive(Debug)]
pub(crate) struct Slots([Line; HEADERS_MAX]);

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    name: Span,
    value: Span,
}

/// A part of a head. Heads are shorter than 4 GiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    from: u32,
    to: u32,
}

impl Span {
    pub fn new(from: usize, len: usize) -> Span {
        Span { from: from as u32, to: (from + len) as u32 }
    }

    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.from as usize..self.to as usize).unwrap_or_default()
    }
}

impl Default for Slots {
    fn default() -> Slots {
        Slots([Line::default(); HEADERS_MAX])
    }
}

impl Slots {
    /// Reads the lines of `bytes` from `start` to the empty one, and shows each to `note` with its number. Gives how many
    /// there are, and where the head ends.
    #[inline]
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        start: usize,
        headers_max: usize,
        mut note: impl FnMut(usize, &[u8], &[u8]) -> Result<(), Violation>,
    ) -> Result<(usize, usize), Stop> {
        let (mut count, mut at) = (0, start);
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match rest {
                [b'\r', b'\n', ..] => return Ok((count, at + 2)),
                [] => return Err(Stop::Partial),
                [b'\r' | b'\n', ..] => return Err(line_end(rest)),
                _ => {}
            }
            let Some(slot) = self.0.get_mut(count).filter(|_| count < headers_max) else {
                return Err(Violation::TooManyHeaders.into());
            };

            let name_len = token_run(rest);
            let (name, rest) = rest.split_at(name_len);
            let rest = match rest {
                [b':', rest @ ..] if name_len > 0 => rest,
                [] => return Err(Stop::Partial),
                // White space before the colon (§5.1), before the name (a folded line), or no colon at all.
                _ => return Err(Violation::BadHeader.into()),
            };
            let blank = blank_run(rest);
            let (_, rest) = rest.split_at(blank);
            let (text, rest) = rest.split_at(text_run(rest));
            let [b'\r', b'\n', ..] = rest else { return Err(line_end(rest)) };
            let (value, value_at) = (trim_blank(text), at + name_len + 1 + blank);
            *slot = Line { name: Span::new(at, name_len), value: Span::new(value_at, value.len()) };
            note(count, name, value)?;
            (count, at) = (count + 1, value_at + text.len() + 2);
        }
    }

    /// Lets line `number` have another value, which is somewhere in the same head.
    pub(super) fn set_value(&mut self, number: usize, value: Span) {
        if let Some(line) = self.0.get_mut(number) {
            line.value = value;
        }
    }

    /// The first `count` lines, which were read from `bytes`.
    pub(super) fn lines<'b>(&'b self, bytes: &'b [u8], count: usize) -> Lines<'b> {
        Lines { bytes, lines: self.0.get(..count).unwrap_or(&self.0) }
    }
}

/// What to make of bytes that should be CR LF and are not, or not yet.
pub(super) fn line_end(rest: &[u8]) -> Stop {
    match rest {
        [] | [b'\r'] => Stop::Partial,
        [b'\r' | b'\n', ..] => Violation::BadLineEnd.into(),
        _ => Violation::BadHeader.into(),
    }
}

/// The header lines of a valid head, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines<'b> {
    bytes: &'b [u8],
    lines: &'b [Line],
}

impl<'b> Lines<'b> {
    /// No lines.
    pub const NONE: Lines<'static> = Lines { bytes: &[], lines: &[] };

    pub fn iter(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'b> {
        let bytes = self.bytes;
        // Names are tokens, so they are ASCII.
        self.lines.iter().map(|line| (str::from_utf8(line.name.of(bytes)).unwrap_or_default(), line.value.of(bytes)))
    }

    /// The value of the first line called `name`, in letters of any case.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        let named = |line: &&Line| line.name.of(self.bytes).eq_ignore_ascii_case(name.as_bytes());
        self.lines.iter().find(named).map(|line| line.value.of(self.bytes))
    }
}
