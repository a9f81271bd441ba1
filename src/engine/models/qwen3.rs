//! Qwen3 (Yang et al. 2025): every query head and key head is normalised before it is turned.

use super::{
    LoadError,
    blueprint::{Blueprint, HeadNorms},
    weights::Weights,
};
use crate::engine::layers::PairStyle;

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    Ok(Blueprint { head_norms: HeadNorms::PerHead, ..Blueprint::read(weights, PairStyle::Halves)? })
}
