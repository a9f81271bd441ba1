//! The names that tensors have in Hugging Face's files, and those that GGUF gives them.

/// What a tensor of a directory is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its name in GGUF.
    Named(String),
    /// Not needed: what it holds is computed, or it is of a part of the model that does not see text.
    Unneeded,
}

/// What the families call things differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norms {
    /// `post_attention_layernorm` is the norm before the MLP (llama).
    Before,
    /// It is the norm of what attention gives (Gemma 2 and 3, OLMo 2).
    Post,
}

/// Modules outside of the layers.
const OUTER: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// Modules of a layer.
const INNER: [(&str, &str); 15] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    // Gate and up in one, which GGUF calls the latter.
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
];

/// What the tensor `name` is, if anything that is known.
pub(super) fn known(name: &str, norms: Norms) -> Option<Known> {
    // Models that also see put their text part below `language_model`, before or behind `model`.
    let name = name.strip_prefix("language_model.").unwrap_or(name);
    let unprefixed = name.strip_prefix("model.language_model.").map(|rest| format!("model.{rest}"));
    let name = unprefixed.as_deref().unwrap_or(name);
    let sees = ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."];
    if name.ends_with("rotary_emb.inv_freq") || sees.iter().any(|prefix| name.starts_with(prefix)) {
        return Some(Known::Unneeded);
    }
    let (module, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let gguf = |table: &[(&str, &'static str)], module| table.iter().find(|(hf, _)| *hf == module).map(|row| row.1);
    let Some(in_layers) = module.strip_prefix("model.layers.") else {
        return Some(Known::Named(format!("{}.{kind}", gguf(&OUTER, module)?)));
    };
    let (layer, module) = in_layers.split_once('.')?;
    // As the number is written back it must be what was read: no `+1`, no `01`.
    let index: u32 = layer.parse().ok().filter(|index: &u32| index.to_string() == layer)?;
    let part = match (module, norms) {
        ("post_attention_layernorm", Norms::Before) => "ffn_norm",
        _ => gguf(&INNER, module)?,
    };
    Some(Known::Named(format!("blk.{index}.{part}.{kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ggufs() {
        for (hf, norms, gguf) in [
            ("model.embed_tokens.weight", Norms::Before, "token_embd.weight"),
            ("lm_head.bias", Norms::Before, "output.bias"),
            ("model.layers.11.self_attn.q_proj.bias", Norms::Before, "blk.11.attn_q.bias"),
            ("model.layers.0.post_attention_layernorm.weight", Norms::Before, "blk.0.ffn_norm.weight"),
            ("model.layers.0.post_attention_layernorm.weight", Norms::Post, "blk.0.post_attention_norm.weight"),
            ("language_model.model.layers.3.mlp.up_proj.weight", Norms::Post, "blk.3.ffn_up.weight"),
            ("model.language_model.norm.weight", Norms::Post, "output_norm.weight"),
        ] {
            assert_eq!(known(hf, norms), Some(Known::Named(gguf.into())), "{hf}");
        }
        for unneeded in ["model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.x.weight"] {
            assert_eq!(known(unneeded, Norms::Before), Some(Known::Unneeded));
        }
        for unknown in
            ["model.layers.0.mlp.experts.0.w1.weight", "model.layers.00.mlp.up_proj.weight", "model.norm.scale", "x"]
        {
            assert_eq!(known(unknown, Norms::Before), None, "{unknown}");
        }
    }
}
