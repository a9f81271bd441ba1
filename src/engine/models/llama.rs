//! Llama 1 to 3.x and Mistral (Touvron et al. 2023; Grattafiori et al. 2024; Jiang et al. 2023).
//!
//! GGUF permutes their query and key weights so that neighbouring values are turned together.

use super::{LoadError, blueprint::Blueprint, weights::Weights};

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    // Only the first Mistral has windows, in all layers.
    Blueprint::read(weights, weights.llama_pairs())?.with_windows(weights, None, |_| true)
}
