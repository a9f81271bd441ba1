//! Rotary position embedding (Su et al. 2021) with the scalings that GGUF files ask for.
//!
//! Angles are computed in f64 for the rows of each step: a few microseconds a row, where a table for a long context
//! would take tens of megabytes.

use std::f64::consts::TAU;

/// Which two values of a head are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairStyle {
    /// `i` and `i + n/2` (GPT-NeoX; qwen).
    Halves,
    /// `2 i` and `2 i + 1` (the original; llama's weights are permuted for it in GGUF).
    Neighbours,
}

/// How frequencies are changed for contexts longer than the model was first trained for.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    None,
    /// Positions divided by `factor` (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// YaRN (Peng et al. 2023): low frequencies interpolated, high ones kept, attention made a little sharper.
    Yarn {
        factor: f64,
        original_context: f64,
        beta_fast: f64,
        beta_slow: f64,
        attention_factor: f64,
    },
    /// A divisor for each frequency (Llama 3's, as the tensor `rope_freqs.weight`; LongRoPE's, Ding et al. 2024).
    Factors {
        divisors: Vec<f32>,
        /// Multiplies cos and sin.
        magnitude: f64,
    },
}

pub struct Rope {
    style: PairStyle,
    /// Radians per position, one for each pair.
    frequencies: Vec<f64>,
    /// Multiplies cos and sin.
    magnitude: f64,
}

/// Cosines and sines of a step's rows, each of shape (rows, pairs).
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

impl Rope {
    /// Turns the first `dimensions` values of a head, at `base^(-2i / dimensions)` radians per position for pair `i`.
    pub fn new(style: PairStyle, dimensions: usize, base: f64, scaling: &Scaling) -> Self {
        let plain = (0..dimensions / 2).map(|i| base.powf(-2.0 * i as f64 / dimensions as f64));
        let mut magnitude = 1.0;
        let frequencies = match scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            Scaling::Factors { divisors, magnitude: given } => {
                magnitude = *given;
                plain.zip(divisors).map(|(f, by)| f / f64::from(*by)).collect()
            }
            Scaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
                magnitude = attention_factor * (1.0 + 0.1 * factor.ln());
                // The pair that makes `rotations` turns over the original context.
                let pair_with = |rotations: f64| {
                    dimensions as f64 * (original_context / (rotations * TAU)).ln() / (2.0 * base.ln())
                };
                let last = dimensions as f64 - 1.0;
                let (low, high) = (pair_with(*beta_fast).floor().max(0.0), pair_with(*beta_slow).ceil().min(last));
                plain
                    .enumerate()
                    .map(|(i, f)| {
                        let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                        f / factor * ramp + f * (1.0 - ramp)
                    })
                    .collect()
            }
        };
        Self { style, frequencies, magnitude }
    }

    pub fn style(&self) -> PairStyle {
        self.style
    }

    /// Pairs of a head that are turned.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    pub fn angles(&self, positions: &[u32]) -> Angles {
        let pairs = self.frequencies.len();
        let mut angles = Angles {
            cos: Vec::with_capacity(positions.len() * pairs),
            sin: Vec::with_capacity(positions.len() * pairs),
            pairs,
        };
        for position in positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (f64::from(*position) * frequency).sin_cos();
                angles.cos.push((cos * self.magnitude) as f32);
                angles.sin.push((sin * self.magnitude) as f32);
            }
        }
        angles
    }

    /// Turns one head of row `row`.
    pub fn apply(&self, angles: &Angles, row: usize, head: &mut [f32]) {
        let cos = &angles.cos[row * angles.pairs..][..angles.pairs];
        let sin = &angles.sin[row * angles.pairs..][..angles.pairs];
        match self.style {
            PairStyle::Halves => {
                let (first, second) = head[..2 * angles.pairs].split_at_mut(angles.pairs);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
            PairStyle::Neighbours => {
                for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
                }
            }
        }
    }
}

impl Angles {
    /// Shape (rows, pairs).
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// Shape (rows, pairs).
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(style: PairStyle, scaling: &Scaling, position: u32) -> Vec<f32> {
        let rope = Rope::new(style, 4, 100.0, scaling);
        let mut head = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        rope.apply(&rope.angles(&[0, position]), 1, &mut head);
        head
    }

    /// Pair `(a, b)` turned by `angle`.
    fn turn(a: f32, b: f32, angle: f64) -> (f32, f32) {
        let (sin, cos) = angle.sin_cos();
        let (a, b) = (f64::from(a), f64::from(b));
        ((a * cos - b * sin) as f32, (a * sin + b * cos) as f32)
    }

    #[track_caller]
    fn check(style: PairStyle, scaling: &Scaling, position: u32, angles: [f64; 2]) {
        let head = turned(style, scaling, position);
        let pairs = match style {
            PairStyle::Halves => [(0, 2), (1, 3)],
            PairStyle::Neighbours => [(0, 1), (2, 3)],
        };
        for ((a, b), angle) in pairs.into_iter().zip(angles) {
            let expected = turn(a as f32 + 1.0, b as f32 + 1.0, angle);
            assert!((head[a] - expected.0).abs() < 1e-5 && (head[b] - expected.1).abs() < 1e-5, "{head:?}");
        }
        assert_eq!(head[4..], [5.0, 6.0], "values past the turned dimensions stay");
    }

    #[test]
    fn turns_pairs_by_position_times_frequency() {
        for style in [PairStyle::Halves, PairStyle::Neighbours] {
            check(style, &Scaling::None, 0, [0.0, 0.0]);
            check(style, &Scaling::None, 7, [7.0, 0.7]);
            check(style, &Scaling::Linear { factor: 4.0 }, 8, [2.0, 0.2]);
            check(style, &Scaling::Factors { divisors: vec![1.0, 8.0], magnitude: 1.0 }, 8, [8.0, 0.1]);
        }
    }

    #[test]
    fn yarn_keeps_high_frequencies_and_interpolates_low_ones() {
        let scaling = Scaling::Yarn {
            factor: 4.0,
            original_context: 32_768.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.0,
        };
        let plain = Rope::new(PairStyle::Halves, 128, 1e6, &Scaling::None);
        let yarn = Rope::new(PairStyle::Halves, 128, 1e6, &scaling);
        assert_eq!(yarn.frequencies[0], plain.frequencies[0]);
        assert!((yarn.frequencies[63] - plain.frequencies[63] / 4.0).abs() < 1e-15);
        assert!(yarn.frequencies.iter().zip(&plain.frequencies).all(|(y, p)| *y <= *p && *y >= *p / 4.0 - 1e-15));
        // Peng et al. 2023, equation 22: 0.1 ln(s) + 1.
        assert!((yarn.magnitude - 1.138_629_436).abs() < 1e-8);
    }
}
