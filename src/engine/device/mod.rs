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

pub use choice::{DeviceChoice, DeviceError};
pub use decoder::DeviceDecoder;
pub use pages::Pages;

use candle_core::Device;

use super::{
    gguf::Gguf,
    models::{Architecture, LoadError, weights::Weights},
    team::Team,
};

/// Loads a model onto `device`, one tensor after the other. The file is not needed afterwards.
pub fn load(gguf: &Gguf, device: Device) -> Result<DeviceDecoder, LoadError> {
    let architecture = Architecture::of(gguf)?;
    let team = Team::new(std::num::NonZeroUsize::MIN).map_err(LoadError::Threads)?;
    let weights = Weights::new(gguf, architecture.name(), &team);
    DeviceDecoder::load(&weights, architecture.blueprint(&weights)?, device)
}
