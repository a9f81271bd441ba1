//! A row of logits with the largest of each run: one pass over the vocabulary, after which only the runs that matter are
//! looked into.

use super::Candidate;
pub use crate::engine::kernels::RUN;
use crate::engine::kernels::kernels;

pub struct Row<'a> {
    pub logits: &'a [f32],
    /// Of each run.
    maxima: &'a [f32],
    /// Of all.
    pub max: f32,
}

impl<'a> Row<'a> {
    /// `scratch` is memory to be used again. `None`: NaN or infinity among the logits, or every token is excluded.
    pub fn new(logits: &'a [f32], scratch: &'a mut Vec<f32>) -> Option<Self> {
        scratch.resize(logits.len().div_ceil(RUN), 0.0);
        kernels().run_maxima(logits, scratch);
        let larger = |max: f32, x: &f32| if max.is_nan() || *x <= max { max } else { *x };
        let max = scratch.iter().fold(f32::NEG_INFINITY, larger);
        max.is_finite().then_some(Self { logits, maxima: scratch, max })
    }

    /// The first token of the largest logit.
    pub fn best(&self) -> u32 {
        self.from(self.max).next().map_or(0, |candidate| candidate.id)
    }

    /// Tokens of at least this logit, by id.
    pub fn from(&self, threshold: f32) -> impl Iterator<Item = Candidate> {
        let runs = (0..).step_by(RUN).zip(self.logits.chunks(RUN)).zip(self.maxima);
        let runs = runs.filter(move |(_, max)| **max >= threshold).map(|(run, _)| run);
        let tokens = runs.flat_map(|(first, run)| (first..).zip(run));
        tokens.filter(move |(_, logit)| **logit >= threshold).map(|(id, &logit)| Candidate { logit, id })
    }

    /// How many runs have a token of at least this logit.
    pub fn runs_from(&self, threshold: f32) -> usize {
        self.maxima.iter().filter(|max| **max >= threshold).count()
    }

    /// The first tokens of the runs with a token above `low` and not above `high`.
    pub fn runs_between(&self, low: f32, high: f32) -> impl Iterator<Item = u32> {
        let within = move |any: bool, logit: &f32| any | (*logit > low) & (*logit <= high);
        let runs = (0..).step_by(RUN).zip(self.logits.chunks(RUN)).zip(self.maxima);
        let runs = runs.filter(move |((_, run), max)| **max > low && run.iter().fold(false, within));
        runs.map(|((first, _), _)| first)
    }

    /// A logit that at least `k` tokens have or exceed: the `k`-th largest of the runs' largest.
    pub fn bound(&self, k: usize, scratch: &mut Vec<f32>) -> f32 {
        if k > self.maxima.len() {
            return f32::NEG_INFINITY;
        }
        scratch.clear();
        scratch.extend_from_slice(self.maxima);
        *scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    }

    /// What the tokens of each run weigh together, relative to the best one, at an inverse temperature.
    pub fn run_weights(&self, inverse: f32, sums: &mut Vec<f32>) {
        sums.resize(self.maxima.len(), 0.0);
        kernels().run_weights(self.logits, self.max, inverse, sums);
    }

    /// The first token, by id, at which the weight passes the share `chance` (below 1) of the whole.
    pub fn draw(&self, inverse: f32, chance: f64, sums: &mut Vec<f32>) -> u32 {
        self.run_weights(inverse, sums);
        let point = chance * sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        let mut passed = 0.0;
        let mut weights = [0.0; RUN];
        for (first, (run, &sum)) in (0..).step_by(RUN).zip(self.logits.chunks(RUN).zip(&*sums)) {
            if passed + f64::from(sum) <= point {
                passed += f64::from(sum);
                continue;
            }
            let weights = &mut weights[..run.len()];
            kernels().weigh(run, self.max, inverse, weights);
            let mut last = None;
            for (id, &weight) in (first..).zip(&*weights).filter(|(_, weight)| **weight > 0.0) {
                passed += f64::from(weight);
                last = Some(id);
                if passed > point {
                    break;
                }
            }
            // Added up one by one the run's weight may differ in the last bit: then it is its last token.
            if let Some(last) = last {
                return last;
            }
        }
        self.best()
    }
}
