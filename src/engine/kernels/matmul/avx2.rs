//! The tiers of 256-bit registers: two for the sixteen lanes. AVX2 multiplies bytes in pairs and adds the pairs;
//! AVX-VNNI has one instruction for both.

use std::{arch::x86_64::*, marker::PhantomData};

use super::lanes::Lanes;

/// How eight lanes of four products are added up.
///
/// # Safety
/// As [`Lanes`].
pub(super) trait Dot: Copy {
    /// Weights below 128.
    unsafe fn dot(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i;
    /// See [`Lanes::start_offset`].
    unsafe fn start_offset(start: i32) -> i32;
    unsafe fn dot_offset(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i;
}

#[derive(Clone, Copy)]
pub(super) struct Pairs;

// SAFETY of the whole: the features are the caller's obligation.
impl Dot for Pairs {
    /// No pair exceeds 16 bits: 2 · 127 · 127 = 32,258.
    #[inline(always)]
    unsafe fn dot(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        unsafe {
            let pairs = _mm256_maddubs_epi16(weights, x);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn start_offset(_: i32) -> i32 {
        0
    }

    /// The sign of a weight goes over to its activation: 2 · 128 · 127 = 32,512 fits.
    #[inline(always)]
    unsafe fn dot_offset(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        unsafe {
            let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
            Self::dot(sums, _mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed))
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Vnni;

// SAFETY of the whole: as above.
impl Dot for Vnni {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sums, weights, x) }
    }

    #[inline(always)]
    unsafe fn start_offset(start: i32) -> i32 {
        start
    }

    #[inline(always)]
    unsafe fn dot_offset(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        unsafe { Self::dot(sums, weights, x) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2<D>(PhantomData<D>);

/// The bytes of four bits each that `mask`'s 32 bits stand for: all ones where the bit is set.
#[inline(always)]
unsafe fn bytes_of_bits(mask: i32) -> __m256i {
    unsafe {
        let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
        let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(mask), spread);
        _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits)
    }
}

type Two = [__m256i; 2];

// SAFETY of the whole: the features are the caller's obligation, as are pointers valid for what each method reads or
// writes.
impl<D: Dot> Lanes for Avx2<D> {
    type F = [__m256; 2];
    type I = Two;
    type B = Two;

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [__m256; 2]) {
        unsafe {
            _mm256_storeu_ps(to, v[0]);
            _mm256_storeu_ps(to.add(8), v[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> [__m256; 2] {
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))] }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> [__m256; 2] {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high))]
        }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [__m256; 2] {
        unsafe {
            let low = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            let high = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(8).cast()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> [__m256; 2] {
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    unsafe fn fnma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    unsafe fn max_abs(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_max_ps(a[0], _mm256_andnot_ps(sign, b[0])), _mm256_max_ps(a[1], _mm256_andnot_ps(sign, b[1]))]
        }
    }

    #[inline(always)]
    unsafe fn largest(v: [__m256; 2]) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(v[0], v[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, v: [__m256; 2]) -> i32 {
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            // Packing works within halves of registers, so the quarters are put in order between the two packings.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.cast(), bytes);
            let eight = _mm256_add_epi32(low, high);
            let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Two {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }

    #[inline(always)]
    unsafe fn to_float(v: Two) -> [__m256; 2] {
        unsafe { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Two {
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn and(a: Two, mask: u8) -> Two {
        unsafe {
            let mask = _mm256_set1_epi8(mask as i8);
            [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)]
        }
    }

    #[inline(always)]
    unsafe fn or(a: Two, b: Two) -> Two {
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn shr<const N: u32>(a: Two) -> Two {
        unsafe {
            let by = _mm_cvtsi32_si128(N as i32);
            [_mm256_srl_epi16(a[0], by), _mm256_srl_epi16(a[1], by)]
        }
    }

    #[inline(always)]
    unsafe fn shl<const N: u32>(a: Two) -> Two {
        unsafe {
            let by = _mm_cvtsi32_si128(N as i32);
            [_mm256_sll_epi16(a[0], by), _mm256_sll_epi16(a[1], by)]
        }
    }

    #[inline(always)]
    unsafe fn or_where(a: Two, mask: *const u8, bit: u8) -> Two {
        unsafe {
            let mask = mask.cast::<[i32; 2]>().read_unaligned();
            let bit = _mm256_set1_epi8(bit as i8);
            [
                _mm256_or_si256(a[0], _mm256_and_si256(bytes_of_bits(mask[0]), bit)),
                _mm256_or_si256(a[1], _mm256_and_si256(bytes_of_bits(mask[1]), bit)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], b: Two) -> Two {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, b[0]), _mm256_shuffle_epi8(table, b[1])]
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: Two, weights: Two, x: *const i8) -> Two {
        unsafe {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            [D::dot(sums[0], weights[0], x), D::dot(sums[1], weights[1], x)]
        }
    }

    #[inline(always)]
    unsafe fn start_offset(start: i32) -> Two {
        unsafe { Self::splat_i(D::start_offset(start)) }
    }

    #[inline(always)]
    unsafe fn dot_offset(sums: Two, weights: Two, x: *const i8) -> Two {
        unsafe {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            [D::dot_offset(sums[0], weights[0], x), D::dot_offset(sums[1], weights[1], x)]
        }
    }
}
