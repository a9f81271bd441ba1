//! Text to tokens and back, built from a GGUF file's own tables or from a `tokenizer.json` (`json`).
//!
//! Knows vocabularies and text, no model and no chat. Four kinds: byte-pair encoding (`bpe`, on pieces cut by the rules
//! that the file names, `split`), SentencePiece's own (`sentencepiece`) and its unigram model (`unigram`), and WordPiece
//! (`wordpiece`).
//!
//! Invariants: encoding takes O(n log n) for n bytes of any text and never fails; plain text never becomes a control
//! token; decoding joins the bytes that [`Tokenizer::token_bytes`] gives for each token.

mod bpe;
mod ends;
mod error;
mod json;
mod merge;
mod middle;
mod sentencepiece;
mod special;
mod split;
mod unigram;
mod vocabulary;
mod wordpiece;

use std::{borrow::Cow, collections::HashMap};

use bpe::{Bpe, merge_of_line};
use ends::{Ends, end_tokens, is_usual_end};
pub use error::TokenizerError;
pub(in crate::engine) use json::NamedTokens;
use merge::Merger;
pub use middle::FillInMiddle;
use sentencepiece::{SPACE, SentencePiece};
use special::{Part, SpecialTokens};
use split::{Rules, Splitter, Unit};
use tokenizers::{
    NormalizedString, Normalizer,
    normalizers::{BertNormalizer, unicode::NFC},
};
use unigram::Unigram;
use vocabulary::{Kind, Spelling, Vocabulary};
use wordpiece::WordPiece;

use super::gguf::Metadata;

/// What is merged at once is at most so long, which bounds memory. No real piece is longer; SentencePiece, which has no
/// pieces, is cut once in so many bytes.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// Whether the model's own tokens around a text are added: BOS before it, EOS or SEP after it, as the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    None,
    Add,
}

/// What the spelling of a control token (`<|im_end|>`) in a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// Just these characters: right for what users write, who could otherwise end their turn and speak as the system.
    Literal,
    /// The control token: right for what a chat template rendered.
    Parse,
}

/// A model's tokenizer. `Send + Sync`: shared by `Arc`.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    kind: Encoder,
    special: SpecialTokens,
    bos: Option<u32>,
    eos: Option<u32>,
    /// What [`Special::Add`] puts before and after a text.
    before: Option<u32>,
    after: Option<u32>,
    /// What stands between two texts that are read together.
    between: Vec<u32>,
    end_tokens: Vec<u32>,
    leading_space: bool,
    fill_in_middle: Option<FillInMiddle>,
}

#[derive(Debug)]
enum Encoder {
    Bpe { bpe: Bpe, splitter: Splitter, unit: Unit, prefix: Prefix, nfc: bool },
    SentencePiece { model: SentencePiece, space_prefix: bool },
    WordPiece(WordPiece),
    Unigram(Unigram),
}

/// The model's own tokens around one text, or around and between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub before: Option<u32>,
    pub between: &'a [u32],
    pub after: Option<u32>,
}

/// Where a text that is merged in characters gets a space in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Never,
    /// Before every part between special tokens.
    Always,
    /// The same, but not where it begins with a space.
    UnlessSpaced,
    /// The same, but only at the very beginning.
    UnlessSpacedAtStart,
}

impl Prefix {
    /// Whether it stands before this part, which begins the whole text if `at_start`.
    fn applies(self, part: &str, at_start: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::UnlessSpaced => !part.starts_with([' ', '\u{2581}']),
            Self::UnlessSpacedAtStart => at_start && !part.starts_with([' ', '\u{2581}']),
        }
    }
}

impl Tokenizer {
    /// Builds the tokenizer that `tokenizer.ggml.*` describes.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let model = metadata.str("tokenizer.ggml.model")?;
        let rules = match model {
            "gpt2" => {
                let name: Option<&str> = metadata.find("tokenizer.ggml.pre")?;
                Some(Rules::named(name.ok_or(TokenizerError::MissingSplit)?)?)
            }
            "gemma4" => Some(Rules::named("gemma4")?),
            "llama" | "bert" => None,
            other => return Err(TokenizerError::UnknownModel(other.into())),
        };
        let spelling = match &rules {
            Some(rules) if rules.unit == Unit::Bytes => Spelling::ByteChars,
            _ => Spelling::Text,
        };

