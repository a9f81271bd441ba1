//! The arithmetic of sampling, written so that the compiler vectorises it on any CPU, with the same result on all.

/// The largest value of a row; NaN if any is NaN; minus infinity if the row is empty.
pub fn max_or_nan(row: &[f32]) -> f32 {
    // Independent lanes: one running maximum would be a chain of dependent steps.
    const LANES: usize = 32;
    let (parts, rest) = row.as_chunks::<LANES>();
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut nan = [false; LANES];
    for part in parts {
        for lane in 0..LANES {
            max[lane] = if part[lane] > max[lane] { part[lane] } else { max[lane] };
            nan[lane] |= part[lane].is_nan();
        }
    }
    if nan.contains(&true) || rest.iter().any(|x| x.is_nan()) {
        return f32::NAN;
    }
    max.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// How many are at least `threshold`.
pub fn count_from(run: &[f32], threshold: f32) -> u32 {
    run.iter().map(|&x| u32::from(x >= threshold)).sum()
}

/// The id of the first logit equal to `max`, the largest.
pub fn arg_max(row: &[f32], max: f32) -> u32 {
    const RUN: usize = 256;
    let run = row.chunks(RUN).position(|run| count_from(run, max) > 0).unwrap_or(0);
    let offset = row[run * RUN..].iter().position(|&x| x == max).unwrap_or(0);
    (run * RUN + offset) as u32
}

/// e^x for x ≤ 0, within 2 ulp; 0 below -87, where f32 would become denormal.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by a polynomial (Cephes `expf`), 2^n by the exponent bits. No branches.
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

/// A number in [0, 1) that depends on nothing but `seed` and `position` (two rounds of SplitMix64; Steele et al. 2014).
pub fn uniform(seed: u64, position: u64) -> f64 {
    fn mix(mut x: u64) -> u64 {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    let bits = mix(mix(seed) ^ position);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn maximum_is_the_first_of_equals_wherever_it_stands() {
        for len in [1, 31, 32, 33, 63, 64, 65, 200] {
            for at in 0..len {
                let mut row = vec![-1.0; len];
                row[at] = 2.0;
                row[len - 1] = 2.0;
                let max = max_or_nan(&row);
                assert_eq!((max, arg_max(&row, max)), (2.0, at as u32), "{at} of {len}");
                row[at] = f32::NAN;
                assert!(max_or_nan(&row).is_nan(), "{at} of {len}");
            }
        }
        assert_eq!(max_or_nan(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn uniform_fills_its_range_evenly() {
        // Over positions of one seed and over seeds at one position; chi-square with 99 degrees of freedom: p = 0.999 at 149.
        let draws: [fn(u64) -> f64; 2] = [|i| uniform(42, i), |i| uniform(i, 7)];
        for draw in draws {
            let mut bins = [0u32; 100];
            for i in 0..100_000 {
                bins[(draw(i) * 100.0) as usize] += 1;
            }
            let chi_square: f64 = bins.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi_square < 149.0, "{chi_square}");
        }
    }
}
