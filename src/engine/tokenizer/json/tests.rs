use std::{fs, path::PathBuf};

use serde_json::{Map, json};

use super::*;
use crate::engine::{
    gguf::{Gguf, Metadata},
    tokenizer::{Markup, Special},
};

/// The `tokenizer.json` that belongs to a vocabulary in GGUF, as far as that can be told.
struct Derived<'a> {
    metadata: &'a Metadata,
    normalizer: Value,
    pre_tokenizer: Value,
    ignore_merges: bool,
}

impl Derived<'_> {
    fn json(&self, merges: Vec<Value>, byte_fallback: bool) -> Vec<u8> {
        let kinds = self.metadata.i32s("tokenizer.ggml.token_type").unwrap();
        let mut vocab = Map::new();
        let mut added = Vec::new();
        for (id, (text, kind)) in self.metadata.strings("tokenizer.ggml.tokens").unwrap().zip(&kinds).enumerate() {
            let text = String::from_utf8_lossy(text).into_owned();
            match kind {
                3 | 4 => added.push(json!({ "id": id, "content": text, "special": *kind == 3 })),
                _ => assert!(vocab.insert(text, json!(id)).is_none()),
            }
        }
        let file = json!({
            "added_tokens": added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "model": {
                "type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": byte_fallback,
                "ignore_merges": self.ignore_merges, "unk_token": "<unk>",
            },
        });
        file.to_string().into_bytes()
    }

    fn merges(&self) -> Vec<Value> {
        let lines = self.metadata.strings("tokenizer.ggml.merges").unwrap();
        lines.map(|line| json!(std::str::from_utf8(line).unwrap())).collect()
    }

    /// What transformers makes of SentencePiece's scores: every way to make a token of two, best token first.
    fn merges_of_scores(&self) -> Vec<Value> {
        let scores = self.metadata.f32s("tokenizer.ggml.scores").unwrap();
        let kinds = self.metadata.i32s("tokenizer.ggml.token_type").unwrap();
        let texts: Vec<_> =
            self.metadata.strings("tokenizer.ggml.tokens").unwrap().map(String::from_utf8_lossy).collect();
        let normal: Vec<usize> = (0..texts.len()).filter(|&id| kinds[id] == 1).collect();
        let known: std::collections::HashSet<&str> = normal.iter().map(|&id| &*texts[id]).collect();
        let mut merges: Vec<(f32, Value)> = Vec::new();
        for &id in &normal {
            let text = &*texts[id];
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(at);
                if known.contains(left) && known.contains(right) {
                    merges.push((scores[id], json!([left, right])));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        merges.into_iter().map(|(_, merge)| merge).collect()
    }
}

/// Encodes the texts of llama.cpp's own tests with the derived file; they become the same ids, and texts again.
#[track_caller]
fn check(name: &str, spm: bool, normalizer: Value, pre_tokenizer: Value, ignore_merges: bool) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/vocab");
    let path = folder.join(format!("ggml-vocab-{name}.gguf"));
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return;
    }
    let gguf = Gguf::open(&path).unwrap();
    let derived = Derived { metadata: gguf.metadata(), normalizer, pre_tokenizer, ignore_merges };
    let merges = if spm { derived.merges_of_scores() } else { derived.merges() };
    let tokenizer = Tokenizer::from_json(&derived.json(merges, spm), &NamedTokens::default()).unwrap();
    let texts = fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
    let expected = fs::read_to_string(path.with_extension("gguf.out")).unwrap();
    let texts = texts.split("\n__ggml_vocab_test__\n");
    for (text, expected) in texts.zip(expected.lines()) {
        let expected: Vec<u32> = expected.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, Special::None, Markup::Literal), expected, "{name}: {text:?}");
        assert_eq!(tokenizer.decode(&expected), text, "{name}");
    }
}

fn split(pattern: &str) -> Value {
    json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
    ]})
}

#[test]
fn qwen2() {
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    // Without the NFC of the model's own file, which GGUF's converter leaves out.
    check("qwen2", false, Value::Null, split(pattern), false);
}

#[test]
fn llama_3() {
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    check("llama-bpe", false, Value::Null, split(pattern), true);
}

