//! The demo's own byte-level BPE tokenizer, trained on the corpus.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, PreTokenizerWrapper, Result, Tokenizer};

use crate::corpus::{PADDING, Part, TURN_END, TURN_START};

/// How Qwen2 cuts text before BPE; GGUF calls it `tokenizer.ggml.pre = "qwen2"`.
const SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Learns `size` tokens, the three special ones (ids 0, 1, 2) and all 256 bytes among them.
pub fn train(documents: impl Iterator<Item = Vec<Part>> + Send, size: usize) -> Result<Tokenizer> {
    let special = [PADDING, TURN_START, TURN_END];
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split = Split::new(SplitPattern::Regex(SPLIT.into()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, true, false);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        PreTokenizerWrapper::from(split),
        PreTokenizerWrapper::from(bytes),
    ])));
    tokenizer.with_decoder(Some(bytes));
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.map(|token| AddedToken::from(token, true)).to_vec())
        .build();
    let texts = documents.map(|parts| {
        let text: String = parts.into_iter().map(|part| part.text).collect();
        special.iter().fold(text, |text, token| text.replace(token, ""))
    });
    tokenizer.train(&mut TrainerWrapper::from(trainer), texts)?;
    Ok(tokenizer)
}

/// What GGUF stores of a byte-level BPE: the tokens by id and the merges by rank, both in GPT-2's byte alphabet.
pub fn tokens_and_merges(tokenizer: &Tokenizer) -> Result<(Vec<String>, Vec<String>)> {
    let tokens = (0..tokenizer.get_vocab_size(true) as u32).filter_map(|id| tokenizer.id_to_token(id)).collect();
    let model: serde_json::Value = serde_json::to_value(tokenizer.get_model())?;
    let merges = model["merges"].as_array().into_iter().flatten();
    let merges = merges.filter_map(|pair| Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?))).collect();
    Ok((tokens, merges))
}
