//! Decoders of candle-transformers behind the engine's [`Model`].
//!
//! Candle's models keep the keys and values of one sequence inside, and take the tokens that follow. The engine's batches
//! name blocks of a cache that these models do not use, so what stands in the blocks is remembered as tokens: whatever a
//! batch goes on with, a new sequence, one that was preempted, a prefix that is shared, the sequence's tokens are known,
//! and what the model inside holds of them is used again if it is their beginning.
//!
//! Only rows whose logits are wanted are computed at once; those before them are, when one is.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{falcon, mixtral, phi, qwen2_moe, stable_lm, starcoder2};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Unbatched, spec};
use crate::engine::{
    batch::{Batch, Segment, Want},
    blocks::BLOCK_TOKENS,
    gguf,
    kv_cache::KvCache,
    models::{Best, ForwardError, LoadError, LoadOptions, Model, Outcome, Source, Spec},
};

/// Logits of the last of some tokens, shape (1, 1, vocabulary) or (1, vocabulary); the number is that of tokens before.
type Single = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor> + Send>;

struct Compat {
    spec: Spec,
    recipe: Recipe,
    /// The model inside, and the tokens whose keys and values it holds.
    single: Single,
    held: Vec<u32>,
    /// The tokens of every block of the cache.
    written: Vec<[u32; BLOCK_TOKENS]>,
}

/// All that it takes to make the model anew, which is how its keys and values are forgotten: not all of candle's models
/// have another way. Weights are shared, not copied.
struct Recipe {
    architecture: Unbatched,
    config: Map<String, Value>,
    weights: VarBuilder<'static>,
}

pub(in crate::engine::models) fn load(
    architecture: Unbatched,
    source: &Source,
    options: LoadOptions,
) -> Result<Box<dyn Model>, LoadError> {
    let Source::Directory(directory) = source else { return Err(LoadError::Architecture(architecture.name().into())) };
    if options.quantize.is_some() {
        let why = format!("{} runs unbatched, in floats, and can't be quantised", architecture.name());
        return Err(LoadError::Value { key: "quantize".into(), why });
    }
    log::warn!("architecture {} runs unbatched: one request at a time, on one thread", architecture.name());
    let mut tensors = HashMap::new();
    for tensor in source.tensors() {
        tensors.insert(tensor.name.to_owned(), floats(&tensor)?);
    }
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let config = with_defaults(architecture, directory.config())?;
    let spec = spec(architecture, source)?;
    let vocabulary = spec.vocabulary;
    let recipe = Recipe { architecture, config, weights };
    let single = recipe.make().map_err(|why| LoadError::Value { key: "config.json".into(), why })?;
    let mut model = Compat { spec, recipe, single, held: Vec::new(), written: Vec::new() };
    // Tried once, so that what is wrong with it shows now.
    let logits = model.compute(&[0, 0], 1).map_err(|e| LoadError::Weights { tensor: "warm-up".into(), why: e.0 })?;
    if logits.len() != vocabulary {
        let why = format!("{} logits for a vocabulary of {vocabulary}", logits.len());
        return Err(LoadError::Value { key: "config.json".into(), why });
    }
    Ok(Box::new(model))
}

fn floats(tensor: &gguf::Tensor) -> Result<Tensor, LoadError> {
    let values = tensor.dtype.to_floats(&tensor.read()?);
    Tensor::from_vec(values, tensor.shape.clone(), &Device::Cpu)
        .map_err(|e| LoadError::Weights { tensor: tensor.name.into(), why: e.to_string() })
}

