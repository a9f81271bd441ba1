//! Prompts as callers have them, and their tokens.

use std::borrow::Cow;

use super::tokenizer::{Markup, Special, Tokenizer};

/// A prompt as the caller has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text, tokenised by the engine's intake thread with the model's own special tokens (BOS) added.
    Text(String),
    /// Text that already carries its special tokens, as a chat template renders it.
    Rendered(String),
    /// Text that carries special tokens, and gets BOS where it doesn't begin with it: a template written out by hand.
    Marked(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
    /// One after another.
    Parts(Vec<Prompt>),
}

impl Prompt {
    /// Its tokens.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Cow<'_, [u32]> {
        match self {
            Self::Text(text) => tokenizer.encode(text, Special::Add, Markup::Literal).into(),
            Self::Rendered(text) => tokenizer.encode(text, Special::None, Markup::Parse).into(),
            Self::Marked(text) => {
                let mut tokens = tokenizer.encode(text, Special::Add, Markup::Parse);
                let begins = tokenizer.bos().is_some_and(|bos| tokens.starts_with(&[bos, bos]));
                tokens.drain(..usize::from(begins && tokenizer.adds_bos()));
                tokens.into()
            }
            Self::Tokens(tokens) => tokens.into(),
            Self::Parts(parts) => {
                parts.iter().flat_map(|part| part.encode(tokenizer).into_owned()).collect::<Vec<_>>().into()
            }
        }
    }

    /// Its tokens without any that the model has around texts.
    pub fn encode_bare(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match self {
            Self::Text(text) => tokenizer.encode(text, Special::None, Markup::Literal),
            Self::Rendered(text) | Self::Marked(text) => tokenizer.encode(text, Special::None, Markup::Parse),
            Self::Tokens(tokens) => tokens.clone(),
            Self::Parts(parts) => parts.iter().flat_map(|part| part.encode_bare(tokenizer)).collect(),
        }
    }

    /// An answer to it is a text of its own, whose first token may carry a space that is not the text's.
    pub fn is_turn(&self) -> bool {
        match self {
            Self::Rendered(_) => true,
            Self::Parts(parts) => parts.last().is_some_and(Self::is_turn),
            Self::Text(_) | Self::Marked(_) | Self::Tokens(_) => false,
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Rendered(text) | Self::Marked(text) => text.len(),
            Self::Tokens(tokens) => size_of_val(&tokens[..]),
            Self::Parts(parts) => parts.iter().map(Self::bytes).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        fake::byte_tokenizer,
        gguf::{Gguf, GgufWriter},
    };

    #[test]
    fn special_tokens_are_spelt_or_not() {
        let end = "<|endoftext|>";
        let encode = |prompt: Prompt| prompt.encode(&byte_tokenizer()).into_owned();
        assert_eq!(encode(Prompt::Text(end.into())).len(), end.len());
        assert_eq!(encode(Prompt::Rendered(end.into())), [256]);
        assert_eq!(encode(Prompt::Marked(end.into())), [256]);
        let parts =
            Prompt::Parts(vec![Prompt::Tokens(vec![1, 2]), Prompt::Marked("a".into()), Prompt::Text("b".into())]);
        assert_eq!((encode(parts.clone()), parts.bytes()), (vec![1, 2, 97, 98], 10));
        assert!(
            !parts.is_turn() && Prompt::Parts(vec![Prompt::Tokens(vec![1]), Prompt::Rendered(String::new())]).is_turn()
        );
    }

    #[test]
    fn bos_comes_once() {
        let mut writer = GgufWriter::new();
        writer
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", "gpt-2")
            .strings("tokenizer.ggml.tokens", &["a", "<s>"])
            .i32s("tokenizer.ggml.token_type", &[1, 3])
            .strings::<&str>("tokenizer.ggml.merges", &[])
            .u32("tokenizer.ggml.bos_token_id", 1)
            .bool("tokenizer.ggml.add_bos_token", true);
        let gguf = Gguf::from_static(writer.to_bytes().leak()).unwrap();
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        for (prompt, expected) in [
            (Prompt::Text("a".into()), vec![1, 0]),
            (Prompt::Rendered("a".into()), vec![0]),
            (Prompt::Marked("a".into()), vec![1, 0]),
            (Prompt::Marked("<s>a".into()), vec![1, 0]),
            (Prompt::Marked("<s><s>a".into()), vec![1, 1, 0]),
        ] {
            assert_eq!(*prompt.encode(&tokenizer), expected, "{prompt:?}");
        }
        assert_eq!(Prompt::Text("a".into()).encode_bare(&tokenizer), [0]);
    }
}
