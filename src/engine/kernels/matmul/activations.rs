//! Activations as the quantised kernels read them: signed bytes in blocks with a scale each, and their sums, which the
//! zero points and minima of weights need.
//!
//! K-quants go with blocks of 256 values, the others with blocks of 32, as in ggml. A block's scale is its largest
//! magnitude over 127.

use super::lanes::{LANES, Lanes};

/// A block of activations.
///
/// # Safety
/// The values, `K` of them, are the first bytes, so that a pointer to a block is one to its values.
pub(super) unsafe trait Block: Sized {
    const K: usize;
    /// What a value of 1 stands for.
    fn scale(&self) -> f32;
    /// The sum of values `N · index ..` of `N` values (16 or 32), for weights with minima.
    fn sum<const N: usize>(&self, index: usize) -> f32;
    /// The same times `-zero`, a multiple of 32 (of 8 for blocks of 32): what products of weights with that zero point start
    /// from.
    fn start<const N: usize>(&self, index: usize, zero: i32) -> i32;

    fn values(&mut self) -> &mut [i8];
    /// Takes the sums of each sixteen values.
    fn set(&mut self, scale: f32, sums: &[i32]);
}

/// 256 values. Sums are stored as the most used formats take them: a vector of what lies in memory costs nothing.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Block256 {
    values: [i8; 256],
    /// Of 16 values each, times the zero point of Q6_K.
    starts: [i32; 16],
    /// Of 32 values each.
    sums_32: [f32; 8],
    /// Of 16 values each.
    sums_16: [f32; 16],
    scale: f32,
}

/// 32 values.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Block32 {
    values: [i8; 32],
    /// The sum times the zero point of Q4_0.
    start: i32,
    scale: f32,
}

/// What [`Block256::starts`] and [`Block32::start`] are multiplied with.
const START_256: i32 = -32;
const START_32: i32 = -8;

impl Block256 {
    pub const ZERO: Self =
        Self { values: [0; 256], starts: [0; 16], sums_32: [0.0; 8], sums_16: [0.0; 16], scale: 0.0 };
}

impl Block32 {
    pub const ZERO: Self = Self { values: [0; 32], start: 0, scale: 0.0 };
}

// SAFETY: `repr(C)` puts the values first.
unsafe impl Block for Block256 {
    const K: usize = 256;

    #[inline(always)]
    fn scale(&self) -> f32 {
        self.scale
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, index: usize) -> f32 {
        match N {
            16 => self.sums_16[index],
            _ => self.sums_32[index],
        }
    }

    #[inline(always)]
    fn start<const N: usize>(&self, index: usize, zero: i32) -> i32 {
        let start = match N {
            16 => self.starts[index],
            _ => self.starts[2 * index] + self.starts[2 * index + 1],
        };
        start * (-zero / START_256)
    }

    #[inline(always)]
    fn values(&mut self) -> &mut [i8] {
        &mut self.values
    }

    #[inline(always)]
    fn set(&mut self, scale: f32, sums: &[i32]) {
        self.scale = scale;
        for ((start, float), sum) in self.starts.iter_mut().zip(&mut self.sums_16).zip(sums) {
            (*start, *float) = (START_256 * sum, *sum as f32);
        }
        for (sum, pair) in self.sums_32.iter_mut().zip(sums.chunks_exact(2)) {
            *sum = (pair[0] + pair[1]) as f32;
        }
    }
}

// SAFETY: `repr(C)` puts the values first.
unsafe impl Block for Block32 {
    const K: usize = 32;

    #[inline(always)]
    fn scale(&self) -> f32 {
        self.scale
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, _: usize) -> f32 {
        self.start as f32 * (1.0 / START_32 as f32)
    }

    #[inline(always)]
    fn start<const N: usize>(&self, _: usize, zero: i32) -> i32 {
        self.start * (-zero / START_32)
    }

    #[inline(always)]
    fn values(&mut self) -> &mut [i8] {
        &mut self.values
    }

    #[inline(always)]
    fn set(&mut self, scale: f32, sums: &[i32]) {
        (self.scale, self.start) = (scale, START_32 * (sums[0] + sums[1]));
    }
}

/// Quantises a row into blocks. Values that are not finite make their block's scale NaN or infinite, so that they show in
/// every product with it.
///
/// # Safety
/// The CPU has the features of `T`; `row` holds `blocks.len() · X::K` values.
#[inline(always)]
pub(super) unsafe fn quantise<T: Lanes, X: Block>(row: &[f32], blocks: &mut [X]) {
    for (block, values) in blocks.iter_mut().zip(row.chunks_exact(X::K)) {
        // SAFETY: features by the caller; vectors lie inside the block of `X::K` values, a multiple of 32.
        unsafe {
            let mut largest = T::splat(0.0);
            let mut probe = T::splat(0.0);
            for at in (0..X::K).step_by(LANES) {
                let x = T::load(values.as_ptr().add(at));
                largest = T::max_abs(largest, x);
                // 0 · x is 0 for what is finite and NaN for what is not.
                probe = T::fma(x, T::splat(0.0), probe);
            }
            let mut finite = [0.0; LANES];
            T::store(finite.as_mut_ptr(), probe);
            let finite = finite.iter().all(|x| *x == 0.0);
            let largest = T::largest(largest);
            let inverse = if finite && largest > 0.0 { (127.0 / largest).min(f32::MAX) } else { 0.0 };
            let mut sums = [0; 16];
            for (i, sum) in sums[..X::K / LANES].iter_mut().enumerate() {
                let x = T::mul(T::load(values.as_ptr().add(i * LANES)), T::splat(inverse));
                let to = block.values().as_mut_ptr().add(i * LANES);
                *sum = if finite { T::store_i8(to, x) } else { T::store_i8(to, T::splat(1.0)) };
            }
            block.set(if finite { largest / 127.0 } else { f32::NAN }, &sums[..X::K / LANES]);
        }
    }
}
