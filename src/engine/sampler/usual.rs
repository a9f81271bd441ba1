//! The usual filters in the usual order, without a list of the vocabulary.
//!
//! Every filter is a `Cut` in the ranking of tokens (higher logit first, of equal ones the lower id): it names the last
//! token that is kept. One pass finds the largest logit of each run of the `Row`; from then on only runs are looked into
//! that may hold something. Top-k and min-p choose the `Survivors`, usually few; only these are weighed, and among them
//! top-p cuts once more and the draw goes through them by id. Where many are left, as top-p alone leaves them of a flat
//! row, they are a `Crowd` that is never listed: a few passes over the row do the same.

use super::{Candidate, Cut, crowd::Crowd, is_edit, row::Row, survivors::Survivors};
use crate::engine::request::{Filter, SamplingParams};

/// Tokens in more runs than these are a crowd.
const RUNS_OF_FEW: usize = 192;

/// Temperature, top-k, min-p and top-p in this order, as far as they are there; the others' neutral values.
pub struct Usual {
    temperature: f32,
    top_k: usize,
    min_p: f32,
    top_p: f32,
}

impl Usual {
    /// `None`: there are other filters, or they come in another order.
    pub fn of(params: &SamplingParams) -> Option<Self> {
        if params.dynamic_temperature.is_some() {
            return None;
        }
        let mut usual = Self { temperature: 1.0, top_k: 0, min_p: 0.0, top_p: 1.0 };
        let mut last = 0;
        for filter in params.filters().skip_while(|filter| is_edit(*filter)) {
            let place = match filter {
                Filter::Temperature => 1,
                Filter::TopK => 2,
                Filter::MinP => 3,
                Filter::TopP => 4,
                _ => return None,
            };
            if place < last {
                return None;
            }
            last = place;
            match filter {
                Filter::Temperature => usual.temperature = params.temperature,
                Filter::TopK => usual.top_k = params.top_k as usize,
                Filter::MinP => usual.min_p = params.min_p,
                _ => usual.top_p = params.top_p,
            }
        }
        Some(usual)
    }

    /// Filters in the usual order, and the draw.
    pub fn draw(&self, row: &Row, chance: f64, space: &mut Space) -> u32 {
        let Space { runs, candidates, survivors, crowd } = space;
        let inverse = inverse(self.temperature);
        let keeps_all = self.top_p >= 1.0;
        let cut = top_k(row, self.top_k, runs, candidates).stricter(min_p(row.max, self));
        // Without another cut top-p makes one that is not too strict, and takes its share of all there is.
        let (cut, total) = match (cut == Cut::NOTHING, keeps_all) {
            (true, true) => return row.draw(inverse, chance, runs),
            (true, false) => {
                row.run_weights(inverse, runs);
                let total = runs.iter().map(|&sum| f64::from(sum)).sum::<f64>();
                (Cut::at(least_for(total, row, self)), Some(total))
            }
            (false, _) => (cut, None),
        };
        let wanted = |all: f64| f64::from(self.top_p) * total.unwrap_or(all);
        let chosen = if row.runs_from(cut.logit) > RUNS_OF_FEW {
            crowd.collect(row, cut, inverse);
            let cut = if keeps_all { Cut::NOTHING } else { crowd.top_p(row, wanted(crowd.weight(row))) };
            crowd.draw(row, cut, chance)
        } else {
            survivors.collect(row, cut, inverse);
            let cut = if keeps_all { Cut::NOTHING } else { survivors.top_p(wanted(survivors.weight())) };
            survivors.draw(cut, chance)
        };
        chosen.unwrap_or_else(|| row.best())
    }
}

/// Memory that is used again from row to row.
#[derive(Debug, Default)]
pub struct Space {
    /// Of each run: its weight, or the largest ones once more.
    runs: Vec<f32>,
    candidates: Vec<Candidate>,
    survivors: Survivors,
    crowd: Crowd,
}

/// By what distances to the best logit are multiplied; finite, so that the best's own stays zero.
pub fn inverse(temperature: f32) -> f32 {
    temperature.recip().min(f32::MAX)
}

/// The `k`-th token.
fn top_k(row: &Row, k: usize, scratch: &mut Vec<f32>, candidates: &mut Vec<Candidate>) -> Cut {
    if k == 0 || k >= row.logits.len() {
        return Cut::NOTHING;
    }
    candidates.clear();
    candidates.extend(row.from(row.bound(k, scratch)).filter(|token| token.logit > f32::NEG_INFINITY));
    // Fewer than k: the others are excluded anyhow.
    if candidates.len() < k {
        return Cut::NOTHING;
    }
    *candidates.select_nth_unstable_by(k - 1, Candidate::rank).1
}

/// Tokens with `min_p` of the best token's probability.
fn min_p(max: f32, usual: &Usual) -> Cut {
    if usual.min_p > 0.0 { Cut::at((max + usual.temperature * usual.min_p.ln()).min(max)) } else { Cut::NOTHING }
}

/// A logit so low that all tokens below it, were they as many as there are and all as likely as it, would not weigh what
/// top-p leaves out of `total`: so none of them is among those it keeps.
fn least_for(total: f64, row: &Row, usual: &Usual) -> f32 {
    // A tenth less, for what rounding may add.
    let left_out = 0.9 * (1.0 - f64::from(usual.top_p)) * total;
    // Farther away nothing weighs anything.
    let distance = (row.logits.len() as f64 / left_out).ln().clamp(0.0, 88.0) as f32;
    row.max - distance * usual.temperature
}