#[test]
fn gpt_2() {
    check("gpt-2", false, Value::Null, json!({ "type": "ByteLevel", "add_prefix_space": false }), false);
}

#[test]
fn llama_2_as_it_was_first_written() {
    let normalizer = json!({ "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": "▁" },
        { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
    ]});
    check("llama-spm", true, normalizer, Value::Null, false);
}

/// A small vocabulary of characters with bytes to fall back on.
fn spaced(pre_tokenizer: Value, extra: Value) -> Result<Tokenizer, TokenizerError> {
    let mut vocab: Map<String, Value> = (0..=255u8).map(|b| (format!("<0x{b:02X}>"), json!(b))).collect();
    for (id, text) in (256..).zip(["<unk>", "▁", "a", "b", "▁a", "ab", "▁ab"]) {
        vocab.insert(text.into(), json!(id));
    }
    let mut file = json!({
        "added_tokens": [
            { "id": 256, "content": "<unk>", "special": true },
            { "id": 263, "content": "<s>", "special": true },
            { "id": 264, "content": "<|a|>", "special": true, "rstrip": true },
            { "id": 265, "content": "\n\n", "special": false },
        ],
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": { "type": "TemplateProcessing", "single": [
            { "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
        ]},
        "model": {
            "type": "BPE", "vocab": vocab, "merges": ["▁ a", "a b", "▁a b"], "byte_fallback": true,
            "unk_token": "<unk>", "fuse_unk": true,
        },
    });
    if let (Value::Object(file), Value::Object(extra)) = (&mut file, extra) {
        file.extend(extra);
    }
    let named = NamedTokens { bos: Some("<s>"), ..NamedTokens::default() };
    Tokenizer::from_json(&serde_json::to_vec(&file).unwrap(), &named)
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split })
}

#[track_caller]
fn check_spaced(tokenizer: &Tokenizer, text: &str, expected: &[u32]) {
    assert_eq!(tokenizer.encode(text, Special::None, Markup::Parse), expected, "{text:?}");
}

#[test]
fn spaces_are_written_and_put_in_front() {
    for split in [false, true] {
        let first = spaced(metaspace("first", split), Value::Null).unwrap();
        check_spaced(&first, "ab", &[262]);
        check_spaced(&first, " ab", &[262]);
        check_spaced(&first, "ab<s>ab", &[262, 263, 261]);
        check_spaced(&first, "ab ab", &[262, 262]);
        let always = spaced(metaspace("always", split), Value::Null).unwrap();
        check_spaced(&always, "ab<s>ab", &[262, 263, 262]);
        let never = spaced(metaspace("never", split), Value::Null).unwrap();
        check_spaced(&never, "ab", &[261]);
        assert_eq!(never.decode(&[262]), " ab");
        assert_eq!(first.decode(&[262]), "ab");
    }
}

#[test]
fn what_has_no_token_becomes_bytes() {
    let tokenizer = spaced(metaspace("never", false), Value::Null).unwrap();
    check_spaced(&tokenizer, "aé", &[258, 0xc3, 0xa9]);
    assert_eq!(tokenizer.decode(&[258, 0xc3, 0xa9]), "aé");
}

#[test]
fn special_tokens_take_whitespace_with_them_and_stand_around_texts() {
    let tokenizer = spaced(metaspace("never", false), Value::Null).unwrap();
    check_spaced(&tokenizer, "a<|a|> \n a", &[258, 264, 258]);
    check_spaced(&tokenizer, "a \n\n a", &[258, 257, 265, 260]);
    assert_eq!(tokenizer.encode("a", Special::Add, Markup::Parse), [263, 258]);
    assert!(tokenizer.is_special(264) && !tokenizer.is_special(265));
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    for (pre_tokenizer, extra, expected) in [
        (metaspace("sometimes", true), Value::Null, "pre_tokenizer Metaspace"),
        (json!({ "type": "Whitespace" }), Value::Null, "pre_tokenizer Whitespace"),
        (Value::Null, Value::Null, "neither ByteLevel"),
        (metaspace("first", true), json!({ "normalizer": { "type": "NFKC" } }), "normalizer NFKC"),
        (metaspace("first", true), json!({ "model": { "vocab": {}, "merges": [] } }), "model without a type"),
    ] {
        let error = spaced(pre_tokenizer, extra).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}
