//! From floats to what the cache stores as bytes.

use half::bf16;

use super::Simd;
use crate::engine::kv_cache::SCALE_VALUES;

/// Rounds values to `scale · -127..=127`, one scale for each 32 of them, as bits of a bfloat16. What is not finite makes
/// its scale NaN, and so all that is computed from it.
///
/// # Safety
/// The CPU has the features of `S`; `values` are as many as `x`, a multiple of 16, and `scales` one for each 32.
#[inline(always)]
pub(in super::super) unsafe fn quantise<S: Simd>(x: &[f32], values: &mut [i8], scales: &mut [u16]) {
    for ((x, values), scale) in x.chunks(SCALE_VALUES).zip(values.chunks_mut(SCALE_VALUES)).zip(scales) {
        // SAFETY: a piece is a multiple of 16 values, and so of `LANES`; features by the caller.
        unsafe {
            let zero = S::splat(0.0);
            let (mut largest, mut nothing) = (zero, zero);
            for at in (0..x.len()).step_by(S::LANES) {
                let v = S::load(x.as_ptr().add(at));
                largest = S::max(largest, S::max(v, S::mul(v, S::splat(-1.0))));
                // 0 of finite values, NaN of others.
                nothing = S::fma(v, zero, nothing);
            }
            let exact = S::largest(largest) / 127.0 + S::sum(nothing);
            // Rounded up, so that 127 reaches the largest.
            let bits = exact.to_bits().saturating_add(0xffff) >> 16;
            *scale = if exact.is_nan() { bf16::NAN.to_bits() } else { bits as u16 };
            let rounded = bf16::from_bits(*scale).to_f32();
            let inverse = S::splat(if rounded > 0.0 { 1.0 / rounded } else { 0.0 });
            for at in (0..x.len()).step_by(S::LANES) {
                let v = S::mul(S::load(x.as_ptr().add(at)), inverse);
                S::store_i8(values.as_mut_ptr().add(at), v);
            }
        }
    }
}