/// The configuration as candle's structs want it. What they read nothing of, though the models differ by it, is refused.
fn with_defaults(architecture: Unbatched, config: &Map<String, Value>) -> Result<Map<String, Value>, LoadError> {
    let context = config.get("max_position_embeddings").cloned().unwrap_or(json!(2048));
    let (defaults, must_be): (Value, &[(&str, Value)]) = match architecture {
        Unbatched::Phi => (
            json!({
                "tie_word_embeddings": false, "qk_layernorm": false, "rope_theta": 10_000.0, "layer_norm_eps": 1e-5,
                "hidden_act": "gelu_new", "partial_rotary_factor": 0.5,
            }),
            &[("tie_word_embeddings", json!(false)), ("rope_scaling", Value::Null)],
        ),
        Unbatched::Falcon => (
            json!({
                "initializer_range": 0.02, "use_cache": true, "hidden_dropout": 0.0, "attention_dropout": 0.0,
                "bos_token_id": 11, "eos_token_id": 11, "alibi": false, "layer_norm_epsilon": 1e-5,
                "n_head_kv": config.get("num_kv_heads"), "new_decoder_architecture": false, "multi_query": true,
                "parallel_attn": true, "bias": false,
            }),
            &[("alibi", json!(false)), ("rope_scaling", Value::Null)],
        ),
        Unbatched::StarCoder2 => (
            json!({ "rope_theta": 10_000.0, "norm_epsilon": 1e-5, "use_bias": true, "tie_word_embeddings": true }),
            &[("tie_word_embeddings", json!(true)), ("rope_scaling", Value::Null)],
        ),
        Unbatched::StableLm => (
            json!({
                "use_cache": true, "rope_theta": 10_000.0, "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25,
                "use_parallel_residual": false, "qk_layernorm": false, "tie_word_embeddings": false,
            }),
            &[
                ("use_parallel_residual", json!(false)),
                ("qk_layernorm", json!(false)),
                ("tie_word_embeddings", json!(false)),
                ("rope_scaling", Value::Null),
            ],
        ),
        Unbatched::Mixtral => (
            json!({
                "use_flash_attn": false, "sliding_window": context, "rope_theta": 1e6, "rms_norm_eps": 1e-5,
                "tie_word_embeddings": false,
            }),
            &[("tie_word_embeddings", json!(false)), ("rope_scaling", Value::Null)],
        ),
        Unbatched::Qwen2Moe => (
            json!({
                "sliding_window": context, "max_window_layers": 0, "use_sliding_window": false,
                "tie_word_embeddings": false, "norm_topk_prob": false, "decoder_sparse_step": 1, "rope_theta": 1e4,
            }),
            &[("rope_scaling", Value::Null), ("mlp_only_layers", json!([]))],
        ),
    };
    let mut config = config.clone();
    config.retain(|_, value| !value.is_null());
    if let Value::Object(defaults) = defaults {
        for (key, value) in defaults.into_iter().filter(|(_, value)| !value.is_null()) {
            config.entry(key).or_insert(value);
        }
    }
    for (key, wanted) in must_be {
        if let Some(value) = config.get(*key).filter(|value| *value != wanted) {
            let why = format!("{value} is not supported with {}", architecture.name());
            return Err(LoadError::Value { key: format!("config.json: {key}"), why });
        }
    }
    Ok(config)
}

impl Recipe {
    fn make(&self) -> Result<Single, String> {
        fn read<C: DeserializeOwned>(config: &Map<String, Value>) -> Result<C, String> {
            serde_json::from_value(Value::Object(config.clone())).map_err(|e| e.to_string())
        }
        let (config, weights) = (&self.config, self.weights.clone());
        let text = |e: candle_core::Error| e.to_string();
        Ok(match self.architecture {
            Unbatched::Phi => {
                let mut model = phi::Model::new(&read(config)?, weights).map_err(text)?;
                Box::new(move |tokens, _| model.forward(tokens))
            }
            Unbatched::Falcon => {
                let mut model = falcon::Falcon::load(weights, read(config)?).map_err(text)?;
                Box::new(move |tokens, _| model.forward(tokens))
            }
            Unbatched::StarCoder2 => {
                let mut model = starcoder2::Model::new(&read(config)?, weights).map_err(text)?;
                Box::new(move |tokens, before| model.forward(tokens, before))
            }
            Unbatched::StableLm => {
                let mut model = stable_lm::Model::new(&read(config)?, weights).map_err(text)?;
                Box::new(move |tokens, before| model.forward(tokens, before))
            }
            Unbatched::Mixtral => {
                let mut model = mixtral::Model::new(&read(config)?, weights).map_err(text)?;
                Box::new(move |tokens, before| model.forward(tokens, before))
            }
            Unbatched::Qwen2Moe => {
                let mut model = qwen2_moe::Model::new(&read(config)?, weights).map_err(text)?;
                Box::new(move |tokens, before| model.forward(tokens, before))
            }
        })
    }
}

