//! Packed weights: how sixteen rows of a matrix lie side by side, and how kernels read them.
//!
//! A *panel* is sixteen outputs; it is cut along the inputs into *groups* of as many inputs as the format's blocks have.
//! Inside a group lane `i` of every vector belongs to output `i`, and a *quad* is a vector of 64 bytes with four
//! consecutive inputs for each lane. A weight is `scale · (quant - zero) - min`; scale and min are one for each
//! *sub-block*. Quants are in the order in which they are read, so that a panel is one stream from its first byte to its
//! last: the processor's prefetcher follows one stream, not two within a page. The fields that a format has, in bytes, are in its `impl`.

use super::{
    activations::{Block, Block32, Block256},
    lanes::Lanes,
};

/// What a quant of zero weight is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// Quants are below 128.
    At(i32),
    /// Quants are any byte, and 128 means 0.
    At128,
}

pub(super) trait Format {
    /// The activations that go with it; their `K` is the inputs of a group.
    type X: Block;
    /// Inputs of a sub-block: 16 or 32.
    const SUB: usize;
    /// Of a group of sixteen outputs.
    const BYTES: usize;
    const ZERO: Zero;
    const MINS: bool;

    /// The factors that a group's scales and minima have in common.
    ///
    /// # Safety
    /// Here and below: the CPU has the features of `T`, `group` points at a group, `sub` and `quad` are within it.
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F);
    unsafe fn scale<T: Lanes>(group: *const u8, sub: usize, factor: T::F) -> T::F;
    unsafe fn min<T: Lanes>(group: *const u8, sub: usize, factor: T::F) -> T::F;
    /// Inputs `SUB · sub + 4 · quad ..` of the group.
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B;
}

/// Vectors of 64 bytes.
const V: usize = 64;
/// Sixteen half floats.
const HALVES: usize = 32;

/// Quad `quad` of eight in four vectors: the first four in the low nibbles, the others in the high ones.
#[inline(always)]
unsafe fn nibbles<T: Lanes>(vectors: *const u8, quad: usize) -> T::B {
    // SAFETY: the caller's.
    unsafe {
        let both = T::load_bytes(vectors.add(quad % 4 * V));
        T::and(if quad < 4 { both } else { T::shr::<4>(both) }, 0x0f)
    }
}

/// Factors that lie one after the other.
#[inline(always)]
unsafe fn two_factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
    // SAFETY: the caller's.
    unsafe { (T::load_f16(group.cast()), T::load_f16(group.add(HALVES).cast())) }
}

#[inline(always)]
unsafe fn one_factor<T: Lanes>(group: *const u8) -> (T::F, T::F) {
    // SAFETY: the caller's.
    unsafe { (T::load_f16(group.cast()), T::splat(0.0)) }
}

/// Formats whose factors are the scales and minima themselves, a block of 32 inputs at a time.
macro_rules! plain_scales {
    () => {
        #[inline(always)]
        unsafe fn scale<T: Lanes>(_: *const u8, _: usize, factor: T::F) -> T::F {
            factor
        }

        #[inline(always)]
        unsafe fn min<T: Lanes>(_: *const u8, _: usize, factor: T::F) -> T::F {
            factor
        }
    };
}

/// Formats with sixteen unsigned bytes of scales, and of minima, for each sub-block.
macro_rules! byte_scales {
    ($scales:expr, $mins:expr) => {
        #[inline(always)]
        unsafe fn scale<T: Lanes>(group: *const u8, sub: usize, factor: T::F) -> T::F {
            // SAFETY: the caller's.
            unsafe { T::mul(T::load_u8(group.add($scales + 16 * sub)), factor) }
        }

        #[inline(always)]
        unsafe fn min<T: Lanes>(group: *const u8, sub: usize, factor: T::F) -> T::F {
            // SAFETY: the caller's.
            unsafe { T::mul(T::load_u8(group.add($mins + 16 * sub)), factor) }
        }
    };
}

