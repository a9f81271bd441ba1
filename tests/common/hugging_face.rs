//! The same small random models as Hugging Face directories.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use candle_core::{DType, Tensor};
use sconce::engine::models::Architecture;
use serde_json::{Map, Value, json};

use super::tiny::{ATTENTION_CAP, GRANITE_SCALES, LOGIT_CAP, TEMPLATE, Tiny, byte_symbol};

/// A folder that goes when the test ends.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("hf-{}-{}-{name}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Tiny {
    /// Writes the directory of the model, in as many shards as it has layers.
    pub fn write_directory(&self, directory: &Path, dtype: DType) {
        fs::create_dir_all(directory).unwrap();
        let mut shards: BTreeMap<usize, Vec<(String, Tensor)>> = BTreeMap::new();
        for (name, tensor) in self.write().tensors {
            if name == "rope_freqs.weight" {
                continue;
            }
            let layer = name.split('.').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
            let tensor = self.hugging_face_tensor(&name, &tensor).to_dtype(dtype).unwrap();
            shards.entry(layer).or_default().push((self.hugging_face_name(&name), tensor));
        }
        let mut index = Map::new();
        for (shard, tensors) in &shards {
            let file = format!("model-{shard}.safetensors");
            index.extend(tensors.iter().map(|(name, _)| (name.clone(), json!(file))));
            fs::write(directory.join(&file), safetensors(tensors)).unwrap();
        }
        let write = |file: &str, value: Value| fs::write(directory.join(file), value.to_string()).unwrap();
        write("model.safetensors.index.json", json!({ "weight_map": index }));
        write("config.json", self.config());
        write("tokenizer.json", self.tokenizer_json());
        write("tokenizer_config.json", json!({ "eos_token": "<|im_end|>", "chat_template": TEMPLATE }));
        write("generation_config.json", json!({ "eos_token_id": [258, 256] }));
    }

    /// `config.json`, as the architecture's class writes it.
    pub fn config(&self) -> Value {
        use Architecture::*;
        let class = match self.architecture {
            Llama if self.window.is_some() => "MistralForCausalLM",
            Llama => "LlamaForCausalLM",
            Qwen2 => "Qwen2ForCausalLM",
            Qwen3 => "Qwen3ForCausalLM",
            Phi3 => "Phi3ForCausalLM",
            Gemma => "GemmaForCausalLM",
            Gemma2 => "Gemma2ForCausalLM",
            Gemma3 => "Gemma3ForCausalLM",
            SmolLm3 => "SmolLM3ForCausalLM",
            Olmo2 => "Olmo2ForCausalLM",
            Granite => "GraniteForCausalLM",
            Unbatched(_) => panic!("not a model of this kind"),
        };
        let mut config = json!({
            "architectures": [class], "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "intermediate_size": self.feed_forward, "vocab_size": self.vocabulary, "rms_norm_eps": 1e-6,
            "max_position_embeddings": self.context, "rope_theta": self.rope_base, "tie_word_embeddings": self.tied,
            "sliding_window": self.window, "hidden_act": "silu", "eos_token_id": 258,
        });
        let mut put = |key: &str, value: Value| config[key] = value;
        if self.rope_factors {
            let rule = json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 128,
            });
            put("rope_scaling", rule);
        }
        match self.architecture {
            Gemma | Gemma2 | Gemma3 => {
                put("hidden_act", Value::Null);
                put("hidden_activation", json!("gelu_pytorch_tanh"));
                if self.architecture != Gemma {
                    put("query_pre_attn_scalar", json!(self.head_dim));
                }
                put("attn_logit_softcapping", Value::Null);
                put("final_logit_softcapping", Value::Null);
            }
            Granite => GRANITE_SCALES.iter().for_each(|(key, _, scale)| put(key, json!(scale))),
            _ => {}
        }
        match self.architecture {
            Gemma2 => {
                put("attn_logit_softcapping", json!(ATTENTION_CAP));
                put("final_logit_softcapping", json!(LOGIT_CAP));
            }
            Gemma3 => {
                put("rope_local_base_freq", json!(self.local_base));
                put("sliding_window_pattern", json!(self.window_pattern));
            }
            _ => {}
        }
        config
    }

    fn tokenizer_json(&self) -> Value {
        let vocab: Map<String, Value> = (0..=255u8).map(|b| (byte_symbol(b).to_string(), json!(b))).collect();
        let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"];
        let added: Vec<Value> = (256..)
            .zip(special)
            .map(|(id, text)| json!({ "id": id, "content": text, "special": true, "normalized": false }))
            .collect();
        let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        json!({
            "added_tokens": added,
            "normalizer": { "type": "NFC" },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
            ]},
            "post_processor": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false },
            "decoder": { "type": "ByteLevel" },
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "vocab": vocab, "merges": [] },
        })
    }

    /// What Hugging Face calls a tensor of this model.
    pub fn hugging_face_name(&self, gguf: &str) -> String {
        use Architecture::*;
        let post = matches!(self.architecture, Gemma2 | Gemma3 | Olmo2);
        let parts = [
            ("token_embd", "model.embed_tokens"),
            ("output_norm", "model.norm"),
            ("output", "lm_head"),
            ("attn_q_norm", "self_attn.q_norm"),
            ("attn_k_norm", "self_attn.k_norm"),
            ("attn_norm", "input_layernorm"),
            ("ffn_norm", if post { "pre_feedforward_layernorm" } else { "post_attention_layernorm" }),
            ("post_attention_norm", "post_attention_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
            ("attn_qkv", "self_attn.qkv_proj"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", if self.architecture == Phi3 { "mlp.gate_up_proj" } else { "mlp.up_proj" }),
            ("ffn_down", "mlp.down_proj"),
        ];
        let (stem, kind) = gguf.rsplit_once('.').unwrap();
        let (layer, part) = stem.rsplit_once('.').unwrap_or(("", stem));
        let part = parts.iter().find(|p| p.0 == part).unwrap().1;
        match layer.strip_prefix("blk.") {
            Some(layer) => format!("model.layers.{layer}.{part}.{kind}"),
            None => format!("{part}.{kind}"),
        }
    }

    /// A tensor as Hugging Face has it: rotary pairs in halves, Gemma's norms without their 1.
    pub fn hugging_face_tensor(&self, name: &str, tensor: &Tensor) -> Tensor {
        use Architecture::*;
        let gemma = matches!(self.architecture, Gemma | Gemma2 | Gemma3);
        if gemma && name.ends_with("norm.weight") {
            return (tensor - 1.0).unwrap();
        }
        let turned = name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight");
        if !matches!(self.architecture, Llama | SmolLm3 | Granite) || !turned {
            return tensor.clone();
        }
        let (rows, columns) = tensor.dims2().unwrap();
        let heads = rows / self.head_dim;
        let pairs = tensor.reshape((heads, self.head_dim / 2, 2, columns)).unwrap();
        pairs.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, columns)).unwrap()
    }
}

/// A safetensors file: eight bytes of length, a head in JSON, the tensors.
pub fn safetensors(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let (mut head, mut data) = (Map::new(), Vec::new());
    for (name, tensor) in tensors {
        let start = data.len();
        let flat = tensor.flatten_all().unwrap();
        let dtype = match tensor.dtype() {
            DType::F32 => {
                data.extend(flat.to_vec1::<f32>().unwrap().iter().flat_map(|x| x.to_le_bytes()));
                "F32"
            }
            DType::BF16 => {
                data.extend(flat.to_vec1::<half::bf16>().unwrap().iter().flat_map(|x| x.to_le_bytes()));
                "BF16"
            }
            other => panic!("no test stores {other:?}"),
        };
        let place = json!({ "dtype": dtype, "shape": tensor.dims(), "data_offsets": [start, data.len()] });
        head.insert(name.clone(), place);
    }
    let head = Value::from(head).to_string().into_bytes();
    [&(head.len() as u64).to_le_bytes()[..], &head, &data].concat()
}
