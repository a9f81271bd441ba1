//! How tensor values are stored: ggml's number and block formats, and how many bytes they take.
//!
//! Knows sizes, and plain floats; what the bits of blocks mean is the kernels' business. Formats that ggml has removed are not here, so a
//! file that uses one is refused.

use std::fmt;

use candle_core::quantized::GgmlDType;
use half::{bf16, f16};

/// A tensor's storage format, as ggml numbers them (`ggml.h`, `enum ggml_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq2Xxs,
    Iq2Xs,
    Iq3Xxs,
    Iq1S,
    Iq4Nl,
    Iq3S,
    Iq2S,
    Iq4Xs,
    I8,
    I16,
    I32,
    I64,
    F64,
    Iq1M,
    Bf16,
    Tq1_0,
    Tq2_0,
    Mxfp4,
    Nvfp4,
    Q1_0,
    Q2_0,
}

/// (type, ggml's number, ggml's name, values per block, bytes per block).
const TABLE: [(TensorType, u32, &str, usize, usize); 35] = {
    use TensorType::*;
    [
        (F32, 0, "f32", 1, 4),
        (F16, 1, "f16", 1, 2),
        (Q4_0, 2, "q4_0", 32, 18),
        (Q4_1, 3, "q4_1", 32, 20),
        (Q5_0, 6, "q5_0", 32, 22),
        (Q5_1, 7, "q5_1", 32, 24),
        (Q8_0, 8, "q8_0", 32, 34),
        (Q8_1, 9, "q8_1", 32, 36),
        (Q2K, 10, "q2_K", 256, 84),
        (Q3K, 11, "q3_K", 256, 110),
        (Q4K, 12, "q4_K", 256, 144),
        (Q5K, 13, "q5_K", 256, 176),
        (Q6K, 14, "q6_K", 256, 210),
        (Q8K, 15, "q8_K", 256, 292),
        (Iq2Xxs, 16, "iq2_xxs", 256, 66),
        (Iq2Xs, 17, "iq2_xs", 256, 74),
        (Iq3Xxs, 18, "iq3_xxs", 256, 98),
        (Iq1S, 19, "iq1_s", 256, 50),
        (Iq4Nl, 20, "iq4_nl", 32, 18),
        (Iq3S, 21, "iq3_s", 256, 110),
        (Iq2S, 22, "iq2_s", 256, 82),
        (Iq4Xs, 23, "iq4_xs", 256, 136),
        (I8, 24, "i8", 1, 1),
        (I16, 25, "i16", 1, 2),
        (I32, 26, "i32", 1, 4),
        (I64, 27, "i64", 1, 8),
        (F64, 28, "f64", 1, 8),
        (Iq1M, 29, "iq1_m", 256, 56),
        (Bf16, 30, "bf16", 1, 2),
        (Tq1_0, 34, "tq1_0", 256, 54),
        (Tq2_0, 35, "tq2_0", 256, 66),
        (Mxfp4, 39, "mxfp4", 32, 17),
        (Nvfp4, 40, "nvfp4", 64, 36),
        (Q1_0, 41, "q1_0", 128, 18),
        (Q2_0, 42, "q2_0", 64, 18),
    ]
};

impl TensorType {
    /// The type with ggml's number `id`; `None` for numbers ggml has not given or has withdrawn.
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// ggml's number, as written in a file.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// ggml's name, such as `q4_K`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Values per block; a row's length must be a multiple of it.
    pub fn block_len(self) -> usize {
        self.row().3
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.row().4
    }

    /// Whether its values are plain floats, which [`Self::to_floats`] reads.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Plain floats as `f32`, which holds all of them exactly.
    ///
    /// # Panics
    /// If the type is not [`is_float`](Self::is_float).
    pub fn to_floats(self, data: &[u8]) -> Vec<f32> {
        let mut floats = vec![0.0; data.len() / self.block_bytes()];
        self.write_floats(data, &mut floats);
        floats
    }

    /// As [`to_floats`](Self::to_floats), into `out`, which is as long as there are values.
    pub fn write_floats(self, data: &[u8], out: &mut [f32]) {
        let halves = data.chunks_exact(2).map(|b| [b[0], b[1]]);
        match self {
            Self::F32 => {
                let words = data.chunks_exact(4);
                out.iter_mut().zip(words).for_each(|(out, b)| *out = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            }
            Self::F16 => out.iter_mut().zip(halves).for_each(|(out, b)| *out = f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => out.iter_mut().zip(halves).for_each(|(out, b)| *out = bf16::from_le_bytes(b).to_f32()),
            other => panic!("{other} is no float type"),
        }
    }

    /// Candle's name of the type, if it knows it.
    pub(in crate::engine) fn candles(self) -> Option<GgmlDType> {
        Some(match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Bf16 => GgmlDType::BF16,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q8_1 => GgmlDType::Q8_1,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q8K => GgmlDType::Q8K,
            _ => return None,
        })
    }

    /// The variants are declared in the table's order, as a test holds.
    fn row(self) -> &'static (TensorType, u32, &'static str, usize, usize) {
        &TABLE[self as usize]
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_finds_its_own_row() {
        for (dtype, id, ..) in TABLE {
            assert_eq!(dtype.row().0, dtype);
            assert_eq!(TensorType::from_id(id), Some(dtype));
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(TensorType::from_id(removed), None);
        }
    }

    #[test]
    fn sizes_agree_with_candle() {
        let known = TABLE.iter().filter_map(|(ours, ..)| Some((ours, ours.candles()?)));
        assert_eq!(known.clone().count(), 15);
        for (ours, candle) in known {
            assert_eq!((ours.block_len(), ours.block_bytes()), (candle.block_size(), candle.type_size()), "{ours}");
        }
    }
}
