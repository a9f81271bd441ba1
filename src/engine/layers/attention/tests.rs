//! The same sequences in any company: other rows, other cuts, other blocks, other numbers of threads.

use std::num::NonZeroUsize;

use super::*;
use crate::engine::{
    batch::Batch,
    layers::{PairStyle, Rope, Scaling},
    models::Spec,
};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next() as f32 / (1u64 << 30) as f32 - 1.0).collect()
    }
}

/// A layer, and the queries, keys and values of some sequences.
struct Case {
    attention: Attention,
    rope: Option<Rope>,
    kind: KvType,
    /// Of each sequence, (tokens, qkv width).
    sequences: Vec<Vec<f32>>,
}

impl Case {
    fn tokens(&self, sequence: usize) -> usize {
        self.sequences[sequence].len() / self.attention.qkv_width()
    }

    fn spec(&self) -> Spec {
        let Attention { kv_heads, head_dim, .. } = self.attention;
        Spec { architecture: "test".into(), layers: 1, kv_heads, head_dim, vocabulary: 1, context: 1 << 20 }
    }

    /// Every sequence's attended rows, in steps of up to `chunk()` rows of each sequence, on `threads`.
    fn run(&self, threads: usize, seed: u64, mut chunk: impl FnMut() -> usize) -> Vec<Vec<f32>> {
        let width = self.attention.qkv_width();
        let team = Team::with_limit(NonZeroUsize::new(threads).unwrap(), || NonZeroUsize::MAX).unwrap();
        let needed: Vec<_> = (0..self.sequences.len()).map(|s| self.tokens(s).div_ceil(BLOCK_TOKENS)).collect();
        let total: usize = needed.iter().sum();
        let mut cache = KvCache::new(&self.spec(), total, self.kind);
        let mut free: Vec<_> = (0..total as u32).map(BlockId).collect();
        let mut random = Random(seed);
        (1..total).for_each(|i| free.swap(i, random.below(i + 1)));
        let blocks: Vec<_> = needed.iter().map(|n| free.split_off(free.len() - n)).collect();
        let (mut done, mut out) = (vec![0; needed.len()], vec![Vec::new(); needed.len()]);
        let (mut partials, mut attended) = (Vec::new(), Rows::default());
        while (0..done.len()).any(|s| done[s] < self.tokens(s)) {
            let (mut batch, mut values) = (Batch::new(1), Vec::new());
            let mut pushed = Vec::new();
            for s in 0..done.len() {
                let end = self.tokens(s).min(done[s] + chunk());
                if end > done[s] {
                    batch.push(&vec![0; end - done[s]], done[s], &blocks[s], &[]);
                    values.extend_from_slice(&self.sequences[s][done[s] * width..end * width]);
                    pushed.push((s, end - done[s]));
                    done[s] = end;
                }
            }
            let mut qkv = Rows::default();
            qkv.reset(batch.rows(), width);
            qkv.values_mut().copy_from_slice(&values);
            let angles = self.rope.as_ref().map(|rope| rope.angles(&batch.positions));
            let step = Step::new(&self.attention, &batch, angles.as_ref(), &mut partials);
            self.attention.run(&team, &step, 0, &mut qkv, &mut cache, &mut attended);
            let mut row = 0;
            for (s, rows) in pushed {
                (row..row + rows).for_each(|row| out[s].extend_from_slice(attended.row(row)));
                row += rows;
            }
        }
        out
    }

