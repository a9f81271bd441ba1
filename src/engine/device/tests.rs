//! Every part that a blueprint can name, against the plainest way to compute it: one token after the other, in f32, without
//! a batch, blocks or candle.

use std::{collections::BTreeMap, num::NonZeroUsize};

use candle_core::Device;
use half::f16;

use super::DeviceDecoder;
use crate::engine::{
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockId},
    fake::Rng,
    gguf::{Gguf, GgufWriter, TensorType},
    kv_cache::KvType,
    layers::{PairStyle, Scaling},
    models::{
        LoadOptions, Model, Outcome, Source, Spec, WeightSizes,
        blueprint::{Activation, Blueprint, HeadNorms, Layer, NormPlacement, Projections, Rotary, Scales, SoftCaps},
        layout::{MatrixNames, MatrixPart, VectorName},
        weights::Weights,
    },
    team::Team,
};

const VOCABULARY: usize = 50;
/// The others are padding.
const CHOICES: usize = 40;

/// Tensors by name: their shape and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Random tensors for all names of a blueprint; with biases wherever there may be one if `biased`.
fn tensors(blueprint: &Blueprint, biased: bool, rng: &mut Rng) -> Tensors {
    let mut tensors = Tensors::new();
    let mut unit = || (rng.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let mut add = |name: String, shape: Vec<usize>, mean: f32, spread: f32| {
        let values = (0..shape.iter().product()).map(|_| mean + spread * unit()).collect();
        tensors.insert(name, (shape, values));
    };
    let mut matrices = Vec::new();
    let mut norms = vec![blueprint.output_norm_name()];
    for index in 0..blueprint.spec.layers {
        let names = blueprint.layer_names(index);
        matrices.extend([names.qkv, names.attention_output, names.gate_up, names.down]);
        norms.extend(
            [names.attention_norm, names.attention_post_norm, names.mlp_norm, names.mlp_post_norm]
                .into_iter()
                .flatten(),
        );
        norms.extend(names.head_norms.into_iter().flat_map(<[_; 2]>::from));
    }
    for MatrixNames { inputs, parts } in matrices {
        // Parts of one stored matrix give it again, and the last one counts.
        for MatrixPart { name, stored, .. } in parts {
            add(format!("{name}.weight"), vec![stored, inputs], 0.0, 2.0 / (inputs as f32).sqrt());
            if biased {
                add(format!("{name}.bias"), vec![stored], 0.0, 0.5);
            }
        }
    }
    for MatrixNames { inputs, parts } in [blueprint.embedding_name(), blueprint.head_name()] {
        add(format!("{}.weight", parts[0].name), vec![parts[0].stored, inputs], 0.0, 1.0);
    }
    norms.into_iter().for_each(|VectorName { name, len }| add(name, vec![len], 1.0, 0.3));
    tensors
}

/// What the model predicts after each of `tokens`.
struct Oracle<'a> {
    blueprint: &'a Blueprint,
    tensors: &'a Tensors,
}

