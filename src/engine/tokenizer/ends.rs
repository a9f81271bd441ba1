//! The tokens that end a generation: those that a file names, and those with the usual names.

use super::{error::TokenizerError, vocabulary::Vocabulary};
use crate::engine::gguf::Metadata;

/// Tokens that end a generation, by their usual names, beside those the file names.
const END_TOKENS: [&str; 21] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Whether a token of this name ends a generation.
pub(super) fn is_usual_end(name: &[u8]) -> bool {
    END_TOKENS.iter().any(|end| end.as_bytes() == name)
}

/// Those that are `named`, and those with the usual names, ascending.
pub(super) fn end_tokens(vocabulary: &Vocabulary, named: impl Iterator<Item = u32>) -> Vec<u32> {
    let usual = |id: &u32| is_usual_end(vocabulary.bytes(*id));
    let mut tokens: Vec<u32> = named.chain((0..vocabulary.len() as u32).filter(usual)).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

/// The special tokens that a file names by id.
pub(super) struct Ends {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// Those after which generation ends.
    pub ending: Vec<u32>,
    /// All of them: control tokens, whatever `token_type` says.
    pub named: Vec<u32>,
}

impl Ends {
    pub fn read(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let find = |name: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
        let bos = match find("bos")? {
            Some(id) => Some(id),
            None => find("cls")?,
        };
        let eos = find("eos")?;
        let ending: Vec<u32> = [eos, find("eot")?, find("eom")?].into_iter().flatten().collect();
        let named = ending.iter().copied().chain(bos).collect();
        Ok(Self { bos, eos, ending, named })
    }
}
