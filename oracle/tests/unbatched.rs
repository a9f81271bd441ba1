//! The architectures that run as candle-transformers has them give its logits, whatever the engine asks for in between:
//! other sequences, prompts in chunks, blocks that two sequences share.

use std::{collections::HashMap, fs, num::NonZeroUsize, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::{falcon, mixtral, phi, qwen2_moe, stable_lm, starcoder2};
use sconce::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    kv_cache::{KvCache, KvType},
    models::{LoadOptions, Outcome, Source, load},
};
use serde_json::{Value, json};

const VOCABULARY: usize = 90;

/// Makes a random model of an architecture, writes it as a directory, and gives candle's logits behind every token.
#[track_caller]
fn check(class: &str, config: Value, run: impl Fn(&Value, VarBuilder, &[u32]) -> candle_core::Result<Vec<Vec<f32>>>) {
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let first: Vec<u32> = (0..50).map(|i| (i * 37 + 11) % VOCABULARY as u32).collect();
    let mut second = first[..32].to_vec();
    second.extend([1, 2, 3, 4, 5]);
    // The first model that is made draws the weights.
    let expected = [run(&config, builder.clone(), &first).unwrap(), run(&config, builder, &second).unwrap()];

    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("unbatched-{}-{class}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let variables: HashMap<String, Tensor> =
        variables.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    candle_core::safetensors::save(&variables, folder.join("model.safetensors")).unwrap();
    let mut config = config;
    config["architectures"] = json!([class]);
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let source = Source::open(&folder).unwrap();
    let mut model = load(&source, LoadOptions::new(NonZeroUsize::MIN)).unwrap();
    assert_eq!(model.width_max(), Some(1));
    let mut cache = KvCache::new(model.spec(), 8, KvType::F16);
    let mut outcome = Outcome::default();
    let mut ask = |tokens: &[u32], start: usize, blocks: &[u32], expected: &[f32]| {
        let mut batch = Batch::new(VOCABULARY);
        let blocks: Vec<_> = blocks.iter().map(|b| BlockId(*b)).collect();
        batch.push(tokens, start, &blocks, &[Want::Logits]);
        model.forward(&batch, &mut cache, &mut outcome).unwrap();
        let distance = expected.iter().zip(&outcome.logits).fold(0f32, |d, (e, f)| d.max((e - f).abs()));
        assert!(outcome.logits.len() == VOCABULARY && distance < 1e-4, "{class}: {distance} at {start}");
    };
    let (a, b) = ([3, 0], [3, 5]);
    ask(&first[..40], 0, &a, &expected[0][39]);
    ask(&first[40..41], 40, &a, &expected[0][40]);
    // Another sequence whose first block is the first one's; then the first again, with several tokens at once.
    ask(&second[32..], 32, &b, &expected[1][36]);
    ask(&first[41..], 41, &a, &expected[0][49]);
    ask(&first[..1], 0, &[7], &expected[0][0]);
    fs::remove_dir_all(folder).unwrap();
}

/// A fresh model's logits behind every token, one at a time.
fn every(
    tokens: &[u32],
    mut forward: impl FnMut(&Tensor, usize) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Vec<Vec<f32>>> {
    let row =
        |(at, token): (usize, &u32)| forward(&Tensor::new(&[[*token]], &Device::Cpu)?, at)?.flatten_all()?.to_vec1();
    tokens.iter().enumerate().map(row).collect()
}

fn read<C: serde::de::DeserializeOwned>(config: &Value) -> C {
    serde_json::from_value(config.clone()).unwrap()
}

fn base(extra: Value) -> Value {
    let mut config = json!({
        "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

#[test]
fn phi() {
    let config = base(json!({
        "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "qk_layernorm": false,
        "num_key_value_heads": 4,
    }));
    check("PhiForCausalLM", config, |config, weights, tokens| {
        let mut model = phi::Model::new(&read(config), weights)?;
        every(tokens, |x, _| model.forward(x))
    });
}

#[test]
fn falcon() {
    let config = base(json!({
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "use_cache": true, "bos_token_id": 1,
        "eos_token_id": 1, "hidden_dropout": 0.0, "attention_dropout": 0.0, "alibi": false,
        "new_decoder_architecture": false, "multi_query": true, "parallel_attn": true, "bias": false,
    }));
    check("FalconForCausalLM", config, |config, weights, tokens| {
        let mut model = falcon::Falcon::load(weights, read(config))?;
        every(tokens, |x, _| model.forward(x))
    });
}

#[test]
fn starcoder2() {
    let config = base(json!({
        "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "use_bias": true, "sliding_window": null,
        "tie_word_embeddings": true,
    }));
    check("Starcoder2ForCausalLM", config, |config, weights, tokens| {
        let mut model = starcoder2::Model::new(&read(config), weights)?;
        every(tokens, |x, at| model.forward(x, at))
    });
}

#[test]
fn stablelm() {
    let config = base(json!({
        "hidden_act": "silu", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "use_cache": true,
    }));
    check("StableLmForCausalLM", config, |config, weights, tokens| {
        let mut model = stable_lm::Model::new(&read(config), weights)?;
        every(tokens, |x, at| model.forward(x, at))
    });
}

#[test]
fn mixtral() {
    let config = base(json!({
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "sliding_window": 4096, "num_experts_per_tok": 2,
        "num_local_experts": 4, "use_flash_attn": false,
    }));
    check("MixtralForCausalLM", config, |config, weights, tokens| {
        let mut model = mixtral::Model::new(&read(config), weights)?;
        every(tokens, |x, at| model.forward(x, at))
    });
}

#[test]
fn qwen2_moe() {
    let config = base(json!({
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "sliding_window": 4096, "max_window_layers": 2,
        "use_sliding_window": false, "decoder_sparse_step": 1, "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 64, "num_experts_per_tok": 2, "num_experts": 4, "norm_topk_prob": false,
    }));
    check("Qwen2MoeForCausalLM", config, |config, weights, tokens| {
        let mut model = qwen2_moe::Model::new(&read(config), weights)?;
        every(tokens, |x, at| model.forward(x, at))
    });
}
