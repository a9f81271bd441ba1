//! Phi-3 and Phi-4 (Abdin et al. 2024): queries, keys and values in one matrix, gate and up in another.

use super::{
    LoadError,
    blueprint::{Blueprint, Projections},
    weights::Weights,
};
use crate::engine::layers::PairStyle;

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    let plain = Blueprint::read(weights, PairStyle::Halves)?;
    Blueprint { projections: Projections::Fused, ..plain }.with_windows(weights, None, |_| true)
}
