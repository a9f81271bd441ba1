//! What every layer of a step needs of its batch, in the device's memory: tokens, rotary angles, where keys are stored.

use candle_core::{D, Device, Result, Tensor};

use super::pages::Slots;
use crate::engine::{
    batch::Batch,
    layers::{PairStyle, Rope},
    models::Spec,
};

pub struct Step {
    /// (tokens)
    pub tokens: Tensor,
    pub slots: Slots,
    /// One for each rope.
    pub turns: Vec<Turn>,
}

impl Step {
    /// `ropes` are those that the model's layers refer to.
    pub fn new(batch: &Batch, spec: &Spec, ropes: &[Rope], device: &Device) -> Result<Self> {
        let turn = |rope: &Rope| {
            let angles = rope.angles(&batch.positions);
            let (cos, sin) = angles.once();
            let shape = (batch.rows(), 1, cos.len() / batch.rows());
            let (cos, sin) = (Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?);
            Ok(Turn { style: angles.style(), cos, sin })
        };
        Ok(Self {
            tokens: Tensor::from_slice(&batch.tokens, batch.rows(), device)?,
            slots: Slots::new(batch, spec, device)?,
            turns: ropes.iter().map(turn).collect::<Result<_>>()?,
        })
    }
}

/// A rotary embedding at the positions of a step's rows.
pub struct Turn {
    style: PairStyle,
    /// (tokens, 1, pairs)
    cos: Tensor,
    sin: Tensor,
}

impl Turn {
    /// Turns each row's heads: shape (tokens, heads, head dim), as the result's.
    pub fn forward(&self, heads: &Tensor) -> Result<Tensor> {
        let (head_dim, turned) = (heads.dim(D::Minus1)?, 2 * self.cos.dim(D::Minus1)?);
        // To candle, every token is a sequence of its own, of one position.
        let x = heads.narrow(2, 0, turned)?.unsqueeze(2)?.contiguous()?;
        let x = match self.style {
            PairStyle::Halves => candle_nn::rotary_emb::rope(&x, &self.cos, &self.sin)?,
            PairStyle::Neighbours => candle_nn::rotary_emb::rope_i(&x, &self.cos, &self.sin)?,
        };
        let x = x.squeeze(2)?;
        if turned == head_dim {
            return Ok(x);
        }
        Tensor::cat(&[x, heads.narrow(2, turned, head_dim - turned)?], 2)
    }
}
