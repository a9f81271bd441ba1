//! Qwen3 in training mode: whole rows of tokens at once, composed of operations that candle can differentiate.
//!
//! The serving forward is the engine's; both follow candle-transformers' `models::qwen3`. Weights carry the Hugging
//! Face names, so that the reference loads them as they are.

use std::collections::BTreeMap;

use candle_core::{D, Device, Result, Tensor, Var};

use crate::chance::Chance;
use crate::fused;

/// The dimensions of the network. All are multiples of 32, a Q8_0 block.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub vocabulary: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward: usize,
    pub context: usize,
    pub rope_theta: f64,
    pub rms_eps: f64,
}

pub struct Qwen3 {
    pub shape: Shape,
    pub weights: BTreeMap<String, Var>,
}

impl Qwen3 {
    /// Weights are drawn as GPT-2 does: normal with deviation 0.02, smaller where a branch rejoins the residual stream.
    pub fn new(shape: Shape, chance: &mut Chance) -> Result<Self> {
        let Shape { vocabulary, hidden, heads, kv_heads, head_dim, feed_forward, .. } = shape;
        let rejoin = 0.02 / (2.0 * shape.layers as f64).sqrt();
        let mut weights = BTreeMap::new();
        let mut matrix = |name: String, rows: usize, columns: usize, deviation: f64| -> Result<()> {
            let values: Vec<f32> = (0..rows * columns).map(|_| (chance.normal() * deviation) as f32).collect();
            weights.insert(name, Var::from_vec(values, (rows, columns), &Device::Cpu)?);
            Ok(())
        };
        matrix("model.embed_tokens.weight".into(), vocabulary, hidden, 0.02)?;
        for layer in 0..shape.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            matrix(name("self_attn.q_proj"), heads * head_dim, hidden, 0.02)?;
            matrix(name("self_attn.k_proj"), kv_heads * head_dim, hidden, 0.02)?;
            matrix(name("self_attn.v_proj"), kv_heads * head_dim, hidden, 0.02)?;
            matrix(name("self_attn.o_proj"), hidden, heads * head_dim, rejoin)?;
            matrix(name("mlp.gate_proj"), feed_forward, hidden, 0.02)?;
            matrix(name("mlp.up_proj"), feed_forward, hidden, 0.02)?;
            matrix(name("mlp.down_proj"), hidden, feed_forward, rejoin)?;
        }
        let mut ones = |name: String, length: usize| -> Result<()> {
            weights.insert(name, Var::from_vec(vec![1f32; length], length, &Device::Cpu)?);
            Ok(())
        };
        ones("model.norm.weight".into(), hidden)?;
        for layer in 0..shape.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            ones(name("input_layernorm"), hidden)?;
            ones(name("post_attention_layernorm"), hidden)?;
            ones(name("self_attn.q_norm"), head_dim)?;
            ones(name("self_attn.k_norm"), head_dim)?;
        }
        Ok(Self { shape, weights })
    }

    pub fn parameters(&self) -> usize {
        self.weights.values().map(|weight| weight.elem_count()).sum()
    }

    fn weight(&self, name: &str) -> &Tensor {
        &self.weights[name]
    }

    /// Logits of every position, (rows · length, vocabulary), for `tokens` (rows, length) at `positions` (rows · length).
    pub fn forward(&self, tokens: &Tensor, positions: &[u32]) -> Result<Tensor> {
        let (rows, length) = tokens.dims2()?;
        let embedding = self.weight("model.embed_tokens.weight");
        let rope = self.rope(positions, rows, length)?;
        let mut x = embedding.index_select(&tokens.flatten_all()?, 0)?; // (rows · length, hidden)
        for layer in 0..self.shape.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let normed = self.norm(&x, &name("input_layernorm"))?;
            x = (&x + self.attention(&normed, &name, &rope, (rows, length))?)?;
            let normed = self.norm(&x, &name("post_attention_layernorm"))?;
            let gate = self.linear(&normed, &name("mlp.gate_proj"))?.silu()?;
            let up = self.linear(&normed, &name("mlp.up_proj"))?;
            x = (&x + self.linear(&(gate * up)?, &name("mlp.down_proj"))?)?;
        }
        self.norm(&x, "model.norm.weight")?.matmul(&embedding.t()?)
    }

    /// Causal, grouped-query. The query heads that share a key head are stacked along the query axis, so that no key
    /// is copied.
    fn attention(
        &self,
        x: &Tensor,
        name: &dyn Fn(&str) -> String,
        rope: &(Tensor, Tensor),
        (rows, length): (usize, usize),
    ) -> Result<Tensor> {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let split = |part: &str, heads: usize| -> Result<Tensor> {
            let x = self.linear(x, &name(part))?;
            x.reshape((rows, length, heads, head_dim))
        };
        let q = self.norm(&split("self_attn.q_proj", heads)?, &name("self_attn.q_norm"))?;
        let k = self.norm(&split("self_attn.k_proj", kv_heads)?, &name("self_attn.k_norm"))?;
        let v = split("self_attn.v_proj", kv_heads)?.transpose(1, 2)?.contiguous()?;
        let q = rotate(&q.transpose(1, 2)?.contiguous()?, rope)?;
        let k = rotate(&k.transpose(1, 2)?.contiguous()?, rope)?;

        let q = q.reshape((rows, kv_heads, heads / kv_heads * length, head_dim))?;
        let scores = q.matmul(&k.t()?)?; // (rows, kv_heads, group · length, length)
        let weights = fused::causal_softmax(&scores, 1.0 / (head_dim as f32).sqrt())?;
        let mixed = weights.matmul(&v)?.reshape((rows, heads, length, head_dim))?;
        let mixed = mixed.transpose(1, 2)?.reshape((rows * length, heads * head_dim))?;
        self.linear(&mixed, &name("self_attn.o_proj"))
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        x.matmul(&self.weight(name).t()?)
    }

    /// RMSNorm over the last dimension (Zhang and Sennrich, 2019).
    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + self.shape.rms_eps)?.powf(-0.5)?;
        x.broadcast_mul(&scale)?.broadcast_mul(self.weight(name))
    }

    /// Cosines and sines of RoPE's angles, each (rows, 1, length, head_dim / 2).
    fn rope(&self, positions: &[u32], rows: usize, length: usize) -> Result<(Tensor, Tensor)> {
        let half = self.shape.head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| self.shape.rope_theta.powf(-(i as f64) / half as f64)).collect();
        let angles: Vec<f32> =
            positions.iter().flat_map(|&at| frequencies.iter().map(move |f| (at as f64 * f) as f32)).collect();
        let angles = Tensor::from_vec(angles, (rows, 1, length, half), &Device::Cpu)?;
        Ok((angles.cos()?, angles.sin()?))
    }
}

