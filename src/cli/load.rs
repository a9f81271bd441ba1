//! From a checked configuration to a running engine: opens the file, packs the weights, sizes the KV cache, starts the
//! threads.

use std::{
    collections::HashMap,
    fmt, fs, io,
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::bounded;

use crate::{
    api::{
        ModelInfo, Served,
        models::{Facts, Kind as ModelKind, Order, Resident},
    },
    config::{self, ModelConfig, ModelSource, available_bytes, show_bytes},
    demo,
    engine::{
        Engine, EngineConfig, StartError, aside,
        blocks::BLOCK_TOKENS,
        chat_template::{ChatTemplate, TemplateSources},
        encoder::is_encoder,
        gguf::{Gguf, Tensor, TensorType},
        kernels::matmul::Kind,
        kv_cache::KvType,
        models::{self, LoadError, LoadOptions, Model, Source, Spec, layout},
        team,
        tokenizer::{Markup, Special, Tokenizer},
    },
};

use super::{
    Failure,
    encoder::OpenedEncoder,
    fingerprint::Fingerprint,
    progress::Progress,
    room::Room,
    words::{count, megabytes},
};

/// How often it is told how far loading is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What was loaded and how, for people: a word and a line each.
pub type Summary = Vec<(&'static str, String)>;

/// A model that is being served.
pub struct Loaded {
    pub engine: Engine,
    pub served: Arc<Served>,
    /// Memory that it may come to hold, keys and values included.
    pub bytes: u64,
    pub summary: Summary,
    /// The files it was read from, as they were then.
    pub fingerprint: Fingerprint,
}

impl Loaded {
    /// As the server takes it.
    pub fn into_resident(self) -> (Resident, Summary, Fingerprint) {
        let Self { engine, served, bytes, summary, fingerprint } = self;
        (Resident { backend: served, bytes, end: Arc::new(move |grace| engine.shutdown(grace)) }, summary, fingerprint)
    }
}

/// A model in memory, with all that is known of it.
pub struct InMemory {
    pub model: Box<dyn Model>,
    pub info: ModelInfo,
    pub threads: NonZeroUsize,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    fingerprint: Fingerprint,
}

impl InMemory {
    /// What the model wants before every text, if anything.
    pub fn first_token(&self) -> Option<u32> {
        self.tokenizer.encode("", Special::Add, Markup::Literal).first().copied()
    }
}

/// A model file that has been opened and understood, but for its weights.
pub struct Opened {
    source: Source,
    spec: Spec,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    fingerprint: Fingerprint,
    quantize: Option<models::Quantize>,
    started: Instant,
}

/// Loads a model and starts its engine. `queue_max` requests may wait for it.
pub fn load(model: &ModelConfig, queue_max: usize, order: &Order) -> Result<Loaded, Failure> {
    let opened = if order.beside_others { aside(|| open(model)).map_err(no_thread)?? } else { open(model)? };
    let mut engine_config = EngineConfig { queue_max, running_max: running_max(model), ..EngineConfig::default() };
    engine_config.gap_max = model.gap.unwrap_or(engine_config.gap_max);
    engine_config.prefix_cache = model.prefix_cache.unwrap_or(engine_config.prefix_cache);
    if model.speculation == Some(config::Speculation::Off) {
        engine_config.draft_max = 0;
    }
    // Planned before the weights are read: what can't be had is said at once.
    let left = order.bytes.map(|bytes| bytes.saturating_sub(opened.memory_needed()));
    let room =
        Room::plan(model, &opened.spec, engine_config.running_max, left).map_err(|error| refuse(model, error))?;
    engine_config.context_max = Some(room.context);

    let read = read(model, opened, order.beside_others, order.on_progress)?;
    let InMemory { model: weights, mut info, threads, tokenizer, template, fingerprint } = read;
    info.context = room.context;
    let bytes = info.packed_bytes + room.bytes;
    let summary = summary(model, &info, weights.spec().context, &room, threads);
    let cache = weights.new_cache(room.blocks, kv_type(model)).map_err(|error| refuse(model, error.0))?;
    let engine =
        Engine::start(&model.name, weights, cache, Arc::new(tokenizer), engine_config).map_err(
            |error| match error {
                StartError::Thread(_) => Failure::Run(error.to_string()),
                StartError::Zero(_) | StartError::CacheTooSmall { .. } | StartError::Vocabulary { .. } => {
                    refuse(model, error)
                }
            },
        )?;
    let served = Arc::new(Served::new(engine.clone(), template, info));
    Ok(Loaded { engine, served, bytes, summary, fingerprint })
}

/// As [`load`], for a command with one model: with a bar on the terminal if it takes a while.
pub fn load_showing(model: &ModelConfig, queue_max: usize) -> Result<Loaded, Failure> {
    let (progress, what) = (Progress::new(), format!("loading {}", model.name));
    let on_progress = |share| progress.bar(&what, share);
    load(model, queue_max, &Order { bytes: available_bytes(), beside_others: false, on_progress: &on_progress })
}

/// Sequences that run side by side at most.
fn running_max(model: &ModelConfig) -> usize {
    model.running_max.unwrap_or(EngineConfig::default().running_max)
}

pub fn no_thread(error: io::Error) -> Failure {
    Failure::Run(format!("can't start a thread: {error}"))
}

/// Reads and packs a model's weights, and tries them once. `aside`: others compute meanwhile, and come first.
pub fn read(
    model: &ModelConfig,
    opened: Opened,
    aside: bool,
    on_progress: &(dyn Fn(f32) + Sync),
) -> Result<InMemory, Failure> {
    let weights_type = opened.weights_type();
    let Opened { source, tokenizer, template, fingerprint, quantize, started, .. } = opened;
    let threads = model.threads.and_then(NonZeroUsize::new).unwrap_or_else(team::available_threads);
    let device = model.device.unwrap_or_default();
    let options = LoadOptions { device, quantize, context: model.context, aside, ..LoadOptions::new(threads) };
    let loaded = telling(&source, on_progress, || models::load(&source, options));
    let weights = loaded.map_err(|error| refuse(model, error))?;
    if Fingerprint::of(model) != fingerprint {
        return Err(refuse(model, "it was changed while it was read: load it again once it is whole"));
    }
    let sizes = weights.weights();
    let info = ModelInfo {
        architecture: weights.spec().architecture.clone(),
        weights_type,
        parameters: sizes.parameters,
        file_bytes: source.file_bytes(),
        packed_bytes: sizes.memory_bytes(),
        context: weights.spec().context,
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
    Ok(InMemory { model: weights, info, threads, tokenizer, template, fingerprint })
}

impl Opened {
    pub fn new(model: &ModelConfig, files: Files) -> Result<Self, Failure> {
        let Files { source, fingerprint, started } = files;
        // Asked first: what can't be served at all needs no look at its tokenizer.
        let spec = models::inspect(&source).map_err(|error| refuse(model, error))?;
        let tokenizer = source.tokenizer().map_err(|error| refuse(model, error))?;
        let template = match &model.template {
            None => source.chat_template(&tokenizer).map_err(|error| refuse(model, error))?,
            Some(path) => {
                let refuse = |error: &dyn fmt::Display| Failure::Config(format!("{}: {error}", path.display()));
                let text = fs::read_to_string(path).map_err(|error| refuse(&error))?;
                let sources =
                    TemplateSources::read(&text).ok_or_else(|| refuse(&"it is JSON without `chat_template`"))?;
                Some(ChatTemplate::for_tokenizer(sources, &tokenizer).map_err(|error| refuse(&error))?)
            }
        };
        Ok(Self { source, spec, tokenizer, template, fingerprint, quantize: quantize(model), started })
    }

    /// About the memory that [`read`] takes: packed weights, and the most that is held while one more is packed.
    pub fn memory_needed(&self) -> u64 {
        let packed: u64 = self.kept().map(|(dtype, bytes)| Kind::packed_bytes(dtype, bytes)).sum();
        let in_work = self.source.tensors().map(|tensor| self.in_work(&tensor)).max();
        packed + in_work.unwrap_or(0)
    }

    /// What is held until a tensor is packed: its bytes as they were read, beside them what they are quantised to, and for
    /// an up its gate, which waits to be packed with it.
    fn in_work(&self, tensor: &Tensor) -> u64 {
        let (dtype, bytes) = self.kept_of(tensor);
        let quantised = if dtype == tensor.dtype { 0 } else { bytes };
        let gate = layout::gate_of(tensor.name).and_then(|gate| self.source.tensor(&gate));
        tensor.bytes as u64 + quantised + gate.map_or(0, |gate| self.kept_of(&gate).1)
    }

    /// What is known of the model before it is loaded.
    pub fn facts(&self, model: &ModelConfig) -> Facts {
        let cache = Room::least(model, &self.spec, running_max(model));
        Facts {
            kind: ModelKind::Decoder,
            architecture: self.spec.architecture.clone(),
            parameters: self.source.parameters(),
            file_bytes: self.source.file_bytes(),
            context: model.context.unwrap_or(self.spec.context),
            memory_bytes_min: self.memory_needed() + cache,
            created: self.fingerprint.written().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// The files, as they were when they were opened.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The type that most of the weights are kept as.
    fn weights_type(&self) -> String {
        let mut sums = HashMap::new();
        for (dtype, bytes) in self.kept() {
            *sums.entry(dtype).or_insert(0) += bytes;
        }
        let most = sums.into_iter().max_by_key(|(dtype, bytes)| (*bytes, dtype.id()));
        most.map_or(String::new(), |(dtype, _)| dtype.to_string())
    }

    /// What each tensor is kept as, and the bytes of that.
    fn kept(&self) -> impl Iterator<Item = (TensorType, u64)> {
        self.source.tensors().map(|tensor| self.kept_of(&tensor))
    }

    fn kept_of(&self, tensor: &Tensor) -> (TensorType, u64) {
        let (dtype, bytes) = self.quantize.map_or((tensor.dtype, tensor.bytes), |quantize| quantize.kept(tensor));
        (dtype, bytes as u64)
    }
}

/// How the model's keys and values are kept.
pub fn kv_type(model: &ModelConfig) -> KvType {
    match model.kv_type {
        None | Some(config::KvType::F16) => KvType::F16,
        Some(config::KvType::Q8_0) => KvType::Q8_0,
    }
}

/// Runs `work` while `on_progress` is told how much of the file has been read.
pub fn telling<T>(source: &Source, on_progress: &(dyn Fn(f32) + Sync), work: impl FnOnce() -> T) -> T {
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

/// What a model file is, without loading its weights.
pub fn inspect(model: &ModelConfig) -> Result<Summary, Failure> {
    let files = Files::open(model)?;
    if is_encoder(&files.source) {
        return OpenedEncoder::new(model, files).map(|opened| opened.summary());
    }
    let Opened { source, spec, tokenizer, template, .. } = Opened::new(model, files)?;
    Room::plan(model, &spec, running_max(model), available_bytes()).map_err(|error| refuse(model, error))?;
    Ok(vec![
        ("architecture", spec.architecture),
        ("weights", format!("{} parameters, {}", count(source.parameters()), show_bytes(source.file_bytes()))),
        ("context", format!("{} tokens", spec.context)),
        ("vocabulary", format!("{} tokens", tokenizer.vocabulary())),
        ("chat", if template.is_some() { "has a template" } else { "has no template" }.to_owned()),
    ])
}

/// A model's files, opened.
pub struct Files {
    pub source: Source,
    /// As they were then.
    pub fingerprint: Fingerprint,
    pub started: Instant,
}

impl Files {
    pub fn open(model: &ModelConfig) -> Result<Self, Failure> {
        let (started, fingerprint) = (Instant::now(), Fingerprint::of(model));
        let source = match &model.source {
            ModelSource::Demo => Gguf::from_static(demo::MODEL).map(Source::from).map_err(LoadError::from),
            ModelSource::File(path) => Source::open(path),
        };
        Ok(Self { source: source.map_err(|error| refuse(model, error))?, fingerprint, started })
    }
}

/// Opens a model that generates, and understands all of it but the weights.
pub fn open(model: &ModelConfig) -> Result<Opened, Failure> {
    Opened::new(model, Files::open(model)?)
}

/// How the model's float weights are kept.
pub fn quantize(model: &ModelConfig) -> Option<models::Quantize> {
    model.quantize.map(|wanted| match wanted {
        config::Quantize::Q8_0 => models::Quantize::Q8_0,
        config::Quantize::Q4K => models::Quantize::Q4K,
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
    let origin = match &model.source {
        ModelSource::Demo => "embedded; a toy: name a real model with --model FILE.gguf".to_owned(),
        ModelSource::File(path) => path.display().to_string(),
    };
    let cut = match room.cut {
        true => format!(", of the model's {trained} (raise kv_memory for more)"),
        false => String::new(),
    };
    let why = if model.threads.is_some() { "as configured" } else { "as many as the CPU quota allows" };
    let (architecture, size) = (&info.architecture, show_bytes(info.file_bytes));
    let tokens = room.blocks * BLOCK_TOKENS;
    vec![
        ("model", format!("{} ({origin})", model.name)),
        ("weights", format!("{architecture}, {} parameters, {size}", count(info.parameters))),
        ("context", format!("{} tokens{cut}", room.context)),
        ("memory", format!("{} for KV at most: {tokens} tokens over all sequences", show_bytes(room.bytes))),
        ("threads", format!("{threads}, {why}")),
    ]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::engine::gguf::GgufWriter;

    /// The embedded model on one thread.
    pub fn demo() -> Box<dyn Model> {
        let source = Gguf::from_static(demo::MODEL).unwrap().into();
        models::load(&source, LoadOptions::new(NonZeroUsize::MIN)).unwrap()
    }

    /// Sixteen-bit matrices of 256 inputs, with a norm and a matrix that is quantised already.
    fn opened(vocabulary: usize, quantize: Option<models::Quantize>) -> Opened {
        let bytes = vec![0; 2 * 256 * vocabulary.max(96)];
        let mut file = GgufWriter::new();
        let mut matrix = |name, dtype, rows: usize, bytes_per_row| {
            file.tensor(name, dtype, &[rows, 256], &bytes[..rows * bytes_per_row]);
        };
        matrix("token_embd.weight", TensorType::F16, vocabulary, 512);
        matrix("blk.0.ffn_gate.weight", TensorType::F16, 96, 512);
        matrix("blk.0.ffn_up.weight", TensorType::F16, 96, 512);
        matrix("blk.0.attn_q.weight", TensorType::Q8_0, 32, 272);
        file.tensor("output_norm.weight", TensorType::F32, &[256], &bytes[..1024]);
        let source = Gguf::from_bytes(file.to_bytes()).unwrap().into();
        Opened { source, quantize, ..open(&ModelConfig::demo()).unwrap() }
    }

    #[test]
    fn memory_while_loading() {
        let check = |vocabulary, quantize, packed: [u64; 3], in_work: u64, weights_type| {
            let opened = opened(vocabulary, quantize);
            // The norm's floats and the 8 bits stay as they are.
            let others = 1024 + 8704;
            assert_eq!(opened.memory_needed(), packed.iter().sum::<u64>() + others + in_work, "{quantize:?}");
            assert_eq!(opened.weights_type(), weights_type, "{quantize:?}");
        };
        let (q8_0, q4_k) = (Some(models::Quantize::Q8_0), Some(models::Quantize::Q4K));
        // Gate and up are packed together: both are held, the up in both forms if it is quantised.
        check(64, None, [32_768, 49_152, 49_152], 2 * 49_152, "f16");
        check(64, q8_0, [17_408, 26_112, 26_112], 26_112 + 49_152 + 26_112, "q8_0");
        // Packed, blocks of four bits take 2,368 bytes where a file has 2,304, those of the table 3,392 and 3,360.
        check(64, q4_k, [13_568, 14_208, 14_208], 13_824 + 49_152 + 13_824, "q4_K");
        // A large table outweighs them.
        check(640, None, [327_680, 49_152, 49_152], 327_680, "f16");
        check(640, q8_0, [174_080, 26_112, 26_112], 327_680 + 174_080, "q8_0");
        check(640, q4_k, [135_680, 14_208, 14_208], 327_680 + 134_400, "q6_K");
    }
}
