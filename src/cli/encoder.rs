//! From a checked configuration to a running encoder: what [`load`](super::load) is for models that generate.

use std::{num::NonZeroUsize, sync::Arc, time::SystemTime};

use crate::{
    api::{
        ModelInfo, ServedEncoder,
        models::{Facts, Kind, Order, Resident},
    },
    config::{ModelConfig, show_bytes},
    engine::{
        aside,
        encoder::{self, Encoder, EncoderConfig, EncoderSpec, Output},
        models::LoadOptions,
        team,
        tokenizer::Tokenizer,
    },
};

use super::{
    Failure,
    fingerprint::Fingerprint,
    load::{Files, Summary, no_thread, quantize, refuse, telling},
    words::{count, megabytes},
};

/// An encoder's files, opened and understood but for its weights.
pub struct OpenedEncoder {
    files: Files,
    spec: EncoderSpec,
    tokenizer: Tokenizer,
}

impl OpenedEncoder {
    pub fn new(model: &ModelConfig, files: Files) -> Result<Self, Failure> {
        let spec = encoder::inspect(&files.source).map_err(|error| refuse(model, error))?;
        let tokenizer = files.source.tokenizer().map_err(|error| refuse(model, error))?;
        Ok(Self { files, spec, tokenizer })
    }

    pub fn fingerprint(&self) -> &Fingerprint {
        &self.files.fingerprint
    }

    /// What is known of the model before it is loaded. Its weights take about as much as its file; one is held twice for a
    /// moment.
    pub fn facts(&self) -> Facts {
        let source = &self.files.source;
        let largest = source.tensors().map(|tensor| tensor.bytes as u64).max().unwrap_or(0);
        Facts {
            kind: Kind::Encoder,
            architecture: self.spec.architecture.clone(),
            parameters: source.parameters(),
            file_bytes: source.file_bytes(),
            context: self.spec.input_tokens_max,
            memory_bytes_min: source.file_bytes() + largest,
            created: self.files.fingerprint.written().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// For people.
    pub fn summary(&self) -> Summary {
        let source = &self.files.source;
        let output = match self.spec.output {
            Output::Vector { .. } => format!("vectors of {} numbers", self.spec.hidden),
            Output::Score { .. } => "scores of pairs".to_owned(),
        };
        vec![
            ("architecture", self.spec.architecture.clone()),
            ("weights", format!("{} parameters, {}", count(source.parameters()), show_bytes(source.file_bytes()))),
            ("context", format!("{} tokens", self.spec.input_tokens_max)),
            ("vocabulary", format!("{} tokens", self.tokenizer.vocabulary())),
            ("gives", output),
        ]
    }
}

/// Loads an encoder and starts its thread. `queue_max` requests may wait for it.
pub fn load(model: &ModelConfig, queue_max: usize, order: &Order) -> Result<(Resident, Summary, Fingerprint), Failure> {
    let open = || OpenedEncoder::new(model, Files::open(model)?);
    let opened = if order.beside_others { aside(open).map_err(no_thread)?? } else { open()? };
    let told = opened.summary();
    let OpenedEncoder { files: Files { source, fingerprint, started }, spec, tokenizer } = opened;
    let threads = model.threads.and_then(NonZeroUsize::new).unwrap_or_else(team::available_threads);
    let options = LoadOptions { quantize: quantize(model), aside: order.beside_others, ..LoadOptions::new(threads) };
    let loaded = telling(&source, order.on_progress, || encoder::load(&source, options));
    let weights = loaded.map_err(|error| refuse(model, error))?;
    if Fingerprint::of(model) != fingerprint {
        return Err(refuse(model, "it was changed while it was read: load it again once it is whole"));
    }
    let bytes = weights.weight_bytes() as u64;
    let info = ModelInfo {
        architecture: spec.architecture,
        weights_type: source.tensors().max_by_key(|tensor| tensor.bytes).map_or(String::new(), |t| t.dtype.to_string()),
        parameters: source.parameters(),
        file_bytes: source.file_bytes(),
        packed_bytes: bytes,
        context: spec.input_tokens_max,
        load_seconds: started.elapsed().as_secs_f64(),
        loaded: SystemTime::now(),
    };
    let (seconds, packed) = (info.load_seconds, megabytes(bytes));
    log::info!("loading {} took {seconds:.1} s ({} file, {packed} packed)", model.name, megabytes(info.file_bytes));
    let config = EncoderConfig { queue_max, ..EncoderConfig::default() };
    let encoder =
        Encoder::start(&model.name, weights, Arc::new(tokenizer), config).map_err(|error| refuse(model, error))?;
    let backend = Arc::new(ServedEncoder::new(encoder.clone(), info));
    let resident = Resident { backend, bytes, end: Arc::new(move |grace| encoder.shutdown(grace)) };
    let summary = [("model", model.name.clone())].into_iter().chain(told).collect();
    Ok((resident, summary, fingerprint))
}
