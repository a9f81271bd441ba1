//! Causal attention of a few queries over one KV head's paged cache, one block of keys at a time.
//!
//! Online softmax (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022): a running maximum, a running sum and
//! an accumulator per query, rescaled when the maximum grows. Blocks are taken in order from position 0 and every
//! query's sums are made in the same order whatever queries run beside it, so a query's result does not depend on the
//! batch, on how its prompt was cut, or on threads.

use super::{MAX_QUERIES, simd::Simd};
use crate::engine::{blocks::BLOCK_TOKENS, kv_cache::PagedHead};

/// Rows of scores or outputs held in registers at once.
const GROUP: usize = 4;

type Scores = [[f32; BLOCK_TOKENS]; MAX_QUERIES];

/// # Safety
/// The CPU has the features of `S`; `1 ≤ positions.len() ≤ MAX_QUERIES`, `q` and `out` hold `positions.len() *
/// head.dim()` values, `head.dim()` is a multiple of 16, and the cache holds every position up to the largest.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd>(head: &PagedHead, q: &[f32], positions: &[u32], out: &mut [f32]) {
    let dim = head.dim();
    let queries = positions.len();
    let mut largest = [f32::NEG_INFINITY; MAX_QUERIES];
    let mut sum = [0.0f32; MAX_QUERIES];
    let mut scale = [1.0f32; MAX_QUERIES];
    let mut scores: Scores = [[0.0; BLOCK_TOKENS]; MAX_QUERIES];
    out.fill(0.0);
    let last = positions.iter().copied().max().unwrap_or(0) as usize;
    for block in 0..=last / BLOCK_TOKENS {
        let (keys, values) = head.tiles(block);
        let first = block * BLOCK_TOKENS;
        // Keys past the last query are not written yet: their values may be anything, so they are not read.
        let written = (last + 1 - first).min(BLOCK_TOKENS);
        // SAFETY: features and lengths by the caller; a tile holds `dim * BLOCK_TOKENS` values.
        unsafe {
            for at in (0..queries).step_by(GROUP) {
                let (q, scores) = (&q[at * dim..], &mut scores[at..]);
                match queries - at {
                    1 => score::<S, 1>(q, keys, dim, scores),
                    2 => score::<S, 2>(q, keys, dim, scores),
                    3 => score::<S, 3>(q, keys, dim, scores),
                    _ => score::<S, GROUP>(q, keys, dim, scores),
                }
            }
            for r in 0..queries {
                let visible = (positions[r] as usize + 1).saturating_sub(first).min(BLOCK_TOKENS);
                softmax_block::<S>(&mut scores[r], visible, &mut largest[r], &mut sum[r], &mut scale[r]);
            }
            let values = &values[..written * dim];
            for at in (0..queries).step_by(GROUP) {
                let (weights, scale, out) = (&scores[at..], &scale[at..], &mut out[at * dim..]);
                match queries - at {
                    1 => accumulate::<S, 1>(weights, scale, values, dim, out),
                    2 => accumulate::<S, 2>(weights, scale, values, dim, out),
                    3 => accumulate::<S, 3>(weights, scale, values, dim, out),
                    _ => accumulate::<S, GROUP>(weights, scale, values, dim, out),
                }
            }
        }
    }
    for (row, sum) in out.chunks_exact_mut(dim).zip(sum) {
        let inverse = 1.0 / sum;
        row.iter_mut().for_each(|x| *x *= inverse);
    }
}

/// Scores of `ROWS` queries against a tile of keys, shape (dim, BLOCK_TOKENS): a key per lane, so no lane is ever
/// added to another.
#[inline(always)]
unsafe fn score<S: Simd, const ROWS: usize>(q: &[f32], keys: &[u16], dim: usize, scores: &mut [[f32; BLOCK_TOKENS]]) {
    debug_assert!(q.len() >= ROWS * dim && keys.len() >= dim * BLOCK_TOKENS && scores.len() >= ROWS);
    for at in (0..BLOCK_TOKENS).step_by(2 * S::LANES) {
        // SAFETY: lengths as asserted; features by the caller.
        unsafe {
            let mut left = [S::splat(0.0); ROWS];
            let mut right = [S::splat(0.0); ROWS];
            for i in 0..dim {
                let key = keys.as_ptr().add(i * BLOCK_TOKENS + at);
                let (k0, k1) = (S::load_f16(key), S::load_f16(key.add(S::LANES)));
                for r in 0..ROWS {
                    let x = S::splat(*q.get_unchecked(r * dim + i));
                    left[r] = S::fma(x, k0, left[r]);
                    right[r] = S::fma(x, k1, right[r]);
                }
            }
            for r in 0..ROWS {
                S::store(scores[r].as_mut_ptr().add(at), left[r]);
                S::store(scores[r].as_mut_ptr().add(at + S::LANES), right[r]);
            }
        }
    }
}

