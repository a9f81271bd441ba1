//! Qwen3 (Yang et al. 2025): every query head and key head is normalised before it is turned.

use super::{
    LoadError,
    blueprint::{Blueprint, HeadNorms},
    weights::Weights,
};
use crate::engine::layers::PairStyle;

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    let plain = Blueprint::read(weights, PairStyle::Halves)?;
    Blueprint { head_norms: HeadNorms::PerHead, ..plain }.with_windows(weights, None, |_| false)
}
