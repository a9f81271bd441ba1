//! The tier of AArch64 with the dot products of Armv8.2: four 128-bit registers for the sixteen lanes.

use std::arch::{aarch64::*, asm};

use super::{
    super::neon::{sdot, widen},
    lanes::Lanes,
};

#[derive(Clone, Copy)]
pub(super) struct Neon;

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];
type B = [uint8x16_t; 4];

/// A result's registers, from their indices.
#[inline(always)]
fn four<V>(mut f: impl FnMut(usize) -> V) -> [V; 4] {
    [f(0), f(1), f(2), f(3)]
}

/// Without a closure: a compiler that does not optimise would assemble that as a function without the CPU feature.
#[inline(always)]
unsafe fn dot(sums: I, weights: [int8x16_t; 4], x: *const i8) -> I {
    // SAFETY: the caller's.
    unsafe {
        // The same four bytes in every lane.
        let x = vreinterpretq_s8_s32(vdupq_n_s32(x.cast::<i32>().read_unaligned()));
        [
            sdot(sums[0], weights[0], x),
            sdot(sums[1], weights[1], x),
            sdot(sums[2], weights[2], x),
            sdot(sums[3], weights[3], x),
        ]
    }
}

// SAFETY of the whole: the features are the caller's obligation, as are pointers valid for what each method reads or
// writes.
impl Lanes for Neon {
    type F = F;
    type I = I;
    type B = B;

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        unsafe {
            asm!("prfm pldl1keep, [{from}]", from = in(reg) from.addr(), options(nomem, nostack, preserves_flags))
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        four(|i| unsafe { vld1q_f32(from.add(4 * i)) })
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: F) {
        for (i, v) in v.into_iter().enumerate() {
            unsafe { vst1q_f32(to.add(4 * i), v) }
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        four(|i| widen(unsafe { vld1_u16(from.add(4 * i)) }))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> F {
        four(|i| unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.add(4 * i)))) })
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> F {
        unsafe {
            let bytes = vld1q_u8(from);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_high_u16(low)),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_high_u16(high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> F {
        unsafe {
            let bytes = vld1q_s8(from);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        four(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        four(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        four(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn fnma(a: F, b: F, c: F) -> F {
        four(|i| unsafe { vfmsq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn max_abs(a: F, b: F) -> F {
        four(|i| unsafe { vmaxq_f32(a[i], vabsq_f32(b[i])) })
    }

    #[inline(always)]
    unsafe fn largest(v: F) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[1]), vmaxq_f32(v[2], v[3]))) }
    }

    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, v: F) -> i32 {
        unsafe {
            let wide = four(|i| vcvtnq_s32_f32(v[i]));
            let low = vmovn_high_s32(vmovn_s32(wide[0]), wide[1]);
            let high = vmovn_high_s32(vmovn_s32(wide[2]), wide[3]);
            let bytes = vmovn_high_s16(vmovn_s16(low), high);
            vst1q_s8(to, bytes);
            i32::from(vaddlvq_s8(bytes))
        }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> I {
        unsafe { [vdupq_n_s32(x); 4] }
    }

    #[inline(always)]
    unsafe fn to_float(v: I) -> F {
        four(|i| unsafe { vcvtq_f32_s32(v[i]) })
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> B {
        four(|i| unsafe { vld1q_u8(from.add(16 * i)) })
    }

    #[inline(always)]
    unsafe fn and(a: B, mask: u8) -> B {
        four(|i| unsafe { vandq_u8(a[i], vdupq_n_u8(mask)) })
    }

    #[inline(always)]
    unsafe fn or(a: B, b: B) -> B {
        four(|i| unsafe { vorrq_u8(a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn shr<const N: u32>(a: B) -> B {
        // A shift by a negative count goes right; one by a constant would need the count as an `i32`.
        four(|i| unsafe { vshlq_u8(a[i], vdupq_n_s8(-(N as i8))) })
    }

    #[inline(always)]
    unsafe fn shl<const N: u32>(a: B) -> B {
        four(|i| unsafe { vshlq_u8(a[i], vdupq_n_s8(N as i8)) })
    }

    #[inline(always)]
    unsafe fn or_where(a: B, mask: *const u8, bit: u8) -> B {
        const BITS: [u8; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
        unsafe {
            let (bits, bit) = (vld1_u8(BITS.as_ptr()), vdupq_n_u8(bit));
            four(|i| {
                // Two bytes of the mask, each in the eight bytes that its bits stand for.
                let bytes = vcombine_u8(vld1_dup_u8(mask.add(2 * i)), vld1_dup_u8(mask.add(2 * i + 1)));
                vorrq_u8(a[i], vandq_u8(vtstq_u8(bytes, vcombine_u8(bits, bits)), bit))
            })
        }
    }

    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], b: B) -> B {
        let table = unsafe { vld1q_u8(table.as_ptr()) };
        four(|i| unsafe { vqtbl1q_u8(table, b[i]) })
    }

    #[inline(always)]
    unsafe fn dot(sums: I, weights: B, x: *const i8) -> I {
        unsafe { dot(sums, four(|i| vreinterpretq_s8_u8(weights[i])), x) }
    }

    #[inline(always)]
    unsafe fn start_offset(_: i32) -> I {
        unsafe { Self::splat_i(0) }
    }

    /// Both factors of the instruction are signed, so that weights need only be moved.
    #[inline(always)]
    unsafe fn dot_offset(sums: I, weights: B, x: *const i8) -> I {
        unsafe { dot(sums, four(|i| vreinterpretq_s8_u8(veorq_u8(weights[i], vdupq_n_u8(0x80)))), x) }
    }
}
