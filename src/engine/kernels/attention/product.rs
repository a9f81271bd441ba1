//! The product of a few rows with a matrix, in registers.

use std::ops::Range;

use super::{STRIDE, Simd, matrix::Matrix};
use crate::engine::kv_cache::SCALE_VALUES;

/// What the product is added to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Start {
    Zero,
    Add,
}

/// Where a product goes: its first value, and the distance of its rows.
#[derive(Clone, Copy)]
pub(super) struct To {
    pub data: *mut f32,
    pub distance: usize,
    pub start: Start,
}

/// How many of the `left` rows are multiplied at once.
pub(super) fn rows_at<S: Simd>(left: usize) -> usize {
    [12, 6, 4, 3, 2, 1].into_iter().find(|rows| *rows <= left.min(S::ROWS)).unwrap_or(1)
}

/// `to = rows · matrix`, or that added to it, where only the values `depth` of the rows count, and the same rows of the
/// matrix. `rows` are as many as [`rows_at`] says, `STRIDE` apart.
///
/// Each sum goes through the depth in order, so it does not depend on the number of rows.
///
/// # Safety
/// The CPU has the features of `S`; all that is said above can be read and written.
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(
    rows: usize,
    from: *const f32,
    matrix: &impl Matrix<S>,
    depth: Range<usize>,
    to: To,
) {
    // SAFETY: the caller's. More rows than the tier's registers hold are never asked for.
    unsafe {
        match rows {
            12 if S::ROWS >= 12 => columns::<S, 12>(from, matrix, depth, to),
            6 if S::ROWS >= 6 => columns::<S, 6>(from, matrix, depth, to),
            4 if S::ROWS >= 4 => columns::<S, 4>(from, matrix, depth, to),
            3 if S::ROWS >= 3 => columns::<S, 3>(from, matrix, depth, to),
            2 => columns::<S, 2>(from, matrix, depth, to),
            _ => columns::<S, 1>(from, matrix, depth, to),
        }
    }
}

/// As many columns at once as there are registers for.
#[inline(always)]
unsafe fn columns<S: Simd, const ROWS: usize>(from: *const f32, matrix: &impl Matrix<S>, depth: Range<usize>, to: To) {
    let most = 2 * S::ROWS / ROWS;
    let width = matrix.width();
    let mut at = 0;
    // SAFETY: the caller's: columns up to the width, which is a multiple of 16.
    unsafe {
        while most >= 8 && at + 8 * S::LANES <= width {
            tile::<S, ROWS, 8>(from, matrix, depth.clone(), at, to);
            at += 8 * S::LANES;
        }
        while most >= 4 && at + 4 * S::LANES <= width {
            tile::<S, ROWS, 4>(from, matrix, depth.clone(), at, to);
            at += 4 * S::LANES;
        }
        while at + 2 * S::LANES <= width {
            tile::<S, ROWS, 2>(from, matrix, depth.clone(), at, to);
            at += 2 * S::LANES;
        }
        while at < width {
            tile::<S, ROWS, 1>(from, matrix, depth.clone(), at, to);
            at += S::LANES;
        }
    }
}

/// `COLUMNS` vectors of `ROWS` rows, from column `at` on.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of registers, which the compiler unrolls")]
unsafe fn tile<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    from: *const f32,
    matrix: &impl Matrix<S>,
    depth: Range<usize>,
    at: usize,
    to: To,
) {
    // SAFETY: the caller's. No closures: one that is not inlined would lose the tier's CPU features.
    unsafe {
        let mut sums = [[S::splat(0.0); COLUMNS]; ROWS];
        if to.start == Start::Add {
            for r in 0..ROWS {
                for c in 0..COLUMNS {
                    sums[r][c] = S::load(to.data.add(r * to.distance + at + c * S::LANES));
                }
            }
        }
        let mut first = depth.start;
        while first < depth.end {
            let end = depth.end.min((first + 1).next_multiple_of(SCALE_VALUES));
            let mut scales = [matrix.scale(first, at); COLUMNS];
            for c in 1..COLUMNS {
                scales[c] = matrix.scale(first, at + c * S::LANES);
            }
            for k in first..end {
                matrix.prefetch(k, at);
                let mut row = [S::splat(0.0); COLUMNS];
                for c in 0..COLUMNS {
                    row[c] = matrix.load(k, at + c * S::LANES, scales[c]);
                }
                for r in 0..ROWS {
                    let x = S::splat(*from.add(r * STRIDE + k));
                    for c in 0..COLUMNS {
                        sums[r][c] = S::fma(x, row[c], sums[r][c]);
                    }
                }
            }
            first = end;
        }
        for r in 0..ROWS {
            for c in 0..COLUMNS {
                S::store(to.data.add(r * to.distance + at + c * S::LANES), sums[r][c]);
            }
        }
    }
}
