//! `config.json`, turned into the keys that a converted GGUF file would have.
//!
//! Defaults are those of transformers' configuration classes, whose files leave out what equals them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    encoder::{self, Encoder, Kind},
    error::DirectoryError,
    json::Object,
    names::{Known, Norms, known},
    rope,
    safetensors::{Place, Shards},
};
use crate::engine::gguf::GgufWriter;

/// The architectures whose files are understood, by the classes that `architectures` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Phi3,
    Gemma,
    Gemma2,
    Gemma3,
    /// Gemma 3 with eyes, of which the text part is read.
    Gemma3Seeing,
    SmolLm3,
    Olmo2,
    Granite,
    /// One of the BERT family.
    Encoder(Encoder),
    /// One that is not batched, by its name in GGUF; its tensors keep their names.
    Unbatched(&'static str),
}

use Family::*;

const fn encoder(kind: Kind) -> Family {
    Family::Encoder(Encoder { kind, scores: false })
}

const fn scorer(kind: Kind) -> Family {
    Family::Encoder(Encoder { kind, scores: true })
}

/// Class, family, and the architecture in GGUF.
const FAMILIES: [(&str, Family, &str); 31] = [
    ("LlamaForCausalLM", Llama, "llama"),
    ("MistralForCausalLM", Mistral, "llama"),
    ("Qwen2ForCausalLM", Qwen2, "qwen2"),
    ("Qwen3ForCausalLM", Qwen3, "qwen3"),
    ("Phi3ForCausalLM", Phi3, "phi3"),
    ("GemmaForCausalLM", Gemma, "gemma"),
    ("Gemma2ForCausalLM", Gemma2, "gemma2"),
    ("Gemma3ForCausalLM", Gemma3, "gemma3"),
    ("Gemma3ForConditionalGeneration", Gemma3Seeing, "gemma3"),
    ("SmolLM3ForCausalLM", SmolLm3, "smollm3"),
    ("Olmo2ForCausalLM", Olmo2, "olmo2"),
    ("GraniteForCausalLM", Granite, "granite"),
    ("BertModel", encoder(Kind::Bert), encoder::ARCHITECTURE),
    ("BertForMaskedLM", encoder(Kind::Bert), encoder::ARCHITECTURE),
    ("BertForSequenceClassification", scorer(Kind::Bert), encoder::ARCHITECTURE),
    ("RobertaModel", encoder(Kind::Roberta), encoder::ARCHITECTURE),
    ("RobertaForMaskedLM", encoder(Kind::Roberta), encoder::ARCHITECTURE),
    ("RobertaForSequenceClassification", scorer(Kind::Roberta), encoder::ARCHITECTURE),
    ("XLMRobertaModel", encoder(Kind::Roberta), encoder::ARCHITECTURE),
    ("XLMRobertaForMaskedLM", encoder(Kind::Roberta), encoder::ARCHITECTURE),
    ("XLMRobertaForSequenceClassification", scorer(Kind::Roberta), encoder::ARCHITECTURE),
    ("CamembertModel", encoder(Kind::Roberta), encoder::ARCHITECTURE),
    ("DistilBertModel", encoder(Kind::DistilBert), encoder::ARCHITECTURE),
    ("DistilBertForMaskedLM", encoder(Kind::DistilBert), encoder::ARCHITECTURE),
    ("DistilBertForSequenceClassification", scorer(Kind::DistilBert), encoder::ARCHITECTURE),
    ("PhiForCausalLM", Unbatched("phi"), "phi"),
    ("FalconForCausalLM", Unbatched("falcon"), "falcon"),
    ("Starcoder2ForCausalLM", Unbatched("starcoder2"), "starcoder2"),
    ("StableLmForCausalLM", Unbatched("stablelm"), "stablelm"),
    ("MixtralForCausalLM", Unbatched("mixtral"), "mixtral"),
    ("Qwen2MoeForCausalLM", Unbatched("qwen2moe"), "qwen2moe"),
];

