//! Products of activations with packed weights.
//!
//! Weights are packed once, when they are loaded, into panels of sixteen outputs (`formats`, `pack`); rows of activations
//! are quantised once for each product (`activations`); the micro-kernel (`tile`) multiplies up to eight rows with a panel.
//! It is one generic function over the vectors of a tier (`lanes`), so every tier gives the same bits, and a row's product
//! is the same whatever rows are computed beside it.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod formats;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod scalar;
mod tile;

pub use activations::{Block32, Block256};
pub use lanes::LANES;

use std::mem::MaybeUninit;

use super::Kernels;
use crate::engine::gguf::TensorType;
use formats::{Format, Iq4Nl, Iq4Xs, Layout, Q2K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use tile::{Bf16, F16, F32, FloatFormat};

/// How weights are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Iq4Nl,
    Q2K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Xs,
    F16,
    Bf16,
    F32,
}

/// What weights are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Blocks32,
    Blocks256,
    Floats,
}

impl Kind {
    /// How a file's type is packed; `None` if it is not. Q3_K becomes Q6_K, without loss.
    pub fn of(dtype: TensorType) -> Option<Self> {
        Some(match dtype {
            TensorType::Q4_0 => Self::Q4_0,
            TensorType::Q4_1 => Self::Q4_1,
            TensorType::Q5_0 => Self::Q5_0,
            TensorType::Q5_1 => Self::Q5_1,
            TensorType::Q8_0 => Self::Q8_0,
            TensorType::Iq4Nl => Self::Iq4Nl,
            TensorType::Q2K => Self::Q2K,
            TensorType::Q4K => Self::Q4K,
            TensorType::Q5K => Self::Q5K,
            TensorType::Q3K | TensorType::Q6K => Self::Q6K,
            TensorType::Iq4Xs => Self::Iq4Xs,
            TensorType::F16 => Self::F16,
            TensorType::Bf16 => Self::Bf16,
            TensorType::F32 => Self::F32,
            _ => return None,
        })
    }

    /// Bytes that a whole matrix of a file's type takes once it is packed, from those that it has there.
    pub fn packed_bytes(dtype: TensorType, bytes: u64) -> u64 {
        let weights = bytes / dtype.block_bytes() as u64 * dtype.block_len() as u64;
        Self::of(dtype)
            .map_or(bytes, |kind| weights.div_ceil((LANES * kind.group_inputs()) as u64) * kind.group_bytes() as u64)
    }

    /// How groups lie in memory; `None` for floats, whose panels have sixteen weights for each input.
    fn layout(self) -> Option<&'static Layout> {
        Some(match self {
            Self::Q4_0 => &Q4_0::LAYOUT,
            Self::Q4_1 => &Q4_1::LAYOUT,
            Self::Q5_0 => &Q5_0::LAYOUT,
            Self::Q5_1 => &Q5_1::LAYOUT,
            Self::Q8_0 => &Q8_0::LAYOUT,
            Self::Iq4Nl => &Iq4Nl::LAYOUT,
            Self::Q2K => &Q2K::LAYOUT,
            Self::Q4K => &Q4K::LAYOUT,
            Self::Q5K => &Q5K::LAYOUT,
            Self::Q6K => &Q6K::LAYOUT,
            Self::Iq4Xs => &Iq4Xs::LAYOUT,
            Self::F16 | Self::Bf16 | Self::F32 => return None,
        })
    }

    pub fn input(self) -> Input {
        match self.layout() {
            None => Input::Floats,
            Some(layout) if layout.inputs == 32 => Input::Blocks32,
            Some(_) => Input::Blocks256,
        }
    }

    /// Inputs of a group.
    pub fn group_inputs(self) -> usize {
        self.layout().map_or(1, |layout| layout.inputs)
    }

    /// Bytes of a group of sixteen outputs.
    pub fn group_bytes(self) -> usize {
        match (self.layout(), self) {
            (Some(layout), _) => layout.bytes,
            (None, Self::F32) => F32::BYTES,
            (None, _) => F16::BYTES,
        }
    }

    /// Bytes of a panel of `inputs`, which must be whole groups.
    pub fn panel_bytes(self, inputs: usize) -> usize {
        inputs / self.group_inputs() * self.group_bytes()
    }
}

