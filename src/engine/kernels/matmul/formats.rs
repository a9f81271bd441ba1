//! Packed weights: how sixteen rows of a matrix lie side by side, and how kernels read them.
//!
//! A *panel* is sixteen outputs; it is cut along the inputs into *groups* of as many inputs as the format's blocks have.
//! Inside a group lane `i` of every vector belongs to output `i`, and a *quad* is a vector of 64 bytes with four
//! consecutive inputs for each lane. A weight is `scale · (quant - zero) - min`; scale and min are one for each
//! *sub-block*.
//!
//! ```text
//! group: factor of the scales (, of the minima), half floats │ a scale (, a min) for each sub-block, bytes │ quants
//! ```
//!
//! Quants are in the order in which they are read, so that a panel is one stream from its first byte to its last: the
//! processor's prefetcher follows one stream, not two within a page. A [`Layout`] says all of that, for those who pack and
//! for the kernels, which know theirs when they are compiled.

use super::{
    activations::{Block, Block32, Block256},
    lanes::{LANES, Lanes},
};

/// Bytes of a vector.
const VECTOR: usize = 4 * LANES;
/// Bytes of a half float for each lane.
const HALVES: usize = 2 * LANES;

/// How a group lies in memory and what its fields mean.
pub(super) struct Layout {
    pub inputs: usize,
    /// Inputs of a sub-block: 16 or 32.
    pub sub: usize,
    pub scales: Scales,
    /// Whether there are minima, stored as the scales are.
    pub mins: bool,
    pub quants: Quants,
    pub zero: Zero,
    /// Of a group of sixteen outputs.
    pub bytes: usize,
}

/// What a sub-block's scale is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// The factor: there is one sub-block.
    Factor,
    /// The factor times a byte.
    Unsigned,
    /// The factor times a signed byte.
    Signed,
}

/// The vectors of 32 inputs (of 64, where it says so).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quants {
    /// Four vectors of two bits for each of 64 inputs.
    Pairs,
    /// Four vectors: the first quads in the low nibbles, the others in the high ones.
    Nibbles,
    /// The same, with nibbles that stand for [`IQ4_VALUES`].
    Iq4,
    /// Four vectors of nibbles, and one of fifth bits, eight bytes for each quad.
    NibblesAndBit,
    /// Four vectors of nibbles, and two of upper bit pairs.
    NibblesAndPairs,
    /// Eight vectors.
    Bytes,
}

/// What a quant of zero weight is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// Quants are below 128.
    At(i32),
    /// Quants are any byte, and 128 means 0.
    At128,
}

/// The weights that the nibbles of IQ4_NL and IQ4_XS stand for, moved by 128.
pub(super) const IQ4_VALUES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Some bits of a quad: the byte of the group at which their vector starts, and how far up they are in its bytes.
pub(super) struct Place {
    pub vector: usize,
    pub shift: usize,
}

impl Layout {
    const fn new(inputs: usize, sub: usize, scales: Scales, mins: bool, quants: Quants, zero: Zero) -> Self {
        let mut layout = Self { inputs, sub, scales, mins, quants, zero, bytes: 0 };
        let per_32 = match layout.quants {
            Quants::Pairs => 2,
            Quants::Nibbles | Quants::Iq4 => 4,
            Quants::NibblesAndBit => 5,
            Quants::NibblesAndPairs => 6,
            Quants::Bytes => 8,
        };
        layout.bytes = layout.quants() + inputs / 32 * per_32 * VECTOR;
        layout
    }

    pub const fn subs(&self) -> usize {
        self.inputs / self.sub
    }

    /// Sub-blocks after which the next one's quants are in the same bits of its vectors as the first one's.
    pub const fn round(&self) -> usize {
        let inputs = match self.quants {
            Quants::Pairs => 64,
            _ => 32,
        };
        inputs / self.sub
    }

    /// Half floats for each lane.
    pub const fn factors(&self) -> usize {
        if self.mins { 2 } else { 1 }
    }

