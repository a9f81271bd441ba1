//! The filters, by their definitions, in any order. Those that need what was said before have files of their own
//! (`penalties`, `dry`), and so does what takes the place of filters (`mirostat`).
//!
//! Definitions are llama.cpp's where papers leave a choice, so that its users get what they know.

use super::{BadLogits, Candidate, chance::uniform, left::Left};
use crate::engine::{
    kernels::exp,
    request::{DynamicTemperature, SamplingParams, Xtc},
};

/// A lower temperature counts as this one, so that scaled logits stay numbers.
const TEMPERATURE_MIN: f32 = 1e-5;

/// Chance that is not the draw's.
const XTC_STREAM: u64 = 0x5854_4321_9d1b_c3e7;

/// Top-n-sigma: within `n` standard deviations of the best logit (Tang et al. 2024, "Top-nσ: Not All Logits Are You Need").
pub fn top_n_sigma(left: &mut Left, n: f32) -> Result<(), BadLogits> {
    let (max, moments) = left.moments()?;
    let tokens = moments.tokens as f64;
    let mean = moments.sum / tokens;
    let deviation = (moments.squares / tokens - mean * mean).max(0.0).sqrt();
    left.keep_from((f64::from(max) - f64::from(n) * deviation) as f32)
}

/// Min-p: with at least this share of the best token's probability (Nguyen et al. 2024, "Turning Up the Heat").
pub fn min_p(left: &mut Left, share: f32) -> Result<(), BadLogits> {
    let max = left.max()?;
    left.keep_from((max + share.ln()).min(max))
}

/// XTC, "exclude top choices" (p-e-w 2024): with a probability, of the tokens above a threshold only the least likely stays.
pub fn xtc(left: &mut Left, xtc: Xtc, seed: u64, position: u64) -> Result<(), BadLogits> {
    if uniform(seed ^ XTC_STREAM, position) >= f64::from(xtc.probability) {
        return Ok(());
    }
    let whole = left.whole()?;
    let wanted = f64::from(xtc.threshold) * whole.spread.weight;
    let likely = left.from(whole.logit_of(f64::from(xtc.threshold)))?.iter();
    let likely = likely.copied().filter(|token| f64::from(exp(token.logit - whole.max)) >= wanted);
    let mut likely: Vec<Candidate> = likely.collect();
    // Not one is left where none is above the threshold.
    if let Some(last) = (0..likely.len()).max_by(|&a, &b| likely[a].rank(&likely[b])) {
        likely.swap_remove(last);
    }
    left.exclude(likely.iter().map(|token| token.id));
    Ok(())
}

/// Temperature, where it is dynamic by the entropy of what is left, as a share of the largest that so many tokens can have.
pub fn temperature(left: &mut Left, params: &SamplingParams) -> Result<(), BadLogits> {
    let temperature = match params.dynamic_temperature {
        Some(dynamic) if dynamic.range > 0.0 => match dynamic_temperature(left, params.temperature, dynamic)? {
            Some(temperature) => temperature,
            None => return Ok(()),
        },
        _ => params.temperature,
    };
    left.scale(temperature.max(TEMPERATURE_MIN).recip());
    Ok(())
}

/// `None` where there is nothing to choose from.
fn dynamic_temperature(
    left: &mut Left,
    temperature: f32,
    DynamicTemperature { range, exponent }: DynamicTemperature,
) -> Result<Option<f32>, BadLogits> {
    let whole = left.whole()?;
    if whole.spread.tokens <= 1 {
        return Ok(None);
    }
    let share = (whole.entropy() / (whole.spread.tokens as f64).ln()).clamp(0.0, 1.0);
    let (low, high) = ((temperature - range).max(0.0), temperature + range);
    Ok(Some((f64::from(low) + f64::from(high - low) * share.powf(f64::from(exponent))) as f32))
}
