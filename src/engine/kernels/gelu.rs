//! GELU where nothing gates it: `x · Φ(x)`, exactly or by tanh (Hendrycks & Gimpel 2016).

use super::{
    glu::{GELU_CUBE, GELU_SCALE},
    simd::Simd,
};

/// Lanes of the widest tier. What is left over is computed among padding, as the others are.
const LANES_MAX: usize = 16;

/// `erf(x)` for x ≥ 0 is `1 - (a₁t + … + a₅t⁵) e^(-x²)` with `t = 1 / (1 + px)`, to 1.5e-7 (Abramowitz & Stegun, 7.1.26).
const ERF_P: f32 = 0.327_591_1;
const ERF_A: [f32; 5] = [1.061_405_4, -1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6];

/// How GELU is computed.
pub(super) trait Form {
    /// # Safety
    /// The CPU has the features of `S`.
    unsafe fn gelu<S: Simd>(x: S::V) -> S::V;
}

/// By the error function.
pub(super) struct Erf;
/// By its approximation.
pub(super) struct Tanh;

/// Of every value, the same for a value wherever it stands.
///
/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
pub(super) unsafe fn gelu<S: Simd, F: Form>(values: &mut [f32]) {
    let mut vectors = values.chunks_exact_mut(S::LANES);
    for vector in &mut vectors {
        // SAFETY: it has `LANES` values; features by the caller.
        unsafe { S::store(vector.as_mut_ptr(), F::gelu::<S>(S::load(vector.as_ptr()))) };
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        let mut block = [0.0; LANES_MAX];
        block[..rest.len()].copy_from_slice(rest);
        // SAFETY: no tier has more lanes; features by the caller.
        unsafe { S::store(block.as_mut_ptr(), F::gelu::<S>(S::load(block.as_ptr()))) };
        rest.copy_from_slice(&block[..rest.len()]);
    }
}

impl Form for Erf {
    /// `x Φ(x)` is `max(x, 0) - |x| Φ(-|x|)`, and `Φ(-y)` is `(1 - erf(y/√2)) / 2`.
    #[inline(always)]
    unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
        // SAFETY: features by the caller.
        unsafe {
            let size = S::max(x, S::mul(x, S::splat(-1.0)));
            let y = S::mul(size, S::splat(std::f32::consts::FRAC_1_SQRT_2));
            let t = S::div(S::splat(1.0), S::fma(y, S::splat(ERF_P), S::splat(1.0)));
            let mut sum = S::splat(ERF_A[0]);
            for a in &ERF_A[1..] {
                sum = S::fma(sum, t, S::splat(*a));
            }
            let decay = S::exp(S::mul(S::mul(y, y), S::splat(-1.0)));
            let beyond = S::mul(S::mul(S::mul(sum, t), decay), S::splat(-0.5));
            S::fma(size, beyond, S::max(x, S::splat(0.0)))
        }
    }
}

impl Form for Tanh {
    /// `x / (1 + e^-2y)` with `y = √(2/π) (x + 0.044715 x³)`.
    #[inline(always)]
    unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
        // SAFETY: features by the caller.
        unsafe {
            let cubed = S::mul(S::mul(S::mul(x, x), x), S::splat(GELU_CUBE));
            let exponent = S::mul(S::add(x, cubed), S::splat(-2.0 * GELU_SCALE));
            S::div(x, S::add(S::splat(1.0), S::exp(exponent)))
        }
    }
}
