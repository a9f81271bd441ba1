//! What a core can do at most: loops that only read memory, or only multiply and add, with the same instructions as the
//! kernels of the tier. Speeds of a model are shown as shares of theirs.
//!
//! Knows no clock and no threads: the caller repeats, times, and runs as many as it likes side by side.

use std::hint::black_box;

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};
use super::{kernels, portable::Portable, simd::Simd};

/// Vectors that a loop multiplies each value by: enough independent sums to hide an instruction's latency.
const SUMS: usize = 10;
/// Operands of one round of a loop, in bytes: whole vectors of every tier, and they stay in the first-level cache.
const ROUND_BYTES: usize = 4096;

/// The loops of one tier.
pub struct Ceilings {
    /// What the integer products are made with.
    pub int8_name: &'static str,
    read: unsafe fn(&[f32]) -> f32,
    float: unsafe fn(&[f32], usize) -> f32,
    int8: unsafe fn(&[u8], usize) -> i32,
}

impl Ceilings {
    /// The loops for the tier of [`kernels`], with the widest integer products that go with it on this CPU.
    pub fn of_this_process() -> Self {
        #[cfg(target_arch = "x86_64")]
        match kernels().name {
            name if name.starts_with("avx512") && is_x86_feature_detected!("avx512vnni") => return AVX512_VNNI,
            name if name.starts_with("avx512") => return AVX512,
            name if name.starts_with("avxvnni") => return AVX_VNNI,
            name if name.starts_with("avx2") => return AVX2,
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        if kernels().name == "neon" {
            return NEON;
        }
        PORTABLE
    }

    /// Reads every value once, in order.
    pub fn read(&self, values: &[f32]) {
        // SAFETY: a table is only given out on a CPU that has its features.
        black_box(unsafe { (self.read)(values) });
    }

    /// Multiplies and adds floats for `rounds` rounds; gives how many of them.
    pub fn float_macs(&self, rounds: usize) -> u64 {
        let x = [1.0; ROUND_BYTES / size_of::<f32>()];
        // SAFETY: as above.
        black_box(unsafe { (self.float)(&x, rounds) });
        (x.len() * SUMS * rounds) as u64
    }

    /// Multiplies bytes and adds their products for `rounds` rounds; gives how many of them.
    pub fn int8_macs(&self, rounds: usize) -> u64 {
        let x = [1; ROUND_BYTES];
        // SAFETY: as above.
        black_box(unsafe { (self.int8)(&x, rounds) });
        (x.len() * SUMS * rounds) as u64
    }
}

/// The float loops of a tier inside functions that carry its CPU features, beside its integer loop.
macro_rules! tier {
    ($table:ident, $simd:ty, $int8_name:literal, $int8:path $(, $features:literal)?) => {
        const $table: Ceilings = {
            $(#[target_feature(enable = $features)])?
            unsafe fn read(values: &[f32]) -> f32 {
                // SAFETY: the features are this function's.
                unsafe { sum::<$simd>(values) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn float(x: &[f32], rounds: usize) -> f32 {
                // SAFETY: as above.
                unsafe { multiply::<$simd>(x, rounds) }
            }
            Ceilings { int8_name: $int8_name, read, float, int8: $int8 }
        };
    };
}

tier!(PORTABLE, Portable, "plain code", multiply_bytes);
#[cfg(target_arch = "x86_64")]
tier!(AVX2, Avx2, "AVX2 vpmaddubsw", x86::maddubs_256, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tier!(AVX_VNNI, Avx2, "AVX-VNNI vpdpbusd", x86::dpbusd_256, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tier!(AVX512, Avx512, "AVX-512 vpmaddubsw", x86::maddubs_512, "avx512f,avx512bw,avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tier!(AVX512_VNNI, Avx512, "AVX-512 VNNI vpdpbusd", x86::dpbusd_512, "avx512f,avx512bw,avx2,fma,f16c");
#[cfg(target_arch = "aarch64")]
tier!(NEON, Neon, "NEON sdot", multiply_bytes_by_sdot, "neon,dotprod");

/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
unsafe fn sum<S: Simd>(values: &[f32]) -> f32 {
    const STREAMS: usize = 8;
    // SAFETY: the caller's; chunks are as long as what is loaded of them.
    unsafe {
        let mut sums = [S::splat(0.0); STREAMS];
        for chunk in values.chunks_exact(STREAMS * S::LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::add(*sum, S::load(chunk[i * S::LANES..].as_ptr()));
            }
        }
        sums.into_iter().map(|sum| S::sum(sum)).sum()
    }
}

/// # Safety
/// The CPU has the features of `S`.
#[inline(always)]
unsafe fn multiply<S: Simd>(x: &[f32], rounds: usize) -> f32 {
    // SAFETY: the caller's; chunks are as long as what is loaded of them.
    unsafe {
        let weights: [S::V; SUMS] = black_box([S::splat(0.5); SUMS]);
        let mut sums = [S::splat(0.0); SUMS];
        for _ in 0..rounds {
            for chunk in x.chunks_exact(S::LANES) {
                let x = S::load(chunk.as_ptr());
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = S::fma(x, weight, *sum);
                }
            }
        }
        sums.into_iter().map(|sum| S::sum(sum)).sum()
    }
}

/// # Safety
/// None: it is one of several.
unsafe fn multiply_bytes(x: &[u8], rounds: usize) -> i32 {
    let weights = black_box([[1i8; 64]; SUMS]);
    let mut sums = [[0i32; 64]; SUMS];
    for _ in 0..rounds {
        for chunk in x.chunks_exact(64) {
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                for ((sum, x), weight) in sums.iter_mut().zip(chunk).zip(weights) {
                    *sum = sum.wrapping_add(i32::from(*x) * i32::from(*weight));
                }
            }
        }
    }
    sums.as_flattened().iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

/// # Safety
/// The CPU has the features.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply_bytes_by_sdot(x: &[u8], rounds: usize) -> i32 {
    use std::arch::aarch64::*;

    let weights = black_box([vdupq_n_s8(1); SUMS]);
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..rounds {
        for chunk in x.chunks_exact(16) {
            // SAFETY: the chunk is as long as what is loaded; the features are this function's.
            unsafe {
                let x = vreinterpretq_s8_u8(vld1q_u8(chunk.as_ptr()));
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = super::neon::sdot(*sum, x, weight);
                }
            }
        }
    }
    sums.into_iter().fold(0, |all, sum| all.wrapping_add(vaddvq_s32(sum)))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::SUMS;

    /// An integer loop of a tier: how it loads, how it multiplies and adds, how its lanes come together.
    macro_rules! int8 {
        ($name:ident, $features:literal, $vector:ty, $bytes:literal, $load:ident, $zero:ident, $ones:ident, $mac:expr) => {
            /// # Safety
            /// The CPU has the features.
            #[target_feature(enable = $features)]
            pub unsafe fn $name(x: &[u8], rounds: usize) -> i32 {
                let weights: [$vector; SUMS] = black_box([$ones(1); SUMS]);
                let mut sums = [$zero(); SUMS];
                for _ in 0..rounds {
                    for chunk in x.chunks_exact($bytes) {
                        // SAFETY: the chunk is as long as what is loaded.
                        let x = unsafe { $load(chunk.as_ptr().cast()) };
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum = $mac(*sum, x, weight);
                        }
                    }
                }
                // SAFETY: vectors of integers and arrays of them are the same bits.
                let lanes: [[i32; $bytes / 4]; SUMS] = unsafe { std::mem::transmute(sums) };
                lanes.as_flattened().iter().fold(0, |all, sum| all.wrapping_add(*sum))
            }
        };
    }

    int8!(maddubs_256, "avx2", __m256i, 32, _mm256_loadu_si256, _mm256_setzero_si256, _mm256_set1_epi8, |sum, x, w| {
        let pairs = _mm256_maddubs_epi16(x, w);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    });
    int8!(
        dpbusd_256,
        "avx2,avxvnni",
        __m256i,
        32,
        _mm256_loadu_si256,
        _mm256_setzero_si256,
        _mm256_set1_epi8,
        |sum, x, w| _mm256_dpbusd_avx_epi32(sum, x, w)
    );
    int8!(
        maddubs_512,
        "avx512f,avx512bw",
        __m512i,
        64,
        _mm512_loadu_si512,
        _mm512_setzero_si512,
        _mm512_set1_epi8,
        |sum, x, w| {
            let pairs = _mm512_maddubs_epi16(x, w);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    );
    int8!(
        dpbusd_512,
        "avx512f,avx512bw,avx512vnni",
        __m512i,
        64,
        _mm512_loadu_si512,
        _mm512_setzero_si512,
        _mm512_set1_epi8,
        |sum, x, w| _mm512_dpbusd_epi32(sum, x, w)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loops do all that they say they do: each of their products is 1 or 1/2, and none is left out.
    #[test]
    fn every_product_is_made() {
        let this = Ceilings::of_this_process();
        let (bytes, floats) = ([1; ROUND_BYTES], [1.0; ROUND_BYTES / 4]);
        // SAFETY: as in the methods.
        unsafe {
            assert_eq!((this.int8)(&bytes, 3) as u64, this.int8_macs(3));
            assert_eq!((this.float)(&floats, 3) as u64 * 2, this.float_macs(3));
            assert_eq!((this.read)(&floats) as usize, floats.len());
        }
        assert_eq!(this.int8_macs(1), (ROUND_BYTES * SUMS) as u64);
    }
}
