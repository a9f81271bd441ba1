//! Attention by Metal's fused kernel, one segment after the other (it knows no pages: what is seen is gathered first).

use candle_core::{DType, Device, Result, Tensor};

use super::{Attention, LayerPages, plain::Plain};
use crate::engine::{batch::Batch, models::blueprint::Blueprint};

/// Head dims that the kernel is compiled for (`candle-nn`, `ops.rs`).
const HEAD_DIMS: [usize; 8] = [32, 64, 72, 80, 96, 128, 256, 512];

/// Whether the kernel can compute this model: soft caps it has for single rows only.
pub fn supports(blueprint: &Blueprint) -> bool {
    HEAD_DIMS.contains(&blueprint.spec.head_dim) && blueprint.soft_caps.attention.is_none()
}

pub struct Sdpa {
    plain: Plain,
}

impl Sdpa {
    pub fn new(plain: Plain) -> Self {
        Self { plain }
    }
}

impl Attention for Sdpa {
    fn begin(&mut self, batch: &Batch, device: &Device) -> Result<()> {
        self.plain.begin(batch, device)
    }

    fn forward(&self, queries: &Tensor, pages: &LayerPages, window: Option<usize>) -> Result<Tensor> {
        self.plain.for_each(queries, window, |queries, view| {
            // Many rows through a window want a mask as large as all heads' scores; the plain way has no worse.
            if view.rows > 1 && window.is_some_and(|window| window < view.tokens) {
                return self.plain.attend(queries, view, pages);
            }
            let (keys, values) = view.gather(pages)?;
            // (1, heads, rows, head dim); the last row is at the last key's position, which is how it masks.
            let queries = queries.to_dtype(DType::F16)?.transpose(0, 1)?.contiguous()?.unsqueeze(0)?;
            let (keys, values) = (keys.unsqueeze(0)?, values.unsqueeze(0)?);
            let scale = self.plain.scale();
            let attended = candle_nn::ops::sdpa(&queries, &keys, &values, None, view.rows > 1, scale, 1.0)?;
            attended.squeeze(0)?.transpose(0, 1)?.contiguous()?.to_dtype(DType::F32)
        })
    }
}
