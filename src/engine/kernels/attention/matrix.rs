//! Tiles of keys and values as the product reads them: widened as they are read, or widened before.

use half::bf16;

use super::{BLOCK_TOKENS, Simd};
use crate::engine::kv_cache::{SCALE_VALUES, Stored};

/// Bytes of a cache line.
const LINE: usize = 64;

/// What rows are multiplied with.
pub(super) trait Matrix<S: Simd> {
    /// What is the same for `LANES` columns of [`SCALE_VALUES`] rows.
    type Scale: Copy;

    /// Values of a row, a multiple of 16.
    fn width(&self) -> usize;
    /// For the rows around `k`, and `LANES` columns from `column` on.
    ///
    /// # Safety
    /// They are in the matrix; the CPU has the features of `S`.
    unsafe fn scale(&self, k: usize, column: usize) -> Self::Scale;
    /// `LANES` values of row `k`, from `column` on, of which the scale is given.
    ///
    /// # Safety
    /// As [`scale`](Self::scale).
    unsafe fn load(&self, k: usize, column: usize, scale: Self::Scale) -> S::V;
    /// Called before row `k` is read from `column` on: asks the memory for what is read after this matrix. Blocks lie
    /// scattered, so the processor can't guess it.
    #[inline(always)]
    fn prefetch(&self, _k: usize, _column: usize) {}
}

/// A tile of the cache, and the one that is read after it.
pub(super) enum Tile<Bytes> {
    Halves(Halves),
    Bytes(Bytes),
}

impl Tile<ByteKeys> {
    /// Keys, shape (dim, BLOCK_TOKENS).
    pub fn keys(tile: Stored, next: Stored) -> Self {
        match tile {
            Stored::F16(data) => Self::Halves(Halves::new(data, next, BLOCK_TOKENS)),
            Stored::Q8 { values, scales } => Self::Bytes(ByteKeys(Bytes::new(values, scales, next, BLOCK_TOKENS))),
        }
    }
}

impl Tile<ByteValues> {
    /// Values, shape (BLOCK_TOKENS, dim).
    pub fn values(tile: Stored, next: Stored, dim: usize) -> Self {
        match tile {
            Stored::F16(data) => Self::Halves(Halves::new(data, next, dim)),
            Stored::Q8 { values, scales } => Self::Bytes(ByteValues(Bytes::new(values, scales, next, dim))),
        }
    }
}

/// Floats.
pub(super) struct Wide {
    data: *const f32,
    width: usize,
}

impl Wide {
    pub fn new(data: &[f32], width: usize) -> Self {
        Self { data: data.as_ptr(), width }
    }
}

impl<S: Simd> Matrix<S> for Wide {
    type Scale = ();

    #[inline(always)]
    fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn scale(&self, _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize, _: ()) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(self.data.add(k * self.width + column)) }
    }
}

/// Half floats.
pub(super) struct Halves {
    data: *const u16,
    next: *const u8,
    width: usize,
}

impl Halves {
    fn new(data: &[u16], next: Stored, width: usize) -> Self {
        Self { data: data.as_ptr(), next: start_of(next), width }
    }
}

impl<S: Simd> Matrix<S> for Halves {
    type Scale = ();

    #[inline(always)]
    fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn scale(&self, _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize, _: ()) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load_f16(self.data.add(k * self.width + column)) }
    }

    #[inline(always)]
    fn prefetch(&self, k: usize, column: usize) {
        if column == 0 {
            let bytes = self.width * size_of::<u16>();
            ask_for::<S>(self.next.wrapping_add(k * bytes), bytes);
        }
    }
}

/// Bytes with scales.
struct Bytes {
    values: *const i8,
    /// Of a tile's values, behind which its scales lie.
    value_bytes: usize,
    scales: *const u16,
    scale_bytes: usize,
    next: *const u8,
    width: usize,
}

impl Bytes {
    fn new(values: &[i8], scales: &[u16], next: Stored, width: usize) -> Self {
        let (value_bytes, scale_bytes) = (size_of_val(values), size_of_val(scales));
        let (values, scales, next) = (values.as_ptr(), scales.as_ptr(), start_of(next));
        Self { values, value_bytes, scales, scale_bytes, next, width }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(&self, k: usize, column: usize, scale: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::mul(S::load_i8(self.values.add(k * self.width + column)), scale) }
    }

    #[inline(always)]
    fn prefetch<S: Simd>(&self, k: usize, column: usize) {
        // In pieces of at least a line; the scales with the first.
        let rows = (LINE / self.width).max(1);
        if column == 0 && k.is_multiple_of(rows) {
            ask_for::<S>(self.next.wrapping_add(k * self.width), rows * self.width);
        }
        if column == 0 && k == 0 {
            ask_for::<S>(self.next.wrapping_add(self.value_bytes), self.scale_bytes);
        }
    }
}

/// Values that share a scale lie one below the other.
pub(super) struct ByteKeys(Bytes);

impl<S: Simd> Matrix<S> for ByteKeys {
    type Scale = S::V;

    #[inline(always)]
    fn width(&self) -> usize {
        self.0.width
    }

    #[inline(always)]
    unsafe fn scale(&self, k: usize, column: usize) -> S::V {
        // SAFETY: the caller's; there is a scale for each value.
        unsafe { S::load_bf16(self.0.scales.add(k / SCALE_VALUES * self.0.width + column)) }
    }

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize, scale: S::V) -> S::V {
        // SAFETY: the caller's.
        unsafe { self.0.load::<S>(k, column, scale) }
    }

    #[inline(always)]
    fn prefetch(&self, k: usize, column: usize) {
        self.0.prefetch::<S>(k, column);
    }
}

/// Values that share a scale lie side by side.
pub(super) struct ByteValues(Bytes);

impl<S: Simd> Matrix<S> for ByteValues {
    type Scale = ();

    #[inline(always)]
    fn width(&self) -> usize {
        self.0.width
    }

    #[inline(always)]
    unsafe fn scale(&self, _: usize, _: usize) {}

    #[inline(always)]
    unsafe fn load(&self, k: usize, column: usize, _: ()) -> S::V {
        let groups = self.0.width.div_ceil(SCALE_VALUES);
        // SAFETY: the caller's; there is a scale for each value, and `LANES` divides `SCALE_VALUES`.
        unsafe {
            let scale = bf16::from_bits(*self.0.scales.add(k * groups + column / SCALE_VALUES));
            self.0.load::<S>(k, column, S::splat(scale.to_f32()))
        }
    }

    #[inline(always)]
    fn prefetch(&self, k: usize, column: usize) {
        self.0.prefetch::<S>(k, column);
    }
}

fn start_of(tile: Stored) -> *const u8 {
    match tile {
        Stored::F16(data) => data.as_ptr().cast(),
        Stored::Q8 { values, .. } => values.as_ptr().cast(),
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
            unsafe {
                let scale = matrix.scale(k, column);
                S::store(out.as_mut_ptr().add(k * width + column), matrix.load(k, column, scale));
            }
        }
    }
    Wide { data: out.as_ptr(), width }
}
