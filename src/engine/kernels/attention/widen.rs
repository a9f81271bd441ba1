//! From what the cache stores to floats, and back.

use std::ops::Range;

use half::bf16;

use super::{BLOCK_TOKENS, Simd};
use crate::engine::kv_cache::{SCALE_VALUES, Stored};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Widens a tile of keys, shape (dim, BLOCK_TOKENS), and asks the memory for the tile after it.
///
/// # Safety
/// The CPU has the features of `S`; the tile has the shape, and `out` room for it.
#[inline(always)]
pub(super) unsafe fn widen_keys<S: Simd>(tile: Stored, next: Stored, dim: usize, out: &mut [f32]) {
    prefetch::<S>(next);
    debug_assert!(out.len() >= dim * BLOCK_TOKENS);
    // SAFETY: features and lengths by the caller.
    unsafe {
        match tile {
            Stored::F16(values) => {
                for at in (0..dim * BLOCK_TOKENS).step_by(S::LANES) {
                    S::store(out.as_mut_ptr().add(at), S::load_f16(values.as_ptr().add(at)));
                }
            }
            Stored::Q8 { values, scales } => {
                for token in (0..BLOCK_TOKENS).step_by(S::LANES) {
                    for first in (0..dim).step_by(SCALE_VALUES) {
                        let scale = S::load_bf16(scales.as_ptr().add(first / SCALE_VALUES * BLOCK_TOKENS + token));
                        for i in first..dim.min(first + SCALE_VALUES) {
                            let at = i * BLOCK_TOKENS + token;
                            S::store(out.as_mut_ptr().add(at), S::mul(S::load_i8(values.as_ptr().add(at)), scale));
                        }
                    }
                }
            }
        }
    }
}

/// Widens the `tokens` of a tile of values, shape (BLOCK_TOKENS, dim), and asks the memory for the tile after it.
///
/// # Safety
/// As [`widen_keys`].
#[inline(always)]
pub(super) unsafe fn widen_values<S: Simd>(
    tile: Stored,
    next: Option<Stored>,
    dim: usize,
    tokens: Range<usize>,
    out: &mut [f32],
) {
    if let Some(next) = next {
        prefetch::<S>(next);
    }
    debug_assert!(out.len() >= tokens.end * dim);
    // SAFETY: features and lengths by the caller; `dim` is a multiple of `LANES`, and `LANES` divides `SCALE_VALUES`.
    unsafe {
        match tile {
            Stored::F16(values) => {
                for at in (tokens.start * dim..tokens.end * dim).step_by(S::LANES) {
                    S::store(out.as_mut_ptr().add(at), S::load_f16(values.as_ptr().add(at)));
                }
            }
            Stored::Q8 { values, scales } => {
                let groups = dim.div_ceil(SCALE_VALUES);
                for token in tokens {
                    for i in (0..dim).step_by(S::LANES) {
                        let scale = bf16::from_bits(*scales.get_unchecked(token * groups + i / SCALE_VALUES));
                        let at = token * dim + i;
                        let wide = S::mul(S::load_i8(values.as_ptr().add(at)), S::splat(scale.to_f32()));
                        S::store(out.as_mut_ptr().add(at), wide);
                    }
                }
            }
        }
    }
}

/// A tile's lines are wanted soon. Blocks lie scattered, so the processor can't guess it.
#[inline(always)]
fn prefetch<S: Simd>(tile: Stored) {
    let lines = |data: *const u8, bytes: usize| {
        for at in (0..bytes).step_by(LINE) {
            S::prefetch(data.wrapping_add(at));
        }
    };
    match tile {
        Stored::F16(values) => lines(values.as_ptr().cast(), size_of_val(values)),
        Stored::Q8 { values, scales } => {
            lines(values.as_ptr().cast(), values.len());
            lines(scales.as_ptr().cast(), size_of_val(scales));
        }
    }
}

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
