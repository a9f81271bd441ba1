//! A blueprint, computed by candle's operations.

use candle_core::{Device, Result, Tensor};

use super::{
    attention::{self, Attention},
    matrix::{Linear, Loader, Matrix, Norm},
    pages::{LayerPages, Pages},
    sample::sample,
    step::Step,
};
use crate::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kv_cache::{KvCache, KvType},
    layers::Rope,
    models::{
        ForwardError, LoadError, Model, Outcome, Spec, WeightSizes,
        blueprint::{Activation, Blueprint, HeadNorms},
        weights::Weights,
    },
};

/// A decoder on a device.
pub struct DeviceDecoder {
    blueprint: Blueprint,
    sizes: WeightSizes,
    device: Device,
    embedding: Matrix,
    head: Matrix,
    norm: Norm,
    blocks: Vec<Block>,
    /// The blueprint's.
    ropes: Vec<Rope>,
    attention: Box<dyn Attention>,
}

/// One layer's weights.
struct Block {
    attention_norm: Option<Norm>,
    qkv: Linear,
    /// Of queries and of keys.
    head_norms: Option<(Norm, Norm)>,
    attention_output: Linear,
    attention_post_norm: Option<Norm>,
    mlp_norm: Option<Norm>,
    gate_up: Linear,
    down: Linear,
    mlp_post_norm: Option<Norm>,
}

impl DeviceDecoder {
    /// Takes the tensors that the blueprint names to the device, and tries them once.
    pub(in crate::engine) fn load(
        weights: &Weights,
        blueprint: Blueprint,
        sizes: WeightSizes,
        device: Device,
    ) -> std::result::Result<Self, LoadError> {
        let refused = |what: &str| {
            let tensor = what.to_owned();
            move |error: candle_core::Error| LoadError::Weights { tensor, why: error.to_string() }
        };
        let loader = Loader { weights, device: &device, eps: blueprint.eps };
        let embedding = loader.table(&blueprint.embedding_name())?;
        let head = match blueprint.tied {
            true => embedding.clone(),
            false => loader.table(&blueprint.head_name())?,
        };
        let norm = loader.norm(&blueprint.output_norm_name())?;
        let blocks = (0..blueprint.spec.layers).map(|index| Block::load(&loader, &blueprint, index));
        let blocks = blocks.collect::<std::result::Result<_, _>>()?;
        let attention = attention::choose(&blueprint, &device).map_err(refused("attention"))?;
        let ropes = blueprint.ropes.iter().map(|rope| rope.rope()).collect();
        let mut decoder = Self { blueprint, sizes, device, embedding, head, norm, blocks, ropes, attention };
        decoder.warm_up().map_err(refused("warm-up"))?;
        Ok(decoder)
    }

    /// Computes two tokens, since a device compiles and loads its kernels when they are first used.
    fn warm_up(&mut self) -> Result<()> {
        let pages = Pages::new(&self.blueprint.spec, 1, &self.device)?;
        let mut batch = Batch::new(self.blueprint.spec.vocabulary);
        batch.push(&[0, 0], 0, &[BlockId(0)], &[Want::Logits, Want::Best]);
        self.run(&batch, &pages, &mut Outcome::default())
    }

    fn run(&mut self, batch: &Batch, pages: &Pages, outcome: &mut Outcome) -> Result<()> {
        let step = Step::new(batch, &self.blueprint.spec, &self.ropes, &self.device)?;
        self.attention.begin(batch, &self.device)?;
        let mut x = scaled(self.embedding.rows(&step.tokens)?, self.blueprint.scales.embedding)?;
        for (index, (block, pages)) in self.blocks.iter().zip(pages.layers()).enumerate() {
            x = self.layer(index, block, x, &step, pages)?;
        }
        if batch.sampled.is_empty() {
            return Ok(());
        }
        sample(&self.logits(&x, batch)?, batch, outcome)
    }

