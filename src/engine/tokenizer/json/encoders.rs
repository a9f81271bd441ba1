//! WordPiece and unigram models, the tokenizers of encoders.

use serde_json::Value;
use tokenizers::normalizers::BertNormalizer;

use super::{
    super::{sentencepiece::SPACE, unigram::Unigram, wordpiece::WordPiece},
    Encoder, File, Kind, Spelled, Spelling, TokenizerError, Vocabulary, flag, kind, unsupported,
};

/// What WordPiece writes before tokens that go on with a word.
pub(super) const CONTINUED: &str = "##";
/// What the crate assumes where the file says nothing.
const WORD_CHARS_MAX: usize = 100;

impl File {
    pub(super) fn word_piece(&self, tokens: &[(String, Kind)]) -> Result<Spelled, TokenizerError> {
        let normalizer = match self.normalizer.as_ref().filter(|step| !step.is_null()) {
            Some(step) if kind(step) == "BertNormalizer" => BertNormalizer::new(
                flag(step, "clean_text", true),
                flag(step, "handle_chinese_chars", true),
                step.get("strip_accents").and_then(Value::as_bool),
                flag(step, "lowercase", true),
            ),
            other => return Err(unsupported(format!("WordPiece with the normalizer {other:?}"))),
        };
        match self.pre_tokenizer.as_ref().map(kind) {
            Some("BertPreTokenizer") => {}
            other => return Err(unsupported(format!("WordPiece with the pre_tokenizer {other:?}"))),
        }
        let spelled = tokens.iter().map(|(text, kind)| match (kind, text.strip_prefix(CONTINUED)) {
            (Kind::Normal, Some(rest)) => (rest.to_owned(), *kind),
            (Kind::Normal, None) if !text.is_empty() => (format!("{SPACE}{text}"), *kind),
            _ => (text.clone(), *kind),
        });
        let vocabulary = Vocabulary::new(Spelling::Text, spelled, self.unknown(tokens))?;
        let word_chars_max = self.model.max_input_chars_per_word.unwrap_or(WORD_CHARS_MAX);
        let kind = Encoder::WordPiece(WordPiece::new(normalizer, word_chars_max)?);
        Ok(Spelled { vocabulary, kind, leading_space: true })
    }

    /// `json` is the file, which the crate reads for itself.
    pub(super) fn unigram(&self, tokens: &[(String, Kind)], json: &[u8]) -> Result<Spelled, TokenizerError> {
        let unknown = self.unknown(tokens);
        if unknown.is_none() && !self.model.byte_fallback {
            return Err(unsupported("a unigram model without an unknown token"));
        }
        let file: Value = serde_json::from_slice(json).map_err(|e| TokenizerError::Json(e.to_string()))?;
        let special = |id: u32| {
            let kind = tokens.get(id as usize).map(|token| token.1);
            matches!(kind, Some(Kind::Control | Kind::Unknown))
        };
        let model = Unigram::new(self.normalizer.as_ref(), self.pre_tokenizer.as_ref(), &file["model"], special)?;
        let vocabulary = Vocabulary::new(Spelling::Text, tokens.iter().map(|(text, kind)| (text, *kind)), unknown)?;
        Ok(Spelled { vocabulary, kind: Encoder::Unigram(model), leading_space: true })
    }
}
