//! Granite 3 (IBM 2024): a llama with scales of its own where others have fixed ones.

use super::{
    LoadError,
    blueprint::{Blueprint, Scales},
    weights::Weights,
};

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    if weights.find::<bool>("rope.scaling.finetuned")? == Some(false) {
        return Err(weights.bad_value("rope.scaling.finetuned", "Granite without rope is not supported"));
    }
    let plain = Blueprint::read(weights, weights.llama_pairs())?;
    let scales = Scales {
        embedding: weights.positive("embedding_scale")?.unwrap_or(1.0),
        residual: weights.positive("residual_scale")?.unwrap_or(1.0),
        attention: weights.positive("attention.scale")?.unwrap_or(plain.scales.attention),
        // The file has what logits are divided by.
        logits: 1.0 / weights.positive("logit_scale")?.unwrap_or(1.0),
    };
    Ok(Blueprint { scales, ..plain })
}
