//! Passes over a row of logits, in runs: the largest of each run, and what each run weighs. Who samples then looks into few
//! runs only.
//!
//! Plain code without a horizontal step inside: the compiler makes the most of each tier's registers, and since it neither
//! reorders nor fuses, all tiers give the same bits.

/// Logits of one run; the last run of a row may be shorter.
pub const RUN: usize = 64;

/// Logits whose weights are added up before the sum goes on in `f64`.
const SPAN: usize = 512;

/// Lanes that add up or compare side by side.
const LANES: usize = 16;

/// Lanes where they are twice as wide.
const HALF: usize = 8;

/// The largest of each run; NaN if any of it is.
#[inline(always)]
pub(super) fn run_maxima(row: &[f32], maxima: &mut [f32]) {
    for (run, maximum) in row.chunks(RUN).zip(maxima) {
        let (parts, rest) = run.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        // No NaN equals itself; a mask of bits, since booleans are not as wide as floats.
        let mut nan = [0u32; LANES];
        for part in parts {
            for lane in 0..LANES {
                lanes[lane] = if part[lane] > lanes[lane] { part[lane] } else { lanes[lane] };
                nan[lane] |= u32::from(part[lane].is_nan());
            }
        }
        let all = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
        let is_nan = nan.iter().fold(0, |all, lane| all | lane) > 0 || rest.iter().any(|x| x.is_nan());
        *maximum = if is_nan { f32::NAN } else { all };
    }
}

/// Each logit's probability relative to that of `max`, at a temperature given by its inverse.
#[inline(always)]
pub(super) fn weigh(logits: &[f32], max: f32, inverse: f32, weights: &mut [f32]) {
    for (&logit, weight) in logits.iter().zip(weights) {
        *weight = exp((logit - max) * inverse);
    }
}

/// What the logits of each run weigh together.
#[inline(always)]
pub(super) fn run_weights(row: &[f32], max: f32, inverse: f32, sums: &mut [f32]) {
    for (run, sum) in row.chunks(RUN).zip(sums) {
        let (parts, rest) = run.as_chunks::<LANES>();
        let mut lanes = [0.0; LANES];
        for part in parts {
            for lane in 0..LANES {
                lanes[lane] += exp((part[lane] - max) * inverse);
            }
        }
        let all = lanes.iter().fold(0.0, |sum, lane| sum + lane);
        *sum = rest.iter().fold(all, |sum, &logit| sum + exp((logit - max) * inverse));
    }
}

/// Some tokens of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mass {
    /// Of all together.
    pub weight: f64,
    pub tokens: usize,
}

/// The tokens whose logits are above a threshold.
#[inline(always)]
pub(super) fn above(row: &[f32], weights: &[f32], threshold: f32) -> Mass {
    let mut all = Mass { weight: 0.0, tokens: 0 };
    for (run, weights) in row.chunks(SPAN).zip(weights.chunks(SPAN)) {
        // Masks, not conditions, and no lane by a number: the compiler would keep the lanes in memory.
        let mask = |logit: f32| u32::from(logit > threshold).wrapping_neg();
        let (mut masses, mut counts) = ([0.0f32; LANES], [0u32; LANES]);
        let ((parts, rest), (part_weights, rest_weights)) = (run.as_chunks::<LANES>(), weights.as_chunks::<LANES>());
        for (part, weights) in parts.iter().zip(part_weights) {
            for lane in 0..LANES {
                masses[lane] += f32::from_bits(weights[lane].to_bits() & mask(part[lane]));
                counts[lane] = counts[lane].wrapping_sub(mask(part[lane]));
            }
        }
        let rest = rest.iter().zip(rest_weights).filter(|(logit, _)| **logit > threshold);
        all.weight +=
            masses.iter().chain(rest.clone().map(|(_, weight)| weight)).map(|mass| f64::from(*mass)).sum::<f64>();
        all.tokens += counts.iter().sum::<u32>() as usize + rest.count();
    }
    all
}

/// How the tokens of a distribution lie about its best one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Tokens that are not excluded.
    pub tokens: usize,
    /// Of all together, the best one's being 1.
    pub weight: f64,
    /// The sum of weight times distance to the best logit, which is negative or zero.
    pub weighted: f64,
}

/// A row's distribution about its best logit.
#[inline(always)]
pub(super) fn spread(row: &[f32], max: f32) -> Spread {
    // Where nothing weighs anything the distance must be finite: zero times infinity is not zero.
    let at = |logit: f32| (f64::from(logit) - f64::from(max)).max(-88.0);
    let (mut weights, mut weighted, mut tokens) = ([0.0f64; HALF], [0.0f64; HALF], [0u32; HALF]);
    let (parts, rest) = row.as_chunks::<HALF>();
    for part in parts {
        for lane in 0..HALF {
            let weight = exp(part[lane] - max);
            weights[lane] += f64::from(weight);
            weighted[lane] += f64::from(weight) * at(part[lane]);
            tokens[lane] += u32::from(part[lane] > f32::NEG_INFINITY);
        }
    }
    let mut all = Spread { tokens: tokens.iter().sum::<u32>() as usize, weight: 0.0, weighted: 0.0 };
    all.weight = weights.iter().sum();
    all.weighted = weighted.iter().sum();
    for &logit in rest {
        let weight = f64::from(exp(logit - max));
        all.weight += weight;
        all.weighted += weight * at(logit);
        all.tokens += usize::from(logit > f32::NEG_INFINITY);
    }
    all
}

/// Sums over the distances of logits to the best one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// Tokens that are not excluded.
    pub tokens: usize,
    pub sum: f64,
    pub squares: f64,
}