impl Oracle<'_> {
    fn values(&self, name: &str) -> &[f32] {
        &self.tensors[name].1
    }

    fn product(&self, names: &MatrixNames, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for MatrixPart { name, outputs, .. } in &names.parts {
            let first = y.len();
            let rows = self.values(&format!("{name}.weight")).chunks(names.inputs);
            y.extend(rows.skip(outputs.start).take(outputs.len()).map(|row| dot(row, x)));
            if let Some((_, bias)) = self.tensors.get(&format!("{name}.bias")) {
                y[first..].iter_mut().zip(&bias[outputs.clone()]).for_each(|(y, bias)| *y += bias);
            }
        }
        y
    }

    /// Norms each run of values that is as long as the weight.
    fn norm(&self, name: Option<&VectorName>, x: &mut [f32]) {
        let Some(name) = name else { return };
        for x in x.chunks_mut(name.len) {
            let scale = 1.0 / (dot(x, x) / x.len() as f32 + self.blueprint.eps).sqrt();
            x.iter_mut().zip(self.values(&name.name)).for_each(|(x, weight)| *x *= scale * weight);
        }
    }

    fn turn(&self, rope: &Rotary, position: usize, heads: &mut [f32]) {
        let pairs = rope.dimensions / 2;
        for head in heads.chunks_mut(self.blueprint.spec.head_dim) {
            for pair in 0..pairs {
                let angle = position as f64 * rope.base.powf(-(pair as f64) / pairs as f64);
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                let (i, j) = match rope.style {
                    PairStyle::Halves => (pair, pair + pairs),
                    PairStyle::Neighbours => (2 * pair, 2 * pair + 1),
                };
                (head[i], head[j]) = (head[i] * cos - head[j] * sin, head[i] * sin + head[j] * cos);
            }
        }
    }

    /// The last of `cache` is the row's own.
    fn attend(&self, queries: &[f32], cache: &[(Vec<f32>, Vec<f32>)], window: Option<usize>) -> Vec<f32> {
        let Blueprint { spec, heads, scales, soft_caps, .. } = self.blueprint;
        let seen = &cache[cache.len().saturating_sub(window.unwrap_or(usize::MAX))..];
        let one = |(head, query): (usize, &[f32])| {
            let at = head / (heads / spec.kv_heads) * spec.head_dim;
            let score = |(key, _): &(Vec<f32>, _)| {
                cap(scales.attention * dot(query, &key[at..][..spec.head_dim]), soft_caps.attention)
            };
            let shares: Vec<f32> = seen.iter().map(|row| score(row).exp()).collect();
            let sum: f32 = shares.iter().sum();
            let value =
                move |i: usize| seen.iter().zip(&shares).map(|((_, value), share)| share / sum * value[at + i]).sum();
            (0..spec.head_dim).map(value).collect::<Vec<f32>>()
        };
        queries.chunks(spec.head_dim).enumerate().flat_map(one).collect()
    }

    fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let Blueprint { spec, hidden, scales, .. } = self.blueprint;
        let mut caches = vec![Vec::new(); spec.layers];
        let mut all = Vec::new();
        for (position, token) in tokens.iter().enumerate() {
            let mut x = self.values("token_embd.weight")[*token as usize * hidden..][..*hidden].to_vec();
            x.iter_mut().for_each(|x| *x *= scales.embedding);
            for (index, cache) in caches.iter_mut().enumerate() {
                self.layer(index, position, &mut x, cache);
            }
            self.norm(Some(&self.blueprint.output_norm_name()), &mut x);
            let logits = self.product(&self.blueprint.head_name(), &x);
            all.push(logits.iter().map(|x| cap(scales.logits * x, self.blueprint.soft_caps.logits)).collect());
        }
        all
    }

    fn layer(&self, index: usize, position: usize, x: &mut [f32], cache: &mut Vec<(Vec<f32>, Vec<f32>)>) {
        let blueprint = self.blueprint;
        let (names, layer) = (blueprint.layer_names(index), blueprint.layers[index]);
        let add = |x: &mut [f32], y: &[f32]| x.iter_mut().zip(y).for_each(|(x, y)| *x += blueprint.scales.residual * y);

        let mut h = x.to_vec();
        self.norm(names.attention_norm.as_ref(), &mut h);
        let mut q = self.product(&names.qkv, &h);
        let mut k = q.split_off(blueprint.query_width());
        let v = k.split_off(blueprint.key_width());
        self.norm(names.head_norms.as_ref().map(|norms| &norms.0), &mut q);
        self.norm(names.head_norms.as_ref().map(|norms| &norms.1), &mut k);
        if let Some(rope) = layer.rope {
            self.turn(&blueprint.ropes[rope], position, &mut q);
            self.turn(&blueprint.ropes[rope], position, &mut k);
        }
        let stored = |row: Vec<f32>| row.into_iter().map(|x| f16::from_f32(x).to_f32()).collect();
        cache.push((stored(k), stored(v)));
        let mut a = self.product(&names.attention_output, &self.attend(&q, cache, layer.window));
        self.norm(names.attention_post_norm.as_ref(), &mut a);
        add(x, &a);

        let mut h = x.to_vec();
        self.norm(names.mlp_norm.as_ref(), &mut h);
        let both = self.product(&names.gate_up, &h);
        let (gate, up) = both.split_at(blueprint.feed_forward);
        let activated = gate.iter().zip(up).map(|(gate, up)| up * activation(blueprint.activation, *gate));
        let mut m = self.product(&names.down, &activated.collect::<Vec<_>>());
        self.norm(names.mlp_post_norm.as_ref(), &mut m);
        add(x, &m);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cap(x: f32, cap: Option<f32>) -> f32 {
    cap.map_or(x, |cap| cap * (x / cap).tanh())
}

fn activation(kind: Activation, x: f32) -> f32 {
    match kind {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
    }
}

/// The tensors as a file has them, on candle's CPU device.
fn decoder(blueprint: &Blueprint, tensors: &Tensors) -> DeviceDecoder {
    let mut file = GgufWriter::new();
    let bytes = |(shape, values): &(Vec<usize>, Vec<f32>)| {
        (shape.clone(), values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    };
    let stored: Vec<_> = tensors.iter().map(|(name, tensor)| (name, bytes(tensor))).collect();
    for (name, (shape, data)) in &stored {
        file.tensor(name, TensorType::F32, shape, data);
    }
    let source = Source::from(Gguf::from_bytes(file.to_bytes()).unwrap());
    let team = Team::new(NonZeroUsize::MIN).unwrap();
    let weights = Weights::new(&source, "test", &team, LoadOptions::new(NonZeroUsize::MIN));
    DeviceDecoder::load(&weights, blueprint.clone(), WeightSizes::default(), Device::Cpu).unwrap()
}

fn rope(style: PairStyle, dimensions: usize, base: f64) -> Rotary {
    Rotary { style, dimensions, base, scaling: Scaling::None }
}

/// A small llama of `layers`.
fn llama(layers: usize) -> Blueprint {
    Blueprint {
        spec: Spec {
            architecture: "test".into(),
            layers,
            kv_heads: 2,
            head_dim: 16,
            vocabulary: VOCABULARY,
            context: 4 * BLOCK_TOKENS,
        },
        hidden: 24,
        heads: 6,
        feed_forward: 40,
        eps: 1e-5,
        activation: Activation::Silu,
        norms: NormPlacement::Before,
        head_norms: HeadNorms::None,
        projections: Projections::Separate,
        tied: false,
        scales: Scales { embedding: 1.0, residual: 1.0, attention: 0.25, logits: 1.0 },
        soft_caps: SoftCaps::default(),
        ropes: vec![rope(PairStyle::Neighbours, 16, 10_000.0)],
        layers: vec![Layer { window: None, rope: Some(0) }; layers],
    }
}

/// Two sequences in scattered blocks, each in chunks of its own: of every row the logits or the best token.
#[track_caller]
fn check(blueprint: &Blueprint, biased: bool) {
    let mut rng = Rng::new(7);
    let tensors = tensors(blueprint, biased, &mut rng);
    let mut model = decoder(blueprint, &tensors);
    let mut cache = model.new_cache(9, KvType::F16).unwrap();
    let blocks = [[7, 2, 5, 0].map(BlockId), [3, 8, 1, 6].map(BlockId)];
    let tokens: [Vec<u32>; 2] = [100, 70].map(|n| (0..n).map(|_| rng.within(0, VOCABULARY) as u32).collect());
    let expected = [0, 1].map(|i| Oracle { blueprint, tensors: &tensors }.logits(&tokens[i]));
    let mut computed = [0, 0];
    while (0..2).any(|i| computed[i] < tokens[i].len()) {
        let mut batch = Batch::new(CHOICES);
        let mut rows = Vec::new();
        for i in 0..2 {
            let count = rng.within(1, 40).min(tokens[i].len() - computed[i]);
            if count == 0 {
                continue;
            }
            let wants: Vec<_> = (0..count).map(|_| if rng.one_in(2) { Want::Best } else { Want::Logits }).collect();
            batch.push(&tokens[i][computed[i]..][..count], computed[i], &blocks[i], &wants);
            rows.extend(expected[i][computed[i]..].iter().zip(wants));
            computed[i] += count;
        }
        let mut outcome = Outcome::default();
        model.forward(&batch, &mut cache, &mut outcome).unwrap();
        let (mut logits, mut best) = (outcome.logits.chunks(VOCABULARY), outcome.best.iter());
        for (expected, want) in rows {
            let near = |a: f32, b: f32| (a - b).abs() < 3e-4 * (1.0 + dot(expected, expected).sqrt());
            match want {
                Want::Logits => {
                    let pairs = logits.next().unwrap().iter().zip(expected);
                    pairs.for_each(|(f, e)| assert!(near(*f, *e), "{f}, not {e}"));
                }
                Want::Best => {
                    let (best, largest) =
                        (best.next().unwrap(), expected[..CHOICES].iter().copied().fold(f32::MIN, f32::max));
                    let own = expected[best.token as usize];
                    assert!((best.token as usize) < CHOICES && near(best.logit, own) && near(own, largest), "{best:?}");
                }
                Want::Hidden => unreachable!("none is asked for"),
            }
        }
        assert!(logits.next().is_none() && best.next().is_none());
    }
}

#[test]
fn computes_what_a_blueprint_says() {
    let halves = |dimensions, base| rope(PairStyle::Halves, dimensions, base);
    check(&llama(2), false);
    // Qwen2, with its biases.
    check(&Blueprint { ropes: vec![halves(16, 1e6)], tied: true, ..llama(2) }, true);
    // Qwen3.
    check(&Blueprint { head_norms: HeadNorms::PerHead, ropes: vec![halves(16, 1e6)], ..llama(2) }, false);
    // OLMo 2.
    let olmo = Blueprint { norms: NormPlacement::After, head_norms: HeadNorms::WholeRow, ..llama(2) };
    check(&olmo, false);
    // Phi-3, and a rope that turns part of a head.
    let phi = Blueprint { projections: Projections::Fused, ropes: vec![halves(8, 1e4)], ..llama(2) };
    check(&phi, false);
    check(&Blueprint { ropes: vec![rope(PairStyle::Neighbours, 12, 1e4)], ..phi }, true);
    // Granite.
    let scales = Scales { embedding: 3.0, residual: 0.4, attention: 0.1, logits: 0.125 };
    check(&Blueprint { scales, ..llama(2) }, false);
    // SmolLM3, which leaves some layers unturned.
    let turned = |rope| Layer { window: None, rope };
    check(&Blueprint { layers: vec![turned(Some(0)), turned(None), turned(Some(0))], ..llama(3) }, false);
}

#[test]
fn computes_gemma_with_caps_and_windows() {
    let layer = |window, rope| Layer { window, rope: Some(rope) };
    let gemma = Blueprint {
        norms: NormPlacement::Around,
        activation: Activation::GeluTanh,
        head_norms: HeadNorms::PerHead,
        tied: true,
        scales: Scales { embedding: 24f32.sqrt(), ..llama(1).scales },
        ropes: vec![rope(PairStyle::Halves, 16, 1e4), rope(PairStyle::Halves, 16, 1e6)],
        layers: vec![layer(Some(20), 0), layer(None, 1), layer(Some(1), 0), layer(Some(64), 1)],
        ..llama(4)
    };
    check(&gemma, false);
    let soft_caps = SoftCaps { attention: Some(2.0), logits: Some(5.0) };
    check(&Blueprint { soft_caps, head_norms: HeadNorms::None, ..gemma }, false);
}
