//! The engine without any server: streams a completion to the terminal.
//!
//! `cargo run --release --example generate -- MODEL.gguf "Once upon a time"`

use std::{env, error::Error, io::Write, path::Path, sync::Arc};

use sconce::engine::{
    Engine, EngineConfig,
    blocks::BLOCK_TOKENS,
    kv_cache::KvType,
    models::{self, LoadOptions, Source},
    prepare_process,
    request::{Event, GenerateRequest, Prompt},
    team::available_threads,
};

/// Tokens that the KV cache holds.
const CACHE_TOKENS: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: nothing has started a thread yet.
    unsafe { prepare_process() };
    let (Some(path), Some(prompt)) = (env::args().nth(1), env::args().nth(2)) else {
        return Err("usage: generate MODEL.gguf PROMPT".into());
    };
    let source = Source::open(Path::new(&path))?;
    let tokenizer = Arc::new(source.tokenizer()?);
    let model = models::load(&source, LoadOptions::new(available_threads()))?;
    let cache = model.new_cache(CACHE_TOKENS / BLOCK_TOKENS, KvType::F16).map_err(|error| error.0)?;
    let engine = Engine::start("example", model, cache, tokenizer, EngineConfig::default())?;

    for event in engine.generate(GenerateRequest::new(Prompt::Text(prompt))) {
        match event {
            Event::Started { .. } => {}
            Event::Piece { text, .. } => print!("{text}"),
            Event::Finished { reason, usage, .. } => println!("\n[{reason:?}, {} tokens]", usage.completion_tokens),
            Event::Failed(error) => return Err(error.into()),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
