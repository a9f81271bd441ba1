//! What filters have left of a row: all of it, or a list of tokens by id as soon as one of them has made it short.
//!
//! Filters that are not of the fast path work on this. Whatever they need of the whole row takes a pass or two over it; one
//! that leaves tokens out says first below which logit it surely keeps nothing, and only what is above is listed.

use super::{BadLogits, Candidate, Cut, row::Row, survivors};
use crate::engine::kernels::{Moments, Spread, kernels};

/// Logits never get farther from zero by what is added to them, so that all stay numbers.
const LOGIT_MAX: f32 = 1e30;

/// What rounding may take from a bound, in logits.
const SLACK: f32 = 1e-3;

pub struct Left<'a> {
    row: &'a mut [f32],
    /// The tokens are those of the list, not those of the row.
    listed: bool,
    space: &'a mut Space,
}

/// Memory that is used again from row to row.
#[derive(Debug, Default)]
pub struct Space {
    /// The list, by ascending id; none of them is excluded.
    tokens: Vec<Candidate>,
    /// Of the list.
    logits: Vec<f32>,
    weights: Vec<f32>,
    ranked: Vec<(Candidate, f32)>,
    /// Of each run of the row: its largest logit; its weight, or the largest ones once more.
    maxima: Vec<f32>,
    runs: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A distribution in a few numbers.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// The best logit.
    pub max: f32,
    pub spread: Spread,
}

impl Whole {
    /// The expected logit. A token's information differs from the entropy by its logit's distance to this one.
    pub fn centre(&self) -> f64 {
        f64::from(self.max) + self.spread.weighted / self.spread.weight
    }

    /// In nats.
    pub fn entropy(&self) -> f64 {
        self.spread.weight.ln() - self.spread.weighted / self.spread.weight
    }

    /// The logit of a token that has the share `probability` of the whole, or a little less.
    pub fn logit_of(&self, probability: f64) -> f32 {
        self.max + (probability * self.spread.weight).ln() as f32 - SLACK
    }

    /// A logit so low that all tokens below it, were they as many as there are and all as likely as it, would not weigh
    /// what is left out by who keeps the share `kept`.
    fn least_for(&self, kept: f32) -> f32 {
        // A tenth less, for what rounding may add.
        let left_out = 0.9 * (1.0 - f64::from(kept)) * self.spread.weight;
        // Farther away nothing weighs anything.
        self.max - (self.spread.tokens as f64 / left_out).ln().clamp(0.0, 88.0) as f32
    }
}

impl<'a> Left<'a> {
    /// All of a row.
    pub fn all(row: &'a mut [f32], space: &'a mut Space) -> Self {
        Self { row, listed: false, space }
    }

    /// The row, if that is what is left.
    pub fn into_row(self) -> (&'a [f32], &'a mut Vec<f32>) {
        debug_assert!(!self.listed);
        (self.row, &mut self.space.maxima)
    }

    /// Changes the logit of a token, if it is left.
    pub fn edit(&mut self, token: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(logit) = self.logit_mut(token).filter(|logit| logit.is_finite()) {
            *logit = change(*logit).clamp(-LOGIT_MAX, LOGIT_MAX);
        }
    }

    /// Takes some tokens out.
    pub fn exclude(&mut self, tokens: impl Iterator<Item = u32>) {
        for token in tokens {
            if let Some(logit) = self.logit_mut(token).filter(|logit| logit.is_finite()) {
                *logit = f32::NEG_INFINITY;
            }
        }
        if self.listed {
            self.space.tokens.retain(|token| token.logit > f32::NEG_INFINITY);
        }
    }

    /// Whether all that is left of the row is among some tokens.
    pub fn is_within(&self, tokens: impl Fn(u32) -> bool) -> bool {
        let mut left = (0..).zip(&*self.row).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        left.all(|(token, _)| tokens(token))
    }

    /// Multiplies all logits.
    pub fn scale(&mut self, factor: f32) {
        if self.listed {
            self.space.tokens.iter_mut().for_each(|token| token.logit *= factor);
        } else {
            self.row.iter_mut().for_each(|logit| *logit *= factor);
        }
    }

    pub fn whole(&mut self) -> Result<Whole, BadLogits> {
        let max = self.max()?;
        Ok(Whole { max, spread: kernels().spread(self.logits(), max) })
    }

    /// The best logit, and how all lie about it.
    pub fn moments(&mut self) -> Result<(f32, Moments), BadLogits> {
        let max = self.max()?;
        Ok((max, kernels().moments(self.logits(), max)))
    }

    pub fn max(&mut self) -> Result<f32, BadLogits> {
        if !self.listed {
            return Ok(self.row()?.0.max);
        }
        let Space { tokens, logits, .. } = &mut *self.space;
        logits.clear();
        logits.extend(tokens.iter().map(|token| token.logit));
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if max.is_finite() { Ok(max) } else { Err(BadLogits) }
    }

    /// Keeps the tokens of at least this logit, the best of which is no lower.
    pub fn keep_from(&mut self, threshold: f32) -> Result<(), BadLogits> {
        let threshold = threshold.max(f32::MIN);
        if self.listed {
            self.space.tokens.retain(|token| token.logit >= threshold);
            return Ok(());
        }
        let mut tokens = std::mem::take(&mut self.space.tokens);
        tokens.clear();
        tokens.extend(self.row()?.0.from(threshold));
        self.space.tokens = tokens;
        self.listed = true;
        Ok(())
    }

