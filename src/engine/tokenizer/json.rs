//! Reads `tokenizer.json`, Hugging Face's description of a tokenizer (<https://huggingface.co/docs/tokenizers>).
//!
//! Byte-pair encoding, over bytes or over characters with bytes to fall back on, as decoders have it; WordPiece and
//! unigram models, as encoders have them (`encoders`). Every step of the description, a normaliser, a splitting rule, a flag, is either done or refused by its
//! name.

mod around;
mod encoders;

use std::collections::HashMap;

use around::Around;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Encoder, Prefix, Tokenizer,
    bpe::{Bpe, merge_of_line},
    end_tokens,
    error::TokenizerError,
    middle::FillInMiddle,
    special::{SpecialTokens, Strip},
    split::{Cut, Splitter, Unit},
    vocabulary::{Kind, Spelling, Vocabulary, spelled_byte},
};

/// Larger ids make no sense: vocabularies have a quarter of a million tokens.
const ID_MAX: u32 = 1 << 22;

/// What the files beside `tokenizer.json` say of its tokens.
#[derive(Debug, Default)]
pub(in crate::engine) struct NamedTokens<'a> {
    pub bos: Option<&'a str>,
    pub eos: Option<&'a str>,
    /// Whether texts begin with BOS or end with EOS; what `tokenizer.json` says if `None`.
    pub adds_bos: Option<bool>,
    pub adds_eos: Option<bool>,
    /// Tokens that end a generation, beside EOS.
    pub ends: Vec<u32>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    /// Characters of a word that WordPiece spells, at most.
    max_input_chars_per_word: Option<usize>,
    /// Of the unigram model.
    unk_id: Option<u32>,
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// A merge, in the old way and in the new one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

impl Merge {
    fn parts(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Line(line) => merge_of_line(line.as_bytes()),
            Self::Pair(left, right) => (left.as_bytes(), right.as_bytes()),
        }
    }
}

/// How text is prepared before it is merged.
struct Preparation {
    nfc: bool,
    prefix: Prefix,
    /// Whether spaces become `▁`, so that characters are merged and not bytes.
    spaced: bool,
    byte_level: bool,
    cuts: Vec<Cut>,
}

impl Tokenizer {
    /// Builds the tokenizer that a `tokenizer.json` describes; `named` is from the files beside it.
    pub(in crate::engine) fn from_json(json: &[u8], named: &NamedTokens) -> Result<Self, TokenizerError> {
        let file: File = serde_json::from_slice(json).map_err(|e| TokenizerError::Json(e.to_string()))?;
        file.model.check()?;
        let tokens = file.tokens()?;
        let Spelled { vocabulary, kind, leading_space } = match file.model.kind() {
            "BPE" => file.bpe(&tokens)?,
            "WordPiece" => file.word_piece(&tokens)?,
            "Unigram" => file.unigram(&tokens, json)?,
            other => return Err(unsupported(format!("model {other}"))),
        };

        let token = |name: Option<&str>| match name {
            Some(name) => find(&tokens, name)
                .map(Some)
                .ok_or_else(|| TokenizerError::Invalid(format!("special token {name:?} does not exist"))),
            None => Ok(None),
        };
        let (bos, eos) = (token(named.bos)?, token(named.eos)?);
        let around = Around::read(file.post_processor.as_ref())?;
        let (before, after) = (token(around.before)?, token(around.after)?);
        let between: Result<Vec<_>, _> = around.between.into_iter().map(|name| token(Some(name))).collect();
        let added = |wanted: Option<bool>, named: Option<u32>, template: Option<u32>| match wanted {
            Some(true) => named,
            Some(false) => None,
            None => template,
        };
        let strip = |added: &Added| (added.id, Strip { left: added.lstrip, right: added.rstrip });
        let strips: HashMap<u32, Strip> =
            file.added_tokens.iter().filter(|a| a.lstrip || a.rstrip).map(strip).collect();
        let known = |id: &u32| (*id as usize) < tokens.len();
        let special = SpecialTokens::new(&vocabulary, &strips)?;
        Ok(Self {
            fill_in_middle: FillInMiddle::find(&vocabulary, &special, [None; 3]),
            special,
            end_tokens: end_tokens(&vocabulary, named.ends.iter().copied().filter(known).chain(eos)),
            vocabulary,
            leading_space,
            kind,
            bos,
            eos,
            before: added(named.adds_bos, bos, before),
            after: added(named.adds_eos, eos, after),
            between: between?.into_iter().flatten().collect(),
        })
    }
}

