//! Gemma 1 to 3 (Gemma Team 2024, 2024 and 2025): embeddings times √hidden, GELU; from the second on norms on both sides,
//! and windows in some layers.

use super::{
    LoadError,
    blueprint::{Activation, Blueprint, HeadNorms, NormPlacement, Rotary, Scales, SoftCaps},
    weights::Weights,
};
use crate::engine::layers::{PairStyle, Scaling};

/// Positions that windowed layers see where a file does not say.
const WINDOW_DEFAULT: usize = 4096;
/// Base of the rope of Gemma 3's windowed layers where a file does not say.
const LOCAL_BASE_DEFAULT: f32 = 10_000.0;

pub(super) fn first(weights: &Weights) -> Result<Blueprint, LoadError> {
    let plain = Blueprint::read(weights, PairStyle::Halves)?;
    let scales = Scales { embedding: (plain.hidden as f32).sqrt(), ..plain.scales };
    Ok(Blueprint { activation: Activation::GeluTanh, scales, ..plain })
}

/// Every other layer, from the first on, sees a window.
pub(super) fn second(weights: &Weights) -> Result<Blueprint, LoadError> {
    capped(weights, 46)?.with_windows(weights, Some(WINDOW_DEFAULT), |layer| layer.is_multiple_of(2))
}

/// Five layers of six see a window, and turn by another base.
pub(super) fn third(weights: &Weights) -> Result<Blueprint, LoadError> {
    let mut blueprint = Blueprint { head_norms: HeadNorms::PerHead, ..capped(weights, 62)? }.with_windows(
        weights,
        Some(WINDOW_DEFAULT),
        |layer| !(layer + 1).is_multiple_of(6),
    )?;
    let base = weights.positive("rope.freq_base_swa")?.unwrap_or(LOCAL_BASE_DEFAULT);
    let local = Rotary { base: f64::from(base), scaling: Scaling::None, ..blueprint.ropes[0].clone() };
    blueprint.ropes.push(local);
    for layer in blueprint.layers.iter_mut().filter(|layer| layer.window.is_some()) {
        layer.rope = Some(1);
    }
    Ok(blueprint)
}

/// What the second and the third share. The largest, which is known by its layers, scales by its hidden size for each
/// head; files from GGUF's converter do not say so.
fn capped(weights: &Weights, layers_of_27b: usize) -> Result<Blueprint, LoadError> {
    let first = first(weights)?;
    let attention = match weights.positive("attention.scale")? {
        Some(scale) => scale,
        None if first.layers.len() == layers_of_27b => (first.heads as f32 / first.hidden as f32).sqrt(),
        None => first.scales.attention,
    };
    Ok(Blueprint {
        norms: NormPlacement::Around,
        scales: Scales { attention, ..first.scales },
        soft_caps: SoftCaps {
            attention: weights.positive("attn_logit_softcapping")?,
            logits: weights.positive("final_logit_softcapping")?,
        },
        ..first
    })
}
