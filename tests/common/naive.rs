//! A decoder as simple as can be, in plain loops: what `config.json` says, computed from Hugging Face's tensors in 32-bit
//! floats, a token at a time. The oracle for what candle-transformers leaves out: windows, scales, stretched ropes.

use std::collections::HashMap;

use sconce::engine::models::Architecture;
use serde_json::Value;

use super::tiny::Tiny;

struct Naive<'a> {
    tiny: &'a Tiny,
    config: Value,
    /// By Hugging Face's names, shape (outputs, inputs) or (len).
    tensors: HashMap<String, Vec<f32>>,
}

/// Keys and values of a layer, position by position.
type Cache = Vec<(Vec<f32>, Vec<f32>)>;

/// The logits of every position.
pub fn logits(tiny: &Tiny, tokens: &[u32]) -> Vec<Vec<f32>> {
    logits_with(tiny, tiny.config(), tokens)
}

/// The same, with another configuration.
pub fn logits_with(tiny: &Tiny, config: Value, tokens: &[u32]) -> Vec<Vec<f32>> {
    let tensors = tiny.write().tensors.into_iter().filter(|(name, _)| !name.starts_with("rope"));
    let tensors = tensors.map(|(name, tensor)| {
        let values = tiny.hugging_face_tensor(&name, &tensor).flatten_all().unwrap().to_vec1().unwrap();
        (tiny.hugging_face_name(&name), values)
    });
    let naive = Naive { tiny, config, tensors: tensors.collect() };
    let mut caches: Vec<Cache> = vec![Vec::new(); tiny.layers];
    tokens.iter().enumerate().map(|(at, token)| naive.forward(*token as usize, at, &mut caches)).collect()
}

