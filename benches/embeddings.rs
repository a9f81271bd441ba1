//! Texts encoded in a second, for `benches/embeddings.py`, which times another library in turns with this.
//!
//! `cargo bench --bench embeddings -- MODEL_DIRECTORY [q8_0]` reads lines from standard input, each a JSON list of texts;
//! answers each with a line: the seconds that it took to encode them, and their first vector.

use std::{
    io::{self, BufRead},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::Instant,
};

use sconce::engine::{
    encoder::{self, EncodeInput, EncodeRequest, Encoder, EncoderConfig},
    models::{LoadOptions, Quantize, Source},
    team::available_threads,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some(path) = arguments.first() else { return println!("give a model's directory or GGUF file") };
    let quantize = arguments.iter().any(|a| a == "q8_0").then_some(Quantize::Q8_0);
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let threads = number("THREADS").and_then(NonZeroUsize::new).unwrap_or(available_threads());
    let config = EncoderConfig::default();
    let config = EncoderConfig { step_tokens_max: number("STEP_TOKENS").unwrap_or(config.step_tokens_max), ..config };

    let source = Source::open(Path::new(path)).expect("a model");
    let tokenizer = Arc::new(source.tokenizer().expect("its tokenizer"));
    let model = encoder::load(&source, LoadOptions { quantize, ..LoadOptions::new(threads) }).expect("its weights");
    let encoder = Encoder::start("bench", model, tokenizer, config).expect("an encoder");
    for line in io::stdin().lock().lines() {
        let texts: Vec<String> = serde_json::from_str(&line.expect("a line")).expect("a list of texts");
        let inputs = texts.into_iter().map(EncodeInput::Text).collect();
        let start = Instant::now();
        let encoded = encoder.encode(EncodeRequest { truncate: true, ..EncodeRequest::new(inputs) }).expect("vectors");
        let seconds = start.elapsed().as_secs_f64();
        println!("{}", serde_json::json!({ "seconds": seconds, "first": encoded.outputs[0] }));
    }
}
