//! Fill in the middle (Bavarian et al. 2022): the tokens that ask a model for what stands between two texts.
//!
//! Knows which tokens they are, by the ids that a file names or by their usual spellings; not whether the model was really
//! trained on them.

use super::{Metadata, Tokenizer, TokenizerError, special::SpecialTokens, vocabulary::Vocabulary};

/// The three tokens by their spellings in families of models: what begins the text before, the text after, and the middle.
const SPELLINGS: [[&str; 3]; 8] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["<PRE>", "<SUF>", "<MID>"],
    // As SentencePiece spells these: with the space that stands before them.
    [" <PRE>", " <SUF>", " <MID>"],
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
    ["<|prefix|>", "<|suffix|>", "<|middle|>"],
];
/// A model that writes one of these has filled the middle and begins another file.
const ENDS: [&str; 7] =
    ["<|fim_pad|>", "<fim_pad>", "<fim-pad>", "<|repo_name|>", "<|file_sep|>", "<file_sep>", "<reponame>"];

/// A model's tokens for filling in a middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillInMiddle {
    pub prefix: u32,
    pub suffix: u32,
    pub middle: u32,
    /// Tokens at which the middle ends, beside the model's end tokens.
    pub ends: Vec<u32>,
}

impl FillInMiddle {
    /// Those that are `named`, in the order of the fields, or else have usual spellings; `None` unless there are all three.
    pub(super) fn find(vocabulary: &Vocabulary, special: &SpecialTokens, named: [Option<u32>; 3]) -> Option<Self> {
        let find = |text: &str| special.find(text).or_else(|| vocabulary.find(text.as_bytes()));
        let spelled = || {
            let all = |names: &[&str; 3]| Some([find(names[0])?, find(names[1])?, find(names[2])?]);
            SPELLINGS.iter().find_map(all)
        };
        let known = |id: u32| ((id as usize) < vocabulary.len()).then_some(id);
        let named = || Some([known(named[0]?)?, known(named[1]?)?, known(named[2]?)?]);
        let [prefix, suffix, middle] = named().or_else(spelled)?;
        let ends = ENDS.iter().filter_map(|end| special.find(end)).collect();
        Some(Self { prefix, suffix, middle, ends })
    }

    /// Those that a GGUF file names, under the keys of today or of old.
    pub(super) fn named(metadata: &Metadata) -> Result<[Option<u32>; 3], TokenizerError> {
        let id = |name: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
        let named = [id("fim_pre")?, id("fim_suf")?, id("fim_mid")?];
        if named.iter().all(Option::is_some) {
            return Ok(named);
        }
        Ok([id("prefix")?, id("suffix")?, id("middle")?])
    }
}

impl Tokenizer {
    /// The tokens for filling in a middle, if there are any.
    pub fn fill_in_middle(&self) -> Option<&FillInMiddle> {
        self.fill_in_middle.as_ref()
    }

    /// The prompt for what stands between two texts, the first of them as tokens; `None` without tokens for that.
    pub fn encode_around(&self, before: &[u32], after: &str) -> Option<Vec<u32>> {
        let tokens = self.fill_in_middle()?;
        let mut ids = Vec::with_capacity(before.len() + after.len() / 3 + 4);
        ids.extend(self.before);
        ids.push(tokens.prefix);
        ids.extend(before);
        ids.push(tokens.suffix);
        ids.extend(self.encode_within(after));
        ids.push(tokens.middle);
        Some(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        gguf::{Gguf, GgufWriter},
        tokenizer::{Markup, Special},
    };

    /// Letters, and `extra` as control tokens from id 3 on.
    fn tokenizer(extra: &[&str], named: &[(&str, u32)], bos: bool) -> Tokenizer {
        let tokens: Vec<&str> = ["a", "b", "<s>"].into_iter().chain(extra.iter().copied()).collect();
        let types: Vec<i32> = (0..tokens.len()).map(|id| if id < 2 { 1 } else { 3 }).collect();
        let mut writer = GgufWriter::new();
        writer
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", "gpt-2")
            .strings("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &types)
            .strings::<&str>("tokenizer.ggml.merges", &[])
            .u32("tokenizer.ggml.bos_token_id", 2)
            .bool("tokenizer.ggml.add_bos_token", bos);
        for (name, id) in named {
            writer.u32(&format!("tokenizer.ggml.{name}_token_id"), *id);
        }
        let gguf = Gguf::from_static(writer.to_bytes().leak()).unwrap();
        Tokenizer::from_gguf(gguf.metadata()).unwrap()
    }

    #[test]
    fn by_name_or_by_spelling() {
        let qwen = ["<|fim_middle|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_pad|>"];
        let plain = ["[x]", "[y]", "[z]"];
        let ids = |tokenizer: &Tokenizer| tokenizer.fill_in_middle().map(|fim| [fim.prefix, fim.suffix, fim.middle]);
        assert_eq!(ids(&tokenizer(&qwen, &[], false)), Some([4, 5, 3]));
        assert_eq!(tokenizer(&qwen, &[], false).fill_in_middle().unwrap().ends, [6]);
        assert_eq!(ids(&tokenizer(&qwen[..2], &[], false)), None, "two of three");
        assert_eq!(ids(&tokenizer(&plain, &[], false)), None);
        let named = [("fim_pre", 3), ("fim_suf", 4), ("fim_mid", 5)];
        assert_eq!(ids(&tokenizer(&plain, &named, false)), Some([3, 4, 5]));
        let old = [("prefix", 5), ("suffix", 4), ("middle", 3)];
        assert_eq!(ids(&tokenizer(&plain, &old, false)), Some([5, 4, 3]));
        assert_eq!(ids(&tokenizer(&plain, &[("fim_pre", 3), ("fim_suf", 4), ("fim_mid", 99)], false)), None);
    }

    #[test]
    fn the_prompt_has_the_text_before_first() {
        let names = ["<PRE>", "<SUF>", "<MID>"];
        for bos in [false, true] {
            let tokenizer = tokenizer(&names, &[], bos);
            let before = tokenizer.encode("ab", Special::None, Markup::Literal);
            let mut expected = vec![2, 3, 0, 1, 4, 1, 5];
            expected.drain(..usize::from(!bos));
            assert_eq!(tokenizer.encode_around(&before, "b"), Some(expected));
        }
        assert_eq!(tokenizer(&[], &[], true).encode_around(&[0], "b"), None);
    }
}
