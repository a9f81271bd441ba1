//! RMSNorm (Zhang & Sennrich 2019): `y = x / sqrt(mean(x²) + eps) · w`; and LayerNorm (Ba et al. 2016) of a sum:
//! `y = (s - mean(s)) / sqrt(var(s) + eps) · w + b` with `s = x + added`.

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

/// The norm of `x + added`, with weight and bias, written where `x` is.
///
/// # Safety
/// The CPU has the features of `S`; all slices are as long as each other.
#[inline(always)]
pub(super) unsafe fn add_layer_norm<S: Simd>(x: &mut [f32], added: &[f32], affine: [&[f32]; 2], eps: f32) {
    let [weight, bias] = affine;
    let n = x.len();
    let whole = n - n % S::LANES;
    // SAFETY: features by the caller; every pointer stays `LANES` below the end of slices of length `n`.
    unsafe {
        let mut sums = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let v = S::add(S::load(x.as_ptr().add(i)), S::load(added.as_ptr().add(i)));
            S::store(x.as_mut_ptr().add(i), v);
            sums = S::add(sums, v);
        }
        let mut sum = S::sum(sums);
        for i in whole..n {
            x[i] += added[i];
            sum += x[i];
        }
        let mean = sum / n as f32;
        // A second pass, as the variance by way of the squares' mean would lose its digits.
        let mut squares = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let v = S::add(S::load(x.as_ptr().add(i)), S::splat(-mean));
            squares = S::fma(v, v, squares);
        }
        let mut sum = S::sum(squares);
        for v in &x[whole..] {
            sum += (v - mean) * (v - mean);
        }
        let scale = 1.0 / (sum / n as f32 + eps).sqrt();
        for i in (0..whole).step_by(S::LANES) {
            let v = S::mul(S::add(S::load(x.as_ptr().add(i)), S::splat(-mean)), S::splat(scale));
            let v = S::fma(v, S::load(weight.as_ptr().add(i)), S::load(bias.as_ptr().add(i)));
            S::store(x.as_mut_ptr().add(i), v);
        }
        for i in whole..n {
            x[i] = (x[i] - mean) * scale * weight[i] + bias[i];
        }
    }
}
