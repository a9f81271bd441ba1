//! OLMo 2 (OLMo et al. 2024): norms after attention and MLP instead of before, and one over all queries and all keys.

use super::{
    LoadError,
    blueprint::{Blueprint, HeadNorms, NormPlacement},
    weights::Weights,
};
use crate::engine::layers::PairStyle;

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    if weights.value("attention.sliding_window").is_some() {
        return Err(weights.bad_value("attention.sliding_window", "OLMo 3, which has it, is not supported"));
    }
    let plain = Blueprint::read(weights, PairStyle::Halves)?;
    Ok(Blueprint { norms: NormPlacement::After, head_norms: HeadNorms::WholeRow, ..plain })
}