/// The moments of a row's logits about its best one.
#[inline(always)]
pub(super) fn moments(row: &[f32], max: f32) -> Moments {
    let (mut sums, mut squares, mut tokens) = ([0.0f64; HALF], [0.0f64; HALF], [0u32; HALF]);
    let (parts, rest) = row.as_chunks::<HALF>();
    let distance = |logit: f32| if logit > f32::NEG_INFINITY { f64::from(logit) - f64::from(max) } else { 0.0 };
    for part in parts {
        for lane in 0..HALF {
            let distance = distance(part[lane]);
            sums[lane] += distance;
            squares[lane] += distance * distance;
            tokens[lane] += u32::from(part[lane] > f32::NEG_INFINITY);
        }
    }
    let mut all = Moments { tokens: tokens.iter().sum::<u32>() as usize, sum: 0.0, squares: 0.0 };
    all.sum = sums.iter().sum();
    all.squares = squares.iter().sum();
    for &logit in rest {
        all.sum += distance(logit);
        all.squares += distance(logit) * distance(logit);
        all.tokens += usize::from(logit > f32::NEG_INFINITY);
    }
    all
}

/// e^x for x ≤ 0, within 2 ulp; 0 below -87, where f32 would become denormal.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by a polynomial (Cephes `expf`), 2^n by the exponent bits. No branches.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 leaves no bits for a fraction: rounds to the nearest integer, in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: the first has so few bits that n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    let e = (p * r * r + r + 1.0) * power;
    if x < -87.0 { 0.0 } else { e }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernels::available;

    #[test]
    fn exp_agrees_with_f64() {
        let mut worst = 0.0f64;
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        for x in [-88.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "{x}");
        }
    }

    #[test]
    fn every_run_has_its_largest_or_nan() {
        for tier in available() {
            for len in [1usize, 15, 16, 63, 64, 65, 130] {
                for at in 0..len {
                    let mut row: Vec<f32> = (0..len).map(|i| -1.0 - i as f32).collect();
                    let mut maxima = vec![0.0; len.div_ceil(RUN)];
                    row[at] = 2.0;
                    tier.run_maxima(&row, &mut maxima);
                    assert_eq!(maxima[at / RUN], 2.0, "{at} of {len}, {}", tier.name);
                    row[at] = f32::NAN;
                    tier.run_maxima(&row, &mut maxima);
                    assert!(maxima[at / RUN].is_nan(), "{at} of {len}, {}", tier.name);
                    assert_eq!(maxima.iter().filter(|m| m.is_nan()).count(), 1);
                }
            }
        }
    }

    #[test]
    fn what_is_above_is_counted_and_weighed_alike_on_every_tier() {
        for len in [0usize, 1, 15, 16, 17, 130] {
            let row: Vec<f32> = (0..len).map(|i| (i * 7 % 10) as f32).collect();
            let weights: Vec<f32> = row.iter().map(|logit| 0.5 + logit).collect();
            for threshold in [f32::NEG_INFINITY, 0.0, 4.5, 9.0] {
                let kept = || row.iter().zip(&weights).filter(|(logit, _)| **logit > threshold);
                let weight = kept().map(|(_, weight)| f64::from(*weight)).sum();
                let expected = Mass { weight, tokens: kept().count() };
                for tier in available() {
                    assert_eq!(tier.above(&row, &weights, threshold), expected, "{len}, {threshold}, {}", tier.name);
                }
            }
        }
    }

    #[test]
    fn spread_and_moments_are_what_they_say_and_alike_on_every_tier() {
        for len in [1usize, 7, 8, 9, 130] {
            let mut row: Vec<f32> = (0..len).map(|i| ((i * 7919) % 100) as f32 * -0.3).collect();
            row[len / 2] = if len > 1 { f32::NEG_INFINITY } else { 0.0 };
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let kept: Vec<f64> = row.iter().filter(|x| x.is_finite()).map(|x| f64::from(x - max)).collect();
            let close =
                |found: f64, exact: f64| assert!((found - exact).abs() <= 1e-5 * exact.abs(), "{found} {exact}");
            let mut found = Vec::new();
            for tier in available() {
                let (spread, moments) = (tier.spread(&row, max), tier.moments(&row, max));
                assert_eq!((spread.tokens, moments.tokens), (kept.len(), kept.len()));
                close(spread.weight, kept.iter().map(|d| d.exp()).sum());
                close(spread.weighted, kept.iter().map(|d| d * d.exp()).sum());
                close(moments.sum, kept.iter().sum());
                close(moments.squares, kept.iter().map(|d| d * d).sum());
                found.push((spread, moments));
            }
            assert!(found.iter().all(|of_tier| *of_tier == found[0]), "{found:?}");
        }
    }

    #[test]
    fn all_tiers_weigh_alike_to_the_bit() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * -0.05).collect();
        let run = |tier: &crate::engine::kernels::Kernels| {
            let (mut weights, mut sums) = (vec![0.0; 1000], vec![0.0; 1000usize.div_ceil(RUN)]);
            tier.weigh(&row, 0.0, 0.7, &mut weights);
            tier.run_weights(&row, 0.0, 0.7, &mut sums);
            (weights, sums)
        };
        let expected = run(available().last().unwrap());
        for (run, sum) in expected.0.chunks(RUN).zip(&expected.1) {
            let exact: f64 = run.iter().map(|&weight| f64::from(weight)).sum();
            assert!((f64::from(*sum) - exact).abs() <= 1e-6 * exact);
        }
        for tier in available() {
            assert!(run(tier) == expected, "{}", tier.name);
        }
    }
}
