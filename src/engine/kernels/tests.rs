//! Every tier against plain sums in f64, and against itself with other rows beside.

use half::f16;

use super::*;

/// xorshift64*; the seed is the test's row number, so a failure names it.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// In -2..2.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 22) as f32 - 2.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

#[track_caller]
pub(super) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*f) - e).abs() <= tolerance * (1.0 + e.abs()), "{what}: value {i} is {f}, not {e}");
    }
}

const LENGTHS: [usize; 9] = [1, 7, 8, 15, 16, 31, 64, 100, 1024];

#[test]
fn rms_norm_is_the_formula() {
    for tier in available() {
        for (row, n) in LENGTHS.into_iter().enumerate() {
            let mut random = Random::new(row as u64);
            let (x, weight) = (random.floats(n), random.floats(n));
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
            let scale = 1.0 / (mean + f64::from(1e-5f32)).sqrt();
            let expected: Vec<_> = x.iter().zip(&weight).map(|(x, w)| f64::from(*x) * scale * f64::from(*w)).collect();
            let mut out = vec![0.0; n];
            tier.rms_norm(&x, &weight, 1e-5, &mut out);
            assert_close(&out, &expected, 1e-6, &format!("{} rms_norm of {n}", tier.name));
        }
    }
}

/// A gated product of every tier, `act(gate) · up`.
#[track_caller]
fn check_gated(what: &str, kernel: fn(&Kernels, &[f32], &[f32], &mut [f32]), act: fn(f64) -> f64) {
    for tier in available() {
        for (row, n) in LENGTHS.into_iter().enumerate() {
            let mut random = Random::new(row as u64);
            let mut gate: Vec<_> = random.floats(n).iter().map(|x| x * 10.0).collect();
            gate[0] = [-200.0, 200.0, 0.0][row % 3];
            let up = random.floats(n);
            let expected: Vec<_> = gate.iter().zip(&up).map(|(g, u)| act(f64::from(*g)) * f64::from(*u)).collect();
            let mut out = vec![0.0; n];
            kernel(tier, &gate, &up, &mut out);
            assert_close(&out, &expected, 2e-6, &format!("{} {what} of {n}", tier.name));
        }
    }
}

#[test]
fn gated_products_are_the_formulas() {
    check_gated("silu_mul", Kernels::silu_mul, |x| x / (1.0 + (-x).exp()));
    check_gated("gelu_mul", Kernels::gelu_mul, |x| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
    });
}

#[test]
fn layer_norm_is_the_formula() {
    for tier in available() {
        for (row, n) in LENGTHS.into_iter().enumerate() {
            let mut random = Random::new(row as u64);
            let [mut x, added, weight, bias] = [(); 4].map(|()| random.floats(n));
            let sums: Vec<f64> = x.iter().zip(&added).map(|(x, a)| f64::from(*x + *a)).collect();
            let mean = sums.iter().sum::<f64>() / n as f64;
            let variance = sums.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n as f64;
            let scale = 1.0 / (variance + f64::from(1e-3f32)).sqrt();
            let normed = |i: usize| (sums[i] - mean) * scale * f64::from(weight[i]) + f64::from(bias[i]);
            tier.add_layer_norm(&mut x, &added, [&weight, &bias], 1e-3);
            assert_close(&x, &(0..n).map(normed).collect::<Vec<_>>(), 2e-5, &format!("{} of {n}", tier.name));
        }
    }
}

/// `∫ e^(-t²/2) / √(2π)` up to `x`, by Simpson's rule.
fn normal_cdf(x: f64) -> f64 {
    const STEPS: usize = 2000;
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let h = x / STEPS as f64;
    let weight = |i: usize| if i == 0 || i == STEPS { 1.0 } else { [2.0, 4.0][i % 2] };
    0.5 + (0..=STEPS).map(|i| weight(i) * density(i as f64 * h)).sum::<f64>() * h / 3.0
}

#[test]
fn gelus_are_the_formulas_wherever_a_value_stands() {
    let tanh = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    type Case = (fn(&Kernels, &mut [f32]), fn(f64) -> f64);
    let cases: [Case; 2] = [(Kernels::gelu_erf, |x| x * normal_cdf(x)), (Kernels::gelu_tanh, tanh)];
    for tier in available() {
        for (kernel, formula) in cases {
            let mut x: Vec<f32> = Random::new(5).floats(100).iter().map(|x| x * 4.0).collect();
            x[..4].copy_from_slice(&[0.0, -0.0, 30.0, -30.0]);
            let mut out = x.clone();
            kernel(tier, &mut out);
            assert_close(&out, &x.iter().map(|x| formula(f64::from(*x))).collect::<Vec<_>>(), 2e-6, tier.name);
            for (mut x, out) in x.into_iter().zip(out) {
                kernel(tier, std::slice::from_mut(&mut x));
                assert_eq!(x.to_bits(), out.to_bits(), "{}", tier.name);
            }
        }
    }
}

#[test]
fn soft_caps_are_the_formula_wherever_a_value_stands() {
    for tier in available() {
        let x: Vec<f32> = Random::new(3).floats(100).iter().map(|x| x * 50.0).collect();
        let mut capped = x.clone();
        tier.soft_cap(&mut capped, 30.0);
        let expected: Vec<_> = x.iter().map(|x| 30.0 * (f64::from(*x) / 30.0).tanh()).collect();
        assert_close(&capped, &expected, 1e-6, tier.name);
        for (mut x, capped) in x.into_iter().zip(capped) {
            tier.soft_cap(std::slice::from_mut(&mut x), 30.0);
            assert_eq!(x.to_bits(), capped.to_bits(), "{}", tier.name);
        }
    }
}

#[test]
fn narrow_rounds_to_nearest_even() {
    for tier in available() {
        let mut random = Random::new(0);
        let mut x = random.floats(100);
        x[..6].copy_from_slice(&[0.0, -0.0, 65_504.0, 1e-8, 1.000_488_3, f32::INFINITY]);
        let mut out = vec![0; x.len()];
        tier.narrow(&x, &mut out);
        let expected: Vec<_> = x.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
        assert_eq!(out, expected, "{}", tier.name);
    }
}
