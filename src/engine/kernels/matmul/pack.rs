//! Puts the rows of a matrix into panels, and reads single weights back.

use half::f16;

use super::{
    Kind,
    blocks::Parts,
    formats::{Layout, Quants, Scales},
    lanes::LANES,
};
use crate::engine::gguf::TensorType;

/// Packs up to sixteen rows of `inputs` weights, as a file has them, into a panel of zeros. Rows that are missing at the
/// end of a matrix stay zero.
pub(super) fn pack_panel(dtype: TensorType, rows: &[u8], inputs: usize, panel: &mut [u8]) {
    let kind = Kind::of(dtype).expect("checked when the matrix was given");
    let row_bytes = inputs / dtype.block_len() * dtype.block_bytes();
    let Some(layout) = kind.layout() else { return pack_floats(dtype.block_bytes(), rows, row_bytes, panel) };
    let mut parts = Parts::ZERO;
    for (g, group) in panel.chunks_exact_mut(layout.bytes).enumerate() {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            parts.read(dtype, &row[g * dtype.block_bytes()..][..dtype.block_bytes()]);
            layout.put(group, lane, &parts);
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

/// Every byte of a word masked.
const fn bytes(mask: u8) -> u32 {
    u32::from_le_bytes([mask; 4])
}

impl Layout {
    /// Puts a block into a lane of a group of zeros.
    fn put(&self, group: &mut [u8], lane: usize, parts: &Parts) {
        for (i, factor) in parts.factors[..self.factors()].iter().enumerate() {
            group[(i * LANES + lane) * 2..][..2].copy_from_slice(&factor.to_le_bytes());
        }
        if self.scales != Scales::Factor {
            for sub in 0..self.subs() {
                group[self.scale(sub) + lane] = parts.scales[sub];
                if self.mins {
                    group[self.min(sub) + lane] = parts.mins[sub];
                }
            }
        }
        for (quad, quants) in parts.quants[..self.inputs].as_chunks::<4>().0.iter().enumerate() {
            self.put_quad(group, lane, quad, *quants);
        }
    }

    fn put_quad(&self, group: &mut [u8], lane: usize, quad: usize, quants: [u8; 4]) {
        let word = u32::from_le_bytes(quants);
        let mut or = |vector: usize, bits: u32| {
            let at = &mut group[vector + 4 * lane..][..4];
            at.iter_mut().zip(bits.to_le_bytes()).for_each(|(byte, bits)| *byte |= bits);
        };
        let low = self.low(quad);
        or(low.vector, (word & bytes(self.low_mask())) << low.shift);
        match self.quants {
            Quants::NibblesAndPairs => {
                let upper = self.pairs(quad);
                or(upper.vector, (word >> 4 & bytes(3)) << upper.shift);
            }
            Quants::NibblesAndBit => {
                let four = (0..4).fold(0, |four, i| four | (quants[i] >> 4 & 1) << i);
                group[self.bits(quad) + lane / 2] |= four << (lane % 2 * 4);
            }
            Quants::Pairs | Quants::Nibbles | Quants::Iq4 | Quants::Bytes => {}
        }
    }

    /// What [`put_quad`](Self::put_quad) has put.
    fn quad_of(&self, group: &[u8], lane: usize, quad: usize) -> [u8; 4] {
        let word = |vector: usize| {
            let at = &group[vector + 4 * lane..];
            u32::from_le_bytes([at[0], at[1], at[2], at[3]])
        };
        let low = self.low(quad);
        let lower = word(low.vector) >> low.shift & bytes(self.low_mask());
        let higher = match self.quants {
            Quants::NibblesAndPairs => {
                let upper = self.pairs(quad);
                (word(upper.vector) >> upper.shift & bytes(3)) << 4
            }
            Quants::NibblesAndBit => {
                let four = u32::from(group[self.bits(quad) + lane / 2] >> (lane % 2 * 4));
                (0..4).fold(0, |word, i| word | (four >> i & 1) << (8 * i + 4))
            }
            Quants::Pairs | Quants::Nibbles | Quants::Iq4 | Quants::Bytes => 0,
        };
        (lower | higher).to_le_bytes()
    }

    /// Scale and min of a sub-block of a lane.
    fn scale_and_min(&self, group: &[u8], lane: usize, sub: usize) -> (f32, f32) {
        let factor = |i: usize| {
            let at = (i * LANES + lane) * 2;
            f16::from_le_bytes([group[at], group[at + 1]]).to_f32()
        };
        let times = |factor: f32, at: usize| match self.scales {
            Scales::Factor => factor,
            Scales::Unsigned => factor * f32::from(group[at + lane]),
            Scales::Signed => factor * f32::from(group[at + lane] as i8),
        };
        let min = if self.mins { times(factor(1), self.min(sub)) } else { 0.0 };
        (times(factor(0), self.scale(sub)), min)
    }
}

/// The weights of output `lane` of a panel, as candle and ggml would dequantise them, to the bit.
pub(super) fn unpack_row(kind: Kind, panel: &[u8], lane: usize, out: &mut [f32]) {
    let Some(layout) = kind.layout() else { return unpack_floats(kind, panel, lane, out) };
    for (group, out) in panel.chunks_exact(layout.bytes).zip(out.chunks_exact_mut(layout.inputs)) {
        for (sub, out) in out.chunks_exact_mut(layout.sub).enumerate() {
            let (scale, min) = layout.scale_and_min(group, lane, sub);
            for (i, out) in out.chunks_exact_mut(4).enumerate() {
                let quants = layout.quad_of(group, lane, sub * layout.sub / 4 + i);
                for (out, quant) in out.iter_mut().zip(quants) {
                    *out = scale * layout.value(quant) as f32 - min;
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
