//! Every tier against softmax attention by the formula, in f64 over the stored keys and values, and against itself with
//! other queries beside.

use super::*;
use crate::engine::{
    blocks::BlockId,
    kernels::{
        Kernels, available,
        tests::{Random, assert_close},
    },
    kv_cache::{KvCache, KvType, SCALE_VALUES, Stored},
    models::Spec,
};

const HEADS: usize = 2;
const HEAD: usize = 1;
const LAYER: usize = 1;

/// Keys and values of one KV head, in scattered blocks, and as plain rows.
struct Sequence {
    cache: KvCache,
    blocks: Vec<BlockId>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

/// A head as stored by `kernels`, and what that says.
fn stored(kernels: &Kernels, kind: KvType, x: &[f32], write: impl FnOnce(Stored)) -> Vec<f32> {
    match kind {
        KvType::F16 => {
            let mut halves = vec![0; x.len()];
            kernels.narrow(x, &mut halves);
            write(Stored::F16(&halves));
            halves.iter().map(|h| half::f16::from_bits(*h).to_f32()).collect()
        }
        KvType::Q8_0 => {
            let (mut values, mut scales) = (vec![0; x.len()], vec![0; x.len().div_ceil(SCALE_VALUES)]);
            kernels.quantise(x, &mut values, &mut scales);
            write(Stored::Q8 { values: &values, scales: &scales });
            let scale = |i: usize| half::bf16::from_bits(scales[i / SCALE_VALUES]).to_f32();
            values.iter().enumerate().map(|(i, v)| f32::from(*v) * scale(i)).collect()
        }
    }
}

impl Sequence {
    fn new(kernels: &Kernels, kind: KvType, random: &mut Random, tokens: usize, dim: usize) -> Self {
        let spec = Spec {
            architecture: "test".into(),
            layers: 2,
            kv_heads: HEADS,
            head_dim: dim,
            vocabulary: 1,
            context: tokens,
        };
        let count = tokens.div_ceil(BLOCK_TOKENS);
        let mut cache = KvCache::new(&spec, count + 3, kind);
        let blocks: Vec<_> = (0..count as u32).rev().map(|b| BlockId(b + 2)).collect();
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let shared = cache.share();
        // SAFETY: one thread.
        let put = |slot, key: &[f32], value: &[f32]| unsafe {
            let mut as_stored = Vec::new();
            let key = stored(kernels, kind, key, |key| {
                as_stored = stored(kernels, kind, value, |value| shared.write(LAYER, HEAD, slot, key, value));
            });
            (key, as_stored)
        };
        // What a block's former owner left behind must not be seen.
        let rubbish = vec![f32::NAN; dim];
        for block in 0..count as u32 + 3 {
            (0..BLOCK_TOKENS).for_each(|offset| drop(put((BlockId(block), offset), &rubbish, &rubbish)));
        }
        for position in 0..tokens {
            let slot = (blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
            let (key, value) = put(slot, &random.floats(dim), &random.floats(dim));
            keys.push(key);
            values.push(value);
        }
        Self { cache, blocks, keys, values }
    }

    fn oracle(&self, q: &[f32], position: usize, window: Option<usize>, soft_cap: Option<f32>) -> Vec<f64> {
        let start = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let score = |key: &Vec<f32>| {
            let product = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
            soft_cap.map_or(product, |cap| f64::from(cap) * (product / f64::from(cap)).tanh())
        };
        let scores: Vec<_> = self.keys[start..=position].iter().map(score).collect();
        let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<_> = scores.iter().map(|s| (s - peak).exp()).collect();
        let total: f64 = weights.iter().sum();
        let seen = &self.values[start..=position];
        (0..q.len()).map(|i| weights.iter().zip(seen).map(|(w, v)| w * f64::from(v[i])).sum::<f64>() / total).collect()
    }

    /// Goes through the chunks that the queries see, or all up to there.
    fn attend(
        &mut self,
        kernels: &Kernels,
        q: &[&[f32]],
        positions: &[u32],
        (window, soft_cap): (Option<usize>, Option<f32>),
        from_the_first: bool,
    ) -> Vec<Vec<f32>> {
        let dim = q[0].len();
        let record = record_len(dim);
        let mut space = Workspace::new();
        q.iter().enumerate().for_each(|(i, q)| space.query_mut(i)[..dim].copy_from_slice(q));
        let shared = self.cache.share();
        // SAFETY: one thread.
        let head = unsafe { shared.head(LAYER, HEAD, &self.blocks) };
        let lowest = positions.iter().map(|p| (*p as usize + 1).saturating_sub(window.unwrap_or(usize::MAX))).min();
        let first = if from_the_first { 0 } else { lowest.unwrap() / CHUNK_TOKENS };
        let last = *positions.iter().max().unwrap() as usize / CHUNK_TOKENS;
        let mut total = Vec::new();
        for chunk in first..=last {
            let mut later = vec![f32::NAN; q.len() * record];
            let ask = Ask { head: &head, chunk, positions, window, soft_cap };
            kernels.attend(&ask, &mut space, &mut later);
            if chunk == first {
                total = later;
            } else {
                total.chunks_exact_mut(record).zip(later.chunks_exact(record)).for_each(|(t, l)| merge(t, l));
            }
        }
        let concluded = total.chunks_exact(record).map(|total| {
            let mut out = vec![0.0; dim];
            conclude(total, &mut out);
            out
        });
        concluded.collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[track_caller]
fn check(seed: u64, tokens: usize, dim: usize, window: Option<usize>, soft_cap: Option<f32>) {
    for tier in available() {
        for kind in [KvType::F16, KvType::Q8_0] {
            let mut random = Random::new(seed);
            let mut sequence = Sequence::new(tier, kind, &mut random, tokens, dim);
            // Around the ends of blocks, chunks and window, and some others.
            let ends = [0, 31, 63, 511, 543, 1023, tokens - 1, window.unwrap_or(1) - 1].into_iter();
            let mut positions: Vec<_> = ends.flat_map(|p| [p, p + 1]).filter(|p| *p < tokens).collect();
            let others = random.below(30);
            positions.extend((0..others).map(|_| random.below(tokens)));
            let positions: Vec<_> = positions.iter().map(|p| *p as u32).collect();
            let q: Vec<Vec<f32>> =
                positions.iter().map(|_| random.floats(dim).iter().map(|x| x * 0.5).collect()).collect();
            let q: Vec<&[f32]> = q.iter().map(Vec::as_slice).collect();
            let what =
                format!("{} {kind:?}, seed {seed}: {tokens} tokens of {dim}, {window:?}, {soft_cap:?}", tier.name);
            let rules = (window, soft_cap);
            let together = sequence.attend(tier, &q, &positions, rules, false);
            for (i, position) in positions.iter().enumerate() {
                let what = format!("{what}, position {position}");
                assert_close(&together[i], &sequence.oracle(q[i], *position as usize, window, soft_cap), 3e-5, &what);
                for from_the_first in [false, true] {
                    let alone = sequence.attend(tier, &q[i..=i], &positions[i..=i], rules, from_the_first);
                    assert_eq!(bits(&alone[0]), bits(&together[i]), "{what}, alone");
                }
            }
        }
    }
}

#[test]
fn attention_is_the_formula_whatever_queries_come_with_it() {
    let sizes = [(1, 16), (31, 32), (33, 48), (64, 64), (100, 80), (200, 128), (70, 256), (600, 64), (1100, 16)];
    for (seed, (tokens, dim)) in (0..).zip(sizes) {
        check(seed, tokens, dim, None, None);
    }
}

#[test]
fn a_window_hides_what_is_before_it() {
    for (seed, window) in (0..).zip([1, 2, 31, 32, 33, 100, 512, 513, 2000]) {
        check(seed, 1100, 32, Some(window), None);
    }
}

#[test]
fn a_soft_cap_bends_scores() {
    for (seed, cap) in (0..).zip([0.5, 5.0, 50.0]) {
        check(seed, 90, 48, None, Some(cap));
        check(seed, 540, 32, Some(40), Some(cap));
    }
}

/// All that fit, and the numbers at which the product's groups change.
#[test]
fn any_number_of_queries() {
    for tier in available() {
        let mut random = Random::new(9);
        let mut sequence = Sequence::new(tier, KvType::F16, &mut random, 70, 32);
        let q: Vec<Vec<f32>> = (0..QUERIES_MAX).map(|_| random.floats(32)).collect();
        let q: Vec<&[f32]> = q.iter().map(Vec::as_slice).collect();
        let positions: Vec<u32> = (0..QUERIES_MAX).map(|_| random.below(70) as u32).collect();
        let all = sequence.attend(tier, &q, &positions, (None, None), false);
        for count in 1..QUERIES_MAX {
            let some = sequence.attend(tier, &q[..count], &positions[..count], (None, None), false);
            assert!(some.iter().zip(&all).all(|(s, a)| bits(s) == bits(a)), "{}: {count} queries", tier.name);
        }
    }
}

#[test]
fn quantised_values_are_near_and_what_is_not_finite_stays_so() {
    for tier in available() {
        let mut random = Random::new(4);
        for scale in [1.0, 1e-20, 1e20, 0.0] {
            let x: Vec<_> = random.floats(80).iter().map(|x| x * scale).collect();
            let near = stored(tier, KvType::Q8_0, &x, |_| ());
            for (group, near) in x.chunks(SCALE_VALUES).zip(near.chunks(SCALE_VALUES)) {
                let largest = group.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
                assert!(group.iter().zip(near).all(|(x, n)| (x - n).abs() <= largest / 250.0), "{} {scale}", tier.name);
            }
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random.floats(64);
            x[40] = odd;
            let near = stored(tier, KvType::Q8_0, &x, |_| ());
            assert!(near[..32].iter().all(|x| x.is_finite()) && near[32..].iter().all(|x| x.is_nan()), "{}", tier.name);
        }
    }
}

/// Bidirectional attention is the formula, a query the same whatever queries run beside it.
#[test]
fn whole_attention_is_the_formula() {
    for tier in available() {
        for (seed, (count, queries, dim)) in
            [(1, 1, 16), (7, 3, 32), (33, 13, 64), (200, 96, 32), (512, 25, 48)].into_iter().enumerate()
        {
            let mut random = Random::new(seed as u64);
            let distance = 2 * dim + 5;
            // Keys and values side by side, as a product leaves them.
            let rows = random.floats(count * distance);
            let asked: Vec<Vec<f32>> = (0..queries).map(|_| random.floats(dim)).collect();
            let (mut keys, mut space) = (Keys::default(), Workspace::new());
            keys.fill(&rows, count, distance, dim);
            let ask = |queries| WholeAsk { keys: &keys, values: &rows[dim..], distance, queries };
            let put = |space: &mut Workspace, first: usize| {
                for (i, query) in asked[first..].iter().enumerate() {
                    space.query_mut(i)[..dim].copy_from_slice(query);
                }
            };
            put(&mut space, 0);
            let mut records = vec![0.0; queries * record_len(dim)];
            tier.attend_whole(&ask(queries), &mut space, &mut records);
            for (i, (query, record)) in asked.iter().zip(records.chunks(record_len(dim))).enumerate() {
                let dot = |key: &[f32]| query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
                let weights: Vec<f64> = rows.chunks(distance).map(|row| dot(&row[..dim]).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let value = |d: usize| {
                    rows.chunks(distance).zip(&weights).map(|(row, w)| w * f64::from(row[dim + d])).sum::<f64>()
                };
                let expected: Vec<f64> = (0..dim).map(|d| value(d) / sum).collect();
                let mut out = vec![0.0; dim];
                conclude(record, &mut out);
                assert_close(&out, &expected, 2e-5, &format!("{} query {i} of {queries}, {count} keys", tier.name));
                put(&mut space, i);
                let mut alone = vec![0.0; record_len(dim)];
                tier.attend_whole(&ask(1), &mut space, &mut alone);
                assert_eq!(alone[..dim + 2], record[..dim + 2], "{} query {i} of {queries}", tier.name);
            }
        }
    }
}