/// Turns a block's scores into weights relative to the running maximum; `scale` is what earlier sums must be
/// multiplied by. Keys from `visible` on get weight 0.
#[inline(always)]
unsafe fn softmax_block<S: Simd>(
    scores: &mut [f32; BLOCK_TOKENS],
    visible: usize,
    largest: &mut f32,
    sum: &mut f32,
    scale: &mut f32,
) {
    scores[visible..].fill(f32::NEG_INFINITY);
    *scale = 1.0;
    if visible == 0 {
        scores.fill(0.0);
        return;
    }
    // SAFETY: `BLOCK_TOKENS` is a multiple of `LANES`; features by the caller.
    unsafe {
        let mut peak = S::load(scores.as_ptr());
        for at in (S::LANES..BLOCK_TOKENS).step_by(S::LANES) {
            peak = S::max(peak, S::load(scores.as_ptr().add(at)));
        }
        let peak = S::largest(peak).max(*largest);
        if peak > *largest {
            // Of the first block nothing came before: any factor will do for a sum of 0.
            *scale = if *largest == f32::NEG_INFINITY { 1.0 } else { (*largest - peak).exp() };
            *largest = peak;
        }
        for at in (0..BLOCK_TOKENS).step_by(S::LANES) {
            let shifted = S::add(S::load(scores.as_ptr().add(at)), S::splat(-peak));
            S::store(scores.as_mut_ptr().add(at), S::exp(shifted));
        }
        scores[visible..].fill(0.0);
        let mut total = S::load(scores.as_ptr());
        for at in (S::LANES..BLOCK_TOKENS).step_by(S::LANES) {
            total = S::add(total, S::load(scores.as_ptr().add(at)));
        }
        *sum = *sum * *scale + S::sum(total);
    }
}

/// `out[r] = out[r] · scale[r] + Σ_j weights[r][j] · values[j]`, values of shape (tokens, dim).
#[inline(always)]
unsafe fn accumulate<S: Simd, const ROWS: usize>(
    weights: &[[f32; BLOCK_TOKENS]],
    scale: &[f32],
    values: &[u16],
    dim: usize,
    out: &mut [f32],
) {
    debug_assert!(weights.len() >= ROWS && scale.len() >= ROWS && out.len() >= ROWS * dim);
    let tokens = values.len() / dim;
    // SAFETY: lengths as asserted, `dim` is a multiple of `LANES`; features by the caller.
    unsafe {
        let mut at = 0;
        while at + 2 * S::LANES <= dim {
            accumulate_columns::<S, ROWS, 2>(weights, scale, values, tokens, dim, at, out);
            at += 2 * S::LANES;
        }
        while at < dim {
            accumulate_columns::<S, ROWS, 1>(weights, scale, values, tokens, dim, at, out);
            at += S::LANES;
        }
    }
}

/// `COLUMNS` vectors of the output from column `at` on, for `ROWS` queries.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of registers, which the compiler unrolls")]
unsafe fn accumulate_columns<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    weights: &[[f32; BLOCK_TOKENS]],
    scale: &[f32],
    values: &[u16],
    tokens: usize,
    dim: usize,
    at: usize,
    out: &mut [f32],
) {
    // SAFETY: the caller's: `at + COLUMNS * LANES ≤ dim`.
    unsafe {
        let mut sums = [[S::splat(0.0); COLUMNS]; ROWS];
        for r in 0..ROWS {
            for c in 0..COLUMNS {
                let old = S::load(out.as_ptr().add(r * dim + at + c * S::LANES));
                sums[r][c] = S::mul(old, S::splat(scale[r]));
            }
        }
        for j in 0..tokens {
            // No closures here: one that is not inlined would lose the tier's CPU features.
            let mut value = [S::splat(0.0); COLUMNS];
            for c in 0..COLUMNS {
                value[c] = S::load_f16(values.as_ptr().add(j * dim + at + c * S::LANES));
            }
            for r in 0..ROWS {
                let weight = S::splat(*weights.get_unchecked(r).get_unchecked(j));
                for c in 0..COLUMNS {
                    sums[r][c] = S::fma(weight, value[c], sums[r][c]);
                }
            }
        }
        for r in 0..ROWS {
            for c in 0..COLUMNS {
                S::store(out.as_mut_ptr().add(r * dim + at + c * S::LANES), sums[r][c]);
            }
        }
    }
}
