//! Puts the rows of a matrix into panels, and reads single weights back.

use half::f16;

use super::{
    Kind,
    blocks::{Parts, iq4_value},
    formats::{Iq4Xs, Q2K, Q4_0, Q4_1, Q4K, Q6K, Q8_0},
    lanes::LANES,
};
use crate::engine::gguf::TensorType;

/// Bytes of a vector.
const VECTOR: usize = 4 * LANES;

/// Where a format's fields lie in a group, in bytes.
struct Layout {
    /// Half floats for each lane: one or two.
    factors: usize,
    scales: Option<usize>,
    mins: Option<usize>,
    quants: Quants,
}

/// Which vectors have the quants, from which byte on; see the formats.
#[derive(Clone, Copy)]
enum Quants {
    Pairs(usize),
    Nibbles(usize),
    /// Four vectors of nibbles, then one of fifth bits.
    NibblesAndBit(usize),
    /// Four vectors of nibbles, then two of bit pairs.
    NibblesAndPairs(usize),
    Bytes(usize),
}

impl Layout {
    /// `None` for float weights, which have no groups.
    fn of(kind: Kind) -> Option<Self> {
        let plain = |factors, quants| Layout { factors, scales: None, mins: None, quants };
        Some(match kind {
            Kind::Q4_0 | Kind::Iq4Nl => plain(1, Quants::Nibbles(Q4_0::QUANTS)),
            Kind::Q4_1 => plain(2, Quants::Nibbles(Q4_1::QUANTS)),
            Kind::Q5_0 => plain(1, Quants::NibblesAndBit(Q4_0::QUANTS)),
            Kind::Q5_1 => plain(2, Quants::NibblesAndBit(Q4_1::QUANTS)),
            Kind::Q8_0 => plain(1, Quants::Bytes(Q8_0::QUANTS)),
            Kind::Q2K => {
                let (scales, mins) = (Some(Q2K::SCALES), Some(Q2K::MINS));
                Layout { factors: 2, scales, mins, quants: Quants::Pairs(Q2K::QUANTS) }
            }
            Kind::Q4K => {
                let (scales, mins) = (Some(Q4K::SCALES), Some(Q4K::MINS));
                Layout { factors: 2, scales, mins, quants: Quants::Nibbles(Q4K::QUANTS) }
            }
            Kind::Q5K => {
                let (scales, mins) = (Some(Q4K::SCALES), Some(Q4K::MINS));
                let quants = Quants::NibblesAndBit(Q4K::QUANTS);
                Layout { factors: 2, scales, mins, quants }
            }
            Kind::Q6K => {
                let quants = Quants::NibblesAndPairs(Q6K::QUANTS);
                Layout { factors: 1, scales: Some(Q6K::SCALES), mins: None, quants }
            }
            Kind::Iq4Xs => {
                let quants = Quants::Nibbles(Iq4Xs::QUANTS);
                Layout { factors: 1, scales: Some(Iq4Xs::SCALES), mins: None, quants }
            }
            Kind::F32 | Kind::F16 | Kind::Bf16 => return None,
        })
    }
}

/// Where four quants are: the byte at which their vector starts, and the bits that they are shifted by in their bytes.
struct Place {
    vector: usize,
    shift: usize,
}

impl Quants {
    /// The byte at which the vectors of 32 inputs start.
    fn thirty_two(self, quad: usize) -> usize {
        let (at, vectors) = match self {
            Self::Nibbles(at) => (at, 4),
            Self::NibblesAndBit(at) => (at, 5),
            Self::NibblesAndPairs(at) => (at, 6),
            Self::Bytes(at) => (at, 8),
            // Of 64 inputs, rather: four vectors.
            Self::Pairs(at) => return at + quad / 16 * 4 * VECTOR,
        };
        at + quad / 8 * vectors * VECTOR
    }

