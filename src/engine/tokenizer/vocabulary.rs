//! The tokens: their spelling, their bytes, their kinds. Made once at load, read only after that.

use std::collections::HashMap;

use super::{error::TokenizerError, merge::Symbol, sentencepiece::SPACE};
use crate::engine::gguf::Metadata;

/// How a vocabulary spells the bytes its tokens stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// One printable character for each byte (GPT-2).
    ByteChars,
    /// As text, with `▁` for a space, and `<0x0A>` for single bytes.
    Text,
}

/// What a token is for, as `tokenizer.ggml.token_type` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// Steers the model and is no text: `<|im_end|>`.
    Control,
    /// Text that is always one token: `<think>`.
    UserDefined,
    /// One byte, spelled `<0x0A>`.
    Byte,
}

impl Kind {
    fn from_number(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

#[derive(Debug)]
pub(super) struct Vocabulary {
    spelling: Spelling,
    kinds: Vec<Kind>,
    /// The bytes of all tokens, end to end, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Tokens that plain text may become, by what they match in it.
    plain: HashMap<Box<[u8]>, u32>,
    /// The token of each single byte.
    byte_ids: [Option<u32>; 256],
    /// Bytes of the longest key of `plain`.
    token_bytes_max: usize,
    unknown: Option<u32>,
}

impl Vocabulary {
    /// Tokens in the order of their ids: how they are spelled, and what they are for. `unknown` is the id of the token
    /// for what can't be spelled.
    pub fn new<S: AsRef<[u8]>>(
        spelling: Spelling,
        tokens: impl ExactSizeIterator<Item = (S, Kind)>,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let count = tokens.len();
        if count == 0 || count >= Symbol::UNKNOWN as usize {
            return Err(TokenizerError::Invalid(format!("it has {count} tokens")));
        }
        let mut vocabulary = Self {
            spelling,
            kinds: Vec::with_capacity(count),
            bytes: Vec::new(),
            ends: Vec::with_capacity(count),
            plain: HashMap::with_capacity(count),
            byte_ids: [None; 256],
            token_bytes_max: 0,
            unknown: unknown.filter(|&id| (id as usize) < count),
        };
        for (id, (spelled, kind)) in (0..).zip(tokens) {
            vocabulary.add(id, spelled.as_ref(), kind);
        }
        Ok(vocabulary)
    }

    /// Reads `tokenizer.ggml.tokens` and `token_type`. Tokens in `control` are so whatever the file says.
    pub fn read(
        metadata: &Metadata,
        spelling: Spelling,
        is_control: impl Fn(u32, &[u8]) -> bool,
    ) -> Result<Self, TokenizerError> {
        let spellings = metadata.strings("tokenizer.ggml.tokens")?;
        let count = spellings.len();
        let numbers: Vec<i32> = metadata.find("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !numbers.is_empty() && numbers.len() != count {
            let why = format!("{count} tokens, but {} token types", numbers.len());
            return Err(TokenizerError::Invalid(why));
        }
        let unknown = metadata.find::<u32>("tokenizer.ggml.unknown_token_id")?;
        let tokens = spellings.enumerate().map(|(id, spelled)| {
            let kind = numbers.get(id).map_or(Kind::Normal, |&number| Kind::from_number(number));
            (spelled, if is_control(id as u32, spelled) { Kind::Control } else { kind })
        });
        Self::new(spelling, tokens, unknown)
    }

    fn add(&mut self, id: u32, spelled: &[u8], kind: Kind) {
        let start = self.bytes.len();
        match (self.spelling, kind) {
            (_, Kind::Control | Kind::Unknown | Kind::UserDefined) => self.bytes.extend_from_slice(spelled),
            (Spelling::ByteChars, _) => push_byte_chars(spelled, &mut self.bytes),
            (Spelling::Text, Kind::Byte) => match spelled_byte(spelled) {
                Some(byte) => {
                    self.byte_ids[byte as usize].get_or_insert(id);
                    self.bytes.push(byte);
                }
                None => self.bytes.extend_from_slice(spelled),
            },
            (Spelling::Text, _) => push_spaced(spelled, &mut self.bytes),
        }
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);

        if matches!(kind, Kind::Normal | Kind::UserDefined) && !spelled.is_empty() {
            let key = match self.spelling {
                Spelling::ByteChars => &self.bytes[start..],
                Spelling::Text => spelled,
            };
            if let (Spelling::ByteChars, [byte]) = (self.spelling, key) {
                self.byte_ids[*byte as usize].get_or_insert(id);
            }
            self.token_bytes_max = self.token_bytes_max.max(key.len());
            self.plain.entry(key.into()).or_insert(id);
        }
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The bytes that token `id` stands for; empty for an id that does not exist.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let Some(&end) = self.ends.get(id as usize) else { return &[] };
        let start = (id as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }

    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// The plain token that is exactly this text.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        if text.len() > self.token_bytes_max {
            return None;
        }
        self.plain.get(text).copied()
    }

    /// The plain token that the file spells so; `scratch` is used on the way.
    pub fn find_spelled(&self, spelled: &[u8], scratch: &mut Vec<u8>) -> Option<u32> {
        match self.spelling {
            Spelling::ByteChars => {
                scratch.clear();
                push_byte_chars(spelled, scratch);
                self.find(scratch)
            }
            Spelling::Text => self.find(spelled),
        }
    }

    /// The token of a single byte.
    pub fn byte(&self, byte: u8) -> Option<u32> {
        self.byte_ids[byte as usize]
    }

    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    pub fn token_bytes_max(&self) -> usize {
        self.token_bytes_max
    }

    /// Appends a symbol's token; where there is none, its bytes' tokens; where those are missing, the unknown token.
    pub fn push_symbol(&self, piece: &[u8], symbol: &Symbol, ids: &mut Vec<u32>) {
        if symbol.id != Symbol::UNKNOWN {
            ids.push(symbol.id);
            return;
        }
        let before = ids.len();
        for &byte in &piece[symbol.start as usize..symbol.end as usize] {
            match self.byte(byte) {
                Some(id) => ids.push(id),
                None => {
                    ids.truncate(before);
                    ids.extend(self.unknown);
                    return;
                }
            }
        }
    }
}

/// The byte that a character of GPT-2's spelling stands for. Printable Latin-1 stands for itself, and the other bytes,
/// in order, are written with the characters from U+0100 on.
fn byte_of_char(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the bytes that a GPT-2 spelling stands for; characters outside of its table stand for themselves.
fn push_byte_chars(spelled: &[u8], bytes: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(spelled) else {
        bytes.extend_from_slice(spelled);
        return;
    };
    for c in text.chars() {
        match byte_of_char(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends `spelled` with spaces for `▁`.
fn push_spaced(spelled: &[u8], bytes: &mut Vec<u8>) {
    let mut rest = spelled;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE.as_bytes()) {
            bytes.push(b' ');
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
}

/// The byte that `<0x0A>` stands for.
pub(super) fn spelled_byte(spelled: &[u8]) -> Option<u8> {
    let digits = spelled.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 2 && !digits.starts_with('+'))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of_char).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!((byte_of_char('Ġ'), byte_of_char('Ċ')), (Some(b' '), Some(b'\n')));
    }

    #[test]
    fn byte_tokens_are_two_hex_digits() {
        for (spelled, byte) in [("<0x0A>", Some(10)), ("<0xff>", Some(255)), ("<0x+1>", None), ("<0x1>", None)] {
            assert_eq!(spelled_byte(spelled.as_bytes()), byte, "{spelled}");
        }
    }
}
