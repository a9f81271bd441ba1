//! SwiGLU's product (Shazeer 2020): `silu(gate) · up`, with `silu(x) = x / (1 + e^-x)`.

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