/// RoPE (Su et al., 2021) on `x` (rows, heads, length, head_dim), pairing each value with the one half a head away.
fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let a = x.narrow(D::Minus1, 0, half)?;
    let b = x.narrow(D::Minus1, half, half)?;
    let rotated_a = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let rotated_b = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    Tensor::cat(&[rotated_a, rotated_b], D::Minus1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_candle_transformers() -> Result<()> {
        let shape = Shape {
            vocabulary: 96,
            hidden: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            feed_forward: 96,
            context: 64,
            rope_theta: 10_000.0,
            rms_eps: 1e-6,
        };
        let mut chance = Chance::new(5);
        let mut model = Qwen3::new(shape, &mut chance)?;
        for weight in model.weights.values_mut() {
            // Far from the start, so that norms and attention matter.
            let values: Vec<f32> = (0..weight.elem_count()).map(|_| chance.normal() as f32 * 0.3).collect();
            weight.set(&Tensor::from_vec(values, weight.shape(), &Device::Cpu)?)?;
        }
        let weights = model.weights.iter().map(|(name, weight)| (name.clone(), weight.as_tensor().clone())).collect();
        let mut reference = crate::export::reference(weights, shape)?;

        let tokens: Vec<u32> = (0..20).map(|_| chance.below(96) as u32).collect();
        let positions: Vec<u32> = (0..20).collect();
        let ours = model.forward(&Tensor::from_vec(tokens.clone(), (1, 20), &Device::Cpu)?, &positions)?;
        for (at, token) in tokens.iter().enumerate() {
            let theirs = reference.forward(&Tensor::new(&[[*token]], &Device::Cpu)?, at)?.flatten_all()?;
            let difference = (ours.get(at)? - theirs)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(difference < 1e-3, "position {at}: {difference}");
        }
        Ok(())
    }
}
