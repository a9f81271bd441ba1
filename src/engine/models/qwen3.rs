//! Qwen3 (Yang et al. 2025): every query head and key head is normalised before it is turned.

use super::{LoadError, decoder::Parts, sizes::Sizes, weights::Weights};
use crate::engine::layers::PairStyle;

pub(super) fn load(weights: &Weights) -> Result<Parts, LoadError> {
    let sizes = Sizes::read(weights)?;
    let rope = sizes.rope(weights, PairStyle::Halves)?;
    let (dim, eps) = (sizes.spec.head_dim, sizes.eps);
    Parts::load(weights, sizes, rope, |block| {
        let norm = |name: &str| weights.norm(&format!("{block}.{name}.weight"), dim, eps);
        Ok(Some((norm("attn_q_norm")?, norm("attn_k_norm")?)))
    })
}
