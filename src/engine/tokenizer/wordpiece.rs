//! WordPiece, the tokenizer of the BERT family: words, then the longest tokens that spell each word.
//!
//! GGUF writes tokens that begin a word with `▁` and those that go on without BERT's `##`; so does the vocabulary here.

use regex::Regex;
use tokenizers::{NormalizedString, Normalizer, normalizers::BertNormalizer};

use super::{error::TokenizerError, sentencepiece::SPACE, vocabulary::Vocabulary};

/// Words and single punctuation marks; `\p{P}` and the ASCII symbols that BERT counts as punctuation.
const WORDS: &str = r"[\p{P}$+<=>^`|~]|[^\s\p{P}$+<=>^`|~]+";

#[derive(Debug)]
pub(super) struct WordPiece {
    normalizer: BertNormalizer,
    words: Regex,
    /// Longer words are unknown.
    word_chars_max: usize,
}

impl WordPiece {
    pub fn new(normalizer: BertNormalizer, word_chars_max: usize) -> Result<Self, TokenizerError> {
        let words = Regex::new(WORDS).map_err(|e| TokenizerError::Invalid(e.to_string()))?;
        Ok(Self { normalizer, words, word_chars_max })
    }

    /// Appends the tokens of `text`. A word that can't be spelled becomes the unknown token.
    pub fn encode(&self, text: &str, vocabulary: &Vocabulary, ids: &mut Vec<u32>) {
        let mut normalized = NormalizedString::from(text);
        // It has no way to fail; if it ever does, the text as it came is the best there is.
        let text = match self.normalizer.normalize(&mut normalized) {
            Ok(()) => normalized.get(),
            Err(_) => text,
        };
        let mut marked = String::new();
        for word in self.words.find_iter(text) {
            marked.clear();
            marked.push_str(SPACE);
            marked.push_str(word.as_str());
            let before = ids.len();
            let long = word.len() > self.word_chars_max && word.as_str().chars().count() > self.word_chars_max;
            if long || !spell(marked.as_bytes(), vocabulary, ids) {
                ids.truncate(before);
                ids.extend(vocabulary.unknown());
            }
        }
    }
}

/// Appends the longest token that `word` begins with, and so on to its end; false if some part is no token.
fn spell(word: &[u8], vocabulary: &Vocabulary, ids: &mut Vec<u32>) -> bool {
    let mut start = 0;
    while start < word.len() {
        let longest = word.len().min(start + vocabulary.token_bytes_max());
        let found = (start + 1..=longest).rev().find_map(|end| Some((end, vocabulary.find(&word[start..end])?)));
        let Some((end, id)) = found else { return false };
        ids.push(id);
        start = end;
    }
    true
}