    /// Of the lowest bits: two of `Pairs`, eight of `Bytes`, four of the others.
    fn low(self, quad: usize) -> Place {
        let start = self.thirty_two(quad);
        match self {
            Self::Bytes(_) => Place { vector: start + quad % 8 * VECTOR, shift: 0 },
            Self::Pairs(_) => Place { vector: start + quad % 4 * VECTOR, shift: quad % 16 / 4 * 2 },
            _ => Place { vector: start + quad % 4 * VECTOR, shift: quad % 8 / 4 * 4 },
        }
    }

    /// Of the upper two bits of `NibblesAndPairs`.
    fn pairs(self, quad: usize) -> Place {
        Place { vector: self.thirty_two(quad) + (4 + quad % 2) * VECTOR, shift: quad % 8 / 2 * 2 }
    }

    /// The byte with the fifth bits of a lane's quad in `NibblesAndBit`, and the bits that they are shifted by.
    fn bits(self, quad: usize, lane: usize) -> (usize, usize) {
        (self.thirty_two(quad) + 4 * VECTOR + quad % 8 * 8 + lane / 2, lane % 2 * 4)
    }

    fn low_mask(self) -> u32 {
        match self {
            Self::Bytes(_) => bytes(0xff),
            Self::Pairs(_) => bytes(0x03),
            _ => bytes(0x0f),
        }
    }

    /// Puts four quants of a lane into a group of zeros.
    fn put(self, group: &mut [u8], lane: usize, quad: usize, quants: [u8; 4]) {
        let word = u32::from_le_bytes(quants);
        let mut or = |place: Place, bits: u32| {
            let at = &mut group[place.vector + 4 * lane..][..4];
            at.iter_mut().zip((bits << place.shift).to_le_bytes()).for_each(|(byte, bits)| *byte |= bits);
        };
        or(self.low(quad), word & self.low_mask());
        match self {
            Self::NibblesAndPairs(_) => or(self.pairs(quad), word >> 4 & bytes(3)),
            Self::NibblesAndBit(_) => {
                let (byte, shift) = self.bits(quad, lane);
                let four = (0..4).fold(0, |four, i| four | (quants[i] >> 4 & 1) << i);
                group[byte] |= four << shift;
            }
            Self::Nibbles(_) | Self::Pairs(_) | Self::Bytes(_) => {}
        }
    }

    /// What [`put`](Self::put) has put.
    fn get(self, group: &[u8], lane: usize, quad: usize) -> [u8; 4] {
        let word = |place: Place| {
            let at = &group[place.vector + 4 * lane..];
            u32::from_le_bytes([at[0], at[1], at[2], at[3]]) >> place.shift
        };
        let low = word(self.low(quad)) & self.low_mask();
        let high = match self {
            Self::NibblesAndPairs(_) => (word(self.pairs(quad)) & bytes(3)) << 4,
            Self::NibblesAndBit(_) => {
                let (byte, shift) = self.bits(quad, lane);
                let four = u32::from(group[byte] >> shift);
                (0..4).fold(0, |word, i| word | (four >> i & 1) << (8 * i + 4))
            }
            Self::Nibbles(_) | Self::Pairs(_) | Self::Bytes(_) => 0,
        };
        (low | high).to_le_bytes()
    }
}

/// Every byte of a word masked.
const fn bytes(mask: u32) -> u32 {
    mask * 0x0101_0101
}

/// Packs up to sixteen rows of `inputs` weights, as a file has them, into a panel of zeros. Rows that are missing at the
/// end of a matrix stay zero.
pub(super) fn pack_panel(dtype: TensorType, rows: &[u8], inputs: usize, panel: &mut [u8]) {
    let kind = Kind::of(dtype).expect("checked when the matrix was given");
    let row_bytes = inputs / dtype.block_len() * dtype.block_bytes();
    let Some(layout) = Layout::of(kind) else { return pack_floats(dtype.block_bytes(), rows, row_bytes, panel) };
    let mut parts = Parts::ZERO;
    for (g, group) in panel.chunks_exact_mut(kind.group_bytes()).enumerate() {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            parts.read(dtype, &row[g * dtype.block_bytes()..][..dtype.block_bytes()]);
            layout.put(group, lane, &parts, kind.group_inputs());
        }
    }
}

