//! The rotary embedding that `config.json` describes, as GGUF's keys and tensors.
//!
//! Configurations say it in two ways: `rope_theta` and `rope_scaling`, and since transformers 5 `rope_parameters`, for all
//! layers or for each type of layer.

use std::f64::consts::TAU;

use super::{error::DirectoryError, json::Object};
use crate::engine::gguf::GgufWriter;

/// What describes the rope of the layers with full attention; empty if there is nothing but `rope_theta`.
pub(super) fn parameters(text: &Object) -> Result<Object, DirectoryError> {
    let Some(parameters) = text.object("rope_parameters")? else {
        return Ok(text.object("rope_scaling")?.unwrap_or_default());
    };
    Ok(parameters.object("full_attention")?.unwrap_or(parameters))
}

fn kind(parameters: &Object) -> Result<&str, DirectoryError> {
    match parameters.str("rope_type")? {
        Some(kind) => Ok(kind),
        None => Ok(parameters.str("type")?.unwrap_or("default")),
    }
}

/// A positive number that must be there.
fn positive(object: &Object, key: &str) -> Result<f64, DirectoryError> {
    match object.f64(key)? {
        Some(x) if x > 0.0 => Ok(x),
        Some(x) => Err(object.invalid(key, format!("{x} is not positive"))),
        None => Err(object.invalid(key, "is missing")),
    }
}

/// Positions the model saw before it was stretched.
fn original_context(text: &Object, parameters: &Object) -> Result<u32, DirectoryError> {
    for object in [parameters, text] {
        if let Some(context) = object.u32("original_max_position_embeddings")?.filter(|context| *context > 0) {
            return Ok(context);
        }
    }
    text.required_u32("max_position_embeddings")
}

/// Base and scaling as keys, but for factors, which are tensors.
pub(super) fn write_keys(
    text: &Object,
    key: &impl Fn(&str) -> String,
    file: &mut GgufWriter,
) -> Result<(), DirectoryError> {
    let parameters = parameters(text)?;
    let base = if parameters.get("rope_theta").is_some() { &parameters } else { text };
    file.f32(&key("rope.freq_base"), positive(base, "rope_theta")? as f32);
    let local = match text.object("rope_parameters")? {
        Some(of_types) => match of_types.object("sliding_attention")? {
            Some(local) => local.f64("rope_theta")?,
            None => None,
        },
        None => text.f64("rope_local_base_freq")?,
    };
    if let Some(local) = local {
        file.f32(&key("rope.freq_base_swa"), local as f32);
    }
    match kind(&parameters)? {
        "default" | "llama3" => {}
        "linear" => {
            file.str(&key("rope.scaling.type"), "linear");
            file.f32(&key("rope.scaling.factor"), positive(&parameters, "factor")? as f32);
        }
        "yarn" => write_yarn(text, &parameters, key, file)?,
        "longrope" | "su" => {
            let original = original_context(text, &parameters)?;
            let stretch = f64::from(text.required_u32("max_position_embeddings")?) / f64::from(original);
            // Ding et al. 2024, as transformers has it.
            let magnitude = match parameters.f64("attention_factor")? {
                Some(given) => given,
                None if stretch <= 1.0 => 1.0,
                None => (1.0 + stretch.ln() / f64::from(original).ln()).sqrt(),
            };
            file.str(&key("rope.scaling.type"), "longrope");
            file.u32(&key("rope.scaling.original_context_length"), original);
            file.f32(&key("rope.scaling.attn_factor"), magnitude as f32);
        }
        other => return Err(parameters.unsupported("rope_type", format!("{other:?}"))),
    }
    Ok(())
}

fn write_yarn(
    text: &Object,
    parameters: &Object,
    key: &impl Fn(&str) -> String,
    file: &mut GgufWriter,
) -> Result<(), DirectoryError> {
    for other in ["mscale", "mscale_all_dim"] {
        if parameters.get(other).is_some() {
            return Err(parameters.unsupported(other, "a number"));
        }
    }
    if parameters.bool("truncate")? == Some(false) {
        return Err(parameters.unsupported("truncate", "false"));
    }
    let factor = positive(parameters, "factor")?;
    file.str(&key("rope.scaling.type"), "yarn");
    file.f32(&key("rope.scaling.factor"), factor as f32);
    file.u32(&key("rope.scaling.original_context_length"), original_context(text, parameters)?);
    for (hf, gguf) in [("beta_fast", "rope.scaling.yarn_beta_fast"), ("beta_slow", "rope.scaling.yarn_beta_slow")] {
        if let Some(beta) = parameters.f64(hf)? {
            file.f32(&key(gguf), beta as f32);
        }
    }
    if let Some(given) = parameters.f64("attention_factor")? {
        // In GGUF it multiplies what YaRN computes itself.
        file.f32(&key("rope.scaling.attn_factor"), (given / (1.0 + 0.1 * factor.ln())) as f32);
    }
    Ok(())
}

/// The divisors of the frequencies, one for each of the `dimensions / 2` pairs, as GGUF's tensors.
pub(super) fn factors(text: &Object, dimensions: u32) -> Result<Vec<(String, Vec<f32>)>, DirectoryError> {
    let parameters = &parameters(text)?;
    match kind(parameters)? {
        "llama3" => {
            let base = if parameters.get("rope_theta").is_some() { parameters } else { text };
            let base = positive(base, "rope_theta")?;
            let rule = Llama3 {
                factor: positive(parameters, "factor")?,
                low: positive(parameters, "low_freq_factor")?,
                high: positive(parameters, "high_freq_factor")?,
                original: f64::from(original_context(text, parameters)?),
            };
            let divisor = |pair: u32| rule.divisor(TAU * base.powf(f64::from(2 * pair) / f64::from(dimensions))) as f32;
            Ok(vec![("rope_freqs.weight".into(), (0..dimensions / 2).map(divisor).collect())])
        }
        "longrope" | "su" => {
            let read = |key: &str| -> Result<Vec<f32>, DirectoryError> {
                let factors = parameters.f64s(key)?.ok_or_else(|| parameters.invalid(key, "is missing"))?;
                if factors.len() != dimensions as usize / 2 {
                    let why = format!("{} factors for {} pairs", factors.len(), dimensions / 2);
                    return Err(parameters.invalid(key, why));
                }
                Ok(factors.iter().map(|f| *f as f32).collect())
            };
            Ok(vec![
                ("rope_factors_long.weight".into(), read("long_factor")?),
                ("rope_factors_short.weight".into(), read("short_factor")?),
            ])
        }
        _ => Ok(Vec::new()),
    }
}

/// Llama 3.1's rule (Grattafiori et al. 2024): low frequencies are slowed, high ones kept, those between interpolated.
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    /// What the frequency of this wavelength, in positions, is divided by.
    fn divisor(&self, wavelength: f64) -> f64 {
        if wavelength < self.original / self.high {
            return 1.0;
        }
        if wavelength > self.original / self.low {
            return self.factor;
        }
        let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
        1.0 / ((1.0 - smooth) / self.factor + smooth)
    }
}
