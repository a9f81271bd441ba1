//! Tokenizers against known ids: five full vocabularies where they are at hand, small ones of our own everywhere.

#![cfg(feature = "engine")]

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use sconce::engine::{
    detokenizer::{Pushed, Start, TextStream},
    gguf::{Gguf, GgufWriter},
    stop::StopStrings,
    tokenizer::{Markup, Special, Tokenizer, TokenizerError},
};
use tokenizers::Model;

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

/// GPT-2's spelling of a byte.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return byte as char;
    }
    let moved = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + moved).unwrap()
}

fn spell(text: &str) -> String {
    text.bytes().map(byte_char).collect()
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// The pairs that the small byte-level vocabulary merges, best first.
const MERGES: [(&str, &str); 14] = [
    ("a", "a"),
    ("h", "e"),
    ("l", "l"),
    (" ", "w"),
    ("he", "ll"),
    ("aa", "aa"),
    ("o", "r"),
    (" w", "or"),
    ("hell", "o"),
    (" ", " "),
    ("\u{c3}", "\u{a9}"),
    ("aa", "a"),
    ("l", "d"),
    ("1", "2"),
];

/// A byte-level vocabulary: 256 bytes, the merges' tokens, one word that no merge makes, and special tokens.
fn byte_level(pre: Option<&str>) -> Gguf {
    Gguf::from_static(byte_level_bytes(pre).leak()).unwrap()
}

fn byte_level_bytes(pre: Option<&str>) -> Vec<u8> {
    let spelled = |part: &str| -> String {
        // The one pair of bytes that is not text by itself is written with the bytes' Latin-1 characters.
        if part.chars().all(|c| ('\u{80}'..='\u{ff}').contains(&c)) { part.to_string() } else { spell(part) }
    };
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    let mut merges = Vec::new();
    for (left, right) in MERGES {
        tokens.push(spelled(left) + &spelled(right));
        merges.push(format!("{} {}", spelled(left), spelled(right)));
    }
    tokens.push(spell(" world"));
    let mut types = vec![1; tokens.len()];
    for (token, kind) in [("<s>", CONTROL), ("<|im_end|>", CONTROL), ("<think>", USER_DEFINED), ("stop", CONTROL)] {
        tokens.push(token.into());
        types.push(kind);
    }
    let id = |token: &str| tokens.iter().position(|t| t == token).unwrap() as u32;
    let mut file = GgufWriter::new();
    file.str("tokenizer.ggml.model", "gpt2");
    if let Some(pre) = pre {
        file.str("tokenizer.ggml.pre", pre);
    }
    file.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &types);
    file.strings("tokenizer.ggml.merges", &merges).u32("tokenizer.ggml.bos_token_id", id("<s>"));
    file.u32("tokenizer.ggml.eos_token_id", id("<|im_end|>"));
    file.to_bytes()
}

/// SentencePiece: all ASCII letters and `▁`, some words with scores, and byte tokens.
fn sentencepiece() -> Gguf {
    Gguf::from_static(sentencepiece_bytes().leak()).unwrap()
}

fn sentencepiece_bytes() -> Vec<u8> {
    let mut tokens = vec![("<unk>".to_string(), 0.0, 2), ("<s>".into(), 0.0, CONTROL), ("</s>".into(), 0.0, CONTROL)];
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    for (word, score) in [
        ("▁a", -1.0),
        ("ab", -2.0),
        ("▁ab", -3.0),
        ("abc", -4.0),
        ("▁▁", -5.0),
        ("</", -6.0),
        ("s>", -7.0),
        ("aa", -8.0),
    ] {
        tokens.push((word.into(), score, 1));
    }
    tokens.extend("▁abcs<>/é".chars().map(|c| (c.to_string(), -100.0, 1)));
    let mut file = GgufWriter::new();
    file.str("tokenizer.ggml.model", "llama");
    file.strings("tokenizer.ggml.tokens", &tokens.iter().map(|t| t.0.as_str()).collect::<Vec<_>>());
    file.f32s("tokenizer.ggml.scores", &tokens.iter().map(|t| t.1).collect::<Vec<_>>());
    file.i32s("tokenizer.ggml.token_type", &tokens.iter().map(|t| t.2).collect::<Vec<_>>());
    file.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 2);
    file.to_bytes()
}

fn tokenizer(gguf: &Gguf) -> Tokenizer {
    Tokenizer::from_gguf(gguf.metadata()).unwrap()
}

/// Encodes plain text and checks the tokens' spellings, and that decoding gives the text back.
#[track_caller]
fn check(tokenizer: &Tokenizer, text: &str, expected: &[&str]) {
    let ids = tokenizer.encode(text, Special::None, Markup::Literal);
    assert_eq!(ids.iter().map(|&id| tokenizer.token_text(id)).collect::<Vec<_>>(), expected, "{text:?}");
    assert_eq!(tokenizer.decode(&ids), text);
}