impl Model for Compat {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    /// With two in turn, each would be computed from its beginning for every token.
    fn width_max(&self) -> Option<usize> {
        Some(1)
    }

    fn forward(&mut self, batch: &Batch, cache: &mut KvCache, outcome: &mut Outcome) -> Result<(), ForwardError> {
        outcome.clear();
        self.written.resize(cache.blocks(), [0; BLOCK_TOKENS]);
        for segment in &batch.segments {
            self.remember(batch, segment)?;
        }
        for (row, want) in &batch.sampled {
            let segment = batch.segments.iter().find(|s| (s.first_row..s.first_row + s.rows).contains(row));
            let segment = segment.ok_or_else(|| ForwardError("a sampled row that is in no segment".into()))?;
            let position = segment.start + row - segment.first_row;
            let tokens: Vec<u32> = (0..=position).map(|at| self.token(segment, at)).collect();
            let logits = self.compute(&tokens, position)?;
            match want {
                Want::Logits => outcome.logits.extend(logits),
                Want::Best => outcome.best.push(best(&logits[..batch.choices.min(logits.len())])),
                Want::Hidden => return Err(ForwardError("candle-transformers gives logits only".into())),
            }
        }
        Ok(())
    }
}

impl Compat {
    /// Writes a segment's tokens down in its blocks.
    fn remember(&mut self, batch: &Batch, segment: &Segment) -> Result<(), ForwardError> {
        let covered = segment.start + segment.rows <= segment.blocks.len() * BLOCK_TOKENS;
        if !covered || segment.blocks.iter().any(|block| block.0 as usize >= self.written.len()) {
            return Err(ForwardError("a batch that does not fit together".into()));
        }
        for (at, token) in (segment.start..).zip(&batch.tokens[segment.first_row..][..segment.rows]) {
            if *token as usize >= self.spec.vocabulary {
                return Err(ForwardError("a token beyond the vocabulary".into()));
            }
            let block = segment.blocks[at / BLOCK_TOKENS];
            self.written[block.0 as usize][at % BLOCK_TOKENS] = *token;
        }
        Ok(())
    }

    fn token(&self, segment: &Segment, at: usize) -> u32 {
        self.written[segment.blocks[at / BLOCK_TOKENS].0 as usize][at % BLOCK_TOKENS]
    }

    /// The logits behind `tokens[..=position]`.
    fn compute(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>, ForwardError> {
        let failed = |e: candle_core::Error| ForwardError(e.to_string());
        if self.held.len() > position || !tokens.starts_with(&self.held) {
            self.held.clear();
            self.single = self.recipe.make().map_err(ForwardError)?;
        }
        let mut logits = None;
        // Only from an empty start do all of candle's models mask several tokens at once rightly.
        let steps = if self.held.is_empty() { vec![position + 1] } else { vec![1; position + 1 - self.held.len()] };
        for count in steps {
            let before = self.held.len();
            let next = &tokens[before..before + count];
            let input = Tensor::new(next, &Device::Cpu).and_then(|t| t.unsqueeze(0)).map_err(failed)?;
            // Until it is known to hold them, it holds nothing that could be gone on with.
            self.held.clear();
            logits = Some((self.single)(&input, before).map_err(failed)?);
            self.held.extend_from_slice(&tokens[..before + count]);
        }
        let logits = logits.ok_or_else(|| ForwardError("nothing to compute".into()))?;
        logits.flatten_all().and_then(|t| t.to_vec1()).map_err(failed)
    }
}

/// The largest, of equal ones the first; a NaN if there is one.
fn best(logits: &[f32]) -> Best {
    let mut best = Best { token: 0, logit: f32::NEG_INFINITY };
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.logit || (logit.is_nan() && !best.logit.is_nan()) {
            best = Best { token, logit };
        }
    }
    best
}
