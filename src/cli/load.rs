//! From a checked configuration to a running engine: opens the file, packs the weights, sizes the KV cache, starts the
//! threads.

use std::{
    fmt, io,
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use crossbeam_channel::bounded;

use crate::{
    api::{
        ModelInfo, Served,
        models::{Order, Resident},
    },
    config::{self, ModelConfig, ModelSource, available_bytes, show_bytes},
    engine::{
        Engine, EngineConfig, StartError, aside,
        blocks::BLOCK_TOKENS,
        chat_template::ChatTemplate,
        kv_cache::KvType,
        models::{self, LoadError, LoadOptions, Model, Source},
        team,
        tokenizer::{Markup, Special, Tokenizer},
    },
};

use super::{
    Failure, encoder,
    fingerprint::Fingerprint,
    opened::{Design, Opened, open},
    progress::Progress,
    room::Room,
};

/// How often it is told how far loading is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What was loaded and how, for people: a word and a line each.
pub type Summary = Vec<(&'static str, String)>;

/// A model that is being served.
pub struct Loaded {
    pub resident: Resident,
    pub summary: Summary,
    /// The files it was read from, as they were then.
    pub fingerprint: Fingerprint,
}

/// A model in memory, with all that is known of it.
pub struct InMemory<M = Box<dyn Model>> {
    pub model: M,
    pub info: ModelInfo,
    pub threads: NonZeroUsize,
    pub tokenizer: Tokenizer,
    pub fingerprint: Fingerprint,
    template: Option<ChatTemplate>,
}

impl InMemory {
    /// What the model wants before every text, if anything.
    pub fn first_token(&self) -> Option<u32> {
        self.tokenizer.encode("", Special::Add, Markup::Literal).first().copied()
    }
}

/// Loads a model and starts its engine. `queue_max` requests may wait for it.
pub fn load(model: &ModelConfig, queue_max: usize, order: &Order) -> Result<Loaded, Failure> {
    let opened = if order.beside_others { aside(|| open(model)).map_err(no_thread)?? } else { open(model)? };
    let spec = match &opened.design {
        Design::Decoder(spec) => spec,
        Design::Encoder(_) => return encoder::load(model, opened, queue_max, order),
    };
    let mut engine_config = EngineConfig { queue_max, running_max: running_max(model), ..EngineConfig::default() };
    engine_config.gap_max = model.gap.unwrap_or(engine_config.gap_max);
    engine_config.prefix_cache = model.prefix_cache.unwrap_or(engine_config.prefix_cache);
    if model.speculation == Some(config::Speculation::Off) {
        engine_config.draft_max = 0;
    }
    // Planned before the weights are read: what can't be had is said at once.
    let left = order.bytes.map(|bytes| bytes.saturating_sub(opened.memory_needed()));
    let room = Room::plan(model, spec, engine_config.running_max, left).map_err(|error| refuse(model, error))?;
    engine_config.context_max = Some(room.context);

    let read = read(model, opened, order.beside_others, order.on_progress)?;
    let InMemory { model: weights, mut info, threads, tokenizer, template, fingerprint } = read;
    info.context = room.context;
    let bytes = info.packed_bytes + room.bytes;
    let summary = summary(model, &info, weights.spec().context, &room, threads);
    let cache = weights.new_cache(room.blocks, kv_type(model)).map_err(|error| refuse(model, error.0))?;
    let engine = Engine::start(&model.name, weights, cache, Arc::new(tokenizer), engine_config);
    let engine = engine.map_err(|error| not_started(model, error))?;
    let backend = Arc::new(Served::new(engine.clone(), template, info));
    let resident = Resident { backend, bytes, end: Arc::new(move |grace| engine.shutdown(grace)) };
    Ok(Loaded { resident, summary, fingerprint })
}

/// As [`load`], for a command with one model: with a bar on the terminal if it takes a while.
pub fn load_showing(model: &ModelConfig, queue_max: usize) -> Result<Loaded, Failure> {
    let (progress, what) = (Progress::new(), format!("loading {}", model.name));
    let on_progress = |share| progress.bar(&what, share);
    load(model, queue_max, &Order { bytes: available_bytes(), beside_others: false, on_progress: &on_progress })
}

/// Why an engine did not start.
pub fn not_started(model: &ModelConfig, error: StartError) -> Failure {
    match error {
        StartError::Thread(_) => Failure::Run(error.to_string()),
        StartError::Zero(_) | StartError::CacheTooSmall { .. } | StartError::Vocabulary { .. } => refuse(model, error),
    }
}

/// Sequences that run side by side at most.
pub fn running_max(model: &ModelConfig) -> usize {
    model.running_max.unwrap_or(EngineConfig::default().running_max)
}

fn no_thread(error: io::Error) -> Failure {
    Failure::Run(format!("can't start a thread: {error}"))
}

/// Reads and packs the weights of a model that makes text, and tries them once. `aside`: others compute meanwhile, and
/// come first.
pub fn read(
    model: &ModelConfig,
    opened: Opened,
    aside: bool,
    on_progress: &(dyn Fn(f32) + Sync),
) -> Result<InMemory, Failure> {
    if let Design::Encoder(_) = opened.design {
        return Err(refuse(model, "it makes embeddings, not text"));
    }
    let size = |weights: &Box<dyn Model>| (weights.weights().memory_bytes(), weights.spec().context);
    read_as(model, opened, aside, on_progress, models::load, size)
}

/// As [`read`], by the way of `load`; `size` gives the weights' bytes in memory, and the tokens of a text.
pub fn read_as<M>(
    model: &ModelConfig,
    opened: Opened,
    aside: bool,
    on_progress: &(dyn Fn(f32) + Sync),
    load: impl FnOnce(&Source, LoadOptions) -> Result<M, LoadError>,
    size: impl FnOnce(&M) -> (u64, usize),
) -> Result<InMemory<M>, Failure> {
    let weights_type = opened.weights_type();
    let architecture = opened.design.architecture().to_owned();
    let Opened { source, tokenizer, template, fingerprint, quantize, started, .. } = opened;
    let threads = model.threads.and_then(NonZeroUsize::new).unwrap_or_else(team::available_threads);
    let device = model.device.unwrap_or_default();
    let options = LoadOptions { device, quantize, context: model.context, aside, ..LoadOptions::new(threads) };
    let loaded = telling(&source, on_progress, || load(&source, options));
    let weights = loaded.map_err(|error| refuse(model, error))?;
    if Fingerprint::of(model) != fingerprint {
        return Err(refuse(model, "it was changed while it was read: load it again once it is whole"));
    }
    let (packed_bytes, context) = size(&weights);
    let info = ModelInfo {
        architecture,
        weights_type,
        parameters: source.parameters(),
        file_bytes: source.file_bytes(),
        packed_bytes,
        context,
        load_seconds: started.elapsed().as_secs_f64(),
        loaded: SystemTime::now(),
    };
    log::info!(
        "loading {} took {:.1} s ({} file, {} packed)",
        model.name,
        info.load_seconds,
        megabytes(info.file_bytes),
        megabytes(info.packed_bytes)
    );
    Ok(InMemory { model: weights, info, threads, tokenizer, fingerprint, template })
}

/// How the model's keys and values are kept.
pub fn kv_type(model: &ModelConfig) -> KvType {
    match model.kv_type {
        None | Some(config::KvType::F16) => KvType::F16,
        Some(config::KvType::Q8_0) => KvType::Q8_0,
    }
}

/// Runs `work` while `on_progress` is told how much of the file has been read.
fn telling<T>(source: &Source, on_progress: &(dyn Fn(f32) + Sync), work: impl FnOnce() -> T) -> T {
    let (done, ended) = bounded::<()>(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            // Nothing is ever sent: the wait ends with the work.
            while ended.recv_timeout(PROGRESS_INTERVAL) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                on_progress(source.read_share());
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// A model that can't be served: its file and why.
pub fn refuse(model: &ModelConfig, error: impl fmt::Display) -> Failure {
    Failure::Config(match &model.source {
        ModelSource::Demo => format!("the embedded demo model: {error}"),
        ModelSource::File(path) => format!("{}: {error}", path.display()),
    })
}

fn summary(model: &ModelConfig, info: &ModelInfo, trained: usize, room: &Room, threads: NonZeroUsize) -> Summary {
    let cut = match room.cut {
        true => format!(", of the model's {trained} (raise kv_memory for more)"),
        false => String::new(),
    };
    let tokens = room.blocks * BLOCK_TOKENS;
    let context = ("context", format!("{} tokens{cut}", room.context));
    let memory = ("memory", format!("{} for KV at most: {tokens} tokens over all sequences", show_bytes(room.bytes)));
    summarize(model, info, [context, memory], threads)
}

/// What is told of every model, around what its kind has.
pub fn summarize<const N: usize>(
    model: &ModelConfig,
    info: &ModelInfo,
    own: [(&'static str, String); N],
    threads: NonZeroUsize,
) -> Summary {
    let origin = match &model.source {
        ModelSource::Demo => "embedded; a toy: name a real model with --model FILE.gguf".to_owned(),
        ModelSource::File(path) => path.display().to_string(),
    };
    let why = if model.threads.is_some() { "as configured" } else { "as many as the CPU quota allows" };
    let (architecture, size) = (&info.architecture, show_bytes(info.file_bytes));
    let mut summary = vec![
        ("model", format!("{} ({origin})", model.name)),
        ("weights", format!("{architecture}, {} parameters, {size}", count(info.parameters))),
    ];
    summary.extend(own);
    summary.push(("threads", format!("{threads}, {why}")));
    summary
}

/// `397 MB`.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.*} MB", if bytes < 10_000_000 { 1 } else { 0 }, bytes as f64 / 1e6)
}

/// `596 M`, `1.7 B`.
pub fn count(n: u64) -> String {
    match n {
        n if n >= 10_000_000_000 => format!("{} B", n / 1_000_000_000),
        n if n >= 1_000_000_000 => format!("{:.1} B", n as f64 / 1e9),
        n if n >= 10_000_000 => format!("{} M", n / 1_000_000),
        n if n >= 1_000_000 => format!("{:.1} M", n as f64 / 1e6),
        n => format!("{} k", n.div_ceil(1000)),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{demo, engine::gguf::Gguf};

    /// The embedded model on one thread.
    pub fn demo() -> Box<dyn Model> {
        let source = Gguf::from_static(demo::MODEL).unwrap().into();
        models::load(&source, LoadOptions::new(NonZeroUsize::MIN)).unwrap()
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
