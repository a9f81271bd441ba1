//! Attention by candle's plain operations, one segment after the other: for devices and models that no fused kernel
//! serves, and the oracle of those kernels.

use candle_core::{DType, Device, Result, Tensor};

use super::{Attention, LayerPages, Scores, view::View};
use crate::engine::batch::Batch;

pub struct Plain {
    scores: Scores,
    /// For each window that a layer has, the views of a step's segments.
    views: Vec<(Option<usize>, Vec<View>)>,
}

impl Plain {
    /// `windows` are those of all layers, each once.
    pub fn new(scores: Scores, windows: Vec<Option<usize>>) -> Self {
        Self { scores, views: windows.into_iter().map(|window| (window, Vec::new())).collect() }
    }

    /// Of the products of queries and keys.
    #[cfg(feature = "metal")]
    pub fn scale(&self) -> f32 {
        self.scores.scale
    }

    /// Runs `attend` for each segment, with its queries of shape (rows, heads, head dim), and puts the results, of the
    /// same shape, side by side.
    pub fn for_each(
        &self,
        queries: &Tensor,
        window: Option<usize>,
        attend: impl Fn(&Tensor, &View) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (_, views) = self.views.iter().find(|(w, _)| *w == window).expect("a window of the model's layers");
        let attended = views.iter().map(|view| attend(&queries.narrow(0, view.first_row, view.rows)?, view));
        Tensor::cat(&attended.collect::<Result<Vec<_>>>()?, 0)?.flatten_from(1)?.to_dtype(DType::F32)
    }

    /// One segment's queries, shape (rows, heads, head dim), to what they see.
    pub fn attend(&self, queries: &Tensor, view: &View, pages: &LayerPages) -> Result<Tensor> {
        let (keys, values) = view.gather(pages)?;
        let (keys, values) = (keys.to_dtype(DType::F32)?, values.to_dtype(DType::F32)?);
        let (rows, heads, dim) = queries.dims3()?;
        let kv_heads = keys.dim(0)?;
        let group = heads / kv_heads;
        // All query heads that share a KV head are rows of one product: (KV heads, group · rows, head dim).
        let queries = queries.reshape((rows, kv_heads, group, dim))?.permute((1, 2, 0, 3))?.contiguous()?;
        let queries = queries.reshape((kv_heads, group * rows, dim))?;
        let mut scores = (queries.matmul(&keys.t()?)? * f64::from(self.scores.scale))?;
        if let Some(cap) = self.scores.soft_cap.map(f64::from) {
            scores = ((scores / cap)?.tanh()? * cap)?;
        }
        if let Some(mask) = &view.mask {
            let each = scores.reshape((kv_heads * group, rows, view.tokens))?.broadcast_add(mask)?;
            scores = each.reshape((kv_heads, group * rows, view.tokens))?;
        }
        let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&values)?;
        attended.reshape((kv_heads, group, rows, dim))?.permute((2, 0, 1, 3))?.contiguous()?.reshape((rows, heads, dim))
    }
}

impl Attention for Plain {
    fn begin(&mut self, batch: &Batch, device: &Device) -> Result<()> {
        for (window, views) in &mut self.views {
            *views = batch.segments.iter().map(|s| View::new(s, *window, device)).collect::<Result<_>>()?;
        }
        Ok(())
    }

    fn forward(&self, queries: &Tensor, pages: &LayerPages, window: Option<usize>) -> Result<Tensor> {
        self.for_each(queries, window, |queries, view| self.attend(queries, view, pages))
    }
}
