//! The tokens that a first cut leaves, where they are few: top-p and the draw among them.

use super::{Candidate, Cut, row::Row};
use crate::engine::kernels::kernels;

/// Tokens by ascending id, one array for each property.
#[derive(Debug, Default)]
pub struct Survivors {
    tokens: Vec<Candidate>,
    logits: Vec<f32>,
    /// Probability relative to the best token's.
    weights: Vec<f32>,
    /// What top-p brings into an order.
    ranked: Vec<(Candidate, f32)>,
}

impl Survivors {
    /// Takes the tokens that `cut` keeps, and weighs them at an inverse temperature.
    pub fn collect(&mut self, row: &Row, cut: Cut, inverse: f32) {
        self.tokens.clear();
        self.tokens.extend(row.from(cut.logit).filter(|token| token.rank(&cut).is_le()));
        self.logits.clear();
        self.logits.extend(self.tokens.iter().map(|token| token.logit));
        self.weights.resize(self.logits.len(), 0.0);
        kernels().weigh(&self.logits, row.max, inverse, &mut self.weights);
    }

    /// All of them together.
    pub fn weight(&self) -> f64 {
        sum(&self.weights)
    }

    /// The last of the fewest tokens, best first, that weigh `wanted` together.
    pub fn top_p(&mut self, wanted: f64) -> Cut {
        self.ranked.clear();
        self.ranked.extend(self.tokens.iter().copied().zip(self.weights.iter().copied()));
        nucleus(&mut self.ranked, wanted).unwrap_or(Cut::NOTHING)
    }

    /// The first token, by id, at which the weight of those that `cut` keeps passes the share `chance` (below 1) of the
    /// whole. `None` if nothing has any weight.
    pub fn draw(&mut self, cut: Cut, chance: f64) -> Option<u32> {
        if cut != Cut::NOTHING {
            for (token, weight) in self.tokens.iter().zip(&mut self.weights) {
                *weight = if token.rank(&cut).is_le() { *weight } else { 0.0 };
            }
        }
        draw(&self.weights, chance).map(|index| self.tokens[index].id)
    }
}

/// The first weight at which they pass the share `chance` (below 1) of the whole. `None` if nothing weighs anything.
pub fn draw(weights: &[f32], chance: f64) -> Option<usize> {
    let point = chance * sum(weights);
    let mut passed = 0.0;
    let mut last = None;
    for (index, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        passed += f64::from(weight);
        last = Some(index);
        if passed > point {
            break;
        }
    }
    // Added up one by one the whole may differ in the last bit: then it is the last one.
    last
}

/// In a few lanes, for additions wait for one another.
pub fn sum(weights: &[f32]) -> f64 {
    let (parts, rest) = weights.as_chunks::<8>();
    let mut lanes = [0.0f64; 8];
    for part in parts {
        for (lane, &weight) in lanes.iter_mut().zip(part) {
            *lane += f64::from(weight);
        }
    }
    lanes.into_iter().chain(rest.iter().map(|&weight| f64::from(weight))).sum()
}

/// The last of the fewest candidates, best first, that weigh `wanted` together: quickselect by weight, in linear time.
pub fn nucleus(candidates: &mut [(Candidate, f32)], wanted: f64) -> Option<Cut> {
    let (mut low, mut high) = (0, candidates.len());
    let mut before = 0.0;
    // The answer is one of candidates[low..high]; those before `low` are better and weigh `before`.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(middle - low, |(a, _), (b, _)| a.rank(b));
        let upper: f64 = candidates[low..middle].iter().map(|(_, weight)| f64::from(*weight)).sum();
        if before + upper >= wanted {
            high = middle;
        } else {
            before += upper;
            low = middle;
        }
    }
    candidates.get(low).map(|&(cut, _)| cut)
}