/// How text is spelled in tokens.
struct Spelled {
    vocabulary: Vocabulary,
    kind: Encoder,
    leading_space: bool,
}

fn unsupported(what: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported(what.into())
}

fn find(tokens: &[(String, Kind)], name: &str) -> Option<u32> {
    tokens.iter().position(|(text, _)| text == name).map(|id| id as u32)
}

impl Model {
    /// The vocabulary: an object, or for unigram models a list of tokens and scores.
    fn entries(&self) -> Result<Vec<(&str, u32)>, TokenizerError> {
        let invalid = |why: String| TokenizerError::Invalid(why);
        let id_of = |text, id: &Value| {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| invalid(format!("token {text:?} has no id")))
        };
        match &self.vocab {
            Value::Object(vocab) => vocab.iter().map(|(text, id)| Ok((&**text, id_of(text, id)?))).collect(),
            Value::Array(vocab) => (0..)
                .zip(vocab)
                .map(|(id, entry)| match entry.get(0).and_then(Value::as_str) {
                    Some(text) => Ok((text, id)),
                    None => Err(invalid(format!("token {id} has no text"))),
                })
                .collect(),
            _ => Err(invalid("vocab is neither an object nor a list".into())),
        }
    }

    /// Files from before the field existed are told by their merges.
    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or(if self.merges.is_empty() { "without a type" } else { "BPE" })
    }

    fn check(&self) -> Result<(), TokenizerError> {
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err(unsupported("dropout"));
        }
        for (name, affix) in [
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ] {
            let known = self.kind() == "WordPiece" && affix.as_deref() == Some(encoders::CONTINUED);
            if affix.as_ref().is_some_and(|affix| !affix.is_empty()) && !known {
                return Err(unsupported(format!("{name} = {affix:?}")));
            }
        }
        Ok(())
    }
}

impl File {
    /// Byte-pair encoding, of bytes or of characters.
    fn bpe(&self, tokens: &[(String, Kind)]) -> Result<Spelled, TokenizerError> {
        let preparation = Preparation::read(self)?;
        let (spelling, unit) = match (preparation.byte_level, preparation.spaced) {
            (true, false) => (Spelling::ByteChars, Unit::Bytes),
            (false, true) if self.model.byte_fallback => (Spelling::Text, Unit::Chars),
            (false, true) => return Err(unsupported("a vocabulary of characters without byte_fallback")),
            (false, false) => return Err(unsupported("a vocabulary that is neither ByteLevel nor has ▁ for spaces")),
            (true, true) => return Err(unsupported("ByteLevel with ▁ for spaces")),
        };
        let unknown = self.unknown(tokens);
        let vocabulary = Vocabulary::new(spelling, tokens.iter().map(|(text, kind)| (text, *kind)), unknown)?;
        let merges = self.model.merges.iter().map(Merge::parts);
        let bpe = Bpe::new(&vocabulary, merges, unit, self.model.ignore_merges);
        let Preparation { nfc, prefix, cuts, .. } = preparation;
        let kind = Encoder::Bpe { bpe, splitter: Splitter::new(&cuts)?, unit, prefix, nfc };
        Ok(Spelled { vocabulary, kind, leading_space: prefix != Prefix::Never })
    }

    /// The token of what can't be spelled.
    fn unknown(&self, tokens: &[(String, Kind)]) -> Option<u32> {
        self.model.unk_id.or_else(|| find(tokens, self.model.unk_token.as_ref()?))
    }

    /// The tokens by their ids; ids that nothing has are empty.
    fn tokens(&self) -> Result<Vec<(String, Kind)>, TokenizerError> {
        let invalid = |why: String| TokenizerError::Invalid(why);
        let mut tokens = Vec::new();
        let mut put = |id: u32, text: &str, kind: Kind| {
            if id >= ID_MAX {
                return Err(invalid(format!("token {text:?} has the id {id}")));
            }
            let index = id as usize;
            if tokens.len() <= index {
                tokens.resize(index + 1, (String::new(), Kind::Unknown));
            }
            tokens[index] = (text.to_owned(), kind);
            Ok(())
        };
        for (text, id) in self.model.entries()? {
            let byte = self.model.byte_fallback && spelled_byte(text.as_bytes()).is_some();
            let unknown = self.model.unk_token.as_deref() == Some(text) || self.model.unk_id == Some(id);
            let kind = if byte {
                Kind::Byte
            } else if unknown {
                Kind::Unknown
            } else {
                Kind::Normal
            };
            put(id, text, kind)?;
        }
        for added in &self.added_tokens {
            if added.single_word {
                return Err(unsupported(format!("single_word, of token {:?},", added.content)));
            }
            put(added.id, &added.content, if added.special { Kind::Control } else { Kind::UserDefined })?;
        }
        Ok(tokens)
    }
}

