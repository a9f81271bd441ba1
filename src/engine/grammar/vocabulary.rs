//! A model's vocabulary as the matcher sees it: a trie of the bytes of its tokens, and how text is tokenised.
//!
//! Tokens that are text stand for their bytes. Special tokens and tokens without bytes stand for none: no text ever
//! becomes one, and a grammar names them by number. Ids past the tokenizer's, the padding of a model's output, are not here.

use std::sync::Arc;

use llguidance::{
    ParserFactory,
    earley::SlicedBiasComputer,
    toktrie::{INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv},
};

use super::limits;
use crate::engine::tokenizer::Tokenizer;

pub struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
    /// Whether what a grammar forces is tokenised as the tokenizer would, and then the only choice.
    forcing: bool,
}

impl Vocabulary {
    /// `None`: the tokenizer has no tokens.
    pub fn new(tokenizer: Arc<Tokenizer>, forcing: bool) -> Option<Self> {
        let words: Vec<Vec<u8>> = (0..tokenizer.vocabulary() as u32).map(|id| word(&tokenizer, id)).collect();
        if words.is_empty() {
            return None;
        }
        let end = tokenizer.end_tokens().first().copied().unwrap_or(INVALID_TOKEN);
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let trie = match tokenizer.end_tokens() {
            [] => trie,
            ends => trie.with_eos_tokens(ends),
        };
        Some(Self { tokenizer, trie, forcing })
    }

    /// What compiles grammars for this vocabulary: it holds tries of the tokens that strings of JSON are made of, so that
    /// masks within a string take no walk through all of them.
    pub fn into_factory(self) -> Result<ParserFactory, String> {
        let environment: TokEnv = Arc::new(self);
        let (capabilities, slices) = (InferenceCapabilities::default(), SlicedBiasComputer::json_slices());
        let factory = ParserFactory::new(&environment, capabilities, &slices);
        let mut factory = factory.map_err(|error| error.to_string())?;
        factory.quiet();
        *factory.limits_mut() = limits::parser();
        Ok(factory)
    }
}

/// The bytes of a token that is text. The marker of special tokens is no byte of UTF-8: a token that begins with it is none.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    match tokenizer.token_bytes(id) {
        _ if tokenizer.is_special(id) || tokenizer.end_tokens().contains(&id) => Vec::new(),
        [TokTrie::SPECIAL_TOKEN_MARKER, ..] => Vec::new(),
        bytes => bytes.to_vec(),
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The tokens of a text in the middle of another. Whatever the tokenizer makes of it, their bytes are the text's: where
    /// it would change some, the longest tokens that fit are taken.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            let tokens = self.tokenizer.encode_within(text);
            let spelled = tokens.iter().flat_map(|&id| self.trie.token(id));
            if spelled.eq(text.as_bytes()) { tokens } else { self.trie.greedy_tokenize(text.as_bytes()) }
        })
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.forcing
    }
}
