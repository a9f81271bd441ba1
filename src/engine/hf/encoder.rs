//! The BERT family's files: `config.json` as GGUF's keys, and tensors by GGUF's names.
//!
//! GGUF has no keys for some of what these files say; those are called `encoder.…` here.

use super::{error::DirectoryError, json::Object, names::Known};
use crate::engine::gguf::GgufWriter;

/// What the classes call things differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bert,
    /// Positions are counted from behind that of the padding token; the head has a layer of its own.
    Roberta,
    DistilBert,
}

/// A class of encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoder {
    pub kind: Kind,
    /// Whether it has a head that scores texts.
    pub scores: bool,
}

pub(super) const ARCHITECTURE: &str = "bert";

/// Modules outside of the layers.
const OUTER: [(&str, &str); 4] = [
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
];

/// Modules of a layer, and those of DistilBERT.
const INNER: [(&str, &str); 16] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
    ("attention.q_lin", "attn_q"),
    ("attention.k_lin", "attn_k"),
    ("attention.v_lin", "attn_v"),
    ("attention.out_lin", "attn_output"),
    ("sa_layer_norm", "attn_output_norm"),
    ("ffn.lin1", "ffn_up"),
    ("ffn.lin2", "ffn_down"),
    ("output_layer_norm", "layer_output_norm"),
];

