//! An architecture as plain numbers and enums: what a decoder computes, before there is a weight or a device.
//!
//! Each architecture's file reads a model's metadata and fills in a [`Blueprint`]; `layout` says which tensors it takes,
//! and the decoders, on the CPU and on a device, are built from both. Knows no tensor, no file and no thread.
//!
//! One layer, with the parts that an architecture may leave out in brackets:
//!
//! ```text
//! h = [norm](x)                        q, k, v = h · qkv;  q, k = [head norm], [rope]
//! a = attention(q, k, v) · output      x = x + residual · [norm](a)
//! h = [norm](x)                        m = (act(h · gate) ⊙ (h · up)) · down
//!                                      x = x + residual · [norm](m)
//! ```

use super::Spec;
use crate::engine::layers::{PairStyle, Rope, Scaling};

/// A decoder's shape and what it computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    pub spec: Spec,
    /// Values of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Values of the MLP's gate, and of its up.
    pub feed_forward: usize,
    /// Epsilon of all RMSNorms.
    pub eps: f32,
    pub activation: Activation,
    pub norms: NormPlacement,
    pub head_norms: HeadNorms,
    pub projections: Projections,
    /// Whether the embedding table is the output head too.
    pub tied: bool,
    pub scales: Scales,
    pub soft_caps: SoftCaps,
    /// Those that the layers refer to.
    pub ropes: Vec<Rotary>,
    /// One for each of the `spec.layers`.
    pub layers: Vec<Layer>,
}

/// What the MLP's gate goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`
    Silu,
    /// GELU by its approximation with tanh (Hendrycks & Gimpel 2016).
    GeluTanh,
}

/// Where attention and MLP have their RMSNorms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// On what they read (llama).
    Before,
    /// On what they give, before it is added to the stream (OLMo 2).
    After,
    /// On both (Gemma 2 and 3).
    Around,
}

impl NormPlacement {
    pub fn before(self) -> bool {
        self != Self::After
    }

    pub fn after(self) -> bool {
        self != Self::Before
    }
}

/// The RMSNorms of queries and keys before they are turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorms {
    None,
    /// Each head by itself; one weight of head dim values for all of them (Qwen3, Gemma 3).
    PerHead,
    /// All query heads of a row together, and all key heads; weights as wide as these (OLMo 2).
    WholeRow,
}

/// How the matrices that share their input are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projections {
    /// Queries, keys, values, gate and up, each by itself.
    Separate,
    /// Queries, keys and values as one matrix, gate and up as another (Phi-3).
    Fused,
}

/// Factors; each is 1 where an architecture has none, but for `attention`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Of what the embedding table gives.
    pub embedding: f32,
    /// Of what attention and MLP add to the stream.
    pub residual: f32,
    /// Of the products of queries and keys; in most architectures 1/√(head dim).
    pub attention: f32,
    /// Of the logits.
    pub logits: f32,
}

/// `cap · tanh(x / cap)` instead of `x`, where there is a cap.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SoftCaps {
    /// Of the scaled products of queries and keys.
    pub attention: Option<f32>,
    pub logits: Option<f32>,
}

/// A rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    pub style: PairStyle,
    /// Of a head, the first so many values are turned.
    pub dimensions: usize,
    pub base: f64,
    pub scaling: Scaling,
}

impl Rotary {
    pub fn rope(&self) -> Rope {
        Rope::new(self.style, self.dimensions, self.base, &self.scaling)
    }
}

/// What a layer does otherwise than the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// A row sees itself and the `window - 1` positions before it; all positions if `None`.
    pub window: Option<usize>,
    /// Index into [`Blueprint::ropes`]; `None` leaves queries and keys as they are.
    pub rope: Option<usize>,
}

impl Blueprint {
    /// Values of all query heads of a row.
    pub fn query_width(&self) -> usize {
        self.heads * self.spec.head_dim
    }

    /// Values of all key heads of a row, and of all value heads.
    pub fn key_width(&self) -> usize {
        self.spec.kv_heads * self.spec.head_dim
    }
}