/// Packs up to sixteen rows, as a file has them, into a panel of zeros.
///
/// # Panics
/// If the type is not packed (see [`Kind::of`]) or `panel` is not [`Kind::panel_bytes`] long.
pub fn pack_panel(dtype: TensorType, rows: &[u8], inputs: usize, panel: &mut [u8]) {
    let kind = Kind::of(dtype).expect("a type that is packed");
    assert_eq!(panel.len(), kind.panel_bytes(inputs));
    pack::pack_panel(dtype, rows, inputs, panel);
}

/// The weights of output `lane` of a panel.
pub fn unpack_row(kind: Kind, panel: &[u8], lane: usize, out: &mut [f32]) {
    assert!(lane < LANES && panel.len() == kind.panel_bytes(out.len()));
    pack::unpack_row(kind, panel, lane, out);
}

/// Rows that a tile has at most. Those of a tier are the powers of two from 1 on, by index.
const ROWS_MAX: usize = 8;

/// (panel, groups, first row of activations, bytes from row to row, out)
type Tile = unsafe fn(*const u8, usize, *const u8, usize, *mut f32);

/// The products of one tier.
pub(super) struct Matmul {
    /// Tiles by the rows they take, from one row on.
    tiles: fn(Kind) -> &'static [(usize, Tile)],
    quantise_32: unsafe fn(&[f32], &mut [Block32]),
    quantise_256: unsafe fn(&[f32], &mut [Block256]),
}