fn pack_floats(width: usize, rows: &[u8], row_bytes: usize, panel: &mut [u8]) {
    for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
        for (i, weight) in row.chunks_exact(width).enumerate() {
            panel[(i * LANES + lane) * width..][..width].copy_from_slice(weight);
        }
    }
}

impl Layout {
    fn put(&self, group: &mut [u8], lane: usize, parts: &Parts, inputs: usize) {
        for (i, factor) in parts.factors[..self.factors].iter().enumerate() {
            group[i * 32 + 2 * lane..][..2].copy_from_slice(&factor.to_le_bytes());
        }
        let mut bytes = |at: Option<usize>, values: &[u8; 16], sub_blocks: usize| {
            if let Some(at) = at {
                for (sub, value) in values[..sub_blocks].iter().enumerate() {
                    group[at + 16 * sub + lane] = *value;
                }
            }
        };
        bytes(self.scales, &parts.scales, inputs / self.sub());
        bytes(self.mins, &parts.mins, inputs / self.sub());
        for (quad, quants) in parts.quants[..inputs].as_chunks::<4>().0.iter().enumerate() {
            self.quants.put(group, lane, quad, *quants);
        }
    }

    /// Inputs of a sub-block.
    fn sub(&self) -> usize {
        match self.quants {
            Quants::Pairs(_) | Quants::NibblesAndPairs(_) => 16,
            _ => 32,
        }
    }
}

/// The weights of output `lane` of a panel, as candle and ggml would dequantise them, to the bit.
pub(super) fn unpack_row(kind: Kind, panel: &[u8], lane: usize, out: &mut [f32]) {
    let Some(layout) = Layout::of(kind) else { return unpack_floats(kind, panel, lane, out) };
    let value = |quant: u8| -> f32 {
        let quant = i32::from(quant);
        (match kind {
            Kind::Q4_0 => quant - 8,
            Kind::Q5_0 => quant - 16,
            Kind::Q6K => quant - 32,
            Kind::Q8_0 => quant - 128,
            Kind::Iq4Nl | Kind::Iq4Xs => iq4_value(quant as u8),
            _ => quant,
        }) as f32
    };
    let sub_inputs = layout.sub();
    for (group, out) in panel.chunks_exact(kind.group_bytes()).zip(out.chunks_exact_mut(kind.group_inputs())) {
        let factor = |i: usize| f16::from_le_bytes([group[i * 32 + 2 * lane], group[i * 32 + 2 * lane + 1]]).to_f32();
        for (sub, out) in out.chunks_exact_mut(sub_inputs).enumerate() {
            let byte = |at: usize| group[at + 16 * sub + lane];
            let signed = layout.mins.is_none();
            let scale = match layout.scales {
                Some(at) if signed => factor(0) * f32::from(byte(at) as i8),
                Some(at) => factor(0) * f32::from(byte(at)),
                None => factor(0),
            };
            let min = match layout.mins {
                Some(at) => factor(1) * f32::from(byte(at)),
                None if layout.factors == 2 => factor(1),
                None => 0.0,
            };
            for (i, out) in out.chunks_exact_mut(4).enumerate() {
                let quants = layout.quants.get(group, lane, sub * sub_inputs / 4 + i);
                for (out, quant) in out.iter_mut().zip(quants) {
                    *out = scale * value(quant) - min;
                }
            }
        }
    }
}

fn unpack_floats(kind: Kind, panel: &[u8], lane: usize, out: &mut [f32]) {
    let width = kind.group_bytes() / LANES;
    for (i, out) in out.iter_mut().enumerate() {
        let bytes = &panel[(i * LANES + lane) * width..][..width];
        *out = match kind {
            Kind::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            Kind::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            _ => half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        };
    }
}
