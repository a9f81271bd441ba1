//! Chance that can be had again: the same for the same seed and position, whatever else is going on.

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