/// Formats with sixteen signed bytes of scales for each sub-block, and no minima.
macro_rules! signed_scales {
    ($scales:expr) => {
        #[inline(always)]
        unsafe fn scale<T: Lanes>(group: *const u8, sub: usize, factor: T::F) -> T::F {
            // SAFETY: the caller's.
            unsafe { T::mul(T::load_i8(group.add($scales + 16 * sub).cast()), factor) }
        }

        #[inline(always)]
        unsafe fn min<T: Lanes>(_: *const u8, _: usize, factor: T::F) -> T::F {
            factor
        }
    };
}

/// Q2_K: factors, 16 scales, 16 minima, quants of two bits (four vectors for each 64 inputs).
pub(super) struct Q2K;

impl Q2K {
    pub const SCALES: usize = 2 * HALVES;
    pub const MINS: usize = Self::SCALES + 256;
    pub const QUANTS: usize = Self::MINS + 256;
}

impl Format for Q2K {
    type X = Block256;
    const SUB: usize = 16;
    const BYTES: usize = Self::QUANTS + 16 * V;
    const ZERO: Zero = Zero::At(0);
    const MINS: bool = true;
    byte_scales!(Self::SCALES, Self::MINS);

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { two_factors::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe {
            let four = T::load_bytes(group.add(Self::QUANTS + (sub / 4 * 4 + quad) * V));
            let shifted = match sub % 4 {
                0 => four,
                1 => T::shr::<2>(four),
                2 => T::shr::<4>(four),
                _ => T::shr::<6>(four),
            };
            T::and(shifted, 3)
        }
    }
}

/// Q4_K: factors, 8 scales, 8 minima, quants in nibbles (four vectors for each sub-block).
pub(super) struct Q4K;

impl Q4K {
    pub const SCALES: usize = 2 * HALVES;
    pub const MINS: usize = Self::SCALES + 128;
    pub const QUANTS: usize = Self::MINS + 128;
}

impl Format for Q4K {
    type X = Block256;
    const SUB: usize = 32;
    const BYTES: usize = Self::QUANTS + 32 * V;
    const ZERO: Zero = Zero::At(0);
    const MINS: bool = true;
    byte_scales!(Self::SCALES, Self::MINS);

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { two_factors::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { nibbles::<T>(group.add(Self::QUANTS + sub * 4 * V), quad) }
    }
}

/// Q5_K: as Q4_K, with a fifth vector for each sub-block: the fifth bits, eight bytes for each quad.
pub(super) struct Q5K;

impl Format for Q5K {
    type X = Block256;
    const SUB: usize = 32;
    const BYTES: usize = Q4K::QUANTS + 40 * V;
    const ZERO: Zero = Zero::At(0);
    const MINS: bool = true;
    byte_scales!(Q4K::SCALES, Q4K::MINS);

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { two_factors::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe {
            let vectors = group.add(Q4K::QUANTS + sub * 5 * V);
            T::or_where(nibbles::<T>(vectors, quad), vectors.add(4 * V + 8 * quad), 16)
        }
    }
}

/// Q6_K: factor, 16 scales, and for each 32 inputs four vectors of low nibbles and two of high bit pairs. Q3_K is packed as
/// this too, exactly.
pub(super) struct Q6K;

impl Q6K {
    pub const SCALES: usize = HALVES;
    /// Half a vector is left free, so that vectors do not lie across cache lines.
    pub const QUANTS: usize = Self::SCALES + 256 + V / 2;
}

impl Format for Q6K {
    type X = Block256;
    const SUB: usize = 16;
    const BYTES: usize = Self::QUANTS + 48 * V;
    const ZERO: Zero = Zero::At(32);
    const MINS: bool = false;
    signed_scales!(Self::SCALES);

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { one_factor::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe {
            let quad = sub % 2 * 4 + quad;
            let vectors = group.add(Self::QUANTS + sub / 2 * 6 * V);
            let low = nibbles::<T>(vectors, quad);
            let four = T::load_bytes(vectors.add((4 + quad % 2) * V));
            let shifted = match quad / 2 {
                0 => T::shl::<4>(four),
                1 => T::shl::<2>(four),
                2 => four,
                _ => T::shr::<2>(four),
            };
            T::or(T::and(shifted, 0x30), low)
        }
    }
}

/// Q4_0: scale, quants in nibbles.
pub(super) struct Q4_0;

impl Q4_0 {
    pub const QUANTS: usize = HALVES;
}

