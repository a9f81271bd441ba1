//! Keys and values in a device's memory: for each layer pages of 32 tokens, the blocks of the batch's block tables.

use candle_core::{DType, Device, Result, Tensor};

use crate::engine::{batch::Batch, blocks::BLOCK_TOKENS, models::Spec};

/// Of all layers.
pub struct Pages {
    layers: Vec<LayerPages>,
    blocks: usize,
}

/// Of one layer. Shapes are (blocks, BLOCK_TOKENS, KV heads, head dim), as flash attention reads them; f16.
pub struct LayerPages {
    pub keys: Tensor,
    pub values: Tensor,
}

impl Pages {
    /// `blocks` pages for each layer of a model, all zeros: what was never written is read, and masked.
    pub fn new(spec: &Spec, blocks: usize, device: &Device) -> Result<Self> {
        let shape = (blocks, BLOCK_TOKENS, spec.kv_heads, spec.head_dim);
        let zeros = || Tensor::zeros(shape, DType::F16, device);
        let layer = |_| Ok(LayerPages { keys: zeros()?, values: zeros()? });
        Ok(Self { layers: (0..spec.layers).map(layer).collect::<Result<_>>()?, blocks })
    }

    pub fn blocks(&self) -> usize {
        self.blocks
    }

    pub fn layers(&self) -> &[LayerPages] {
        &self.layers
    }
}

impl LayerPages {
    /// Stores a step's keys and values, each of shape (tokens, KV heads, head dim).
    pub fn write(&self, slots: &Slots, keys: &Tensor, values: &Tensor) -> Result<()> {
        for (pages, rows) in [(&self.keys, keys), (&self.values, values)] {
            let rows = rows.to_dtype(DType::F16)?.flatten_from(1)?.contiguous()?;
            // Shares its memory with the pages.
            let flat = pages.reshape(((), rows.dim(1)?))?;
            flat.scatter_set(&slots.0, &rows, 0)?;
        }
        Ok(())
    }
}

/// Where a step's rows are stored, counted in tokens from block 0: shape (tokens, KV heads · head dim), the same along
/// a row, as scattering wants it.
pub struct Slots(Tensor);

impl Slots {
    pub fn new(batch: &Batch, spec: &Spec, device: &Device) -> Result<Self> {
        let mut slots = Vec::with_capacity(batch.rows());
        for segment in &batch.segments {
            let positions = segment.start..segment.start + segment.rows;
            slots.extend(
                positions.map(|p| segment.blocks[p / BLOCK_TOKENS].0 * BLOCK_TOKENS as u32 + (p % BLOCK_TOKENS) as u32),
            );
        }
        let rows = slots.len();
        let slots = Tensor::from_vec(slots, (rows, 1), device)?;
        Ok(Self(slots.broadcast_as((rows, spec.kv_heads * spec.head_dim))?.contiguous()?))
    }
}
