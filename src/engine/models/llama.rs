//! Llama 1 to 3.x and Mistral (Touvron et al. 2023; Grattafiori et al. 2024).
//!
//! GGUF permutes their query and key weights so that neighbouring values are turned together.

use super::{LoadError, decoder::Parts, sizes::Sizes, weights::Weights};
use crate::engine::layers::PairStyle;

pub(super) fn load(weights: &Weights) -> Result<Parts, LoadError> {
    let sizes = Sizes::read(weights)?;
    let rope = sizes.rope(weights, PairStyle::Neighbours)?;
    Parts::load(weights, sizes, rope, |_| Ok(None))
}