    /// Bytes of the scales, or of the minima.
    const fn scale_bytes(&self) -> usize {
        match self.scales {
            Scales::Factor => 0,
            Scales::Unsigned | Scales::Signed => LANES * self.subs(),
        }
    }

    /// Where the scale of a sub-block is, for lane 0.
    pub const fn scale(&self, sub: usize) -> usize {
        HALVES * self.factors() + LANES * sub
    }

    /// Where the min of a sub-block is, for lane 0.
    pub const fn min(&self, sub: usize) -> usize {
        self.scale(sub) + self.scale_bytes()
    }

    /// Where the quants start. In large groups that is at a vector's length, so that vectors don't lie across cache lines.
    const fn quants(&self) -> usize {
        let end = self.scale(0) + self.factors() * self.scale_bytes();
        if self.inputs == 256 { end.next_multiple_of(VECTOR) } else { end }
    }

    /// Where the vectors of the 32 (or 64) inputs around a quad start.
    const fn around(&self, quad: usize) -> usize {
        let vectors = match self.quants {
            Quants::Pairs => quad / 16 * 4,
            Quants::Nibbles | Quants::Iq4 => quad / 8 * 4,
            Quants::NibblesAndBit => quad / 8 * 5,
            Quants::NibblesAndPairs => quad / 8 * 6,
            Quants::Bytes => quad / 8 * 8,
        };
        self.quants() + vectors * VECTOR
    }

    /// The lowest bits of a quad: two of `Pairs`, eight of `Bytes`, four of the others.
    pub const fn low(&self, quad: usize) -> Place {
        let (vector, shift) = match self.quants {
            Quants::Bytes => (quad % 8, 0),
            Quants::Pairs => (quad % 4, quad % 16 / 4 * 2),
            _ => (quad % 4, quad % 8 / 4 * 4),
        };
        Place { vector: self.around(quad) + vector * VECTOR, shift }
    }

    /// Which bits of a byte are a quant's lowest ones, once they are shifted down.
    pub const fn low_mask(&self) -> u8 {
        match self.quants {
            Quants::Bytes => 0xff,
            Quants::Pairs => 0x03,
            _ => 0x0f,
        }
    }

    /// The upper two bits of a quad of `NibblesAndPairs`.
    pub const fn pairs(&self, quad: usize) -> Place {
        Place { vector: self.around(quad) + (4 + quad % 2) * VECTOR, shift: quad % 8 / 2 * 2 }
    }

    /// The eight bytes with the fifth bits of a quad of `NibblesAndBit`: four bits for each lane.
    pub const fn bits(&self, quad: usize) -> usize {
        self.around(quad) + 4 * VECTOR + quad % 8 * 8
    }

    /// What a quant stands for, before its scale.
    pub fn value(&self, quant: u8) -> i32 {
        let quant = match self.quants {
            Quants::Iq4 => IQ4_VALUES[usize::from(quant & 0x0f)],
            _ => quant,
        };
        match self.zero {
            Zero::At(zero) => i32::from(quant) - zero,
            Zero::At128 => i32::from(quant) - 128,
        }
    }
}

/// A format that kernels are compiled for.
///
/// # Safety
/// Of all methods: the CPU has the features of `T`, `group` points at a group, `sub` and `quad` are within it.
pub(super) trait Format {
    /// The activations that go with it: as many values as a group has inputs.
    type X: Block;
    const LAYOUT: Layout;

    /// The factors that a group's scales and minima have in common.
    #[inline(always)]
    unsafe fn factors<T: Lanes>(group: *const u8) -> (T::F, T::F) {
        // SAFETY: the caller's.
        unsafe {
            let scale = T::load_f16(group.cast());
            (scale, if Self::LAYOUT.mins { T::load_f16(group.add(HALVES).cast()) } else { scale })
        }
    }

