//! SmolLM3 (Bakouch et al. 2025): a llama whose every fourth layer leaves queries and keys unturned.

use super::{LoadError, blueprint::Blueprint, weights::Weights};

/// GGUF files do not say which layers; those of the only model are every fourth.
const UNTURNED_EVERY: usize = 4;

pub(super) fn blueprint(weights: &Weights) -> Result<Blueprint, LoadError> {
    let mut blueprint = Blueprint::read(weights, weights.llama_pairs())?.with_windows(weights, None, |_| false)?;
    let layers = blueprint.layers.len();
    let turned = match weights.find::<Vec<bool>>("rope.layers")? {
        Some(turned) => turned,
        None => (0..layers).map(|layer| !(layer + 1).is_multiple_of(UNTURNED_EVERY)).collect(),
    };
    if turned.len() != layers {
        return Err(weights.bad_value("rope.layers", format!("{} entries for {layers} layers", turned.len())));
    }
    for (layer, _) in blueprint.layers.iter_mut().zip(turned).filter(|(_, turned)| !turned) {
        layer.rope = None;
    }
    Ok(blueprint)
}
