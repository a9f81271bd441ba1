//! Flash attention over pages (Dao 2023; candle-flash-attn): all segments of a step, prompts and single rows alike, in one
//! launch per layer.

use candle_core::{CudaDevice, DType, Device, Result, Tensor};
use candle_flash_attn::flash_attn_varlen_paged_windowed;

use super::{Attention, LayerPages, Scores};
use crate::engine::{batch::Batch, blocks::BLOCK_TOKENS, device::cuda, models::blueprint::Blueprint};

/// The kernels are compiled for devices from Ampere on.
const COMPUTE_CAPABILITY_MIN: (i32, i32) = (8, 0);
/// Of the widest kernel; narrower heads must be a multiple of [`HEAD_DIM_MULTIPLE`].
const HEAD_DIM_MAX: usize = 512;
const HEAD_DIM_MULTIPLE: usize = 8;

/// Whether the device and the shape of the model's heads are those that the kernels are for.
pub fn supports(device: &CudaDevice, blueprint: &Blueprint) -> Result<bool> {
    let head_dim = blueprint.spec.head_dim;
    let shape = head_dim <= HEAD_DIM_MAX && head_dim.is_multiple_of(HEAD_DIM_MULTIPLE);
    Ok(shape && cuda::compute_capability(device)? >= COMPUTE_CAPABILITY_MIN)
}

pub struct Flash {
    scores: Scores,
    step: Option<Segments>,
}

/// A step's segments, as the kernel takes them.
struct Segments {
    /// Rows before each segment, and all rows at the end; the same of the positions that each has.
    rows_before: Tensor,
    positions_before: Tensor,
    rows_max: usize,
    positions_max: usize,
    /// (segments, blocks of the longest); what is beyond a segment's own is never read.
    block_table: Tensor,
}

impl Flash {
    pub fn new(scores: Scores) -> Self {
        Self { scores, step: None }
    }
}

impl Attention for Flash {
    fn begin(&mut self, batch: &Batch, device: &Device) -> Result<()> {
        self.step = Some(Segments::new(batch, device)?);
        Ok(())
    }

    fn forward(&self, queries: &Tensor, pages: &LayerPages, window: Option<usize>) -> Result<Tensor> {
        let step = self.step.as_ref().expect("a step was begun");
        let queries = queries.to_dtype(DType::F16)?.contiguous()?;
        let attended = flash_attn_varlen_paged_windowed(
            &queries,
            &pages.keys,
            &pages.values,
            &step.rows_before,
            &step.positions_before,
            &step.block_table,
            None,
            step.rows_max,
            step.positions_max,
            self.scores.scale,
            // The kernel counts the positions before a row's own.
            window.map(|window| window - 1),
            Some(0),
            BLOCK_TOKENS,
            self.scores.soft_cap,
        )?;
        attended.flatten_from(1)?.to_dtype(DType::F32)
    }
}

impl Segments {
    fn new(batch: &Batch, device: &Device) -> Result<Self> {
        let rows: Vec<usize> = batch.segments.iter().map(|s| s.rows).collect();
        let positions: Vec<usize> = batch.segments.iter().map(|s| s.start + s.rows).collect();
        let max = |lengths: &[usize]| lengths.iter().copied().max().unwrap_or(0);
        let width = max(&positions).div_ceil(BLOCK_TOKENS);
        let mut table = Vec::with_capacity(width * batch.segments.len());
        for segment in &batch.segments {
            let blocks = segment.blocks.iter().map(|block| block.0);
            table.extend(blocks.chain(std::iter::repeat(0)).take(width));
        }
        Ok(Self {
            rows_before: sums(&rows, device)?,
            positions_before: sums(&positions, device)?,
            rows_max: max(&rows),
            positions_max: max(&positions),
            block_table: Tensor::from_vec(table, (batch.segments.len(), width), device)?,
        })
    }
}

/// The sum before each length, and that of all.
fn sums(lengths: &[usize], device: &Device) -> Result<Tensor> {
    let mut sums = vec![0];
    for length in lengths {
        sums.push(sums[sums.len() - 1] + *length as u32);
    }
    let count = sums.len();
    Tensor::from_vec(sums, count, device)
}
