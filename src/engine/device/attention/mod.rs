//! Attention over pages, the one thing that differs by device: flash attention on CUDA (`flash`), Metal's fused kernel
//! (`sdpa`), and candle's plain operations (`plain`), which run everywhere and are what the others are compared with.

#[cfg(feature = "cuda")]
mod flash;
mod plain;
#[cfg(feature = "metal")]
mod sdpa;
mod view;

use candle_core::{Device, Result, Tensor};

use super::pages::LayerPages;
use crate::engine::{batch::Batch, models::blueprint::Blueprint};

/// Grouped-query attention of a step's rows to the pages of their sequences.
pub trait Attention: Send {
    /// Takes a step's segments and block tables to the device, before its first layer.
    fn begin(&mut self, batch: &Batch, device: &Device) -> Result<()>;

    /// The queries of all rows, shape (tokens, heads, head dim), to the keys and values of one layer, where the step's
    /// own are stored already; a row sees itself and what is before it, but no more than `window` positions. Gives the
    /// shape (tokens, heads · head dim), f32.
    fn forward(&self, queries: &Tensor, pages: &LayerPages, window: Option<usize>) -> Result<Tensor>;
}

/// How scores are made of the products of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    pub scale: f32,
    /// `cap · tanh(score / cap)`
    pub soft_cap: Option<f32>,
}

/// The best that this build has for the device and the model.
pub fn choose(blueprint: &Blueprint, device: &Device) -> Result<Box<dyn Attention>> {
    let scores = Scores { scale: blueprint.scales.attention, soft_cap: blueprint.soft_caps.attention };
    let plain = plain::Plain::new(scores, windows(blueprint));
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device
        && flash::supports(cuda, blueprint)?
    {
        return Ok(Box::new(flash::Flash::new(scores)));
    }
    #[cfg(feature = "metal")]
    if device.is_metal() && sdpa::supports(blueprint) {
        return Ok(Box::new(sdpa::Sdpa::new(plain)));
    }
    let _ = device;
    Ok(Box::new(plain))
}

/// The windows of all layers, each once.
fn windows(blueprint: &Blueprint) -> Vec<Option<usize>> {
    let mut windows: Vec<_> = blueprint.layers.iter().map(|layer| layer.window).collect();
    windows.sort_unstable();
    windows.dedup();
    windows
}
