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
    /// Reads `tokenizer.ggml.tokens` and `token_type`. Tokens in `control` are so whatever the file says.
    pub fn read(
        metadata: &Metadata,
        spelling: Spelling,
        is_control: impl Fn(u32, &[u8]) -> bool,
    ) -> Result<Self, TokenizerError> {
        let spellings = metadata.strings("tokenizer.ggml.tokens")?;
        let count = spellings.len();
        if count == 0 || count >= Symbol::UNKNOWN as usize {
            return Err(TokenizerError::Invalid(format!("it has {count} tokens")));
        }
        let numbers: Vec<i32> = metadata.find("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !numbers.is_empty() && numbers.len() != count {
            let why = format!("{count} tokens, but {} token types", numbers.len());
            return Err(TokenizerError::Invalid(why));
        }
        let unknown = metadata.find::<u32>("tokenizer.ggml.unknown_token_id")?.filter(|&id| (id as usize) < count);

        let byte_of = byte_chars();
        let mut vocabulary = Self {
            kinds: Vec::with_capacity(count),
            bytes: Vec::new(),
            ends: Vec::with_capacity(count),
            plain: HashMap::with_capacity(count),
            byte_ids: [None; 256],
            token_bytes_max: 0,
            unknown,
        };
        for (id, spelled) in spellings.enumerate() {
            let id = id as u32;
            let mut kind = numbers.get(id as usize).map_or(Kind::Normal, |&number| Kind::from_number(number));
            if is_control(id, spelled) {
                kind = Kind::Control;
            }
            vocabulary.add(id, spelled, kind, spelling, &byte_of);
        }
        Ok(vocabulary)
    }

    fn add(&mut self, id: u32, spelled: &[u8], kind: Kind, spelling: Spelling, byte_of: &HashMap<char, u8>) {
        let start = self.bytes.len();
        match (spelling, kind) {
            (_, Kind::Control | Kind::Unknown | Kind::UserDefined) => self.bytes.extend_from_slice(spelled),
            (Spelling::ByteChars, _) => push_byte_chars(spelled, byte_of, &mut self.bytes),
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
            let key = match spelling {
                Spelling::ByteChars => &self.bytes[start..],
                Spelling::Text => spelled,
            };
            if let (Spelling::ByteChars, [byte]) = (spelling, key) {
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

    /// Whether plain text may become token `id`.
    pub fn is_plain(&self, id: u32) -> bool {
        matches!(self.kind(id), Some(Kind::Normal | Kind::UserDefined))
    }

    /// The plain token that is exactly this text.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        if text.len() > self.token_bytes_max {
            return None;
        }
        self.plain.get(text).copied()
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

/// GPT-2's table: which byte each of its 256 characters stands for. Printable Latin-1 stands for itself, and the rest,
/// in order, is written with the characters from U+0100 on.
fn byte_chars() -> HashMap<char, u8> {
    let mut moved = 0x100..;
    (0..=u8::MAX)
        .filter_map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => Some((byte as char, byte)),
            _ => Some((char::from_u32(moved.next()?)?, byte)),
        })
        .collect()
}

/// Appends the bytes that a GPT-2 spelling stands for; characters outside of its table stand for themselves.
fn push_byte_chars(spelled: &[u8], byte_of: &HashMap<char, u8>, bytes: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(spelled) else {
        bytes.extend_from_slice(spelled);
        return;
    };
    for c in text.chars() {
        match byte_of.get(&c) {
            Some(&byte) => bytes.push(byte),
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
fn spelled_byte(spelled: &[u8]) -> Option<u8> {
    let digits = spelled.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}
