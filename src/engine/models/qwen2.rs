//! Qwen2 and Qwen2.5 (Yang et al. 2024): biases on queries, keys and values.

use super::{LoadError, decoder::Parts, sizes::Sizes, weights::Weights};
use crate::engine::layers::PairStyle;

pub(super) fn load(weights: &Weights) -> Result<Parts, LoadError> {
    for projection in ["q", "k", "v"] {
        let bias = format!("blk.0.attn_{projection}.bias");
        if !weights.has(&bias) {
            return Err(LoadError::MissingTensor(bias));
        }
    }
    let sizes = Sizes::read(weights)?;
    let rope = sizes.rope(weights, PairStyle::Halves)?;
    Parts::load(weights, sizes, rope, |_| Ok(None))
}
