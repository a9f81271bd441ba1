//! Encoders of the BERT family: texts to vectors, and pairs of texts to scores.
//!
//! A model of its own kind beside the decoders of `models`, made of the same layers and kernels: no cache, no tokens to
//! sample; every row of an input sees all of it (`attention`). [`Encoder`] is its engine: one thread that owns the model,
//! takes inputs of many requests in turns (`turns`) and computes them as one ragged batch.
//!
//! Invariant: what an input becomes does not depend on who else is in its batch, on how batches are cut, or on the number
//! of threads, to the bit.

mod attention;
mod batch;
mod blueprint;
mod caller;
mod handle;
mod input;
mod model;
mod request;
mod stats;
#[cfg(test)]
mod tests;
mod turns;
mod weights;
mod worker;

pub use batch::{InputBatch, InputTokens};
pub use blueprint::{Activation, EncoderSpec, Output, Pooler, Pooling, Positions, Score, is_encoder};
pub use caller::{Done, Left};
pub use handle::{Encoder, EncoderConfig};
pub use input::EncodeInput;
pub use model::{EncoderModel, normalize};
pub use request::{EncodeError, EncodeRequest, Encoded, shorten};
pub use stats::EncoderStats;

use super::{
    models::{LoadError, LoadOptions, Source, weights::Weights},
    process,
    team::Team,
};

/// Loads an encoder, on the CPU whatever the device of the options: weights are read, packed by all threads of its team,
/// and tried once. The source is not needed afterwards.
pub fn load(source: &Source, options: LoadOptions) -> Result<EncoderModel, LoadError> {
    let spec = EncoderSpec::read(source)?;
    let team = Team::new(options.threads).map_err(LoadError::Threads)?;
    let read = |team: &Team| {
        let weights = Weights::new(source, blueprint::architecture(source)?, team, options);
        weights::Parts::load(&weights, &spec)
    };
    let parts = match options.aside {
        false => read(&team)?,
        // By a team of its own, as threads that have stepped aside can't come back.
        true => process::aside(|| read(&Team::new(options.threads).map_err(LoadError::Threads)?))
            .map_err(LoadError::Threads)??,
    };
    let mut model = EncoderModel::new(spec, parts, team);
    model.warm_up().map_err(|e| LoadError::Weights { tensor: "warm-up".into(), why: e.0 })?;
    Ok(model)
}

/// What an encoder is, by its metadata alone.
pub fn inspect(source: &Source) -> Result<EncoderSpec, LoadError> {
    EncoderSpec::read(source)
}