#[test]
fn byte_level_pieces() {
    let qwen = tokenizer(&byte_level(Some("qwen2")));
    check(&qwen, "", &[]);
    check(&qwen, "hello world", &["hello", " wor", "ld"]);
    check(&qwen, "aaaaa", &["aaaa", "a"]);
    check(&qwen, "aaa", &["aaa"]);
    check(&qwen, "12", &["1", "2"]);
    check(&qwen, "é", &["é"]);
    check(&qwen, "   a", &["  ", " ", "a"]);
    // A piece that is a token is taken whole by these rules, whatever the merges say.
    check(&tokenizer(&byte_level(Some("llama-bpe"))), "hello world 12", &["hello", " world", " ", "12"]);
}

#[test]
fn sentencepiece_pieces() {
    let model = tokenizer(&sentencepiece());
    check(&model, "ab", &[" ab"]);
    check(&model, "abc", &[" ab", "c"]);
    check(&model, "  ab", &["  ", " ab"]);
    check(&model, "é", &[" ", "é"]);
    check(&model, "", &[]);
    let ids = model.encode("ü\n", Special::None, Markup::Literal);
    assert_eq!(ids.iter().map(|&id| model.token_bytes(id)).collect::<Vec<_>>(), [&b" "[..], b"\xc3", b"\xbc", b"\n"]);
    assert_eq!(model.decode(&ids), "ü\n");
}

#[test]
fn special_tokens_come_from_markup_only() {
    let qwen = tokenizer(&byte_level(Some("qwen2")));
    let id = |name| qwen.token_to_id(name).unwrap();
    let text = "<s>a<|im_end|><think>";
    assert_eq!(qwen.encode(text, Special::None, Markup::Parse), [id("<s>"), id("a"), id("<|im_end|>"), id("<think>")]);
    // Users can't write control tokens, not even by a word that is one; `<think>` is text.
    let plain = qwen.encode(text, Special::None, Markup::Literal);
    assert!(plain.iter().all(|&id| !qwen.is_special(id)) && plain.contains(&id("<think>")));
    assert_eq!(qwen.decode(&plain), text);
    let whole = tokenizer(&byte_level(Some("llama-bpe")));
    assert_eq!(whole.encode("stop", Special::None, Markup::Literal).len(), 4);
    assert_eq!(qwen.decode(&[id("<s>"), id("a"), id("<think>")]), "a<think>");

    let spm = tokenizer(&sentencepiece());
    assert_eq!(spm.encode("a</s>a", Special::Add, Markup::Parse).iter().filter(|&&id| id == 2).count(), 1);
    let plain = spm.encode("a</s>a", Special::None, Markup::Literal);
    assert!(plain.iter().all(|&id| !spm.is_special(id)), "{plain:?}");
}

#[test]
fn special_tokens_are_added_as_the_file_says() {
    let qwen = tokenizer(&byte_level(Some("qwen2")));
    assert_eq!(qwen.encode("a", Special::Add, Markup::Literal).len(), 1);
    let llama = tokenizer(&byte_level(Some("llama-bpe")));
    assert_eq!(llama.encode("a", Special::Add, Markup::Literal)[0], llama.bos().unwrap());
    assert_eq!(llama.end_tokens(), [llama.token_to_id("<|im_end|>").unwrap()]);
    let spm = tokenizer(&sentencepiece());
    assert_eq!(spm.encode("", Special::Add, Markup::Literal), [1]);
    assert_eq!(spm.end_tokens(), [2]);
}

#[test]
fn what_is_not_known_is_refused() {
    let refusal = |pre| Tokenizer::from_gguf(byte_level(pre).metadata()).unwrap_err();
    assert!(matches!(refusal(None), TokenizerError::MissingSplit));
    assert!(matches!(refusal(Some("qwen3000")), TokenizerError::UnknownSplit(name) if name == "qwen3000"));
    let mut file = GgufWriter::new();
    file.str("tokenizer.ggml.model", "rwkv");
    let rwkv = Gguf::from_static(file.to_bytes().leak()).unwrap();
    assert!(matches!(Tokenizer::from_gguf(rwkv.metadata()), Err(TokenizerError::UnknownModel(name)) if name == "rwkv"));
}

/// The `tokenizers` crate's own byte-pair encoding gives the same tokens for random pieces.
#[test]
fn merging_agrees_with_the_tokenizers_crate() {
    let gguf = byte_level(Some("bloom"));
    let names: Vec<String> = gguf
        .metadata()
        .strings("tokenizer.ggml.tokens")
        .unwrap()
        .map(|t| String::from_utf8(t.into()).unwrap())
        .collect();
    let merges = gguf.metadata().strings("tokenizer.ggml.merges").unwrap().map(|line| {
        let line = std::str::from_utf8(line).unwrap();
        line.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())).unwrap()
    });
    let vocabulary: HashMap<String, u32> = names.iter().cloned().zip(0..).collect();
    let oracle = tokenizers::models::bpe::BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges.collect())
        .build()
        .unwrap();
    // "bloom" keeps letters and the space before them together.
    let ours = tokenizer(&byte_level(Some("bloom")));
    for seed in 1..3_000u64 {
        let mut state = seed;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let letters = ['a', 'h', 'e', 'l', 'o', 'w', 'r', 'd', 'é', '1', '2'];
        let text: String = (0..random(24)).map(|_| letters[random(letters.len() as u64) as usize]).collect();
        let expected: Vec<u32> = oracle.tokenize(&spell(&text)).unwrap().iter().map(|token| token.id).collect();
        assert_eq!(ours.encode(&text, Special::None, Markup::Literal), expected, "seed {seed}: {text:?}");
    }
}

