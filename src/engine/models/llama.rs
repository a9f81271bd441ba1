//! Llama 1 to 3.x and Mistral (Touvron et al. 2023; Grattafiori et al. 2024).
//!
//! GGUF permutes their query and key weights so that neighbouring values are turned together.

use super::{LoadError, blueprint::Blueprint, weights::Weights};
use crate::engine::layers::PairStyle;

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    Blueprint::read(weights, PairStyle::Neighbours)
}