    /// The formula in f64, for layers without norms and rope.
    fn oracle(&self, sequence: usize) -> Vec<f64> {
        let Attention { heads, kv_heads, head_dim: dim, scale, window, .. } = self.attention;
        let rows: Vec<_> = self.sequences[sequence].chunks_exact(self.attention.qkv_width()).collect();
        let at = |row: usize, head: usize| rows[row][head * dim..][..dim].iter().map(|x| f64::from(*x));
        let mut out = Vec::new();
        for row in 0..rows.len() {
            let start = window.map_or(0, |window: usize| (row + 1).saturating_sub(window));
            for head in 0..heads {
                let kv = head / (heads / kv_heads);
                let score = |key: usize| at(row, head).zip(at(key, heads + kv)).map(|(q, k)| q * k).sum::<f64>();
                let weights: Vec<f64> = (start..=row).map(|key| (score(key) * f64::from(scale)).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mut sum = vec![0.0; dim];
                for (key, weight) in (start..=row).zip(&weights) {
                    sum.iter_mut().zip(at(key, heads + kv_heads + kv)).for_each(|(s, v)| *s += weight * v / total);
                }
                out.extend(sum);
            }
        }
        out
    }
}

fn attention(heads: usize, kv_heads: usize, head_dim: usize) -> Attention {
    Attention::new(heads, kv_heads, head_dim)
}

fn norm(width: usize) -> RmsNorm {
    RmsNorm::new((0..width).map(|i| 1.0 + (i as f32).sin() * 0.5).collect(), 1e-6)
}

#[track_caller]
fn check(attention: Attention, rope: Option<Rope>, lengths: &[usize], seed: u64) {
    let is_plain = rope.is_none() && matches!(attention.norms, QkNorm::None) && attention.soft_cap.is_none();
    let mut random = Random(seed | 1);
    let sequences = lengths.iter().map(|n| random.floats(n * attention.qkv_width())).collect();
    let mut case = Case { attention, rope, kind: KvType::F16, sequences };
    for kind in [KvType::F16, KvType::Q8_0] {
        case.kind = kind;
        let whole = case.run(1, seed, || usize::MAX / 2);
        if is_plain && kind == KvType::F16 {
            for (s, found) in whole.iter().enumerate() {
                for (i, (f, e)) in found.iter().zip(case.oracle(s)).enumerate() {
                    assert!((f64::from(*f) - e).abs() < 2e-3, "seed {seed}, sequence {s}, value {i}: {f}, not {e}");
                }
            }
        }
        for (threads, chunk_max) in [(1, 1), (2, 7), (3, 70), (2, 400)] {
            let mut random = Random(seed + 7);
            let cut = case.run(threads, seed + 3, || if chunk_max == 1 { 1 } else { random.below(chunk_max + 1) });
            for (s, (w, c)) in whole.iter().zip(&cut).enumerate() {
                assert_eq!(w.len(), c.len());
                let equal = w.iter().zip(c).all(|(w, c)| w.to_bits() == c.to_bits());
                assert!(equal, "seed {seed}, {kind:?}, {threads} threads, by {chunk_max}: sequence {s}");
            }
        }
    }
}

#[test]
fn rows_are_bit_equal_in_any_company() {
    check(attention(4, 2, 32), None, &[1, 40, 130, 33], 1);
    check(attention(7, 1, 48), None, &[90, 65], 2);
    check(attention(3, 3, 16), None, &[600, 20], 3);
}

#[test]
fn with_norms_rope_window_and_cap_too() {
    let rope = |style, dimensions| Some(Rope::new(style, dimensions, 1e4, &Scaling::None));
    let per_head = QkNorm::PerHead { query: norm(32), key: norm(32) };
    check(Attention { norms: per_head, ..attention(4, 2, 32) }, rope(PairStyle::Halves, 32), &[70, 100], 4);
    let whole_row = QkNorm::WholeRow { query: norm(320), key: norm(160) };
    check(Attention { norms: whole_row, ..attention(4, 2, 80) }, rope(PairStyle::Neighbours, 40), &[60, 35], 5);
    check(Attention { window: Some(50), scale: 0.3, ..attention(2, 1, 16) }, None, &[560, 90], 6);
    check(Attention { soft_cap: Some(2.0), ..attention(2, 1, 16) }, rope(PairStyle::Halves, 16), &[80], 7);
}
