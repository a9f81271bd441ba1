//! The few vector operations that the kernels are written in.
//!
//! A kernel is one generic function over [`Simd`]; the tiers (`portable`, `avx2`, `avx512`, `neon`) implement the trait and
//! instantiate the kernels inside functions that carry their `target_feature`s, so that everything is inlined there.

/// A tier's vector of `LANES` floats.
///
/// # Safety
/// Every method needs the CPU features of its tier; pointers must be valid for `LANES` elements (no alignment).
pub(super) trait Simd: Copy {
    type V: Copy;
    const LANES: usize;
    /// Rows of which sums of two vectors each fit into the registers, beside what is multiplied.
    const ROWS: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Widens `LANES` IEEE half floats.
    unsafe fn load_f16(from: *const u16) -> Self::V;
    /// Narrows to IEEE half floats, to nearest even.
    unsafe fn store_f16(to: *mut u16, v: Self::V);
    /// Widens `LANES` bfloat16.
    unsafe fn load_bf16(from: *const u16) -> Self::V;
    /// Widens `LANES` signed bytes.
    unsafe fn load_i8(from: *const i8) -> Self::V;
    /// Rounds to whole numbers, to nearest even, that are in -127..=127.
    unsafe fn store_i8(to: *mut i8, v: Self::V);
    /// Asks the memory for the cache line of an address, which may be any, into the second-level cache: that has room for
    /// many more requests at a time than the first, and twice the bandwidth came of it.
    fn prefetch(at: *const u8);
    /// Exchanges lanes 0 and 1, 2 and 3, …
    unsafe fn swap_pairs(v: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest whole number.
    unsafe fn round(v: Self::V) -> Self::V;
    /// `2^v` for whole `v` in -126..=127.
    unsafe fn exp2_whole(v: Self::V) -> Self::V;
    /// Adds the lanes, in an order fixed by the tier.
    unsafe fn sum(v: Self::V) -> f32;
    unsafe fn largest(v: Self::V) -> f32;

    /// `e^v`, to about 1e-7 relative; arguments are held to -87..=88, where the result is a normal float.
    ///
    /// Cody–Waite reduction to `2^n · e^r` with |r| ≤ ln 2 / 2, then the Taylor polynomial of degree 6.
    #[inline(always)]
    unsafe fn exp(v: Self::V) -> Self::V {
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        const COEFFICIENTS: [f32; 6] = [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        // SAFETY: as this method's own.
        unsafe {
            let v = Self::max(Self::min(v, Self::splat(88.0)), Self::splat(-87.0));
            let n = Self::round(Self::mul(v, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-LN_2_HIGH), v);
            let r = Self::fma(n, Self::splat(-LN_2_LOW), r);
            let mut p = Self::splat(1.0 / 720.0);
            for c in COEFFICIENTS {
                p = Self::fma(p, r, Self::splat(c));
            }
            Self::mul(p, Self::exp2_whole(n))
        }
    }
}

/// Narrows a slice to half precision.
///
/// # Safety
/// The CPU has the features of `S`; `from` and `to` are as long as each other.
#[inline(always)]
pub(super) unsafe fn narrow<S: Simd>(from: &[f32], to: &mut [u16]) {
    let whole = from.len() - from.len() % S::LANES;
    // SAFETY: features by the caller; pointers stay `LANES` below the ends.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            S::store_f16(to.as_mut_ptr().add(i), S::load(from.as_ptr().add(i)));
        }
    }
    for i in whole..from.len() {
        to[i] = half::f16::from_f32(from[i]).to_bits();
    }
}