        let ends = Ends::read(metadata)?;
        let vocabulary =
            Vocabulary::read(metadata, spelling, |id, name| ends.named.contains(&id) || is_usual_end(name))?;
        let known = |id: Option<u32>| id.filter(|&id| (id as usize) < vocabulary.len());
        let bos = known(ends.bos);
        let eos = known(ends.eos);
        let separator = known(metadata.find("tokenizer.ggml.seperator_token_id")?); // the format's own spelling

        let (kind, add_bos, add_eos) = match (&rules, model) {
            (Some(rules), _) => (Encoder::bpe(metadata, &vocabulary, rules)?, rules.add_bos, false),
            (None, "llama") => (Encoder::sentencepiece(metadata, &vocabulary)?, true, false),
            _ => (Encoder::wordpiece(metadata)?, true, true),
        };
        let add_bos = metadata.find("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos);
        let add_eos = metadata.find("tokenizer.ggml.add_eos_token")?.unwrap_or(add_eos);
        let last = if matches!(kind, Encoder::WordPiece(_)) { separator.or(eos) } else { eos };

        let end_tokens = end_tokens(&vocabulary, ends.ending.iter().copied().filter_map(|id| known(Some(id))));
        let special = SpecialTokens::new(&vocabulary, &HashMap::new())?;
        Ok(Self {
            fill_in_middle: FillInMiddle::find(&vocabulary, &special, FillInMiddle::named(metadata)?),
            special,
            leading_space: match &kind {
                Encoder::Bpe { .. } => false,
                Encoder::SentencePiece { space_prefix, .. } => *space_prefix,
                Encoder::WordPiece(_) | Encoder::Unigram(_) => true,
            },
            between: last.into_iter().collect(),
            vocabulary,
            kind,
            bos,
            eos,
            before: bos.filter(|_| add_bos),
            after: last.filter(|_| add_eos),
            end_tokens,
        })
    }

