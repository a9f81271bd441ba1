//! RMSNorm (Zhang & Sennrich 2019): `y = x / sqrt(mean(x²) + eps) · w`.

use super::simd::Simd;

/// # Safety
/// The CPU has the features of `S`; `x`, `weight` and `out` are as long as each other.
#[inline(always)]
pub(super) unsafe fn rms_norm<S: Simd>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len();
    let whole = n - n % S::LANES;
    // SAFETY: features by the caller; every pointer stays `LANES` below the end of slices of length `n`.
    unsafe {
        let mut squares = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let v = S::load(x.as_ptr().add(i));
            squares = S::fma(v, v, squares);
        }
        let mut sum = S::sum(squares);
        for v in &x[whole..] {
            sum += v * v;
        }
        let scale = 1.0 / (sum / n as f32 + eps).sqrt();
        for i in (0..whole).step_by(S::LANES) {
            let v = S::mul(S::load(x.as_ptr().add(i)), S::splat(scale));
            S::store(out.as_mut_ptr().add(i), S::mul(v, S::load(weight.as_ptr().add(i))));
        }
        for i in whole..n {
            out[i] = x[i] * scale * weight[i];
        }
    }
}