    /// (tokens, hidden) → (tokens, hidden)
    fn layer(&self, index: usize, block: &Block, x: Tensor, step: &Step, pages: &LayerPages) -> Result<Tensor> {
        let Self { blueprint, .. } = self;
        let residual = blueprint.scales.residual;
        let layer = blueprint.layers[index];

        let h = normed(&block.attention_norm, &x)?;
        let (query_width, key_width) = (blueprint.query_width(), blueprint.key_width());
        let [q, k, v] = block.qkv.split(&h, [query_width, key_width, key_width])?;
        let (q, k) = match &block.head_norms {
            None => (self.heads(&q)?, self.heads(&k)?),
            Some((query_norm, key_norm)) => match blueprint.head_norms {
                HeadNorms::WholeRow => (self.heads(&query_norm.forward(&q)?)?, self.heads(&key_norm.forward(&k)?)?),
                _ => (query_norm.forward(&self.heads(&q)?)?, key_norm.forward(&self.heads(&k)?)?),
            },
        };
        let (q, k) = match layer.rope.map(|rope| &step.turns[rope]) {
            None => (q, k),
            Some(turn) => (turn.forward(&q)?, turn.forward(&k)?),
        };
        pages.write(&step.slots, &k, &self.heads(&v)?)?;
        let a = self.attention.forward(&q, pages, layer.window)?;
        let a = block.attention_output.forward(&a, blueprint.hidden)?;
        let x = (x + scaled(normed(&block.attention_post_norm, &a)?, residual)?)?;

        let h = normed(&block.mlp_norm, &x)?;
        let [gate, up] = block.gate_up.split(&h, [blueprint.feed_forward; 2])?;
        let gate = match blueprint.activation {
            Activation::Silu => gate.silu()?,
            Activation::GeluTanh => gate.gelu()?,
        };
        let m = block.down.forward(&(gate * up)?, blueprint.hidden)?;
        x + scaled(normed(&block.mlp_post_norm, &m)?, residual)?
    }

    /// (tokens, heads · head dim) → (tokens, heads, head dim)
    fn heads(&self, row: &Tensor) -> Result<Tensor> {
        row.reshape((row.dim(0)?, (), self.blueprint.spec.head_dim))
    }

    /// Of the rows that are sampled: (sampled, vocabulary).
    fn logits(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let rows: Vec<u32> = batch.sampled.iter().map(|(row, _)| *row as u32).collect();
        let rows = Tensor::from_slice(&rows, rows.len(), &self.device)?;
        let logits = self.head.forward(&self.norm.forward(&x.index_select(&rows, 0)?)?)?;
        let logits = scaled(logits, self.blueprint.scales.logits)?;
        match self.blueprint.soft_caps.logits.map(f64::from) {
            None => Ok(logits),
            Some(cap) => (logits / cap)?.tanh()? * cap,
        }
    }
}

impl Model for DeviceDecoder {
    fn spec(&self) -> &Spec {
        &self.blueprint.spec
    }

    fn weights(&self) -> WeightSizes {
        self.sizes
    }

    fn new_cache(&self, blocks: usize, kind: KvType) -> std::result::Result<KvCache, ForwardError> {
        if kind != KvType::F16 {
            return Err(ForwardError("on a device keys and values are kept as f16 only".into()));
        }
        let pages = Pages::new(self.spec(), blocks, &self.device).map_err(failed)?;
        Ok(KvCache::on_device(self.spec(), pages))
    }

    fn forward(
        &mut self,
        batch: &Batch,
        cache: &mut KvCache,
        outcome: &mut Outcome,
    ) -> std::result::Result<(), ForwardError> {
        batch.check(self.spec().vocabulary, cache.blocks())?;
        let pages = cache.pages().ok_or_else(|| ForwardError("the cache is not on the model's device".into()))?;
        outcome.clear();
        if batch.rows() == 0 {
            return Ok(());
        }
        self.run(batch, pages, outcome).map_err(failed)
    }

    #[cfg(feature = "cuda")]
    fn cache_bytes_free(&self) -> Option<u64> {
        let Device::Cuda(device) = &self.device else { return None };
        super::cuda::free_bytes(device).ok()
    }
}

impl Block {
    fn load(loader: &Loader, blueprint: &Blueprint, index: usize) -> std::result::Result<Self, LoadError> {
        let names = blueprint.layer_names(index);
        let norm = |name: &Option<_>| name.as_ref().map(|name| loader.norm(name)).transpose();
        Ok(Self {
            attention_norm: norm(&names.attention_norm)?,
            qkv: loader.linear(&names.qkv)?,
            head_norms: match &names.head_norms {
                None => None,
                Some((query, key)) => Some((loader.norm(query)?, loader.norm(key)?)),
            },
            attention_output: loader.linear(&names.attention_output)?,
            attention_post_norm: norm(&names.attention_post_norm)?,
            mlp_norm: norm(&names.mlp_norm)?,
            gate_up: loader.linear(&names.gate_up)?,
            down: loader.linear(&names.down)?,
            mlp_post_norm: norm(&names.mlp_post_norm)?,
        })
    }
}

/// `x`, normed if there is a norm.
fn normed(norm: &Option<Norm>, x: &Tensor) -> Result<Tensor> {
    norm.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
}

fn scaled(x: Tensor, by: f32) -> Result<Tensor> {
    if by == 1.0 { Ok(x) } else { x * f64::from(by) }
}

fn failed(error: candle_core::Error) -> ForwardError {
    ForwardError(error.to_string())
}