impl Format for Q4_0 {
    type X = Block32;
    const SUB: usize = 32;
    const BYTES: usize = Self::QUANTS + 4 * V;
    const ZERO: Zero = Zero::At(8);
    const MINS: bool = false;
    plain_scales!();

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { one_factor::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, _: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { nibbles::<T>(group.add(Self::QUANTS), quad) }
    }
}

/// Q4_1: scale, minimum, quants in nibbles.
pub(super) struct Q4_1;

impl Q4_1 {
    pub const QUANTS: usize = 2 * HALVES;
}

impl Format for Q4_1 {
    type X = Block32;
    const SUB: usize = 32;
    const BYTES: usize = Self::QUANTS + 4 * V;
    const ZERO: Zero = Zero::At(0);
    const MINS: bool = true;
    plain_scales!();

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { two_factors::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, _: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { nibbles::<T>(group.add(Self::QUANTS), quad) }
    }
}

/// Q5_0: as Q4_0, and behind it the fifth bits, eight bytes for each quad.
pub(super) struct Q5_0;

impl Format for Q5_0 {
    type X = Block32;
    const SUB: usize = 32;
    const BYTES: usize = Q4_0::BYTES + V;
    const ZERO: Zero = Zero::At(16);
    const MINS: bool = false;
    plain_scales!();

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { one_factor::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { T::or_where(Q4_0::quad::<T>(group, sub, quad), group.add(Q4_0::BYTES + 8 * quad), 16) }
    }
}

/// Q5_1: as Q4_1, and behind it the fifth bits, eight bytes for each quad.
pub(super) struct Q5_1;

impl Format for Q5_1 {
    type X = Block32;
    const SUB: usize = 32;
    const BYTES: usize = Q4_1::BYTES + V;
    const ZERO: Zero = Zero::At(0);
    const MINS: bool = true;
    plain_scales!();

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { two_factors::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { T::or_where(Q4_1::quad::<T>(group, sub, quad), group.add(Q4_1::BYTES + 8 * quad), 16) }
    }
}

/// Q8_0: scale, quants in bytes.
pub(super) struct Q8_0;

impl Q8_0 {
    pub const QUANTS: usize = HALVES;
}

impl Format for Q8_0 {
    type X = Block32;
    const SUB: usize = 32;
    const BYTES: usize = Self::QUANTS + 8 * V;
    const ZERO: Zero = Zero::At128;
    const MINS: bool = false;
    plain_scales!();

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { one_factor::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, _: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { T::load_bytes(group.add(Self::QUANTS + quad * V)) }
    }
}

/// The weights that the nibbles of IQ4_NL and IQ4_XS stand for, moved by 128.
pub(super) const IQ4_VALUES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// IQ4_NL: as Q4_0, with nibbles that stand for [`IQ4_VALUES`].
pub(super) struct Iq4Nl;

impl Format for Iq4Nl {
    type X = Block32;
    const SUB: usize = 32;
    const BYTES: usize = Q4_0::BYTES;
    const ZERO: Zero = Zero::At128;
    const MINS: bool = false;
    plain_scales!();

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { one_factor::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { T::look_up(&IQ4_VALUES, Q4_0::quad::<T>(group, sub, quad)) }
    }
}

/// IQ4_XS: factor, 8 scales, nibbles that stand for [`IQ4_VALUES`].
pub(super) struct Iq4Xs;

impl Iq4Xs {
    pub const SCALES: usize = HALVES;
    /// Half a vector is left free, as in Q6_K.
    pub const QUANTS: usize = Self::SCALES + 128 + V / 2;
}

impl Format for Iq4Xs {
    type X = Block256;
    const SUB: usize = 32;
    const BYTES: usize = Self::QUANTS + 32 * V;
    const ZERO: Zero = Zero::At128;
    const MINS: bool = false;
    signed_scales!(Self::SCALES);

    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe { one_factor::<T>(group) }
    }

    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, sub: usize, quad: usize) -> T::B {
        // SAFETY: the caller's.
        unsafe { T::look_up(&IQ4_VALUES, nibbles::<T>(group.add(Self::QUANTS + sub * 4 * V), quad)) }
    }
}
