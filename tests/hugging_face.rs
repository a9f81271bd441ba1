//! Hugging Face directories: the same weights give the same logits as from a GGUF file, and what is broken, hostile or not
//! known is refused in a line that names it.
#![cfg(feature = "engine")]

mod common;

use std::{fs, num::NonZeroUsize};

use candle_core::{DType, Device, Tensor, quantized::GgmlDType};
use common::{
    hugging_face::{Folder, safetensors},
    tiny::{Random, Tiny},
};
use sconce::engine::{
    batch::{Batch, Want},
    blocks::BlockId,
    chat_template::{Conversation, Ending},
    kv_cache::{KvCache, KvType},
    models::{Architecture, LoadOptions, Outcome, Quantize, Source, load},
    tokenizer::{Markup, Special},
};
use serde_json::{Value, json};

const POSITIONS: usize = 60;

fn directory(tiny: Tiny, name: &str, dtype: DType) -> (Folder, Source) {
    let folder = Folder::new(name);
    tiny.write_directory(&folder.0, dtype);
    let source = Source::open(&folder.0).unwrap_or_else(|e| panic!("{name}: {e}"));
    (folder, source)
}

/// The logits of every position of a random text.
fn logits(source: &Source, quantize: Option<Quantize>) -> Vec<f32> {
    let threads = NonZeroUsize::new(2).unwrap();
    let mut model = load(source, LoadOptions { quantize, ..LoadOptions::new(threads) }).unwrap();
    let mut random = Random(5);
    let tokens: Vec<u32> = (0..POSITIONS).map(|_| random.below(260) as u32).collect();
    let mut cache = KvCache::new(model.spec(), POSITIONS.div_ceil(32), KvType::F16);
    let mut batch = Batch::new(model.spec().vocabulary);
    let blocks: Vec<_> = (0..POSITIONS.div_ceil(32) as u32).map(BlockId).collect();
    batch.push(&tokens, 0, &blocks, &[Want::Logits; POSITIONS]);
    let mut outcome = Outcome::default();
    model.forward(&batch, &mut cache, &mut outcome).unwrap();
    outcome.logits
}

#[track_caller]
fn check_same_logits(tiny: Tiny, name: &str) {
    let tiny = Tiny { dtype: GgmlDType::F32, ..tiny };
    let (_folder, source) = directory(tiny, name, DType::F32);
    let (expected, found) = (logits(&tiny.source(), None), logits(&source, None));
    if matches!(tiny.architecture, Architecture::Llama | Architecture::SmolLm3 | Architecture::Granite) {
        // Rows in another order: the products of queries and keys are the same sums in another order.
        let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
        let distance = expected.iter().zip(&found).fold(0f32, |d, (e, f)| d.max((e - f).abs()));
        assert!(distance < 2e-3 * largest, "{name}: {distance} of {largest}");
    } else {
        assert!(expected == found, "{name}");
    }
}

#[test]
fn both_forms_of_a_model_give_the_same_logits() {
    for architecture in Architecture::BATCHED {
        check_same_logits(Tiny::new(architecture), architecture.name());
    }
    check_same_logits(Tiny { tied: false, ..Tiny::new(Architecture::Qwen3) }, "untied");
    let mistral = Tiny { window: Some(24), rope_factors: false, ..Tiny::new(Architecture::Llama) };
    check_same_logits(mistral, "mistral");
}

#[test]
fn weights_quantised_at_load_are_those_of_a_quantised_file() {
    let tiny = Tiny { dtype: GgmlDType::F32, tied: false, ..Tiny::new(Architecture::Qwen3) };
    let quantised = logits(&Tiny { dtype: GgmlDType::Q8_0, ..tiny }.source(), None);
    assert!(logits(&tiny.source(), Some(Quantize::Q8_0)) == quantised, "from GGUF");
    let (_folder, source) = directory(tiny, "quantised", DType::F32);
    assert!(logits(&source, Some(Quantize::Q8_0)) == quantised, "from a directory");

    let floats = logits(&tiny.source(), None);
    let small = logits(&tiny.source(), Some(Quantize::Q4K));
    let error = floats.iter().zip(&small).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let power = floats.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>();
    assert!(floats != small && error < 0.05 * power, "{}", error / power);
}

#[test]
fn bf16_is_read_as_it_is() {
    let tiny = Tiny { dtype: GgmlDType::BF16, ..Tiny::new(Architecture::Qwen2) };
    let (_folder, source) = directory(tiny, "bf16", DType::BF16);
    let (expected, found) = (logits(&tiny.source(), None), logits(&source, None));
    // Norms and biases are rounded, too.
    let error = expected.iter().zip(&found).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let power = expected.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>();
    assert!(error < 1e-3 * power, "{}", error / power);
}

#[test]
fn the_tokenizer_and_template_are_the_directorys() {
    let (_folder, source) = directory(Tiny::new(Architecture::Qwen3), "tokenizer", DType::F32);
    let tokenizer = source.tokenizer().unwrap();
    assert_eq!(tokenizer.end_tokens(), [256, 258]);
    assert_eq!((tokenizer.eos(), tokenizer.bos(), tokenizer.adds_bos()), (Some(258), None, false));
    assert_eq!(tokenizer.encode("a<|im_end|>", Special::Add, Markup::Parse), [97, 258]);
    // A letter and a mark are one letter in normal form C.
    let composed = tokenizer.encode("\u{e9}", Special::None, Markup::Literal);
    assert_eq!(tokenizer.encode("e\u{301}", Special::None, Markup::Literal), composed);
    let template = source.chat_template(&tokenizer).unwrap().unwrap();
    let messages = [json!({ "role": "user", "content": "x" })];
    let (ending, variables) = (Ending::Reply, &Default::default());
    let conversation = Conversation { messages: &messages, tools: &[], documents: None, ending, variables };
    let prompt = template.render(&conversation).unwrap();
    assert_eq!(prompt, "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n");
}

