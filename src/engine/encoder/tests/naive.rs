//! An encoder as the papers write it, in f64 and one value after the other.

use std::collections::HashMap;

use super::{
    super::InputTokens,
    tiny::{EPS, ROPE_BASE, Tiny},
};

type Tensors = HashMap<String, Vec<f32>>;
type Matrix = Vec<Vec<f64>>;

fn row(tensors: &Tensors, name: &str, index: usize, width: usize) -> Vec<f64> {
    tensors[name][index * width..][..width].iter().map(|x| f64::from(*x)).collect()
}

fn linear(tensors: &Tensors, name: &str, x: &[f64]) -> Vec<f64> {
    let weights = &tensors[&format!("{name}.weight")];
    let bias = tensors.get(&format!("{name}.bias"));
    weights
        .chunks(x.len())
        .enumerate()
        .map(|(i, w)| {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[i]));
            w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + bias
        })
        .collect()
}

fn norm(tensors: &Tensors, name: &str, x: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
    let (weight, bias) =
        (row(tensors, &format!("{name}.weight"), 0, x.len()), row(tensors, &format!("{name}.bias"), 0, x.len()));
    x.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) * scale * w + b).collect()
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// By the series of erf, which converges for all that occurs here.
fn gelu(x: f64) -> f64 {
    let y = (x / std::f64::consts::SQRT_2).clamp(-5.0, 5.0);
    let (mut term, mut sum) = (y, y);
    for n in 1..200 {
        term *= -y * y / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    0.5 * x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * sum)
}

fn activation(name: &str, x: f64) -> f64 {
    match name {
        "gelu" => gelu(x),
        "gelu_tanh" => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        _ => x.max(0.0),
    }
}

/// Turns value `i` with value `i + dim / 2`.
fn turn(head: &mut [f64], position: usize) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * f64::from(ROPE_BASE).powf(-2.0 * i as f64 / head.len() as f64);
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * angle.cos() - b * angle.sin();
        head[i + half] = a * angle.sin() + b * angle.cos();
    }
}

fn attention(tiny: &Tiny, mut q: Matrix, mut k: Matrix, v: &Matrix) -> Matrix {
    let dim = tiny.hidden / tiny.heads;
    if tiny.gated {
        for rows in [&mut q, &mut k] {
            for (position, row) in rows.iter_mut().enumerate() {
                row.chunks_mut(dim).for_each(|head| turn(head, position));
            }
        }
    }
    let attend = |query: &Vec<f64>| {
        let head = |h: usize| {
            let part = h * dim..(h + 1) * dim;
            let dot =
                |key: &Vec<f64>| query[part.clone()].iter().zip(&key[part.clone()]).map(|(q, k)| q * k).sum::<f64>();
            let weights: Vec<f64> = k.iter().map(|key| (dot(key) / (dim as f64).sqrt()).exp()).collect();
            let sum: f64 = weights.iter().sum();
            part.clone().map(|d| v.iter().zip(&weights).map(|(v, w)| v[d] * w).sum::<f64>() / sum).collect::<Vec<_>>()
        };
        (0..tiny.heads).flat_map(head).collect()
    };
    q.iter().map(attend).collect()
}

fn layer(tiny: &Tiny, tensors: &Tensors, index: usize, x: Matrix) -> Matrix {
    let name = |part: &str| format!("blk.{index}.{part}");
    let all = |part: &str| x.iter().map(|x| linear(tensors, &name(part), x)).collect::<Matrix>();
    let [q, k, v] = match tiny.gated {
        true => {
            let qkv = all("attn_qkv");
            [0, 1, 2].map(|i| qkv.iter().map(|row| row[i * tiny.hidden..(i + 1) * tiny.hidden].to_vec()).collect())
        }
        false => ["attn_q", "attn_k", "attn_v"].map(all),
    };
    let attended = attention(tiny, q, k, &v);
    x.iter()
        .zip(attended)
        .map(|(x, attended)| {
            let added = add(x, &linear(tensors, &name("attn_output"), &attended));
            let x = norm(tensors, &name("attn_output_norm"), &added);
            let up = linear(tensors, &name("ffn_up"), &x);
            let wide: Vec<f64> = match tiny.gated {
                true => {
                    let gate = linear(tensors, &name("ffn_gate"), &x);
                    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
                }
                false => up.into_iter().map(|x| activation(tiny.activation, x)).collect(),
            };
            norm(tensors, &name("layer_output_norm"), &add(&x, &linear(tensors, &name("ffn_down"), &wide)))
        })
        .collect()
}

pub fn forward(tiny: &Tiny, tensors: &Tensors, input: &InputTokens) -> Vec<f64> {
    let hidden = tiny.hidden;
    let embed = |(position, token): (usize, &u32)| {
        let mut x = row(tensors, "token_embd.weight", *token as usize, hidden);
        if !tiny.gated {
            x = add(&x, &row(tensors, "position_embd.weight", tiny.offset + position, hidden));
        }
        if tiny.types > 0 {
            let kind = usize::from(position >= input.second).min(tiny.types - 1);
            x = add(&x, &row(tensors, "token_types.weight", kind, hidden));
        }
        norm(tensors, "token_embd_norm", &x)
    };
    let x: Matrix = input.tokens.iter().enumerate().map(embed).collect();
    let x = (0..tiny.layers).fold(x, |x, index| layer(tiny, tensors, index, x));
    if let Some(score) = tiny.scores {
        let pooled: Vec<f64> = linear(tensors, "cls", &x[0]).into_iter().map(f64::tanh).collect();
        let logit = linear(tensors, "cls.output", &pooled)[0];
        return vec![if score == "sigmoid" { 1.0 / (1.0 + (-logit).exp()) } else { logit }];
    }
    let pooled = match tiny.pooling {
        1 => {
            let sum = x.iter().skip(1).fold(x[0].clone(), |sum, x| add(&sum, x));
            sum.into_iter().map(|s| s / x.len() as f64).collect()
        }
        2 => x[0].clone(),
        _ => x[x.len() - 1].clone(),
    };
    let length = if tiny.normalize { pooled.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 1.0 };
    pooled.into_iter().map(|x| x / length).collect()
}
