//! Rotary position embedding (Su et al. 2021) with the scalings that GGUF files ask for.
//!
//! Angles are computed in f64 for the rows of each step: a fraction of a microsecond a row, where a table for a long
//! context would take tens of megabytes. A position is 64 a + b, and its cosines and sines follow from those of 64 a,
//! which neighbouring rows share, and those of b, which are in a small table (the addition theorems).

use std::f64::consts::TAU;

use crate::engine::kernels::kernels;

/// Positions in the table of small angles.
const SMALL_POSITIONS: u32 = 64;

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
    /// Of the first positions, pair by pair.
    small: Vec<SinCos>,
}

#[derive(Debug, Clone, Copy)]
struct SinCos {
    sin: f64,
    cos: f64,
}

impl SinCos {
    fn of(angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self { sin, cos }
    }

    /// Of the sum of the angles.
    fn plus(self, other: Self) -> Self {
        Self { sin: self.sin * other.cos + self.cos * other.sin, cos: self.cos * other.cos - self.sin * other.sin }
    }
}

/// Cosines and sines of a step's rows, each of shape (rows, turned dimensions): one for each value of a head, the sine
/// negative for the first of a pair.
pub struct Angles {
    style: PairStyle,
    cos: Vec<f32>,
    sin: Vec<f32>,
    dimensions: usize,
}

impl Rope {
    /// Turns the first `dimensions` values of a head, at `base^(-2i / dimensions)` radians per position for pair `i`.
    pub fn new(style: PairStyle, dimensions: usize, base: f64, scaling: &Scaling) -> Self {
        let plain = (0..dimensions / 2).map(|i| base.powf(-2.0 * i as f64 / dimensions as f64));
        let mut magnitude = 1.0;
        let frequencies: Vec<f64> = match scaling {
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
        let turn = |position: u32| frequencies.iter().map(move |f| SinCos::of(f64::from(position) * f));
        let small = (0..SMALL_POSITIONS).flat_map(turn).collect();
        Self { style, frequencies, magnitude, small }
    }

    /// For rows at `positions`.
    pub fn angles(&self, positions: &[u32]) -> Angles {
        let pairs = self.frequencies.len();
        let values = positions.len() * 2 * pairs;
        let (mut cos, mut sin) = (vec![0.0; values], vec![0.0; values]);
        let rows = cos.chunks_exact_mut(2 * pairs).zip(sin.chunks_exact_mut(2 * pairs));
        let mut large: Option<(u32, Vec<SinCos>)> = None;
        for (position, (cos, sin)) in positions.iter().zip(rows) {
            let rest = position % SMALL_POSITIONS;
            let base = position - rest;
            if large.as_ref().is_none_or(|(of, _)| *of != base) {
                large = Some((base, self.frequencies.iter().map(|f| SinCos::of(f64::from(base) * f)).collect()));
            }
            let (large, small) = (large.iter().flat_map(|(_, l)| l), &self.small[rest as usize * pairs..][..pairs]);
            for (i, (large, small)) in large.zip(small).enumerate() {
                let turn = large.plus(*small);
                let (first, second) = match self.style {
                    PairStyle::Halves => (i, pairs + i),
                    PairStyle::Neighbours => (2 * i, 2 * i + 1),
                };
                let (c, s) = ((turn.cos * self.magnitude) as f32, (turn.sin * self.magnitude) as f32);
                (cos[first], cos[second], sin[first], sin[second]) = (c, c, -s, s);
            }
        }
        Angles { style: self.style, cos, sin, dimensions: 2 * pairs }
    }
}

impl Angles {
    pub fn style(&self) -> PairStyle {
        self.style
    }

    /// Cosines and sines, of each pair once: shape (rows, pairs).
    pub fn once(&self) -> (Vec<f32>, Vec<f32>) {
        let pairs = self.dimensions / 2;
        let second = |pair| match self.style {
            PairStyle::Halves => pairs + pair,
            PairStyle::Neighbours => 2 * pair + 1,
        };
        let once = |twice: &[f32]| {
            let rows = twice.chunks_exact(self.dimensions);
            rows.flat_map(|row| (0..pairs).map(move |pair| row[second(pair)])).collect()
        };
        (once(&self.cos), once(&self.sin))
    }

    /// Turns one head of row `row`.
    pub fn turn(&self, row: usize, head: &mut [f32]) {
        let at = row * self.dimensions..(row + 1) * self.dimensions;
        kernels().rotate(&mut head[..self.dimensions], &self.cos[at.clone()], &self.sin[at], self.style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(style: PairStyle, scaling: &Scaling, position: u32) -> Vec<f32> {
        let rope = Rope::new(style, 4, 100.0, scaling);
        let mut head = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        rope.angles(&[0, position]).turn(1, &mut head);
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

    /// As good as the sine and cosine of the product, far out and for odd numbers of pairs.
    #[test]
    fn angles_are_sines_and_cosines() {
        for (dimensions, base) in [(128, 1e6), (64, 5e5), (22, 1e4)] {
            for style in [PairStyle::Halves, PairStyle::Neighbours] {
                let rope = Rope::new(style, dimensions, base, &Scaling::None);
                let positions = [0, 1, 63, 64, 65, 4_095, 4_096, 100_003, 131_071, 1];
                let angles = rope.angles(&positions);
                for (row, position) in positions.into_iter().enumerate() {
                    let mut head: Vec<f32> = (0..dimensions).map(|i| (i as f32).sin()).collect();
                    let before = head.clone();
                    angles.turn(row, &mut head);
                    for pair in 0..dimensions / 2 {
                        let (a, b) = match style {
                            PairStyle::Halves => (pair, pair + dimensions / 2),
                            PairStyle::Neighbours => (2 * pair, 2 * pair + 1),
                        };
                        let angle = f64::from(position) * base.powf(-2.0 * pair as f64 / dimensions as f64);
                        let expected = turn(before[a], before[b], angle);
                        let error = (head[a] - expected.0).abs().max((head[b] - expected.1).abs());
                        assert!(error < 3e-7, "{style:?}, position {position}, pair {pair}: {error}");
                    }
                }
            }
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
