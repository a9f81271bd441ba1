//! Dot products of a few activation rows with one row of float weights, kept in the type they came in.
//!
//! A row's sum is made in the same order however many rows are computed beside it.

use half::{bf16, f16};

use super::simd::Simd;

/// A float type that weights are stored in, as bits.
pub(super) trait FloatWeight: Copy {
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;
    fn widen(self) -> f32;
}

impl FloatWeight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(from) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl FloatWeight for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's; `f16` is its bits.
        unsafe { S::load_f16(from.cast()) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl FloatWeight for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's; `bf16` is its bits.
        unsafe { S::load_bf16(from.cast()) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// `out[r] = x[r] · weights` for the rows of `x`, shape (out.len(), weights.len()).
///
/// # Safety
/// The CPU has the features of `S`; `x` holds `out.len() * weights.len()` values.
#[inline(always)]
pub(super) unsafe fn dot_rows<S: Simd, W: FloatWeight>(x: &[f32], weights: &[W], out: &mut [f32]) {
    let k = weights.len();
    let mut first = 0;
    // SAFETY: the caller's; the rows taken lie inside `x`.
    unsafe {
        while out.len() - first >= 4 {
            dot_group::<S, W, 4>(&x[first * k..], weights, &mut out[first..]);
            first += 4;
        }
        while first < out.len() {
            dot_group::<S, W, 1>(&x[first * k..], weights, &mut out[first..]);
            first += 1;
        }
    }
}

/// `ROWS` rows at a time, so that a loaded weight is used `ROWS` times. Two sums per row hide the latency of FMA.
#[inline(always)]
unsafe fn dot_group<S: Simd, W: FloatWeight, const ROWS: usize>(x: &[f32], weights: &[W], out: &mut [f32]) {
    let k = weights.len();
    let whole = k - k % (2 * S::LANES);
    // SAFETY: `x` holds `ROWS * k` values by the caller; pointers stay `LANES` below the ends.
    unsafe {
        let mut even = [S::splat(0.0); ROWS];
        let mut odd = [S::splat(0.0); ROWS];
        for i in (0..whole).step_by(2 * S::LANES) {
            let w0 = W::load::<S>(weights.as_ptr().add(i));
            let w1 = W::load::<S>(weights.as_ptr().add(i + S::LANES));
            for r in 0..ROWS {
                let row = x.as_ptr().add(r * k + i);
                even[r] = S::fma(S::load(row), w0, even[r]);
                odd[r] = S::fma(S::load(row.add(S::LANES)), w1, odd[r]);
            }
        }
        for r in 0..ROWS {
            let mut sum = S::sum(S::add(even[r], odd[r]));
            for i in whole..k {
                sum += x[r * k + i] * weights[i].widen();
            }
            out[r] = sum;
        }
    }
}