impl Family {
    /// The family of a directory, whose weights must not be quantised in a way of their own.
    pub fn of(config: &Object) -> Result<Self, DirectoryError> {
        let classes = config.strs("architectures")?.unwrap_or_default();
        let [class] = classes[..] else {
            return Err(config.invalid("architectures", format!("must name one class, is {classes:?}")));
        };
        let Some((_, family, _)) = FAMILIES.iter().find(|row| row.0 == class) else {
            let known = FAMILIES.iter().map(|row| row.0).collect();
            return Err(DirectoryError::Architecture { name: class.into(), known });
        };
        if let Some(quantised) = config.object("quantization_config")? {
            let method = quantised.str("quant_method")?.unwrap_or("unknown").to_owned();
            return Err(config.unsupported("quantization_config.quant_method", format!("{method:?}")));
        }
        Ok(*family)
    }

    /// The architecture's name in GGUF.
    pub fn gguf(self) -> &'static str {
        FAMILIES.iter().find(|row| row.1 == self).map_or("", |row| row.2)
    }

    pub fn is_encoder(self) -> bool {
        matches!(self, Self::Encoder(_))
    }

    fn is_gemma(self) -> bool {
        matches!(self, Gemma | Gemma2 | Gemma3 | Gemma3Seeing)
    }

    /// Whether norms are stored as what is added to 1; GGUF stores the sums.
    pub fn adds_one_to_norms(self) -> bool {
        self.is_gemma()
    }

    /// What the class assumes where the file says nothing, of the keys that files do leave out.
    fn defaults(self) -> Value {
        match self {
            Gemma3 | Gemma3Seeing => json!({
                "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
                "max_position_embeddings": 131_072, "rope_theta": 1e6, "query_pre_attn_scalar": 256,
                "sliding_window": 4096, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true,
            }),
            Gemma2 => json!({
                "rope_theta": 1e4, "sliding_window": 4096, "query_pre_attn_scalar": 256, "tie_word_embeddings": true,
                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 256,
                "hidden_activation": "gelu_pytorch_tanh",
            }),
            Gemma => json!({
                "rope_theta": 1e4, "head_dim": 256, "tie_word_embeddings": true,
                "hidden_activation": "gelu_pytorch_tanh",
            }),
            SmolLm3 => json!({ "rope_theta": 2e6, "tie_word_embeddings": true, "no_rope_layer_interval": 4 }),
            _ => json!({ "rope_theta": 1e4, "tie_word_embeddings": false }),
        }
    }

    /// The object that describes the text model, with the class's defaults.
    pub fn text(self, config: &Object) -> Result<Object, DirectoryError> {
        let mut text = match self {
            Gemma3Seeing => config.object("text_config")?.ok_or_else(|| config.invalid("text_config", "is missing"))?,
            _ => config.clone(),
        };
        if let Value::Object(defaults) = self.defaults() {
            for (key, value) in defaults {
                text.map.entry(key).or_insert(value);
            }
        }
        Ok(text)
    }

    /// Every tensor under its GGUF name. A tensor that is not known is refused: the model would be another without it.
    pub fn tensors(self, config: &Object, shards: &Shards) -> Result<BTreeMap<String, Place>, DirectoryError> {
        if let Unbatched(_) = self {
            return shards
                .tensors
                .iter()
                .map(|(name, place)| {
                    shards.dtype(name, place)?;
                    Ok((name.clone(), place.clone()))
                })
                .collect();
        }
        // An encoder has no output head that could be tied.
        let tied = self.is_encoder() || self.text(config)?.bool("tie_word_embeddings")?.unwrap_or(false);
        let norms = if matches!(self, Gemma2 | Gemma3 | Gemma3Seeing | Olmo2) { Norms::Post } else { Norms::Before };
        let mut tensors = BTreeMap::new();
        for (name, place) in &shards.tensors {
            let known = match self {
                Self::Encoder(encoder) => encoder.known(name),
                _ => known(name, norms),
            };
            match known {
                // Some files hold the head again where it is the embedding table.
                Some(Known::Named(gguf)) if tied && gguf == "output.weight" => {}
                Some(Known::Named(gguf)) => {
                    shards.dtype(name, place)?;
                    tensors.insert(gguf, place.clone());
                }
                Some(Known::Unneeded) => {}
                None => return Err(DirectoryError::unsupported("the weights", format!("tensor {name:?}"))),
            }
        }
        if !tied && !tensors.contains_key("output.weight") {
            return Err(DirectoryError::invalid("the weights", "no lm_head.weight, and tie_word_embeddings is false"));
        }
        Ok(tensors)
    }

    /// The rope's factors as the tensors that GGUF has for them.
    pub fn rope_factors(self, config: &Object) -> Result<Vec<(String, Vec<f32>)>, DirectoryError> {
        if matches!(self, Unbatched(_) | Self::Encoder(_)) {
            return Ok(Vec::new());
        }
        let text = self.text(config)?;
        rope::factors(&text, self.rotated(&text)?)
    }

    /// Values of a head, and how many of them are turned.
    fn rotated(self, text: &Object) -> Result<u32, DirectoryError> {
        let share = match rope::parameters(text)?.f64("partial_rotary_factor")? {
            Some(share) => share,
            None => text.f64("partial_rotary_factor")?.unwrap_or(1.0),
        };
        if !(share > 0.0 && share <= 1.0) {
            return Err(text.invalid("partial_rotary_factor", format!("{share} is not in 0..=1")));
        }
        Ok((f64::from(head_dim(text)?) * share) as u32)
    }

    /// Writes what a converted file would say.
    pub fn write_keys(self, config: &Object, file: &mut GgufWriter) -> Result<(), DirectoryError> {
        if let Unbatched(name) = self {
            // Falcon's class has a fixed one.
            let context = config.u32("max_position_embeddings")?.unwrap_or(2048);
            file.str("general.architecture", name).u32(&format!("{name}.context_length"), context);
            return Ok(());
        }
        if let Self::Encoder(encoder) = self {
            return encoder.write_keys(config, file);
        }
        let text = &self.text(config)?;
        let heads = text.required_u32("num_attention_heads")?;
        let layers = text.required_u32("num_hidden_layers")?;
        let key = |name: &str| format!("{}.{name}", self.gguf());
        file.str("general.architecture", self.gguf())
            .u32(&key("context_length"), text.required_u32("max_position_embeddings")?)
            .u32(&key("embedding_length"), text.required_u32("hidden_size")?)
            .u32(&key("block_count"), layers)
            .u32(&key("feed_forward_length"), text.required_u32("intermediate_size")?)
            .u32(&key("attention.head_count"), heads)
            .u32(&key("attention.head_count_kv"), text.u32("num_key_value_heads")?.unwrap_or(heads))
            .u32(&key("attention.key_length"), head_dim(text)?)
            .u32(&key("attention.value_length"), head_dim(text)?);
        let eps = text.f64("rms_norm_eps")?.ok_or_else(|| text.invalid("rms_norm_eps", "is missing"))?;
        file.f32(&key("attention.layer_norm_rms_epsilon"), eps as f32);
        file.u32(&key("rope.dimension_count"), self.rotated(text)?);
        rope::write_keys(text, &key, file)?;

        self.check_activation(text)?;
        self.write_windows(text, layers, &key, file)?;
        self.write_scales(text, &key, file)?;
        if self == SmolLm3 {
            file.bools(&key("rope.layers"), &rope_layers(text, layers)?);
        }
        if text.get("clip_qkv").is_some() {
            return Err(text.unsupported("clip_qkv", "a number"));
        }
        Ok(())
    }

    fn check_activation(self, text: &Object) -> Result<(), DirectoryError> {
        let (key, known): (_, &[&str]) = match self.is_gemma() {
            // "gelu" is what the first files said, and meant the same.
            true if text.get("hidden_activation").is_none() => ("hidden_act", &["gelu_pytorch_tanh", "gelu"]),
            true => ("hidden_activation", &["gelu_pytorch_tanh"]),
            false => ("hidden_act", &["silu"]),
        };
        match text.str(key)? {
            Some(other) if !known.contains(&other) => Err(text.unsupported(key, format!("{other:?}"))),
            _ => Ok(()),
        }
    }

    /// Which layers see only a window, as an array of bools beside the window's size.
    fn write_windows(
        self,
        text: &Object,
        layers: u32,
        key: &impl Fn(&str) -> String,
        file: &mut GgufWriter,
    ) -> Result<(), DirectoryError> {
        let used = text.bool("use_sliding_window")?.unwrap_or(!matches!(self, Qwen2 | Qwen3 | SmolLm3));
        let Some(window) = text.u32("sliding_window")?.filter(|_| used) else { return Ok(()) };
        let pattern = match text.strs("layer_types")? {
            Some(types) => {
                let windowed = |kind: &&str| match *kind {
                    "sliding_attention" => Ok(true),
                    "full_attention" => Ok(false),
                    other => Err(text.unsupported("layer_types", format!("{other:?}"))),
                };
                types.iter().map(windowed).collect::<Result<Vec<_>, _>>()?
            }
            None => {
                let from = text.u32("max_window_layers")?.unwrap_or(0);
                let every = text.u32("sliding_window_pattern")?.unwrap_or(6);
                let windowed = |layer: u32| match self {
                    Gemma2 => layer.is_multiple_of(2),
                    Gemma3 | Gemma3Seeing => !(layer + 1).is_multiple_of(every),
                    Qwen2 | Qwen3 => layer >= from,
                    _ => true,
                };
                (0..layers).map(windowed).collect()
            }
        };
        file.u32(&key("attention.sliding_window"), window);
        file.bools(&key("attention.sliding_window_pattern"), &pattern);
        Ok(())
    }

    /// Scales and soft caps.
    fn write_scales(
        self,
        text: &Object,
        key: &impl Fn(&str) -> String,
        file: &mut GgufWriter,
    ) -> Result<(), DirectoryError> {
        let caps = [
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ];
        let granite = [
            ("attention_multiplier", "attention.scale"),
            ("residual_multiplier", "residual_scale"),
            ("embedding_multiplier", "embedding_scale"),
            ("logits_scaling", "logit_scale"),
        ];
        let copied: &[(&str, &str)] = match self {
            Gemma2 | Gemma3 | Gemma3Seeing => &caps,
            Granite => &granite,
            _ => &[],
        };
        for (hf, gguf) in copied {
            if let Some(value) = text.f64(hf)? {
                file.f32(&key(gguf), value as f32);
            }
        }
        if let Some(scalar) = text.f64("query_pre_attn_scalar")? {
            if scalar <= 0.0 {
                return Err(text.invalid("query_pre_attn_scalar", format!("{scalar} is not positive")));
            }
            file.f32(&key("attention.scale"), scalar.sqrt().recip() as f32);
        }
        Ok(())
    }
}

/// Values of a head: `head_dim`, or an equal share of the hidden size.
fn head_dim(text: &Object) -> Result<u32, DirectoryError> {
    match text.u32("head_dim")? {
        Some(dim) => Ok(dim),
        None => Ok(text.required_u32("hidden_size")? / text.required_u32("num_attention_heads")?.max(1)),
    }
}

/// SmolLM3: which layers turn their queries and keys.
fn rope_layers(text: &Object, layers: u32) -> Result<Vec<bool>, DirectoryError> {
    // Despite its name the list has a 1 where there is rope.
    let list = text.u32s("no_rope_layers")?;
    if !list.is_empty() {
        return Ok(list.iter().map(|rope| *rope != 0).collect());
    }
    let every = text.u32("no_rope_layer_interval")?.filter(|n| *n > 0).unwrap_or(4);
    Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(every)).collect())
}