/// Gemma reserves some six thousand tokens: finding them all stays quick, and the longest is meant.
#[test]
fn thousands_of_special_tokens() {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    tokens.extend((0..7_000).map(|n| format!("<unused{n}")));
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id < 256 { 1 } else { CONTROL }).collect();
    let mut file = GgufWriter::new();
    file.str("tokenizer.ggml.model", "gpt2").str("tokenizer.ggml.pre", "gpt-2");
    file.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &types);
    file.strings::<&str>("tokenizer.ggml.merges", &[]);
    let start = Instant::now();
    let model = tokenizer(&Gguf::from_static(file.to_bytes().leak()).unwrap());
    let ids = model.encode(&"<unused123<unused6999".repeat(5_000), Special::None, Markup::Parse);
    assert_eq!(ids, [256 + 123, 256 + 6999].repeat(5_000));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Vocabularies with bytes changed at random: refused or usable, and never a panic.
#[test]
fn damaged_vocabularies() {
    for file in [byte_level_bytes(Some("llama-bpe")), sentencepiece_bytes()] {
        for seed in 1..=400u64 {
            let mut state = seed;
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            let mut damaged = file.clone();
            for _ in 0..=random(8) {
                let at = random(damaged.len());
                damaged[at] = [0, 1, 0x7f, 0xff, random(256) as u8][random(5)];
            }
            let Ok(gguf) = Gguf::from_static(damaged.leak()) else { continue };
            let Ok(model) = Tokenizer::from_gguf(gguf.metadata()) else { continue };
            let ids = model.encode("hello world </s> <|im_end|> ünï 🙂\n", Special::Add, Markup::Parse);
            assert!(ids.iter().all(|&id| (id as usize) < model.vocabulary()), "seed {seed}");
            model.decode(&ids);
        }
    }
}

#[test]
fn tokenizers_and_templates_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
    shared::<Gguf>();
    shared::<sconce::engine::chat_template::ChatTemplate>();
}

/// A stream's texts, joined, are the decoding of all its tokens.
#[test]
fn streams_give_the_decoded_text() {
    for (name, model) in [("bpe", tokenizer(&byte_level(Some("qwen2")))), ("spm", tokenizer(&sentencepiece()))] {
        for seed in 1..500u64 {
            let mut state = seed;
            let ids: Vec<u32> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u32 % model.vocabulary() as u32
                })
                .collect();
            let mut stream = TextStream::new(StopStrings::default(), Start::OfText, Vec::new(), &model);
            let (mut text, mut seen) = (String::new(), Vec::new());
            for &id in &ids {
                if let Pushed::Text { text: new, token_ids } = stream.push(id, &model) {
                    text.push_str(&new);
                    seen.extend(token_ids);
                }
            }
            let (rest, held) = stream.finish();
            assert_eq!(text + &rest, model.decode(&ids), "{name}, seed {seed}");
            assert_eq!([seen, held].concat(), ids, "{name}, seed {seed}");
        }
    }
}

/// A megabyte of one thing takes a second at most, an eighth of it where the build is not optimised.
#[test]
fn no_text_is_slow() {
    let bytes = if cfg!(debug_assertions) { 1 << 17 } else { 1 << 20 };
    let limit = Duration::from_secs(1);
    let mut models = vec![("bpe".to_string(), byte_level(Some("qwen2"))), ("spm".to_string(), sentencepiece())];
    models.extend(["gpt-2", "deepseek-v3", "gpt-4o", "tiny_aya"].map(|pre| (pre.to_string(), byte_level(Some(pre)))));
    for name in ["qwen2", "llama-bpe", "llama-spm", "bert-bge"] {
        let path = vocabularies().join(format!("ggml-vocab-{name}.gguf"));
        models.extend(path.exists().then(|| (format!("full {name}"), Gguf::open(&path).unwrap())));
    }
    for (name, gguf) in models {
        let start = Instant::now();
        let model = tokenizer(&gguf);
        eprintln!("{name}: loaded in {:?}", start.elapsed());
        for unit in ["a", " ", "🙂", "\0", "\n", "  a", "1", "aB", "!", "</s>", "<|im_end|>", " \n", "é", "中"] {
            let text = unit.repeat(bytes / unit.len());
            let start = Instant::now();
            let ids = model.encode(&text, Special::Add, Markup::Literal);
            let took = start.elapsed();
            eprintln!("{name}: {unit:?} x {}: {} tokens in {took:?}", text.len() / unit.len(), ids.len());
            assert!(took < limit, "{name}: {bytes} bytes of {unit:?} took {took:?}");
            if !name.contains("bert") {
                assert!(model.decode(&ids) == text, "{name}: {bytes} bytes of {unit:?} do not come back");
            }
        }
    }
}
