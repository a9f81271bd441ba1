//! Models on a CUDA or Metal device, computed by candle's operations.
//!
//! The decoder here interprets the same [`Blueprint`](super::models::blueprint::Blueprint) as the CPU's. Its activations
//! are candle tensors of shape (tokens, …): a batch stays ragged, its tokens packed flat with a position each, and only
//! `attention` sees where one sequence ends. Quantised weights stay quantised; float weights keep their type.
//!
//! Keys and values live in the device's memory, in pages of the batch's block tables. Of a step, ids and positions go
//! there, and what is wanted of the sampled rows comes back: the best token and its logit, or all logits.
//!
//! All of it runs on candle's CPU device too, where it is compared with an oracle and with the CPU's own decoder. Unlike
//! that one it does not promise the same bits in every batch: a device's libraries choose their kernels by the number of
//! rows.

mod attention;
mod choice;
#[cfg(feature = "cuda")]
mod cuda;
mod decoder;
mod matrix;
mod pages;
mod sample;
mod step;
#[cfg(test)]
mod tests;

pub use choice::{DeviceChoice, DeviceError};
pub use decoder::DeviceDecoder;
pub use pages::Pages;

use candle_core::Device;

use super::{
    models::{LoadError, LoadOptions, Source, WeightSizes, weights::Weights},
    team::Team,
};

/// Loads a model onto `device`, one tensor after the other, and tries it once. The source is not needed afterwards.
pub fn load(source: &Source, options: LoadOptions, device: Device) -> Result<DeviceDecoder, LoadError> {
    let architecture = source.architecture()?;
    // Only to quantise, where that is wanted.
    let team = Team::new(options.threads).map_err(LoadError::Threads)?;
    let weights = Weights::new(source, architecture.name(), &team, options);
    let sizes = WeightSizes::of(source, options.quantize);
    DeviceDecoder::load(&weights, architecture.blueprint(&weights)?, sizes, device)
}
