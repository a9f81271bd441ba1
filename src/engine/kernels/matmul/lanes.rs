//! The vector operations that matrix products are written in.
//!
//! Every tier has the same sixteen lanes, whatever its registers are, and every operation is exact or rounded as IEEE 754
//! says. So a kernel, one generic function over [`Lanes`], gives the same bits on every tier; [`Scalar`](super::scalar) is
//! the one to compare with.

/// Outputs computed side by side: one per lane.
pub const LANES: usize = 16;

/// Sixteen lanes of floats, of integers, or of four bytes each.
///
/// # Safety
/// Every method needs the CPU features of its tier; pointers must be valid for what the method says it reads or writes
/// (no alignment).
pub(super) trait Lanes: Copy {
    type F: Copy;
    type I: Copy;
    /// Unsigned bytes, four to a lane.
    type B: Copy;

    /// Asks for the cache line at `from`, which may be any address.
    unsafe fn prefetch(from: *const u8);

    unsafe fn splat(x: f32) -> Self::F;
    /// Sixteen floats.
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, v: Self::F);
    /// Sixteen IEEE half floats.
    unsafe fn load_f16(from: *const u16) -> Self::F;
    /// Sixteen bfloat16.
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    /// Sixteen unsigned bytes, as floats.
    unsafe fn load_u8(from: *const u8) -> Self::F;
    /// Sixteen signed bytes, as floats.
    unsafe fn load_i8(from: *const i8) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a · b`, rounded once.
    unsafe fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger of `a` and |b| in each lane; `a` where either is NaN is not promised.
    unsafe fn max_abs(a: Self::F, b: Self::F) -> Self::F;
    /// The largest lane.
    unsafe fn largest(v: Self::F) -> f32;
    /// Stores sixteen signed bytes, rounded to the nearest, ties to even, from lanes within ±127; gives their sum.
    unsafe fn store_i8(to: *mut i8, v: Self::F) -> i32;

    unsafe fn splat_i(x: i32) -> Self::I;
    /// Exact below 2²⁴.
    unsafe fn to_float(v: Self::I) -> Self::F;

    /// 64 bytes.
    unsafe fn load_bytes(from: *const u8) -> Self::B;
    unsafe fn and(a: Self::B, mask: u8) -> Self::B;
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B;
    /// Shifts right; what comes into a byte from its neighbour is up to the tier, so a mask must follow.
    unsafe fn shr<const N: u32>(a: Self::B) -> Self::B;
    /// Shifts left; as [`shr`](Self::shr).
    unsafe fn shl<const N: u32>(a: Self::B) -> Self::B;
    /// `a | bit` for each byte whose bit of the 64 at `mask` is set.
    unsafe fn or_where(a: Self::B, mask: *const u8, bit: u8) -> Self::B;
    /// `table[b]` for each byte, all below 16.
    unsafe fn look_up(table: &[u8; 16], b: Self::B) -> Self::B;

    /// Adds to each lane the products of its four weights, all below 128, with the four signed bytes at `x`.
    unsafe fn dot(sums: Self::I, weights: Self::B, x: *const i8) -> Self::I;
    /// What [`dot_offset`](Self::dot_offset) must start from, when `start` is -128 times the sum of the signed bytes.
    unsafe fn start_offset(start: i32) -> Self::I;
    /// As [`dot`](Self::dot), with `weight - 128` for each weight, any byte: from a start of
    /// [`start_offset`](Self::start_offset) over all bytes.
    unsafe fn dot_offset(sums: Self::I, weights: Self::B, x: *const i8) -> Self::I;
}
