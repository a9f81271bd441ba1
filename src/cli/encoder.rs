//! From an opened encoder to a running one: packs the weights, starts the thread. It has no cache to be sized.

use std::sync::Arc;

use crate::{
    api::{
        ServedEncoder,
        models::{Order, Resident},
    },
    config::ModelConfig,
    engine::encoder::{self, Encoder, EncoderConfig, EncoderModel, EncoderSpec, Output},
};

use super::{
    Failure,
    load::{self, InMemory, Loaded, not_started, refuse, summarize},
    opened::{Design, Opened},
};

/// Loads an encoder. `queue_max` requests may wait for it.
pub fn load(model: &ModelConfig, opened: Opened, queue_max: usize, order: &Order) -> Result<Loaded, Failure> {
    if let Design::Encoder(spec) = &opened.design {
        check(model, spec)?;
    }
    let size = |model: &EncoderModel| (model.weight_bytes() as u64, model.spec().input_tokens_max);
    let read = load::read_as(model, opened, order.beside_others, order.on_progress, encoder::load, size)?;
    let InMemory { model: weights, info, threads, tokenizer, fingerprint, .. } = read;
    let summary = summarize(model, &info, [("makes", makes(weights.spec()))], threads);
    let config = EncoderConfig { queue_max, ..EncoderConfig::default() };
    let encoder = Encoder::start(&model.name, weights, Arc::new(tokenizer), config);
    let encoder = encoder.map_err(|error| not_started(model, error))?;
    let bytes = info.packed_bytes;
    let backend = Arc::new(ServedEncoder::new(encoder.clone(), info));
    let resident = Resident { backend, bytes, end: Arc::new(move |grace| encoder.shutdown(grace)) };
    Ok(Loaded { resident, summary, fingerprint })
}

/// Whether it can be served as it is configured.
pub fn check(model: &ModelConfig, spec: &EncoderSpec) -> Result<(), Failure> {
    let trained = spec.input_tokens_max;
    match model.context {
        Some(context) if context > trained => {
            Err(refuse(model, format!("context = {context}: must be 32 to {trained}, what the model was trained for")))
        }
        _ => Ok(()),
    }
}

/// What it makes, for people.
pub fn makes(spec: &EncoderSpec) -> String {
    let tokens = spec.input_tokens_max;
    match spec.output {
        Output::Vector { .. } => format!("vectors of {} values, of up to {tokens} tokens", spec.output_width()),
        Output::Score { .. } => format!("scores of pairs of up to {tokens} tokens"),
    }
}
