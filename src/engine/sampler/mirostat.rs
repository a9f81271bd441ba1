//! Mirostat (Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity"): instead of
//! fixed cuts one that is moved after each token, so that the text's surprise stays at a target.

use super::{BadLogits, Candidate, Memory, left::Left};
use crate::engine::request::{Mirostat, MirostatVersion};

/// Tokens by which the first version estimates how steep the distribution is.
const SLOPE_TOKENS: usize = 100;

/// Draws, and remembers what that says about the next cut.
pub fn draw(
    left: &mut Left,
    mirostat: Mirostat,
    vocabulary: usize,
    chance: f64,
    memory: &mut Memory,
) -> Result<u32, BadLogits> {
    let (tau, eta) = (f64::from(mirostat.tau), f64::from(mirostat.eta));
    let surprise_max = memory.surprise_max.unwrap_or(2.0 * tau);
    match mirostat.version {
        MirostatVersion::First => {
            let k = cut(left.best(SLOPE_TOKENS)?, surprise_max, vocabulary);
            left.keep_best(k)?;
        }
        MirostatVersion::Second => {
            let whole = left.whole()?;
            // A surprise of at most so many bits, and the best token in any case.
            let least = f64::from(whole.max) + whole.spread.weight.ln() - surprise_max * std::f64::consts::LN_2;
            if least as f32 <= whole.max { left.keep_from(least as f32)? } else { left.keep_best(1)? }
        }
    }
    let (token, probability) = left.draw(chance)?;
    let surprise = -probability.log2();
    memory.surprise_max = Some(surprise_max - eta * (surprise - tau));
    Ok(token)
}

/// How many tokens to keep, if probabilities fall by Zipf's law as those of the best ones do (§4 and algorithm 1).
fn cut(best: &mut [Candidate], surprise_max: f64, vocabulary: usize) -> usize {
    best.sort_unstable_by(Candidate::rank);
    let (mut products, mut squares) = (0.0, 0.0);
    for (i, pair) in best.windows(2).enumerate() {
        let t = ((i + 2) as f64 / (i + 1) as f64).ln();
        let b = f64::from(pair[0].logit) - f64::from(pair[1].logit);
        products += t * b;
        squares += t * t;
    }
    if squares == 0.0 {
        return 1;
    }
    let steepness = products / squares;
    let epsilon = steepness - 1.0;
    let tokens = vocabulary as f64;
    // Where the exponent is 1 both are zero; this is what their quotient comes near to.
    let share = if epsilon.abs() < 1e-9 { tokens.ln().recip() } else { epsilon / (1.0 - tokens.powf(-epsilon)) };
    let k = (share * surprise_max.exp2()).powf(steepness.recip());
    // Not a number where nothing is steep and all would be kept.
    if k.is_nan() { vocabulary } else { (k as usize).clamp(1, vocabulary) }
}
