//! What structured output costs and saves: eight streams that say what they like beside eight that are held to a schema,
//! without and with forced tokens as drafts: `cargo bench --bench structured -- MODEL.gguf`.
//!
//! The three take turns in one run, since what memory gives changes with the machine's neighbours; medians are shown.

use std::{error::Error, path::Path, sync::Arc, time::Instant};

use sconce::engine::{
    Engine, EngineConfig,
    blocks::BLOCK_TOKENS,
    grammar::{Grammar, GrammarSource},
    kv_cache::KvType,
    models::{self, LoadOptions, Source},
    prepare_process,
    request::{Event, GenerateRequest, Prompt, SamplingParams},
    team::available_threads,
};

const WIDTH: usize = 8;
const TOKENS: usize = 96;
const TURNS: usize = 5;

/// Records as an extraction of orders has them, in a list that goes on as long as it is read.
const SCHEMA: &str = r#"{
    "type": "array", "minItems": 1000, "items": {
        "type": "object",
        "properties": {
            "order_id": { "type": "integer", "minimum": 1, "maximum": 999999 },
            "customer": {
                "type": "object",
                "properties": { "name": { "type": "string", "maxLength": 60 }, "email": { "type": "string", "format": "email" } },
                "required": ["name", "email"], "additionalProperties": false
            },
            "status": { "enum": ["pending", "shipped", "delivered", "cancelled"] },
            "placed_at": { "type": "string", "format": "date-time" },
            "total": { "type": "number", "minimum": 0, "maximum": 100000 },
            "tags": { "type": "array", "items": { "type": "string", "maxLength": 20 }, "maxItems": 4 },
            "note": { "anyOf": [{ "type": "string" }, { "type": "null" }] }
        },
        "required": ["order_id", "customer", "status", "placed_at", "total", "tags", "note"],
        "additionalProperties": false
    }
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: nothing has started a thread yet.
    unsafe { prepare_process() };
    let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        println!("usage: cargo bench --bench structured -- MODEL.gguf");
        return Ok(());
    };
    let engine = |draft_max: usize| -> Result<Engine, Box<dyn Error>> {
        let source = Source::open(Path::new(&path))?;
        let model = models::load(&source, LoadOptions::new(available_threads()))?;
        let cache = model.new_cache(WIDTH * 512 / BLOCK_TOKENS, KvType::F16).map_err(|error| error.0)?;
        let config = EngineConfig { draft_max, prefix_cache: false, ..EngineConfig::default() };
        Ok(Engine::start("bench", model, cache, Arc::new(source.tokenizer()?), config)?)
    };
    let source = GrammarSource::JsonSchema(serde_json::from_str(SCHEMA)?);
    let (plain, drafting) = (engine(0)?, engine(EngineConfig::default().draft_max)?);
    let asked = Instant::now();
    let (held, foretold) = (plain.grammars().compile(&source)?, drafting.grammars().compile(&source)?);
    println!("two vocabularies laid out and schemas compiled in {:.0} ms", asked.elapsed().as_secs_f64() * 1e3);

    // The first turn warms up.
    let mut rates = [const { Vec::new() }; 3];
    for turn in 0..=TURNS {
        let measured = [
            tokens_per_second(&plain, None, turn),
            tokens_per_second(&plain, Some(&held), turn),
            tokens_per_second(&drafting, Some(&foretold), turn),
        ];
        if turn > 0 {
            measured.into_iter().zip(&mut rates).for_each(|(rate, rates)| rates.push(rate));
        }
    }
    let [free, held, foretold] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("{WIDTH} streams, tokens/s: free {free:.1}, schema {held:.1} ({:.3} of it)", held / free);
    println!("with forced tokens as drafts {foretold:.1} ({:.3} of free)", foretold / free);
    let stats = drafting.stats();
    let (drafted, accepted) = (stats.drafted_tokens_total.get(), stats.accepted_tokens_total.get());
    println!("{drafted} tokens drafted, {accepted} of them right");
    Ok(())
}

/// Decode throughput: from the time when all streams have begun.
fn tokens_per_second(engine: &Engine, grammar: Option<&Grammar>, turn: usize) -> f64 {
    let ask = |stream: usize| {
        let sampling = SamplingParams { seed: Some((turn * WIDTH + stream) as u64), ..SamplingParams::default() };
        let grammar = grammar.cloned();
        let prompt = Prompt::Tokens((0..16).map(|i| 100 + (i * 37 + stream as u32 * 11) % 900).collect());
        let request =
            GenerateRequest { grammar, sampling, ignore_eos: true, max_tokens: TOKENS, ..GenerateRequest::new(prompt) };
        engine.generate(request)
    };
    let streams: Vec<_> = (0..WIDTH).map(ask).collect();
    let (mut begun, mut ended, mut tokens) = (Instant::now(), Instant::now(), 0);
    for (i, stream) in streams.into_iter().enumerate() {
        for event in stream {
            match event {
                Event::Finished { usage, timeline, .. } => {
                    tokens += usage.completion_tokens - 1;
                    let first = timeline.first_token.unwrap_or(begun);
                    begun = if i == 0 { first } else { begun.max(first) };
                    ended = ended.max(timeline.finished.unwrap_or(ended));
                }
                Event::Failed(error) => panic!("{error}"),
                Event::Started { .. } | Event::Piece { .. } => {}
            }
        }
    }
    tokens as f64 / ended.duration_since(begun).as_secs_f64()
}
