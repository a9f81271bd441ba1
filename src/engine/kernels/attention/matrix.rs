//! Tiles of keys and values as the product reads them: widened as they are read, or widened before.

use half::bf16;

use super::{BLOCK_TOKENS, Simd};
use crate::engine::kv_cache::{SCALE_VALUES, Stored};

/// Bytes of a cache line.
const LINE: usize = 64;

/// What rows are multiplied with.
pub(super) trait Matrix<S: Simd> {
    /// Values of a row, a multiple of 16.
    fn width(&self) -> usize;
    /// `LANES` values of row `k`, from `column` on.
    ///
    /// # Safety
    /// They are in the matrix; the CPU has the features of `S`.
    unsafe fn load(&self, k: usize, column: usize) -> S::V;
    /// Called before row `k` is read from `column` on: asks the memory for what is read after this matrix. Blocks lie
    /// scattered, so the processor can't guess it.
    #[inline(always)]
    fn prefetch(&self, _k: usize, _column: usize) {}
}

/// Floats.
pub(super) struct Wide {
    pub data: *const f32,
    pub width: usize,
}

/// A tile of the cache, and the one that is read after it.
pub(super) enum Tile {
    Halves(Halves),
    Bytes(Bytes),
}

pub(super) struct Halves {
    data: *const u16,
    next: *const u16,
    width: usize,
}

pub(super) struct Bytes {
    values: *const i8,
    next: *const i8,
    scales: *const u16,
    axis: Axis,
    width: usize,
}

/// Which way the values that share a scale lie.
#[derive(Clone, Copy)]
enum Axis {
    /// One below the other (keys).
    Column,
    /// Side by side (values).
    Row,
}

impl Tile {
    /// Keys, shape (dim, BLOCK_TOKENS).
    pub fn keys(tile: Stored, next: Stored) -> Self {
        Self::new(tile, next, BLOCK_TOKENS, Axis::Column)
    }

    /// Values, shape (BLOCK_TOKENS, dim).
    pub fn values(tile: Stored, next: Stored, dim: usize) -> Self {
        Self::new(tile, next, dim, Axis::Row)
    }

    fn new(tile: Stored, next: Stored, width: usize, axis: Axis) -> Self {
        match tile {
            Stored::F16(data) => {
                let next = if let Stored::F16(next) = next { next } else { data };
                Self::Halves(Halves { data: data.as_ptr(), next: next.as_ptr(), width })
            }
            Stored::Q8 { values, scales } => {
                let next = if let Stored::Q8 { values: next, .. } = next { next } else { values };
                let (values, next, scales) = (values.as_ptr(), next.as_ptr(), scales.as_ptr());
                Self::Bytes(Bytes { values, next, scales, axis, width })
            }
        }
    }
}

impl<S: Simd> Matrix<S> for Wide {
    #[inline(always)]
    fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(self.data.add(k * self.width + column)) }
    }
}

impl<S: Simd> Matrix<S> for Halves {
    #[inline(always)]
    fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load_f16(self.data.add(k * self.width + column)) }
    }

    #[inline(always)]
    fn prefetch(&self, k: usize, column: usize) {
        if column == 0 {
            ask_for::<S>(self.next.wrapping_add(k * self.width).cast(), self.width * size_of::<u16>());
        }
    }
}

impl<S: Simd> Matrix<S> for Bytes {
    #[inline(always)]
    fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize) -> S::V {
        // SAFETY: the caller's; there is a scale for each value, and `LANES` divides `SCALE_VALUES`.
        unsafe {
            let scale = match self.axis {
                Axis::Column => S::load_bf16(self.scales.add(k / SCALE_VALUES * self.width + column)),
                Axis::Row => {
                    let groups = self.width.div_ceil(SCALE_VALUES);
                    S::splat(bf16::from_bits(*self.scales.add(k * groups + column / SCALE_VALUES)).to_f32())
                }
            };
            S::mul(S::load_i8(self.values.add(k * self.width + column)), scale)
        }
    }

    #[inline(always)]
    fn prefetch(&self, k: usize, column: usize) {
        if column == 0 {
            ask_for::<S>(self.next.wrapping_add(k * self.width).cast(), self.width);
        }
    }
}

/// Asks the memory for some bytes, which may lie anywhere.
#[inline(always)]
fn ask_for<S: Simd>(data: *const u8, bytes: usize) {
    for at in (0..bytes).step_by(LINE) {
        S::prefetch(data.wrapping_add(at));
    }
}

/// Widens the first `depth` rows of a matrix. What is read from it later is what would be read from `matrix`.
///
/// # Safety
/// The matrix has these rows, and `out` room for them; the CPU has the features of `S`.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd>(matrix: &impl Matrix<S>, depth: usize, out: &mut [f32]) -> Wide {
    let width = matrix.width();
    debug_assert!(out.len() >= depth * width);
    for k in 0..depth {
        matrix.prefetch(k, 0);
        for column in (0..width).step_by(S::LANES) {
            // SAFETY: the caller's.
            unsafe { S::store(out.as_mut_ptr().add(k * width + column), matrix.load(k, column)) };
        }
    }
    Wide { data: out.as_ptr(), width }
}