    /// The tokens of `text`.
    pub fn encode(&self, text: &str, special: Special, markup: Markup) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        let mut merger = Merger::default();
        if special == Special::Add {
            ids.extend(self.before);
        }
        let mut place = Place::Start;
        for part in self.special.parts(text, markup) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => self.encode_part(text, place, &mut merger, &mut ids),
            }
            place = if matches!(part, Part::Token(_)) { Place::AfterSpecial } else { Place::Within };
        }
        if special == Special::Add {
            ids.extend(self.after);
        }
        ids
    }

    /// The tokens of a text that goes on another: plain text all of it, without anything before or after.
    pub fn encode_within(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        self.encode_part(text, Place::Within, &mut Merger::default(), &mut ids);
        ids
    }

    /// Appends the tokens of a text without special tokens.
    fn encode_part(&self, text: &str, place: Place, merger: &mut Merger, ids: &mut Vec<u32>) {
        match &self.kind {
            Encoder::Bpe { bpe, splitter, unit, prefix, nfc } => {
                let text = if *nfc { composed(text) } else { text.into() };
                let text = match unit {
                    Unit::Bytes => text,
                    Unit::Chars => {
                        let front = if prefix.applies(&text, place == Place::Start) { SPACE } else { "" };
                        Cow::Owned(front.to_owned() + &text.replace(' ', SPACE))
                    }
                };
                for piece in splitter.split(&text).flat_map(bounded) {
                    bpe.encode(piece.as_bytes(), &self.vocabulary, merger, ids);
                }
            }
            Encoder::SentencePiece { model, space_prefix } => {
                let mut spaced = String::with_capacity(text.len() * 5 / 4);
                if *space_prefix && place != Place::Within {
                    spaced.push_str(SPACE);
                }
                text.split_inclusive(' ').for_each(|word| match word.strip_suffix(' ') {
                    Some(word) => spaced.extend([word, SPACE]),
                    None => spaced.push_str(word),
                });
                for piece in bounded(&spaced) {
                    model.encode(piece.as_bytes(), &self.vocabulary, merger, ids);
                }
            }
            Encoder::WordPiece(model) => model.encode(text, &self.vocabulary, ids),
            Encoder::Unigram(model) => model.encode(text, ids),
        }
    }

    /// The bytes that token `id` stands for; a character may be spread over several tokens. Empty for unknown ids.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// Whether `id` steers the model rather than being text: such tokens are left out when decoding.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocabulary.kind(id), Some(Kind::Control | Kind::Unknown))
    }

    /// The text of `ids`, without special tokens. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let tokens = ids.iter().filter(|&&id| !self.is_special(id));
        let bytes: Vec<u8> = tokens.flat_map(|&id| self.token_bytes(id)).copied().collect();
        let text = match bytes.split_first() {
            Some((b' ', rest)) if self.leading_space => rest,
            _ => &bytes,
        };
        String::from_utf8_lossy(text).into_owned()
    }

    /// Tokens that end a generation, ascending.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Number of tokens; the model's output may be padded to more.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary.len()
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether [`Special::Add`] puts BOS before a text.
    pub fn adds_bos(&self) -> bool {
        self.before.is_some()
    }

    /// The tokens that a pair of texts, or one text, is put between.
    pub fn frame(&self) -> Frame<'_> {
        Frame { before: self.before, between: &self.between, after: self.after }
    }

    /// Whether a text's first token carries a space that is not the text's (SentencePiece, WordPiece).
    pub fn adds_leading_space(&self) -> bool {
        self.leading_space
    }

    /// The token that is exactly `text`: a special token such as `<|im_end|>`, else one of plain text.
    pub fn token_to_id(&self, text: &str) -> Option<u32> {
        self.special.find(text).or_else(|| self.vocabulary.find(text.as_bytes()))
    }

    /// How chat templates and people write token `id`; bytes that are not UTF-8 become U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }
}

impl Encoder {
    fn bpe(metadata: &Metadata, vocabulary: &Vocabulary, rules: &Rules) -> Result<Self, TokenizerError> {
        let merges = metadata.strings("tokenizer.ggml.merges")?.map(merge_of_line);
        let bpe = Bpe::new(vocabulary, merges, rules.unit, rules.whole_pieces);
        Ok(Self::Bpe { bpe, splitter: Splitter::new(rules.cuts)?, unit: rules.unit, prefix: Prefix::Never, nfc: false })
    }

    fn sentencepiece(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let scores = metadata.f32s("tokenizer.ggml.scores")?;
        if scores.len() != vocabulary.len() {
            let why = format!("{} tokens, but {} scores", vocabulary.len(), scores.len());
            return Err(TokenizerError::Invalid(why));
        }
        let space_prefix = metadata.find("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(Self::SentencePiece { model: SentencePiece::new(&scores), space_prefix })
    }

    fn wordpiece(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let lowercase = metadata.find("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = metadata.find("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
        // As llama.cpp does, which knows no bound on words.
        let normalizer = BertNormalizer::new(true, true, Some(strip_accents), lowercase);
        Ok(Self::WordPiece(WordPiece::new(normalizer, usize::MAX)?))
    }
}

/// Where a part between special tokens stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It begins the whole text.
    Start,
    AfterSpecial,
    /// It follows another part.
    Within,
}

/// `text` in Unicode's normalisation form C, as the tokenizers of Qwen want it.
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return text.into();
    }
    let mut normalized = NormalizedString::from(text);
    // It has no way to fail; if it ever does, the text as it came is the best there is.
    match NFC.normalize(&mut normalized) {
        Ok(()) => normalized.get().to_owned().into(),
        Err(_) => text.into(),
    }
}

/// `piece` in parts of at most [`PIECE_BYTES_MAX`] bytes, cut between characters.
fn bounded(piece: &str) -> impl Iterator<Item = &str> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let mut end = rest.len().min(PIECE_BYTES_MAX);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, after) = rest.split_at(end);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}