    /// Keeps the `k` best, at least one.
    pub fn keep_best(&mut self, k: usize) -> Result<(), BadLogits> {
        let cut = self.best(k)?.last().copied().ok_or(BadLogits)?;
        self.keep_from(cut.logit)?;
        self.space.tokens.retain(|token| token.rank(&cut).is_le());
        Ok(())
    }

    /// The `k` best tokens, at least one; the last of them stands last.
    pub fn best(&mut self, k: usize) -> Result<&mut [Candidate], BadLogits> {
        let mut candidates = std::mem::take(&mut self.space.candidates);
        candidates.clear();
        if self.listed {
            candidates.extend_from_slice(&self.space.tokens);
        } else {
            let (row, runs) = self.row()?;
            candidates.extend(row.from(row.bound(k, runs).max(f32::MIN)));
        }
        self.space.candidates = candidates;
        let candidates = &mut self.space.candidates;
        let k = k.clamp(1, candidates.len().max(1));
        if k < candidates.len() {
            candidates.select_nth_unstable_by(k - 1, Candidate::rank);
        } else {
            candidates.sort_unstable_by(Candidate::rank);
        }
        candidates.truncate(k);
        Ok(candidates)
    }

    /// Keeps the fewest tokens, best first, that have the share `kept` of the whole.
    pub fn keep_most_likely(&mut self, kept: f32) -> Result<(), BadLogits> {
        let whole = self.whole()?;
        self.keep_from(whole.least_for(kept))?;
        let cut = self.nucleus(whole, kept, |token| token);
        self.space.tokens.retain(|token| token.rank(&cut).is_le());
        Ok(())
    }

    /// Keeps the fewest tokens, those of the logits nearest to the expected one first, that have the share `kept`.
    pub fn keep_most_typical(&mut self, kept: f32) -> Result<(), BadLogits> {
        let whole = self.whole()?;
        let centre = whole.centre();
        // As far below as the best is above at least, for it may be the farthest that is kept.
        let mirrored = (2.0 * centre - f64::from(whole.max)) as f32 - SLACK;
        self.keep_from(whole.least_for(kept).min(mirrored))?;
        let nearness = |token: Candidate| Candidate { logit: -(f64::from(token.logit) - centre).abs() as f32, ..token };
        let cut = self.nucleus(whole, kept, nearness);
        self.space.tokens.retain(|token| nearness(*token).rank(&cut).is_le());
        Ok(())
    }

    /// The last of the fewest listed tokens, by the order that `score` puts them in, that have the share `kept`.
    fn nucleus(&mut self, whole: Whole, kept: f32, score: impl Fn(Candidate) -> Candidate) -> Cut {
        self.weigh(whole.max);
        let Space { tokens, weights, ranked, .. } = &mut *self.space;
        ranked.clear();
        ranked.extend(tokens.iter().map(|token| score(*token)).zip(weights.iter().copied()));
        survivors::nucleus(ranked, f64::from(kept) * whole.spread.weight).unwrap_or(Cut::NOTHING)
    }

    /// Tokens of at least this logit, by id.
    pub fn from(&mut self, threshold: f32) -> Result<&[Candidate], BadLogits> {
        let threshold = threshold.max(f32::MIN);
        let mut candidates = std::mem::take(&mut self.space.candidates);
        candidates.clear();
        if self.listed {
            candidates.extend(self.space.tokens.iter().filter(|token| token.logit >= threshold));
        } else {
            candidates.extend(self.row()?.0.from(threshold));
        }
        self.space.candidates = candidates;
        Ok(&self.space.candidates)
    }

    /// The first token, by id, at which the weight of what is left passes the share `chance` (below 1) of the whole; and
    /// its probability.
    pub fn draw(&mut self, chance: f64) -> Result<(u32, f64), BadLogits> {
        let max = self.max()?;
        if !self.listed {
            let (row, runs) = self.row()?;
            let token = row.draw(1.0, chance, runs);
            let weight = crate::engine::kernels::exp(row.logits[token as usize] - max);
            return Ok((token, f64::from(weight) / runs.iter().map(|&sum| f64::from(sum)).sum::<f64>()));
        }
        self.weigh(max);
        let Space { tokens, weights, .. } = &*self.space;
        let index = survivors::draw(weights, chance).ok_or(BadLogits)?;
        Ok((tokens[index].id, f64::from(weights[index]) / survivors::sum(weights)))
    }

    /// Weighs the list.
    fn weigh(&mut self, max: f32) {
        let Space { tokens, logits, weights, .. } = &mut *self.space;
        logits.clear();
        logits.extend(tokens.iter().map(|token| token.logit));
        weights.resize(logits.len(), 0.0);
        kernels().weigh(logits, max, 1.0, weights);
    }

    fn logits(&self) -> &[f32] {
        if self.listed { &self.space.logits } else { self.row }
    }

    fn logit_mut(&mut self, token: u32) -> Option<&mut f32> {
        if !self.listed {
            return self.row.get_mut(token as usize);
        }
        let index = self.space.tokens.binary_search_by_key(&token, |token| token.id).ok()?;
        Some(&mut self.space.tokens[index].logit)
    }

    /// The row, and scratch.
    fn row(&mut self) -> Result<(Row<'_>, &mut Vec<f32>), BadLogits> {
        let Space { maxima, runs, .. } = &mut *self.space;
        Ok((Row::new(self.row, maxima).ok_or(BadLogits)?, runs))
    }
}
