//! What every decoder's metadata gives, checked against each other: the plain blueprint, which each architecture's file
//! then changes where it differs.

use super::{
    LoadError, Spec,
    blueprint::{Activation, Blueprint, HeadNorms, Layer, NormPlacement, Projections, Rotary, Scales, SoftCaps},
    weights::Weights,
};
use crate::engine::{
    gguf::Value,
    kernels::HEAD_DIM_MULTIPLE,
    layers::{HEAD_DIM_MAX, PairStyle, Scaling},
};

/// No dense model comes near these; they keep products of sizes far from overflow.
const LAYERS_MAX: usize = 1_024;
const HEADS_MAX: usize = 1_024;
const WIDTH_MAX: usize = 1 << 20;

impl Blueprint {
    /// A llama-like decoder of the sizes and the rope that the metadata gives, whose rope turns pairs in `style`.
    pub(super) fn read(weights: &Weights, style: PairStyle) -> Result<Self, LoadError> {
        if weights.find::<u32>("expert_count")?.is_some_and(|experts| experts > 0) {
            return Err(weights.bad_value("expert_count", "mixtures of experts are not supported"));
        }
        let hidden = weights.size("embedding_length", WIDTH_MAX)?;
        let heads = weights.size("attention.head_count", HEADS_MAX)?;
        let kv_heads = match weights.find::<u32>("attention.head_count_kv")? {
            Some(_) => weights.size("attention.head_count_kv", heads)?,
            None => heads,
        };
        if !heads.is_multiple_of(kv_heads) {
            let why = format!("{heads} query heads can't share {kv_heads} KV heads evenly");
            return Err(weights.bad_value("attention.head_count_kv", why));
        }
        let head_dim = match weights.find::<u32>("attention.key_length")? {
            Some(_) => weights.size("attention.key_length", HEAD_DIM_MAX)?,
            None => hidden / heads,
        };
        if head_dim == 0 || head_dim > HEAD_DIM_MAX || !head_dim.is_multiple_of(HEAD_DIM_MULTIPLE) {
            let why =
                format!("heads of {head_dim} values; must be a multiple of {HEAD_DIM_MULTIPLE} up to {HEAD_DIM_MAX}");
            return Err(weights.bad_value("attention.key_length", why));
        }
        if weights.find::<u32>("attention.value_length")?.is_some_and(|v| v as usize != head_dim) {
            return Err(weights.bad_value("attention.value_length", format!("must equal the key length, {head_dim}")));
        }
        let eps = weights.find::<f32>("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5);
        if !(eps > 0.0 && eps < 1.0) {
            return Err(weights.bad_value("attention.layer_norm_rms_epsilon", format!("{eps} is not in 0..1")));
        }
        let spec = Spec {
            architecture: weights.architecture().into(),
            layers: weights.size("block_count", LAYERS_MAX)?,
            kv_heads,
            head_dim,
            vocabulary: weights.matrix_shape("token_embd.weight")?.0,
            context: weights.size("context_length", u32::MAX as usize)?,
        };
        Ok(Self {
            hidden,
            heads,
            feed_forward: weights.size("feed_forward_length", WIDTH_MAX)?,
            eps,
            activation: Activation::Silu,
            norms: NormPlacement::Before,
            head_norms: HeadNorms::None,
            projections: Projections::Separate,
            tied: !weights.has("output.weight"),
            scales: Scales { embedding: 1.0, residual: 1.0, attention: 1.0 / (head_dim as f32).sqrt(), logits: 1.0 },
            soft_caps: SoftCaps::default(),
            ropes: vec![rotary(weights, style, head_dim, spec.context)?],
            layers: vec![Layer { window: None, rope: Some(0) }; spec.layers],
            spec,
        })
    }

    /// Gives the layers a window of the size that the metadata says, else `default`: those that it lists, else those
    /// for which `windowed` is true.
    pub(super) fn with_windows(
        mut self,
        weights: &Weights,
        default: Option<usize>,
        windowed: impl Fn(usize) -> bool,
    ) -> Result<Self, LoadError> {
        // Writers put 0 where there is none.
        let window = weights.find::<usize>("attention.sliding_window")?.or(default).filter(|window| *window > 0);
        let Some(window) = window else { return Ok(self) };
        let key = "attention.sliding_window_pattern";
        let layers = self.layers.len();
        let pattern: Vec<bool> = match weights.value(key) {
            None => (0..layers).map(windowed).collect(),
            // One layer in so many sees everything.
            Some(Value::Integer(_)) => {
                let every = weights.size(key, layers.max(64))?;
                (0..layers).map(|layer| !(layer + 1).is_multiple_of(every)).collect()
            }
            Some(_) => weights.find(key)?.unwrap_or_default(),
        };
        if pattern.len() != layers {
            return Err(weights.bad_value(key, format!("{} entries for {layers} layers", pattern.len())));
        }
        for (layer, _) in self.layers.iter_mut().zip(pattern).filter(|(_, windowed)| *windowed) {
            layer.window = Some(window);
        }
        Ok(self)
    }
}

/// The rotary embedding that the metadata describes.
fn rotary(weights: &Weights, style: PairStyle, head_dim: usize, context: usize) -> Result<Rotary, LoadError> {
    let dimensions = match weights.find::<u32>("rope.dimension_count")? {
        Some(_) => weights.size("rope.dimension_count", head_dim)?,
        None => head_dim,
    };
    if !dimensions.is_multiple_of(2) {
        return Err(weights.bad_value("rope.dimension_count", format!("{dimensions} is odd")));
    }
    let base = weights.find::<f32>("rope.freq_base")?.unwrap_or(10_000.0);
    if !(base > 1.0 && base.is_finite()) {
        return Err(weights.bad_value("rope.freq_base", format!("{base} is not above 1")));
    }
    Ok(Rotary { style, dimensions, base: f64::from(base), scaling: scaling(weights, dimensions, context)? })
}

fn scaling(weights: &Weights, dimensions: usize, context: usize) -> Result<Scaling, LoadError> {
    let factors = |name: &str| -> Result<Vec<f32>, LoadError> {
        let factors = weights.vector(name, dimensions / 2)?;
        if factors.iter().any(|f| !(*f > 0.0 && f.is_finite())) {
            let why = "a factor that is not a positive number".into();
            return Err(LoadError::Weights { tensor: name.into(), why });
        }
        Ok(factors)
    };
    if weights.has("rope_freqs.weight") {
        return Ok(Scaling::Factors { divisors: factors("rope_freqs.weight")?, magnitude: 1.0 });
    }
    let number = |name: &str, default: f64| Ok::<_, LoadError>(weights.positive(name)?.map_or(default, f64::from));
    if weights.has("rope_factors_long.weight") {
        // LongRoPE (Ding et al. 2024). One of the two for all sequences, as keys in the cache are turned already.
        let original = weights.size("rope.scaling.original_context_length", u32::MAX as usize)?;
        let long = weights.context(context) > original;
        let divisors = factors(if long { "rope_factors_long.weight" } else { "rope_factors_short.weight" })?;
        return Ok(Scaling::Factors { divisors, magnitude: number("rope.scaling.attn_factor", 1.0)? });
    }
    match weights.find::<&str>("rope.scaling.type")? {
        None | Some("none") => Ok(Scaling::None),
        Some("linear") => Ok(Scaling::Linear { factor: number("rope.scaling.factor", 1.0)? }),
        Some("yarn") => Ok(Scaling::Yarn {
            factor: number("rope.scaling.factor", 1.0)?,
            original_context: weights.size("rope.scaling.original_context_length", u32::MAX as usize)? as f64,
            beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
            attention_factor: number("rope.scaling.attn_factor", 1.0)?,
        }),
        Some(other) => Err(weights.bad_value("rope.scaling.type", format!("{other:?} is not supported"))),
    }
}
