//! Grammars against their languages, and hostile sources. Whole engines are held to grammars in `lifecycle`.

mod compiling;
mod hostile;
mod oracle;
pub mod random_schema;
mod schemas;
mod thinking;
pub mod validate;

use std::sync::Arc;

use serde_json::Value;

use super::{Compiler, Grammar, GrammarError, GrammarSource};
use crate::engine::{
    fake::Rng,
    gguf::{Gguf, GgufWriter},
    tokenizer::Tokenizer,
};

/// The demo model's: byte-level BPE, 1,280 tokens.
fn demo() -> Arc<Tokenizer> {
    let gguf = Gguf::from_static(crate::demo::MODEL).unwrap();
    Arc::new(Tokenizer::from_gguf(gguf.metadata()).unwrap())
}

/// A SentencePiece vocabulary of these words, then single bytes, `<s>`, `<think>`, `</think>`, `[CALL]` and `</s>`, which
/// ends a text.
fn tokenizer(words: &[&str]) -> Arc<Tokenizer> {
    let mut tokens: Vec<String> = words.iter().map(|word| word.replace(' ', "\u{2581}")).collect();
    let mut types = vec![1; tokens.len()];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    tokens.extend(["<s>", "<think>", "</think>", "[CALL]", "</s>"].map(String::from));
    types.resize(tokens.len(), 3);
    let mut writer = GgufWriter::new();
    writer
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .f32s("tokenizer.ggml.scores", &vec![0.0; tokens.len()])
        .u32("tokenizer.ggml.eos_token_id", tokens.len() as u32 - 1);
    let gguf = Gguf::from_static(writer.to_bytes().leak()).unwrap();
    Arc::new(Tokenizer::from_gguf(gguf.metadata()).unwrap())
}

fn schema(text: &str) -> GrammarSource {
    GrammarSource::JsonSchema(serde_json::from_str(text).unwrap())
}

/// What somebody says who draws each token by chance from the mask, but ends as soon as possible after `tokens_min`.
/// `None`: did not come to an end within `tokens_max`.
fn babble(
    grammar: &Grammar,
    tokenizer: &Tokenizer,
    rng: &mut Rng,
    tokens_min: usize,
    tokens_max: usize,
) -> Option<String> {
    let mut matcher = grammar.matcher();
    let mut text = Vec::new();
    for said in 0..tokens_max {
        let allowed = matcher.mask().unwrap().to_list();
        let end = allowed.iter().find(|id| tokenizer.end_tokens().contains(id));
        let token = match end {
            Some(&end) if said >= tokens_min || allowed.len() == 1 => end,
            _ => allowed[rng.within(0, allowed.len())],
        };
        matcher.advance(token).unwrap();
        if !tokenizer.end_tokens().contains(&token) {
            text.extend_from_slice(tokenizer.token_bytes(token));
        }
        if matcher.is_complete() {
            return Some(String::from_utf8(text).expect("grammars speak UTF-8"));
        }
    }
    None
}
