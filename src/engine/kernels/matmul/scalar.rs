//! The tier that needs nothing of the CPU: what the others are compared with, and what runs where there are none.

use half::{bf16, f16};

use super::lanes::{LANES, Lanes};

#[derive(Clone, Copy)]
pub(super) struct Scalar;

type F = [f32; LANES];
type B = [u8; 4 * LANES];

fn lanes<T>(f: impl FnMut(usize) -> T) -> [T; LANES] {
    std::array::from_fn(f)
}

// SAFETY of the whole: no features are needed; pointers are valid for what each method reads or writes.
impl Lanes for Scalar {
    type F = F;
    type I = [i32; LANES];
    type B = B;

    unsafe fn prefetch(_: *const u8) {}

    unsafe fn splat(x: f32) -> F {
        [x; LANES]
    }

    unsafe fn load(from: *const f32) -> F {
        unsafe { from.cast::<F>().read_unaligned() }
    }

    unsafe fn store(to: *mut f32, v: F) {
        unsafe { to.cast::<F>().write_unaligned(v) }
    }

    unsafe fn load_f16(from: *const u16) -> F {
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(|x| f16::from_bits(x).to_f32())
    }

    unsafe fn load_bf16(from: *const u16) -> F {
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(|x| bf16::from_bits(x).to_f32())
    }

    unsafe fn load_u8(from: *const u8) -> F {
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(f32::from)
    }

    unsafe fn load_i8(from: *const i8) -> F {
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from)
    }

    unsafe fn add(a: F, b: F) -> F {
        lanes(|i| a[i] + b[i])
    }

    unsafe fn mul(a: F, b: F) -> F {
        lanes(|i| a[i] * b[i])
    }

    unsafe fn fma(a: F, b: F, c: F) -> F {
        lanes(|i| a[i].mul_add(b[i], c[i]))
    }

    unsafe fn fnma(a: F, b: F, c: F) -> F {
        lanes(|i| (-a[i]).mul_add(b[i], c[i]))
    }

    unsafe fn max_abs(a: F, b: F) -> F {
        lanes(|i| a[i].max(b[i].abs()))
    }

    unsafe fn largest(v: F) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    unsafe fn store_i8(to: *mut i8, v: F) -> i32 {
        let bytes = v.map(|x| x.round_ties_even() as i8);
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(bytes) };
        bytes.into_iter().map(i32::from).sum()
    }

    unsafe fn splat_i(x: i32) -> [i32; LANES] {
        [x; LANES]
    }

    unsafe fn to_float(v: [i32; LANES]) -> F {
        v.map(|x| x as f32)
    }

    unsafe fn load_bytes(from: *const u8) -> B {
        unsafe { from.cast::<B>().read_unaligned() }
    }

    unsafe fn and(a: B, mask: u8) -> B {
        a.map(|x| x & mask)
    }

    unsafe fn or(a: B, b: B) -> B {
        std::array::from_fn(|i| a[i] | b[i])
    }

    unsafe fn shr<const N: u32>(a: B) -> B {
        a.map(|x| x >> N)
    }

    unsafe fn shl<const N: u32>(a: B) -> B {
        a.map(|x| x << N)
    }

    unsafe fn or_where(a: B, mask: *const u8, bit: u8) -> B {
        let mask = u64::from_le_bytes(unsafe { mask.cast::<[u8; 8]>().read_unaligned() });
        std::array::from_fn(|i| if mask >> i & 1 == 1 { a[i] | bit } else { a[i] })
    }

    unsafe fn look_up(table: &[u8; 16], b: B) -> B {
        b.map(|x| table[usize::from(x)])
    }

    unsafe fn dot(sums: [i32; LANES], weights: B, x: *const i8) -> [i32; LANES] {
        let x = unsafe { x.cast::<[i8; 4]>().read_unaligned() };
        lanes(|i| sums[i] + (0..4).map(|j| i32::from(weights[4 * i + j]) * i32::from(x[j])).sum::<i32>())
    }

    unsafe fn start_offset(_: i32) -> [i32; LANES] {
        [0; LANES]
    }

    unsafe fn dot_offset(sums: [i32; LANES], weights: B, x: *const i8) -> [i32; LANES] {
        let x = unsafe { x.cast::<[i8; 4]>().read_unaligned() };
        lanes(|i| sums[i] + (0..4).map(|j| (i32::from(weights[4 * i + j]) - 128) * i32::from(x[j])).sum::<i32>())
    }
}
