//! From a checked configuration to a running engine: opens the file, sizes the KV cache, starts the threads.

use std::{fmt, fs, num::NonZeroUsize, sync::Arc};

use crate::{
    api::Served,
    config::{Config, ModelConfig, ModelSource, show_bytes},
    demo,
    engine::{
        Engine, StartError,
        blocks::BLOCK_TOKENS,
        chat_template::ChatTemplate,
        config::EngineConfig,
        gguf::Gguf,
        kv_cache::{KvCache, KvType},
        models::{self, Architecture, Spec},
        team,
        tokenizer::Tokenizer,
    },
};

use super::{Failure, memory};

/// KV memory where nobody says otherwise and no machine is too small for it: a long conversation of a small model.
const KV_BYTES_DEFAULT: u64 = 2 << 30;
/// Where the system does not say how much memory is left.
const AVAILABLE_BYTES_UNKNOWN: u64 = 2 << 30;

/// A model that is being served.
pub struct Loaded {
    pub engine: Engine,
    pub served: Arc<Served>,
    /// What was loaded and how, for people: a word and a line each.
    pub summary: Vec<(&'static str, String)>,
}

/// A model file that has been opened and understood, but for its weights.
struct Opened {
    gguf: Gguf,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

/// Loads the model and starts its engine.
pub fn load(config: &Config) -> Result<Loaded, Failure> {
    let model = &config.model;
    let Opened { gguf, tokenizer, template } = open(model)?;
    let threads = model.threads.and_then(NonZeroUsize::new).unwrap_or_else(team::available_threads);
    let weights = models::load(&gguf, threads).map_err(|error| refuse(model, error))?;
    let mut engine_config = EngineConfig { queue_max: config.server.queue_max, ..EngineConfig::default() };
    engine_config.running_max = model.running_max.unwrap_or(engine_config.running_max);
    engine_config.gap_max = model.gap.unwrap_or(engine_config.gap_max);
    let room = Room::plan(model, weights.spec(), engine_config.running_max, memory::available_bytes())
        .map_err(|error| refuse(model, error))?;
    engine_config.context_max = Some(room.context);

    let summary = summary(model, &gguf, weights.spec(), &room, threads);
    let cache = KvCache::new(weights.spec(), room.blocks, KvType::F16);
    let engine =
        Engine::start(&model.name, weights, cache, Arc::new(tokenizer), engine_config).map_err(
            |error| match error {
                StartError::Thread(_) => Failure::Run(error.to_string()),
                StartError::Zero(_) | StartError::Vocabulary { .. } => refuse(model, error),
            },
        )?;
    let served = Arc::new(Served::new(engine.clone(), template));
    Ok(Loaded { engine, served, summary })
}

/// What a model file is, without loading its weights.
pub fn inspect(model: &ModelConfig) -> Result<Vec<(&'static str, String)>, Failure> {
    let Opened { gguf, tokenizer, template } = open(model)?;
    let architecture = Architecture::of(&gguf).map_err(|error| refuse(model, error))?.name();
    let context: Option<u32> = gguf.metadata().find(&format!("{architecture}.context_length")).unwrap_or(None);
    Ok(vec![
        ("architecture", architecture.to_owned()),
        ("weights", format!("{} parameters, {}", count(parameters(&gguf)), show_bytes(gguf.file_bytes()))),
        ("context", context.map_or("unknown".to_owned(), |n| format!("{n} tokens"))),
        ("vocabulary", format!("{} tokens", tokenizer.vocabulary())),
        ("chat", if template.is_some() { "has a template" } else { "has no template" }.to_owned()),
    ])
}

fn open(model: &ModelConfig) -> Result<Opened, Failure> {
    let gguf = match &model.source {
        ModelSource::Demo => Gguf::from_static(demo::MODEL),
        ModelSource::File(path) => Gguf::open(path),
    }
    .map_err(|error| refuse(model, error))?;
    // Asked first: what can't be served at all needs no look at its tokenizer.
    Architecture::of(&gguf).map_err(|error| refuse(model, error))?;
    let tokenizer = Tokenizer::from_gguf(gguf.metadata()).map_err(|error| refuse(model, error))?;
    let spelt = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
    let (bos, eos) = (spelt(tokenizer.bos()), spelt(tokenizer.eos()));
    let template = match &model.template {
        None => ChatTemplate::from_gguf(gguf.metadata(), &bos, &eos).map_err(|error| refuse(model, error))?,
        Some(path) => {
            let refuse = |error: &dyn fmt::Display| Failure::Config(format!("{}: {error}", path.display()));
            let source = fs::read_to_string(path).map_err(|error| refuse(&error))?;
            Some(ChatTemplate::new(&source, &bos, &eos).map_err(|error| refuse(&error))?)
        }
    };
    Ok(Opened { gguf, tokenizer, template })
}

/// A model that can't be served: its file and why.
fn refuse(model: &ModelConfig, error: impl fmt::Display) -> Failure {
    Failure::Config(match &model.source {
        ModelSource::Demo => format!("the embedded demo model: {error}"),
        ModelSource::File(path) => format!("{}: {error}", path.display()),
    })
}

/// How many KV blocks there will be, and the context they allow.
#[derive(Debug, PartialEq)]
struct Room {
    blocks: usize,
    bytes: u64,
    context: usize,
    /// The context is less than the model's for want of memory.
    cut: bool,
}

impl Room {
    /// Takes the memory it is told to, else what is useful within half of what is `available`.
    fn plan(model: &ModelConfig, spec: &Spec, running_max: usize, available: Option<u64>) -> Result<Self, String> {
        let block_bytes = KvCache::block_bytes(spec, KvType::F16) as u64;
        let context = model.context.unwrap_or(spec.context);
        if context > spec.context {
            return Err(format!("context = {context}: the model was trained for {} tokens", spec.context));
        }
        let one = context.div_ceil(BLOCK_TOKENS);
        // More than all sequences at their longest is never used.
        let useful = one.saturating_mul(running_max);
        let bytes = model.kv_bytes.unwrap_or_else(|| {
            let half = available.unwrap_or(AVAILABLE_BYTES_UNKNOWN) / 2;
            (one as u64 * block_bytes).max(KV_BYTES_DEFAULT).min(half)
        });
        let blocks = usize::try_from(bytes / block_bytes).unwrap_or(usize::MAX).min(useful);
        if blocks == 0 {
            return Err(format!("the KV cache needs {} at least: raise kv_memory", show_bytes(block_bytes)));
        }
        let fits = blocks.saturating_mul(BLOCK_TOKENS);
        if model.context.is_some() && fits < context {
            let needed = show_bytes((one as u64 * block_bytes).next_multiple_of(1 << 20));
            return Err(format!("context = {context} needs {needed} of KV memory: raise kv_memory or lower context"));
        }
        Ok(Self { blocks, bytes: blocks as u64 * block_bytes, context: context.min(fits), cut: fits < context })
    }
}

fn summary(
    model: &ModelConfig,
    gguf: &Gguf,
    spec: &Spec,
    room: &Room,
    threads: NonZeroUsize,
) -> Vec<(&'static str, String)> {
    let origin = match &model.source {
        ModelSource::Demo => "embedded; a toy: name a real model with --model FILE.gguf".to_owned(),
        ModelSource::File(path) => path.display().to_string(),
    };
    let cut = match room.cut {
        true => format!(", of the model's {} (raise kv_memory for more)", spec.context),
        false => String::new(),
    };
    let why = if model.threads.is_some() { "as configured" } else { "as many as the CPU quota allows" };
    vec![
        ("model", format!("{} ({origin})", model.name)),
        (
            "weights",
            format!("{}, {} parameters, {}", spec.architecture, count(parameters(gguf)), show_bytes(gguf.file_bytes())),
        ),
        ("context", format!("{} tokens{cut}", room.context)),
        (
            "memory",
            format!(
                "{} for KV at most: {} tokens over all sequences",
                show_bytes(room.bytes),
                room.blocks * BLOCK_TOKENS
            ),
        ),
        ("threads", format!("{threads}, {why}")),
    ]
}

fn parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().map(|tensor| tensor.shape.iter().map(|n| *n as u64).product::<u64>()).sum()
}

/// `596 M`, `1.7 B`.
fn count(n: u64) -> String {
    match n {
        n if n >= 10_000_000_000 => format!("{} B", n / 1_000_000_000),
        n if n >= 1_000_000_000 => format!("{:.1} B", n as f64 / 1e9),
        n if n >= 10_000_000 => format!("{} M", n / 1_000_000),
        n if n >= 1_000_000 => format!("{:.1} M", n as f64 / 1e6),
        n => format!("{} k", n.div_ceil(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(context: Option<usize>, kv_bytes: Option<u64>) -> ModelConfig {
        ModelConfig {
            name: "m".to_owned(),
            source: ModelSource::Demo,
            context,
            threads: None,
            kv_bytes,
            running_max: None,
            gap: None,
            template: None,
        }
    }

    /// 1 KiB a token, 32 KiB a block.
    fn spec() -> Spec {
        Spec { architecture: "qwen3".to_owned(), layers: 1, kv_heads: 2, head_dim: 128, vocabulary: 9, context: 4096 }
    }

    #[track_caller]
    fn check(
        context: Option<usize>,
        kv_bytes: Option<u64>,
        available: u64,
        expected: Result<(usize, usize, bool), &str>,
    ) {
        let room = Room::plan(&model(context, kv_bytes), &spec(), 8, Some(available));
        match (room, expected) {
            (Ok(room), Ok(expected)) => assert_eq!((room.blocks, room.context, room.cut), expected),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (room, expected) => panic!("{room:?}, not {expected:?}"),
        }
    }

    #[test]
    fn room_for_the_cache() {
        const MIB: u64 = 1 << 20;
        // Enough of everything: eight sequences at their longest, no more.
        check(None, None, 64 << 30, Ok((8 * 128, 4096, false)));
        check(Some(100), None, 64 << 30, Ok((8 * 4, 100, false)));
        check(None, Some(1 << 40), 64 << 30, Ok((8 * 128, 4096, false)));
        // A small machine: half of what it has, and the context follows.
        check(None, None, 4 * MIB, Ok((64, 2048, true)));
        check(None, Some(MIB), 64 << 30, Ok((32, 1024, true)));
        // What was asked for and can't be had is an error.
        check(Some(4096), Some(MIB), 64 << 30, Err("context = 4096 needs 4 MiB"));
        check(Some(8192), None, 64 << 30, Err("trained for 4096"));
        check(None, Some(1 << 10), 64 << 30, Err("32 KiB at least"));
    }

    #[test]
    fn counts() {
        for (n, words) in
            [(3_400_000, "3.4 M"), (596_049_920, "596 M"), (1_720_000_000, "1.7 B"), (70_000_000_000, "70 B")]
        {
            assert_eq!(count(n), words);
        }
    }
}
