//! The product of a few rows with a matrix, in registers.

use super::{STRIDE, Simd};

/// What the product is added to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Start {
    Zero,
    Add,
}

/// How many of the `left` rows are multiplied at once.
pub(super) fn rows_at<S: Simd>(left: usize) -> usize {
    [12, 6, 4, 3, 2, 1].into_iter().find(|rows| *rows <= left.min(S::ROWS)).unwrap_or(1)
}

/// `to = rows · matrix`, or that added to it. `rows` are [`rows_at`] rows of `depth` values, `STRIDE` apart; the matrix
/// is `(data, width, depth)`, `depth` rows of `width` values; `to` comes with the distance of its rows.
///
/// Each sum goes through the depth in order, so it does not depend on the number of rows.
///
/// # Safety
/// The CPU has the features of `S`; all that is said above can be read and written; `width` is a multiple of 16.
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(
    rows: usize,
    from: *const f32,
    matrix: (*const f32, usize, usize),
    to: (*mut f32, usize),
    start: Start,
) {
    // SAFETY: the caller's. More rows than the tier's registers hold are never asked for.
    unsafe {
        match rows {
            12 if S::ROWS >= 12 => columns::<S, 12>(from, matrix, to, start),
            6 if S::ROWS >= 6 => columns::<S, 6>(from, matrix, to, start),
            4 if S::ROWS >= 4 => columns::<S, 4>(from, matrix, to, start),
            3 if S::ROWS >= 3 => columns::<S, 3>(from, matrix, to, start),
            2 => columns::<S, 2>(from, matrix, to, start),
            _ => columns::<S, 1>(from, matrix, to, start),
        }
    }
}

#[inline(always)]
unsafe fn columns<S: Simd, const ROWS: usize>(
    from: *const f32,
    matrix: (*const f32, usize, usize),
    to: (*mut f32, usize),
    start: Start,
) {
    let (data, width, depth) = matrix;
    let mut at = 0;
    // SAFETY: the caller's: columns up to `width`.
    unsafe {
        while at + 2 * S::LANES <= width {
            tile::<S, ROWS, 2>(from, (data.add(at), width, depth), (to.0.add(at), to.1), start);
            at += 2 * S::LANES;
        }
        while at < width {
            tile::<S, ROWS, 1>(from, (data.add(at), width, depth), (to.0.add(at), to.1), start);
            at += S::LANES;
        }
    }
}

/// `COLUMNS` vectors of `ROWS` rows.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices of registers, which the compiler unrolls")]
unsafe fn tile<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    from: *const f32,
    (data, width, depth): (*const f32, usize, usize),
    (to, distance): (*mut f32, usize),
    start: Start,
) {
    // SAFETY: the caller's. No closures: one that is not inlined would lose the tier's CPU features.
    unsafe {
        let mut sums = [[S::splat(0.0); COLUMNS]; ROWS];
        if start == Start::Add {
            for r in 0..ROWS {
                for c in 0..COLUMNS {
                    sums[r][c] = S::load(to.add(r * distance + c * S::LANES));
                }
            }
        }
        for k in 0..depth {
            let mut row = [S::splat(0.0); COLUMNS];
            for c in 0..COLUMNS {
                row[c] = S::load(data.add(k * width + c * S::LANES));
            }
            for r in 0..ROWS {
                let x = S::splat(*from.add(r * STRIDE + k));
                for c in 0..COLUMNS {
                    sums[r][c] = S::fma(x, row[c], sums[r][c]);
                }
            }
        }
        for r in 0..ROWS {
            for c in 0..COLUMNS {
                S::store(to.add(r * distance + c * S::LANES), sums[r][c]);
            }
        }
    }
}
