//! One segment's part of the pages: the blocks that its rows see through a window, and which rows don't see which
//! positions of them.

use candle_core::{Device, Result, Tensor};

use super::LayerPages;
use crate::engine::{batch::Segment, blocks::BLOCK_TOKENS};

pub struct View {
    /// The segment's rows in the batch.
    pub first_row: usize,
    pub rows: usize,
    /// (blocks)
    blocks: Tensor,
    /// Tokens of the blocks before the first that is seen, and those that are seen by any row.
    skipped: usize,
    pub tokens: usize,
    /// Shape (rows, tokens): 0 where a row sees a position, else −∞; `None` if all see all.
    pub mask: Option<Tensor>,
}

impl View {
    pub fn new(segment: &Segment, window: Option<usize>, device: &Device) -> Result<Self> {
        let Segment { first_row, rows, start, .. } = *segment;
        let window = window.unwrap_or(usize::MAX);
        let first = (start + 1).saturating_sub(window);
        let end = start + rows;
        let blocks: Vec<u32> =
            segment.blocks[first / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS)].iter().map(|block| block.0).collect();
        let count = blocks.len();
        let mask = match rows {
            1 => None,
            _ => Some(mask(start, first..end, rows, window, device)?),
        };
        let blocks = Tensor::from_vec(blocks, count, device)?;
        Ok(Self { first_row, rows, blocks, skipped: first % BLOCK_TOKENS, tokens: end - first, mask })
    }

    /// The keys and the values that are seen, copied out of their pages: shape (KV heads, tokens, head dim), f16.
    pub fn gather(&self, pages: &LayerPages) -> Result<(Tensor, Tensor)> {
        let gather = |pages: &Tensor| {
            let tokens = pages.index_select(&self.blocks, 0)?.flatten(0, 1)?;
            tokens.narrow(0, self.skipped, self.tokens)?.transpose(0, 1)?.contiguous()
        };
        Ok((gather(&pages.keys)?, gather(&pages.values)?))
    }
}

/// What the rows from position `start` on see of the positions `seen`.
fn mask(start: usize, seen: std::ops::Range<usize>, rows: usize, window: usize, device: &Device) -> Result<Tensor> {
    let visible = |row: usize, position: usize| position <= row && row - position < window;
    let tokens = seen.len();
    let mask = (start..start + rows)
        .flat_map(|row| seen.clone().map(move |position| if visible(row, position) { 0.0 } else { f32::NEG_INFINITY }));
    Tensor::from_vec(mask.collect::<Vec<f32>>(), (rows, tokens), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::blocks::BlockId;

    #[test]
    fn rows_see_themselves_and_what_the_window_holds() {
        let blocks = (10..14).map(BlockId).collect();
        let segment = Segment { first_row: 5, rows: 3, start: 70, blocks };
        let seen = |window: Option<usize>| {
            let view = View::new(&segment, window, &Device::Cpu).unwrap();
            let mask: Vec<Vec<f32>> = view.mask.unwrap().to_vec2().unwrap();
            let counts: Vec<_> = mask.iter().map(|row| row.iter().filter(|m| **m == 0.0).count()).collect();
            (view.blocks.to_vec1::<u32>().unwrap(), view.skipped, view.tokens, counts)
        };
        assert_eq!(seen(None), (vec![10, 11, 12], 0, 73, vec![71, 72, 73]));
        assert_eq!(seen(Some(72)), (vec![10, 11, 12], 0, 73, vec![71, 72, 72]));
        assert_eq!(seen(Some(10)), (vec![11, 12], 29, 12, vec![10, 10, 10]));
        assert_eq!(seen(Some(1)), (vec![12], 6, 3, vec![1, 1, 1]));
    }
}