impl Naive<'_> {
    fn is_gemma(&self) -> bool {
        matches!(self.tiny.architecture, Architecture::Gemma | Architecture::Gemma2 | Architecture::Gemma3)
    }

    fn number(&self, key: &str) -> Option<f32> {
        self.config[key].as_f64().map(|x| x as f32)
    }

    fn forward(&self, token: usize, at: usize, caches: &mut [Cache]) -> Vec<f32> {
        let hidden = self.tiny.hidden;
        let mut x = self.tensors["model.embed_tokens.weight"][token * hidden..][..hidden].to_vec();
        let scale =
            if self.is_gemma() { (hidden as f32).sqrt() } else { self.number("embedding_multiplier").unwrap_or(1.0) };
        x.iter_mut().for_each(|x| *x *= scale);
        for (layer, cache) in caches.iter_mut().enumerate() {
            self.layer(layer, at, &mut x, cache);
        }
        let x = self.norm("model.norm", &x).unwrap();
        let head = if self.tiny.tied { "model.embed_tokens" } else { "lm_head" };
        let mut logits = self.product(head, &x);
        logits.iter_mut().for_each(|l| *l /= self.number("logits_scaling").unwrap_or(1.0));
        cap(&mut logits, self.number("final_logit_softcapping"));
        logits
    }

    fn layer(&self, layer: usize, at: usize, x: &mut [f32], cache: &mut Cache) {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let residual = self.number("residual_multiplier").unwrap_or(1.0);
        let add = |x: &mut [f32], y: &[f32]| x.iter_mut().zip(y).for_each(|(x, y)| *x += residual * y);
        // OLMo 2 and Gemma call the norm behind attention what others call the one before the MLP.
        let behind = self.tensors.contains_key(&name("post_feedforward_layernorm.weight"));
        let h = self.norm(&name("input_layernorm"), x).unwrap_or(x.to_vec());
        let mut a = self.attention(layer, at, &h, cache);
        if behind {
            a = self.norm(&name("post_attention_layernorm"), &a).unwrap();
        }
        add(x, &a);
        let before_mlp = if behind { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        let h = self.norm(&name(before_mlp), x).unwrap_or(x.to_vec());
        let (gate, up) = match self.tiny.architecture {
            Architecture::Phi3 => {
                let both = self.product(&name("mlp.gate_up_proj"), &h);
                (both[..both.len() / 2].to_vec(), both[both.len() / 2..].to_vec())
            }
            _ => (self.product(&name("mlp.gate_proj"), &h), self.product(&name("mlp.up_proj"), &h)),
        };
        let act = |x: f32| match self.is_gemma() {
            true => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044715 * x * x * x)).tanh()),
            false => x / (1.0 + (-x).exp()),
        };
        let gated: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| act(*g) * u).collect();
        let mut m = self.product(&name("mlp.down_proj"), &gated);
        if behind {
            m = self.norm(&name("post_feedforward_layernorm"), &m).unwrap();
        }
        add(x, &m);
    }

    fn attention(&self, layer: usize, at: usize, h: &[f32], cache: &mut Cache) -> Vec<f32> {
        let Tiny { heads, kv_heads, head_dim: dim, .. } = *self.tiny;
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}");
        let (mut q, mut k, v) = match self.tiny.architecture {
            Architecture::Phi3 => {
                let all = self.product(&name("qkv_proj"), h);
                let (q, kv) = all.split_at(heads * dim);
                let (k, v) = kv.split_at(kv_heads * dim);
                (q.to_vec(), k.to_vec(), v.to_vec())
            }
            _ => (self.product(&name("q_proj"), h), self.product(&name("k_proj"), h), self.product(&name("v_proj"), h)),
        };
        let windowed = self.is_windowed(layer);
        for (x, norm) in [(&mut q, "q_norm"), (&mut k, "k_norm")] {
            let per_head = self.tiny.architecture != Architecture::Olmo2;
            let width = if per_head { dim } else { x.len() };
            for part in x.chunks_exact_mut(width) {
                if let Some(normed) = self.norm(&name(norm), part) {
                    part.copy_from_slice(&normed);
                }
            }
            if self.tiny.architecture != Architecture::SmolLm3 || !(layer + 1).is_multiple_of(4) {
                x.chunks_exact_mut(dim).for_each(|head| self.turn(head, at, windowed));
            }
        }
        cache.push((k, v));
        let scale = match (self.number("query_pre_attn_scalar"), self.number("attention_multiplier")) {
            (Some(scalar), _) => 1.0 / scalar.sqrt(),
            (None, Some(scale)) => scale,
            (None, None) => 1.0 / (dim as f32).sqrt(),
        };
        let first = self.tiny.window.filter(|_| windowed).map_or(0, |window| (at + 1).saturating_sub(window));
        let mut out = vec![0.0; heads * dim];
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            let (q, kv_head) = (&q[head * dim..][..dim], head / (heads / kv_heads) * dim);
            let score = |(k, _): &(Vec<f32>, Vec<f32>)| scale * dot(q, &k[kv_head..][..dim]);
            let mut scores: Vec<f32> = cache[first..].iter().map(score).collect();
            cap(&mut scores, self.number("attn_logit_softcapping"));
            let peak = scores.iter().copied().fold(f32::MIN, f32::max);
            let total: f32 = scores.iter().map(|s| (s - peak).exp()).sum();
            for (score, (_, v)) in scores.iter().zip(&cache[first..]) {
                let weight = (score - peak).exp() / total;
                out.iter_mut().zip(&v[kv_head..][..dim]).for_each(|(o, v)| *o += weight * v);
            }
        }
        self.product(&name("o_proj"), &out)
    }

    fn is_windowed(&self, layer: usize) -> bool {
        match self.tiny.architecture {
            Architecture::Gemma2 => layer.is_multiple_of(2),
            Architecture::Gemma3 => !(layer + 1).is_multiple_of(self.tiny.window_pattern),
            _ => self.tiny.window.is_some(),
        }
    }

    /// Turns pairs of one half with the other.
    fn turn(&self, head: &mut [f32], at: usize, windowed: bool) {
        let pairs = head.len() / 2;
        let local = self.tiny.architecture == Architecture::Gemma3 && windowed;
        let base = if local { self.tiny.local_base } else { self.tiny.rope_base };
        let scaling = &self.config["rope_scaling"];
        let mut magnitude = 1.0;
        for i in 0..pairs {
            let mut frequency = f64::from(base).powf(-(i as f64) / pairs as f64);
            if self.tiny.rope_factors {
                frequency /= f64::from(super::tiny::rope_factors(2 * pairs, base)[i]);
            }
            if scaling["type"] == "longrope" {
                let number = |key: &str| self.config[key].as_f64().unwrap();
                let (context, original) =
                    (number("max_position_embeddings"), number("original_max_position_embeddings"));
                frequency /= scaling["long_factor"][i].as_f64().unwrap();
                magnitude = (1.0 + (context / original).ln() / original.ln()).sqrt();
            }
            if scaling["rope_type"] == "linear" && !local {
                frequency /= scaling["factor"].as_f64().unwrap();
            }
            let (sin, cos) = (at as f64 * frequency).sin_cos();
            let (sin, cos) = ((sin * magnitude) as f32, (cos * magnitude) as f32);
            let (a, b) = (head[i], head[pairs + i]);
            (head[i], head[pairs + i]) = (a * cos - b * sin, a * sin + b * cos);
        }
    }

    /// RMSNorm by the weight of this name, if there is one.
    fn norm(&self, name: &str, x: &[f32]) -> Option<Vec<f32>> {
        let weight = self.tensors.get(&format!("{name}.weight"))?;
        let plus = if self.is_gemma() { 1.0 } else { 0.0 };
        let scale = 1.0 / (dot(x, x) / x.len() as f32 + 1e-6).sqrt();
        Some(x.iter().zip(weight).map(|(x, w)| x * scale * (w + plus)).collect())
    }

    fn product(&self, name: &str, x: &[f32]) -> Vec<f32> {
        let rows = self.tensors[&format!("{name}.weight")].chunks_exact(x.len());
        let mut out: Vec<f32> = rows.map(|row| dot(row, x)).collect();
        if let Some(bias) = self.tensors.get(&format!("{name}.bias")) {
            out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
        out
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cap(values: &mut [f32], cap: Option<f32>) {
    if let Some(cap) = cap {
        values.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
}