/// The type that a step of the description names.
fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("without a type")
}

/// A step, or the steps of a sequence, in order.
fn steps<'a>(step: Option<&'a Value>, list: &str) -> Result<Vec<&'a Value>, TokenizerError> {
    let Some(step) = step.filter(|step| !step.is_null()) else { return Ok(Vec::new()) };
    if kind(step) != "Sequence" {
        return Ok(vec![step]);
    }
    let parts = step.get(list).and_then(Value::as_array);
    let parts = parts.ok_or_else(|| TokenizerError::Invalid(format!("a Sequence without {list}")))?;
    let nested: Result<Vec<_>, _> = parts.iter().map(|part| steps(Some(part), list)).collect();
    Ok(nested?.concat())
}

fn flag(step: &Value, name: &str, default: bool) -> bool {
    step.get(name).and_then(Value::as_bool).unwrap_or(default)
}

fn text<'a>(step: &'a Value, name: &str) -> &'a str {
    step.get(name).and_then(Value::as_str).unwrap_or_default()
}

impl Preparation {
    fn read(file: &File) -> Result<Self, TokenizerError> {
        let mut this = Self { nfc: false, prefix: Prefix::Never, spaced: false, byte_level: false, cuts: Vec::new() };
        for step in steps(file.normalizer.as_ref(), "normalizers")? {
            this.normalizer(step)?;
        }
        for step in steps(file.pre_tokenizer.as_ref(), "pretokenizers")? {
            this.pre_tokenizer(step)?;
        }
        Ok(this)
    }

    fn normalizer(&mut self, step: &Value) -> Result<(), TokenizerError> {
        let pattern = step.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
        match kind(step) {
            "NFC" => self.nfc = true,
            "Prepend" if text(step, "prepend") == "\u{2581}" => self.prefix = Prefix::Always,
            "Replace" if pattern == Some(" ") && text(step, "content") == "\u{2581}" => self.spaced = true,
            other => return Err(unsupported(format!("normalizer {other} ({step})"))),
        }
        Ok(())
    }

    fn pre_tokenizer(&mut self, step: &Value) -> Result<(), TokenizerError> {
        let refused = || Err(unsupported(format!("pre_tokenizer {} ({step})", kind(step))));
        match kind(step) {
            "ByteLevel" => {
                if flag(step, "add_prefix_space", true) {
                    return refused();
                }
                self.byte_level = true;
                if flag(step, "use_regex", true) {
                    self.cuts.push(Cut::byte_level());
                }
            }
            "Digits" => self.cuts.push(Cut::digits(flag(step, "individual_digits", false))),
            "Punctuation" if text(step, "behavior") == "Contiguous" => self.cuts.push(Cut::punctuation()),
            "Split" => {
                let pattern = step.get("pattern");
                let named = |name: &str| pattern.and_then(|pattern| pattern.get(name)).and_then(Value::as_str);
                match (named("Regex"), named("String"), text(step, "behavior"), flag(step, "invert", false)) {
                    (Some(regex), _, "Isolated", false) => match Cut::of_pattern(regex) {
                        Some(cut) => self.cuts.push(cut),
                        None => return Err(unsupported(format!("the split pattern {regex:?}"))),
                    },
                    // The normaliser left no spaces to split at (Gemma).
                    (_, Some(" "), "MergedWithPrevious", false) if self.spaced => {}
                    _ => return refused(),
                }
            }
            "Metaspace" if text(step, "replacement") == "\u{2581}" => {
                self.spaced = true;
                let old = if flag(step, "add_prefix_space", true) { "always" } else { "never" };
                self.prefix = match step.get("prepend_scheme").and_then(Value::as_str).unwrap_or(old) {
                    "always" => Prefix::UnlessSpaced,
                    "first" => Prefix::UnlessSpacedAtStart,
                    "never" => Prefix::Never,
                    _ => return refused(),
                };
                if flag(step, "split", true) {
                    self.cuts.push(Cut::spaced_words());
                }
            }
            _ => return refused(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
