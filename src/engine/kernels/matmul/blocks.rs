//! Blocks of quantised weights as files have them (ggml's `ggml-common.h`), taken apart.
//!
//! Knows what a block's bits mean, not where packed weights put them.

use crate::engine::gguf::TensorType;

/// A block of one row: up to 256 quants and what they are multiplied with. A weight is
/// `factors[0] · scale · (quant - zero) - factors[1] · min`, with the scale and the min of its sub-block.
pub(super) struct Parts {
    /// Half floats, as bits.
    pub factors: [u16; 2],
    /// Signed where the format's scales are.
    pub scales: [u8; 16],
    pub mins: [u8; 16],
    pub quants: [u8; 256],
}

impl Parts {
    pub const ZERO: Self = Self { factors: [0; 2], scales: [0; 16], mins: [0; 16], quants: [0; 256] };

    /// Takes a block apart.
    ///
    /// # Panics
    /// If `block` is shorter than a block of that type, or the type is not one of [`packed`](super::Kind::of).
    pub fn read(&mut self, dtype: TensorType, block: &[u8]) {
        match dtype {
            TensorType::Q4_0 | TensorType::Iq4Nl => {
                self.factors = [half_at(block, 0), 0];
                halves(&block[2..18], &mut self.quants);
            }
            TensorType::Q4_1 => {
                self.factors = [half_at(block, 0), negative(half_at(block, 2))];
                halves(&block[4..20], &mut self.quants);
            }
            TensorType::Q5_0 => {
                self.factors = [half_at(block, 0), 0];
                halves(&block[6..22], &mut self.quants);
                self.add_fifth_bits(&block[2..6]);
            }
            TensorType::Q5_1 => {
                self.factors = [half_at(block, 0), negative(half_at(block, 2))];
                halves(&block[8..24], &mut self.quants);
                self.add_fifth_bits(&block[4..8]);
            }
            TensorType::Q8_0 => {
                self.factors = [half_at(block, 0), 0];
                for (quant, byte) in self.quants.iter_mut().zip(&block[2..34]) {
                    *quant = byte ^ 0x80;
                }
            }
            TensorType::Q2K => self.read_q2k(block),
            TensorType::Q3K => self.read_q3k(block),
            TensorType::Q4K => {
                self.read_scales_and_mins(block);
                for (pair, low_high) in block[16..144].chunks_exact(32).zip(self.quants.chunks_exact_mut(64)) {
                    split(pair, low_high);
                }
            }
            TensorType::Q5K => {
                self.read_scales_and_mins(block);
                for (pair, low_high) in block[48..176].chunks_exact(32).zip(self.quants.chunks_exact_mut(64)) {
                    split(pair, low_high);
                }
                for (sub, quants) in self.quants.chunks_exact_mut(32).enumerate() {
                    for (quant, bits) in quants.iter_mut().zip(&block[16..48]) {
                        *quant |= (bits >> sub & 1) << 4;
                    }
                }
            }
            TensorType::Q6K => self.read_q6k(block),
            TensorType::Iq4Xs => self.read_iq4xs(block),
            other => panic!("{other} is not packed"),
        }
    }

    /// The fifth bit of each of 32 quants.
    fn add_fifth_bits(&mut self, bits: &[u8]) {
        for (i, quant) in self.quants[..32].iter_mut().enumerate() {
            *quant |= (bits[i / 8] >> (i % 8) & 1) << 4;
        }
    }

    fn read_q2k(&mut self, block: &[u8]) {
        self.factors = [half_at(block, 80), half_at(block, 82)];
        for (i, byte) in block[..16].iter().enumerate() {
            (self.scales[i], self.mins[i]) = (byte & 0x0f, byte >> 4);
        }
        self.read_pairs(&block[16..80]);
    }

    /// Two bits for each quant: of 128 quants the first 32 are in the lowest bits of 32 bytes, and so on.
    fn read_pairs(&mut self, bytes: &[u8]) {
        for (i, quant) in self.quants.iter_mut().enumerate() {
            *quant = bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        }
    }

    /// As Q6_K would say it: a weight is `d · (scale - 32) · (quant - 4)`, and Q6_K's zero is 32.
    fn read_q3k(&mut self, block: &[u8]) {
        let (high, low_pairs, scales) = (&block[..32], &block[32..96], &block[96..108]);
        self.factors = [half_at(block, 108), 0];
        self.read_pairs(low_pairs);
        for (i, quant) in self.quants.iter_mut().enumerate() {
            *quant += (high[i % 32] >> (i / 32) & 1) * 4 + (32 - 4);
        }
        for (i, scale) in self.scales.iter_mut().enumerate() {
            let low = scales[i % 8] >> (i / 8 * 4) & 0x0f;
            let top = scales[8 + i % 4] >> (i / 4 * 2) & 3;
            *scale = (low | top << 4).wrapping_sub(32);
        }
    }

    /// Factors and six-bit scales and minima of Q4_K and Q5_K.
    fn read_scales_and_mins(&mut self, block: &[u8]) {
        self.factors = [half_at(block, 0), half_at(block, 2)];
        let bytes = &block[4..16];
        for i in 0..4 {
            (self.scales[i], self.mins[i]) = (bytes[i] & 63, bytes[i + 4] & 63);
            self.scales[i + 4] = bytes[i + 8] & 0x0f | bytes[i] >> 6 << 4;
            self.mins[i + 4] = bytes[i + 8] >> 4 | bytes[i + 4] >> 6 << 4;
        }
    }

    fn read_q6k(&mut self, block: &[u8]) {
        let (low, high) = (&block[..128], &block[128..192]);
        self.scales.copy_from_slice(&block[192..208]);
        self.factors = [half_at(block, 208), 0];
        for (half, quants) in self.quants.chunks_exact_mut(128).enumerate() {
            let (low, high) = (&low[half * 64..][..64], &high[half * 32..][..32]);
            for (i, quant) in quants.iter_mut().enumerate() {
                let nibble = low[i % 64] >> (i / 64 * 4) & 0x0f;
                *quant = nibble | (high[i % 32] >> (i / 32 * 2) & 3) << 4;
            }
        }
    }

    fn read_iq4xs(&mut self, block: &[u8]) {
        self.factors = [half_at(block, 0), 0];
        let high = half_at(block, 2);
        for sub in 0..8 {
            let low = block[4 + sub / 2] >> (sub % 2 * 4) & 0x0f;
            let top = (high >> (2 * sub) & 3) as u8;
            self.scales[sub] = (low | top << 4).wrapping_sub(32);
        }
        for (bytes, quants) in block[8..136].chunks_exact(16).zip(self.quants.chunks_exact_mut(32)) {
            halves(bytes, quants);
        }
    }
}

fn half_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// Minima are subtracted here, and added in the formats of the first generation.
fn negative(half: u16) -> u16 {
    half ^ 0x8000
}

/// The low nibbles of 16 bytes, then the high ones.
fn halves(bytes: &[u8], quants: &mut [u8]) {
    split(bytes, &mut quants[..2 * bytes.len()]);
}

fn split(bytes: &[u8], quants: &mut [u8]) {
    let (low, high) = quants.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 0x0f, byte >> 4);
    }
}
