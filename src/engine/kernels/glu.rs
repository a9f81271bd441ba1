//! The products of gated MLPs (Shazeer 2020): `silu(gate) · up`, with `silu(x) = x / (1 + e^-x)`, and the same with GELU.

use super::simd::Simd;

/// # Safety
/// The CPU has the features of `S`; `gate`, `up` and `out` are as long as each other.
#[inline(always)]
pub(super) unsafe fn silu_mul<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let n = gate.len();
    let whole = n - n % S::LANES;
    // SAFETY: features by the caller; every pointer stays `LANES` below the end of slices of length `n`.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            let g = S::load(gate.as_ptr().add(i));
            let denominator = S::add(S::splat(1.0), S::exp(S::mul(g, S::splat(-1.0))));
            S::store(out.as_mut_ptr().add(i), S::mul(S::div(g, denominator), S::load(up.as_ptr().add(i))));
        }
    }
    for i in whole..n {
        out[i] = gate[i] / (1.0 + (-gate[i]).exp()) * up[i];
    }
}

/// √(2/π) and the factor of the cube in GELU's approximation by tanh (Hendrycks & Gimpel 2016).
pub(super) const GELU_SCALE: f32 = 0.797_884_6;
pub(super) const GELU_CUBE: f32 = 0.044_715;

/// `x (1 + tanh y) / 2`, which is `x / (1 + e^-2y)`, with `y = √(2/π) (x + 0.044715 x³)`.
///
/// # Safety
/// The CPU has the features of `S`; `gate`, `up` and `out` are as long as each other.
#[inline(always)]
pub(super) unsafe fn gelu_mul<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let n = gate.len();
    let whole = n - n % S::LANES;
    // SAFETY: features by the caller; every pointer stays `LANES` below the end of slices of length `n`.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            let g = S::load(gate.as_ptr().add(i));
            let cubed = S::mul(S::mul(S::mul(g, g), g), S::splat(GELU_CUBE));
            let exponent = S::mul(S::add(g, cubed), S::splat(-2.0 * GELU_SCALE));
            let denominator = S::add(S::splat(1.0), S::exp(exponent));
            S::store(out.as_mut_ptr().add(i), S::mul(S::div(g, denominator), S::load(up.as_ptr().add(i))));
        }
    }
    for i in whole..n {
        let g = gate[i];
        let exponent = -2.0 * GELU_SCALE * (g + GELU_CUBE * g * g * g);
        out[i] = g / (1.0 + exponent.exp()) * up[i];
    }
}