impl Encoder {
    /// What the tensor `name` is, if anything that is known.
    pub fn known(self, name: &str) -> Option<Known> {
        let prefixes = ["bert.", "roberta.", "distilbert."];
        let name = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        // Buffers, and heads that predict words.
        let unneeded = [
            "embeddings.position_ids",
            "cls.",
            "lm_head.",
            "vocab_transform.",
            "vocab_layer_norm.",
            "vocab_projector.",
        ];
        if unneeded.iter().any(|prefix| name.starts_with(prefix)) {
            return Some(Known::Unneeded);
        }
        let (module, kind) = name.rsplit_once('.')?;
        let kind = match kind {
            "weight" | "bias" => kind,
            // As TensorFlow called them.
            "gamma" => "weight",
            "beta" => "bias",
            _ => return None,
        };
        let find = |table: &[(&str, &'static str)], module| table.iter().find(|(hf, _)| *hf == module).map(|row| row.1);
        let layer = ["encoder.layer.", "transformer.layer."].iter().find_map(|prefix| module.strip_prefix(prefix));
        if let Some(layer) = layer {
            let (layer, module) = layer.split_once('.')?;
            let index: u32 = layer.parse().ok().filter(|index: &u32| index.to_string() == layer)?;
            return Some(Known::Named(format!("blk.{index}.{}.{kind}", find(&INNER, module)?)));
        }
        if let Some(gguf) = find(&OUTER, module) {
            return Some(Known::Named(format!("{gguf}.{kind}")));
        }
        let part = match (self.kind, module) {
            (Kind::Bert, "pooler.dense") if self.scores => "cls",
            (_, "pooler.dense") => return Some(Known::Unneeded),
            (Kind::Roberta, "classifier.dense") | (Kind::DistilBert, "pre_classifier") => "cls",
            (Kind::Bert | Kind::DistilBert, "classifier") | (Kind::Roberta, "classifier.out_proj") => "cls.output",
            _ => return None,
        };
        Some(Known::Named(format!("{part}.{kind}"))).filter(|_| self.scores)
    }

    /// Writes what a converted file would say, and what that could not.
    pub fn write_keys(self, config: &Object, file: &mut GgufWriter) -> Result<(), DirectoryError> {
        let distil = self.kind == Kind::DistilBert;
        let size = |bert: &str, distilbert: &str| config.required_u32(if distil { distilbert } else { bert });
        let offset = match self.kind {
            Kind::Roberta => config.u32("pad_token_id")?.unwrap_or(1).saturating_add(1),
            Kind::Bert | Kind::DistilBert => 0,
        };
        let positions = config.required_u32("max_position_embeddings")?;
        let Some(context) = positions.checked_sub(offset) else {
            return Err(
                config.invalid("max_position_embeddings", format!("{positions} of which {offset} are not used"))
            );
        };
        let eps = config.f64("layer_norm_eps")?.unwrap_or(if self.kind == Kind::Roberta { 1e-5 } else { 1e-12 });
        let key = |name: &str| format!("{ARCHITECTURE}.{name}");
        file.str("general.architecture", ARCHITECTURE)
            .u32(&key("context_length"), context)
            .u32(&key("embedding_length"), size("hidden_size", "dim")?)
            .u32(&key("block_count"), size("num_hidden_layers", "n_layers")?)
            .u32(&key("feed_forward_length"), size("intermediate_size", "hidden_dim")?)
            .u32(&key("attention.head_count"), size("num_attention_heads", "n_heads")?)
            .f32(&key("attention.layer_norm_epsilon"), eps as f32)
            .bool(&key("attention.causal"), false)
            .u32("encoder.position_offset", offset);
        if let Some(other) = config.str("position_embedding_type")?.filter(|kind| *kind != "absolute") {
            return Err(config.unsupported("position_embedding_type", format!("{other:?}")));
        }
        if config.bool("is_decoder")?.unwrap_or(false) {
            return Err(config.unsupported("is_decoder", true));
        }
        let key = if distil { "activation" } else { "hidden_act" };
        let activation = match config.str(key)?.unwrap_or("gelu") {
            "gelu" => "gelu",
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => "gelu_tanh",
            "relu" => "relu",
            other => return Err(config.unsupported(key, format!("{other:?}"))),
        };
        file.str("encoder.activation", activation);
        if self.scores {
            file.u32("encoder.labels", labels(config)?);
            file.str("encoder.pooler", if distil { "relu" } else { "tanh" });
            file.str("encoder.score", score(config)?);
        }
        Ok(())
    }
}

/// How many scores the head gives a text; 2 where the file says nothing, as transformers has it.
fn labels(config: &Object) -> Result<u32, DirectoryError> {
    match (config.object("id2label")?, config.u32("num_labels")?) {
        (Some(names), _) => Ok(names.map.len() as u32),
        (None, count) => Ok(count.unwrap_or(2)),
    }
}

/// What becomes of the head's score: what the file names, or the logistic function, as sentence-transformers has it.
fn score(config: &Object) -> Result<&'static str, DirectoryError> {
    let nested = config.object("sentence_transformers")?;
    let nested = nested.as_ref().map(|object| object.str("activation_fn")).transpose()?.flatten();
    let old = config.str("sbert_ce_default_activation_function")?;
    match nested.or(old).map(|name| name.rsplit('.').next().unwrap_or(name)) {
        None | Some("Sigmoid") => Ok("sigmoid"),
        Some("Identity") => Ok("identity"),
        Some(other) => Err(config.unsupported("activation_fn", format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ggufs() {
        let bert = Encoder { kind: Kind::Bert, scores: false };
        let scores = |kind| Encoder { kind, scores: true };
        for (encoder, hf, gguf) in [
            (bert, "embeddings.word_embeddings.weight", "token_embd.weight"),
            (bert, "bert.embeddings.LayerNorm.gamma", "token_embd_norm.weight"),
            (bert, "encoder.layer.11.attention.output.LayerNorm.beta", "blk.11.attn_output_norm.bias"),
            (scores(Kind::Bert), "bert.pooler.dense.weight", "cls.weight"),
            (scores(Kind::Bert), "classifier.bias", "cls.output.bias"),
            (scores(Kind::Roberta), "classifier.dense.bias", "cls.bias"),
            (scores(Kind::Roberta), "classifier.out_proj.weight", "cls.output.weight"),
            (scores(Kind::DistilBert), "distilbert.transformer.layer.0.ffn.lin1.weight", "blk.0.ffn_up.weight"),
        ] {
            assert_eq!(encoder.known(hf), Some(Known::Named(gguf.into())), "{hf}");
        }
        for unneeded in ["bert.embeddings.position_ids", "cls.predictions.bias", "pooler.dense.weight"] {
            assert_eq!(bert.known(unneeded), Some(Known::Unneeded), "{unneeded}");
        }
        for unknown in
            ["classifier.weight", "encoder.layer.01.output.dense.weight", "encoder.layer.0.adapter.weight", "x"]
        {
            assert_eq!(bert.known(unknown), None, "{unknown}");
        }
    }
}
