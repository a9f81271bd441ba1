//! SentencePiece's unigram model: of all ways to spell a text the likeliest (Kudo 2018), as the crate `tokenizers` has it.

use serde_json::{Value, json};

use super::error::TokenizerError;

#[derive(Debug)]
pub(super) struct Unigram(Box<tokenizers::Tokenizer>);

impl Unigram {
    /// From the parts of a `tokenizer.json` that prepare and spell text. Texts never become the tokens `special`, however
    /// they are written.
    pub fn new(
        normalizer: Option<&Value>,
        pre_tokenizer: Option<&Value>,
        model: &Value,
        special: impl Fn(u32) -> bool,
    ) -> Result<Self, TokenizerError> {
        let mut model = model.clone();
        let vocab = model.get_mut("vocab").and_then(Value::as_array_mut);
        for (id, entry) in (0..).zip(vocab.into_iter().flatten()).filter(|(id, _)| special(*id)) {
            if let Some(text) = entry.get_mut(0) {
                // No text has these: they are no characters.
                *text = json!(format!("\u{10ffff}{id}\u{10ffff}"));
            }
        }
        let file = json!({
            "version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model,
        });
        let tokenizer = tokenizers::Tokenizer::from_bytes(file.to_string());
        Ok(Self(Box::new(tokenizer.map_err(|e| TokenizerError::Json(e.to_string()))?)))
    }

    /// Appends the tokens of `text`.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        // It fails for vocabularies without an unknown token, which are refused.
        if let Ok(encoding) = self.0.encode_fast(text, false) {
            ids.extend_from_slice(encoding.get_ids());
        }
    }
}
