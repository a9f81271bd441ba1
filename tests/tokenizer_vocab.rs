//! Tokenizers against known ids: five full vocabularies where they are at hand, small ones of our own everywhere.

#![cfg(feature = "engine")]

use std::{fs, path::PathBuf};

use sconce::engine::{
    gguf::Gguf,
    tokenizer::{Markup, Special, Tokenizer},
};

/// Texts and their ids as llama.cpp's own tests have them: `NAME.gguf`, `NAME.gguf.inp`, `NAME.gguf.out`.
fn vocabularies() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/vocab")
}

#[track_caller]
fn check_vocabulary(name: &str) {
    let path = vocabularies().join(format!("ggml-vocab-{name}.gguf"));
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return;
    }
    let gguf = Gguf::open(&path).unwrap();
    let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
    let texts = fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
    let expected = fs::read_to_string(path.with_extension("gguf.out")).unwrap();
    let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    assert_eq!(texts.pop(), Some(""), "the last text ends with the separator too");
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(texts.len(), expected.len());
    for (text, expected) in texts.into_iter().zip(expected) {
        let expected: Vec<u32> = expected.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, Special::None, Markup::Literal), expected, "{name}: {text:?}");
        if name != "bert-bge" {
            assert_eq!(tokenizer.decode(&expected), text, "{name}");
        }
    }
}

#[test]
fn qwen2() {
    check_vocabulary("qwen2");
}

#[test]
fn llama_bpe() {
    check_vocabulary("llama-bpe");
}

#[test]
fn gpt_2() {
    check_vocabulary("gpt-2");
}

#[test]
fn llama_spm() {
    check_vocabulary("llama-spm");
}

#[test]
fn bert() {
    check_vocabulary("bert-bge");
}