/// Edits one of a good directory's JSON files; the error of opening it (or its tokenizer) has `expected` in it.
#[track_caller]
fn check_refused(file: &str, edit: impl FnOnce(&mut Value), expected: &str) {
    let folder = Folder::new("refused");
    Tiny::new(Architecture::Qwen3).write_directory(&folder.0, DType::F32);
    let path = folder.0.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(&path, value.to_string()).unwrap();
    refused(&folder, expected);
}

#[track_caller]
fn refused(folder: &Folder, expected: &str) {
    let load = |source: Source| -> Result<(), sconce::engine::models::LoadError> {
        source.tokenizer()?;
        load(&source, LoadOptions::new(NonZeroUsize::MIN)).map(|_| ())
    };
    let error = Source::open(&folder.0).and_then(load).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
}

#[test]
fn what_config_json_says_is_checked() {
    let check = |key: &str, value: Value, expected: &str| check_refused("config.json", |c| c[key] = value, expected);
    check("architectures", json!(["MambaForCausalLM"]), "\"MambaForCausalLM\" is not supported; supported are Llama");
    check("architectures", json!([]), "architectures: must name one class");
    check("hidden_size", Value::Null, "hidden_size: is missing");
    check("hidden_size", json!("256"), "hidden_size: must be an integer that fits u32, is \"256\"");
    check("hidden_size", json!(264), "the shape");
    check("num_attention_heads", json!(0), "attention.head_count");
    check("num_hidden_layers", json!(4_000_000_000u32), "block_count");
    check("num_hidden_layers", json!(3), "no tensor \"blk.2.");
    check("hidden_act", json!("relu"), "hidden_act = \"relu\" is not supported");
    check("rope_theta", json!(-1.0), "rope_theta: -1 is not positive");
    check("rope_scaling", json!({ "rope_type": "dynamic" }), "rope_scaling.rope_type = \"dynamic\" is not supported");
    check("rope_scaling", json!({ "type": "linear" }), "rope_scaling.factor: is missing");
    check("quantization_config", json!({ "quant_method": "gptq" }), "\"gptq\" is not supported");
    check("tie_word_embeddings", json!(false), "no lm_head.weight");
}

#[test]
fn what_the_tokenizer_asks_for_is_done_or_refused_by_name() {
    let check = |edit: fn(&mut Value), expected: &str| check_refused("tokenizer.json", edit, expected);
    check(|t| t["model"]["type"] = json!("Unigram"), "model Unigram is not supported");
    check(|t| t["model"]["dropout"] = json!(0.1), "dropout is not supported");
    check(|t| t["normalizer"]["type"] = json!("Lowercase"), "normalizer Lowercase");
    check(|t| t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("x+"), "the split pattern \"x+\"");
    check(|t| t["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = json!(true), "pre_tokenizer ByteLevel");
    check(|t| t["post_processor"]["type"] = json!("BertProcessing"), "post_processor BertProcessing");
    check(|t| t["model"]["vocab"]["x"] = json!(4_000_000_000u32), "has the id 4000000000");
    check(|t| t["added_tokens"][0]["single_word"] = json!(true), "single_word");
    check(|t| t["model"] = json!(7), "tokenizer.json: invalid type");
}

#[test]
fn broken_and_hostile_weight_files_are_refused() {
    let tensor = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
    let good = safetensors(&[("model.norm.weight".into(), tensor)]);
    let head = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[0; 16]].concat();
    for (bytes, expected) in [
        (vec![], "cut short"),
        (good[..good.len() - 1].to_vec(), "15 bytes of tensors where the head describes 16: cut short?"),
        ([good.clone(), vec![0]].concat(), "17 bytes of tensors"),
        (u64::MAX.to_le_bytes().to_vec(), "would take 18446744073709551615 bytes"),
        (head("{"), "EOF"),
        (head(r#"{"model.norm.weight":{"dtype":"F32","shape":[4],"data_offsets":[8,16]}}"#), "model.norm.weight"),
        (head(r#"{"model.norm.weight":{"dtype":"F32","shape":[9],"data_offsets":[0,16]}}"#), "invalid"),
        (head(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#), "overflow"),
        (head(r#"{"model.norm.weight":{"dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16]}}"#), "as F8_E4M3"),
        (head(r#"{"model.layers.0.mlp.gate.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#), "mlp.gate"),
    ] {
        let folder = Folder::new("weights");
        Tiny::new(Architecture::Qwen3).write_directory(&folder.0, DType::F32);
        fs::remove_file(folder.0.join("model.safetensors.index.json")).unwrap();
        fs::write(folder.0.join("model.safetensors"), bytes).unwrap();
        refused(&folder, expected);
    }
    let check = |edit: fn(&mut Value), expected: &str| check_refused("model.safetensors.index.json", edit, expected);
    check(|i| i["weight_map"]["model.norm.weight"] = json!("../x.safetensors"), "not the name of a shard");
    check(|i| i["weight_map"]["model.norm.weight"] = json!("model-1.safetensors"), "does not have the tensor");
    check(|i| i["weight_map"]["model.norm.weight"] = json!("none.safetensors"), "has no none.safetensors");
    check(|i| i["weight_map"] = json!([]), "weight_map: must be an object");
}