/// Instantiates the products of a tier inside functions that carry its CPU features.
macro_rules! matmul {
    ($table:ident, $lanes:ty, quantised: [$($quantised:literal),+], float: [$($float:literal),+] $(, $features:literal)?) => {
        pub(super) static $table: Matmul = {
            $(#[target_feature(enable = $features)])?
            unsafe fn quantised<F: Format, const ROWS: usize>(
                panel: *const u8, groups: usize, x: *const u8, stride: usize, out: *mut f32,
            ) {
                // SAFETY: the features are this function's; the rest is the caller's.
                unsafe { tile::quantised::<$lanes, F, ROWS>(panel, groups, x, stride, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn float<F: FloatFormat, const ROWS: usize>(
                panel: *const u8, inputs: usize, x: *const u8, stride: usize, out: *mut f32,
            ) {
                // SAFETY: as above.
                unsafe { tile::float::<$lanes, F, ROWS>(panel, inputs, x, stride, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn quantise_32(row: &[f32], blocks: &mut [Block32]) {
                // SAFETY: as above.
                unsafe { activations::quantise::<$lanes, Block32>(row, blocks) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn quantise_256(row: &[f32], blocks: &mut [Block256]) {
                // SAFETY: as above.
                unsafe { activations::quantise::<$lanes, Block256>(row, blocks) }
            }
            macro_rules! quantised {
                ($format:ty) => {{
                    static TILES: &[(usize, Tile)] = &[$(($quantised, quantised::<$format, $quantised>)),+];
                    TILES
                }};
            }
            macro_rules! float {
                ($format:ty) => {{
                    static TILES: &[(usize, Tile)] = &[$(($float, float::<$format, $float>)),+];
                    TILES
                }};
            }
            fn tiles(kind: Kind) -> &'static [(usize, Tile)] {
                match kind {
                    Kind::Q4_0 => quantised!(Q4_0),
                    Kind::Q4_1 => quantised!(Q4_1),
                    Kind::Q5_0 => quantised!(Q5_0),
                    Kind::Q5_1 => quantised!(Q5_1),
                    Kind::Q8_0 => quantised!(Q8_0),
                    Kind::Iq4Nl => quantised!(Iq4Nl),
                    Kind::Q2K => quantised!(Q2K),
                    Kind::Q4K => quantised!(Q4K),
                    Kind::Q5K => quantised!(Q5K),
                    Kind::Q6K => quantised!(Q6K),
                    Kind::Iq4Xs => quantised!(Iq4Xs),
                    Kind::F16 => float!(F16),
                    Kind::Bf16 => float!(Bf16),
                    Kind::F32 => float!(F32),
                }
            }
            Matmul { tiles, quantise_32, quantise_256 }
        };
    };
}

matmul!(SCALAR, scalar::Scalar, quantised: [1], float: [1]);
#[cfg(target_arch = "x86_64")]
matmul!(AVX2, avx2::Avx2<avx2::Pairs>, quantised: [1, 2, 4], float: [1, 2, 3], "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
matmul!(AVX_VNNI, avx2::Avx2<avx2::Vnni>, quantised: [1, 2, 4], float: [1, 2, 3], "avx2,fma,f16c,avxvnni");
#[cfg(target_arch = "x86_64")]
matmul!(AVX512_VNNI, avx512::Avx512Vnni, quantised: [1, 2, 4, 8], float: [1, 2, 4, 8], "avx512f,avx512bw,avx512vnni,avx2,fma,f16c");
#[cfg(target_arch = "aarch64")]
matmul!(NEON, neon::Neon, quantised: [1, 2, 4], float: [1, 2, 4], "neon,dotprod");

/// Rows of activations, as some kind of weights takes them.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// Shape (rows, inputs / 32).
    Blocks32(&'a [Block32]),
    /// Shape (rows, inputs / 256).
    Blocks256(&'a [Block256]),
    /// Shape (rows, inputs).
    Floats(&'a [f32]),
}

impl Rows<'_> {
    fn input(&self) -> Input {
        match self {
            Self::Blocks32(_) => Input::Blocks32,
            Self::Blocks256(_) => Input::Blocks256,
            Self::Floats(_) => Input::Floats,
        }
    }

    /// Where they start, how many elements there are, and bytes of one.
    fn elements(&self) -> (*const u8, usize, usize) {
        match self {
            Self::Blocks32(x) => (x.as_ptr().cast(), x.len(), size_of::<Block32>()),
            Self::Blocks256(x) => (x.as_ptr().cast(), x.len(), size_of::<Block256>()),
            Self::Floats(x) => (x.as_ptr().cast(), x.len(), size_of::<f32>()),
        }
    }
}

/// The safe faces of the kernels, see [`Kernels`].
impl Kernels {
    /// Quantises a row; it must fill the blocks.
    pub fn quantise_32(&self, row: &[f32], blocks: &mut [Block32]) {
        assert_eq!(row.len(), 32 * blocks.len());
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.matmul.quantise_32)(row, blocks) }
    }

    /// Quantises a row; it must fill the blocks.
    pub fn quantise_256(&self, row: &[f32], blocks: &mut [Block256]) {
        assert_eq!(row.len(), 256 * blocks.len());
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.matmul.quantise_256)(row, blocks) }
    }

    /// Multiplies `rows` rows of `x` with a panel of `kind`, and hands out the products, sixteen of a row at a time:
    /// `put(row, products)`.
    #[inline]
    pub fn multiply(&self, kind: Kind, panel: &[u8], x: Rows, rows: usize, mut put: impl FnMut(usize, &[f32; LANES])) {
        let group_bytes = kind.group_bytes();
        let groups = panel.len() / group_bytes;
        let (start, elements, size) = x.elements();
        assert!(x.input() == kind.input() && elements == rows * groups && panel.len() == groups * group_bytes);
        let stride = groups * size;
        let tiles = (self.matmul.tiles)(kind);
        let mut out = [const { MaybeUninit::<[f32; LANES]>::uninit() }; ROWS_MAX];
        let mut first = 0;
        while first < rows {
            let fitting = tiles.iter().rfind(|(count, _)| *count <= rows - first);
            let &(count, tile) = fitting.expect("a tile of one row");
            // SAFETY: features by construction; the tile's rows lie within `x`, its groups are the panel's, and `out` has
            // room for the largest tile.
            unsafe { tile(panel.as_ptr(), groups, start.add(first * stride), stride, out.as_mut_ptr().cast()) };
            for (r, products) in out[..count].iter().enumerate() {
                // SAFETY: the tile has written the products of its rows.
                put(first + r, unsafe { products.assume_init_ref() });
            }
            first += count;
        }
    }
}

#[cfg(test)]
mod tests;
