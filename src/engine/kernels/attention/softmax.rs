//! From scores to weights.

use std::ops::Range;

use super::{BLOCK_TOKENS, STRIDE, Simd};

/// Turns a query's scores of a chunk into weights `e^(score - largest)`; the largest score, and the sum of weights.
///
/// The query sees the keys `seen`; weights are written for all of the tiles in which it or another query of its group
/// sees some, `together`, and are 0 for keys that it does not see. It may see none: then the largest is -∞.
///
/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
pub(super) unsafe fn soften<S: Simd>(
    scores: &mut [f32; STRIDE],
    seen: Range<usize>,
    together: &Range<usize>,
    soft_cap: Option<f32>,
) -> (f32, f32) {
    let start = together.start - together.start % BLOCK_TOKENS;
    let scores = &mut scores[start..together.end.next_multiple_of(BLOCK_TOKENS)];
    if seen.is_empty() {
        scores.fill(0.0);
        return (f32::NEG_INFINITY, 0.0);
    }
    let seen = seen.start - start..seen.end - start;
    // SAFETY: `scores` are whole tiles, a multiple of `LANES`; features by the caller.
    unsafe {
        // Only the vectors in which something is seen; of the others nothing but zeros is wanted.
        let vectors = seen.start - seen.start % S::LANES..seen.end.next_multiple_of(S::LANES);
        let row = scores.as_mut_ptr();
        if let Some(cap) = soft_cap {
            for at in vectors.clone().step_by(S::LANES) {
                S::store(row.add(at), capped::<S>(S::load(row.add(at)), cap));
            }
        }
        // A key that is not seen may hold anything.
        scores[vectors.start..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..vectors.end].fill(f32::NEG_INFINITY);
        let row = scores.as_mut_ptr();
        let mut peaks = S::load(row.add(vectors.start));
        for at in vectors.clone().step_by(S::LANES) {
            peaks = S::max(peaks, S::load(row.add(at)));
        }
        let peak = S::largest(peaks);
        let minus_peak = S::splat(-peak);
        let mut sums = S::splat(0.0);
        for at in vectors.step_by(S::LANES) {
            S::store(row.add(at), S::exp(S::add(S::load(row.add(at)), minus_peak)));
            let cut = at < seen.start || at + S::LANES > seen.end;
            if cut {
                let lanes = std::slice::from_raw_parts_mut(row.add(at), S::LANES);
                for (key, weight) in (at..).zip(lanes) {
                    if !seen.contains(&key) {
                        *weight = 0.0;
                    }
                }
            }
            sums = S::add(sums, S::load(row.add(at)));
        }
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        (peak, S::sum(sums))
    }
}

/// `cap · tanh(x / cap)` of every value.
///
/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
pub(in crate::engine::kernels) unsafe fn soft_cap<S: Simd>(values: &mut [f32], cap: f32) {
    /// A multiple of every tier's lanes. What is left over is computed among padding, as the others are.
    const BLOCK: usize = 16;
    for values in values.chunks_mut(BLOCK) {
        let mut block = [0.0; BLOCK];
        block[..values.len()].copy_from_slice(values);
        for at in (0..BLOCK).step_by(S::LANES) {
            // SAFETY: `LANES` divides the block; features by the caller.
            unsafe { S::store(block.as_mut_ptr().add(at), capped::<S>(S::load(block.as_ptr().add(at)), cap)) };
        }
        values.copy_from_slice(&block[..values.len()]);
    }
}

/// `cap · tanh(x / cap)`, by `tanh y = 1 - 2 / (e^2y + 1)`.
#[inline(always)]
unsafe fn capped<S: Simd>(x: S::V, cap: f32) -> S::V {
    // SAFETY: features by the caller.
    unsafe {
        let twice = S::mul(x, S::splat(2.0 / cap));
        let quotient = S::div(S::splat(-2.0), S::add(S::exp(twice), S::splat(1.0)));
        S::mul(S::splat(cap), S::add(quotient, S::splat(1.0)))
    }
}