    #[inline(always)]
    unsafe fn scale<T: Lanes>(group: *const u8, sub: usize, factor: T::F) -> T::F {
        // SAFETY: the caller's.
        unsafe { scaled::<T>(Self::LAYOUT.scales, group.add(Self::LAYOUT.scale(sub)), factor) }
    }

    #[inline(always)]
    unsafe fn min<T: Lanes>(group: *const u8, sub: usize, factor: T::F) -> T::F {
        // SAFETY: the caller's.
        unsafe { scaled::<T>(Self::LAYOUT.scales, group.add(Self::LAYOUT.min(sub)), factor) }
    }

    /// Inputs `4 · quad ..` of the group.
    #[inline(always)]
    unsafe fn quad<T: Lanes>(group: *const u8, quad: usize) -> T::B {
        let layout = &Self::LAYOUT;
        let low = layout.low(quad);
        // SAFETY: the caller's.
        unsafe {
            let vector = T::load_bytes(group.add(low.vector));
            if layout.quants == Quants::Bytes {
                return vector;
            }
            let shifted = match low.shift {
                0 => vector,
                2 => T::shr::<2>(vector),
                4 => T::shr::<4>(vector),
                _ => T::shr::<6>(vector),
            };
            let quants = T::and(shifted, layout.low_mask());
            match layout.quants {
                Quants::Pairs | Quants::Nibbles | Quants::Bytes => quants,
                Quants::Iq4 => T::look_up(&IQ4_VALUES, quants),
                Quants::NibblesAndBit => T::or_where(quants, group.add(layout.bits(quad)), 16),
                Quants::NibblesAndPairs => {
                    let upper = layout.pairs(quad);
                    let vector = T::load_bytes(group.add(upper.vector));
                    // To bits 4 and 5.
                    let shifted = match upper.shift {
                        0 => T::shl::<4>(vector),
                        2 => T::shl::<2>(vector),
                        4 => vector,
                        _ => T::shr::<2>(vector),
                    };
                    T::or(T::and(shifted, 0x30), quants)
                }
            }
        }
    }
}

/// # Safety
/// As [`Format`]; `at` points at sixteen bytes, unless scales are factors.
#[inline(always)]
unsafe fn scaled<T: Lanes>(scales: Scales, at: *const u8, factor: T::F) -> T::F {
    // SAFETY: the caller's.
    unsafe {
        match scales {
            Scales::Factor => factor,
            Scales::Unsigned => T::mul(T::load_u8(at), factor),
            Scales::Signed => T::mul(T::load_i8(at.cast()), factor),
        }
    }
}

macro_rules! formats {
    ($($format:ident, $x:ty, $sub:literal, $scales:ident, mins: $mins:literal, $quants:ident, $zero:expr;)*) => {$(
        pub(super) struct $format;

        impl Format for $format {
            type X = $x;
            const LAYOUT: Layout =
                Layout::new(<$x as Block>::K, $sub, Scales::$scales, $mins, Quants::$quants, $zero);
        }
    )*};
}

formats! {
    Q4_0, Block32, 32, Factor, mins: false, Nibbles, Zero::At(8);
    Q4_1, Block32, 32, Factor, mins: true, Nibbles, Zero::At(0);
    Q5_0, Block32, 32, Factor, mins: false, NibblesAndBit, Zero::At(16);
    Q5_1, Block32, 32, Factor, mins: true, NibblesAndBit, Zero::At(0);
    Q8_0, Block32, 32, Factor, mins: false, Bytes, Zero::At128;
    Iq4Nl, Block32, 32, Factor, mins: false, Iq4, Zero::At128;
    Q2K, Block256, 16, Unsigned, mins: true, Pairs, Zero::At(0);
    Q4K, Block256, 32, Unsigned, mins: true, Nibbles, Zero::At(0);
    Q5K, Block256, 32, Unsigned, mins: true, NibblesAndBit, Zero::At(0);
    Q6K, Block256, 16, Signed, mins: false, NibblesAndPairs, Zero::At(32);
    Iq4Xs, Block256, 32, Signed, mins: false, Iq4, Zero::At128;
}
