//! Qwen2 and Qwen2.5 (Yang et al. 2024): biases on queries, keys and values.

use super::{LoadError, blueprint::Blueprint, weights::Weights};
use crate::engine::layers::PairStyle;

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    for projection in ["q", "k", "v"] {
        let bias = format!("blk.0.attn_{projection}.bias");
        if !weights.has(&bias) {
            return Err(LoadError::MissingTensor(bias));
        }
    }
    Blueprint::read(weights, PairStyle::Halves)?.with_windows(weights, None, |_| false)
}
