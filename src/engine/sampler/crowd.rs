//! Top-p and the draw where many tokens are left: a few passes over the whole row in place of a list of them.

use super::{Candidate, Cut, row::Row, survivors::nucleus};
use crate::engine::kernels::{Mass, kernels};

/// So many tokens are looked at one by one for the last that top-p keeps.
const BAND: usize = 256;
/// Tokens among which the draw goes one by one.
const BLOCK: usize = 4096;

/// Tokens that a first cut leaves of a row, without saying which.
#[derive(Debug, Default)]
pub struct Crowd {
    /// Probability relative to the best token's, of every token of the row.
    weights: Vec<f32>,
    /// The tokens that are kept are above this logit, but for those that weigh nothing.
    below: f32,
    band: Vec<(Candidate, f32)>,
    /// What is kept of each block.
    masses: Vec<f64>,
}

/// What is above a logit.
#[derive(Clone, Copy)]
struct Above {
    logit: f32,
    weight: f64,
    tokens: usize,
}

impl Crowd {
    /// Takes the tokens that `cut` keeps, and weighs them at an inverse temperature.
    pub fn collect(&mut self, row: &Row, cut: Cut, inverse: f32) {
        self.weights.resize(row.logits.len(), 0.0);
        kernels().weigh(row.logits, row.max, inverse, &mut self.weights);
        self.keep(row, cut);
    }

    /// All of them together.
    pub fn weight(&self, row: &Row) -> f64 {
        self.above(row, self.below).weight
    }

    /// The last of the fewest tokens, best first, that weigh `wanted` together.
    pub fn top_p(&mut self, row: &Row, wanted: f64) -> Cut {
        let mut low = self.above(row, self.below);
        if low.weight < wanted {
            return Cut::NOTHING;
        }
        let mut high = Above { logit: row.max, weight: 0.0, tokens: 0 };
        // The last one is above `low` and not above `high`. Where the weight is wanted on a straight line between the two
        // is near it once they are close; halving brings them there.
        for step in 0.. {
            if low.tokens - high.tokens <= BAND {
                break;
            }
            let straight = ((low.weight - wanted) / (low.weight - high.weight)) as f32;
            let at = |share: f32| low.logit + (high.logit - low.logit) * share;
            let between = |logit: &f32| low.logit < *logit && *logit < high.logit;
            let shares = if step % 2 == 0 { [straight, 0.5] } else { [0.5, straight] };
            let Some(logit) = shares.map(at).into_iter().find(between) else { break };
            let found = self.above(row, logit);
            if found.weight >= wanted { low = found } else { high = found }
        }
        self.gather(row, low.logit, high.logit);
        nucleus(&mut self.band, wanted - high.weight).unwrap_or(Cut::NOTHING)
    }

    /// The first token, by id, at which the weight of those that `cut` keeps passes the share `chance` (below 1) of the
    /// whole. `None` if nothing has any weight.
    pub fn draw(&mut self, row: &Row, cut: Cut, chance: f64) -> Option<u32> {
        if cut != Cut::NOTHING {
            self.keep(row, cut);
        }
        let Self { weights, below, masses, .. } = self;
        let blocks = || row.logits.chunks(BLOCK).zip(weights.chunks(BLOCK));
        masses.clear();
        masses.extend(blocks().map(|(logits, weights)| kernels().above(logits, weights, *below).weight));
        let point = chance * masses.iter().sum::<f64>();
        let mut passed = 0.0;
        let mut last = None;
        for ((first, (logits, weights)), mass) in (0..).step_by(BLOCK).zip(blocks()).zip(&*masses) {
            if passed + mass <= point {
                passed += mass;
                continue;
            }
            let tokens = (first..).zip(logits.iter().zip(weights));
            for (id, (_, &weight)) in tokens.filter(|(_, (logit, weight))| **logit > *below && **weight > 0.0) {
                passed += f64::from(weight);
                last = Some(id);
                if passed > point {
                    return last;
                }
            }
        }
        // Added up one by one the whole may differ in the last bit: then it is the last token.
        last
    }

    /// Forgets what `cut` does not keep.
    fn keep(&mut self, row: &Row, cut: Cut) {
        self.below = cut.logit.next_down();
        if cut.id != Cut::NOTHING.id {
            self.gather(row, self.below, cut.logit);
            for (token, _) in self.band.iter().filter(|(token, _)| token.id > cut.id) {
                self.weights[token.id as usize] = 0.0;
            }
        }
    }

    fn above(&self, row: &Row, logit: f32) -> Above {
        let Mass { weight, tokens } = kernels().above(row.logits, &self.weights, logit);
        Above { logit, weight, tokens }
    }

    /// Puts the tokens above `low`, and not above `high`, into the band.
    fn gather(&mut self, row: &Row, low: f32, high: f32) {
        let Self { weights, band, .. } = self;
        band.clear();
        for first in row.runs_between(low, high) {
            let run = (first..).zip(row.logits[first as usize..].iter().take(super::row::RUN));
            let tokens = run.filter(|(_, logit)| **logit > low && **logit <= high);
            band.extend(tokens.map(|(id, &logit)| (Candidate { logit, id }, weights[id as usize])));
        }
    }
}
