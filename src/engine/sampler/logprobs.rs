//! How likely the model itself finds the tokens: before bias, penalties and temperature.

use super::{BadLogits, Candidate, row::Row};
use crate::engine::request::TokenLogprobs;

/// Memory that is used again from row to row.
#[derive(Debug, Default)]
pub struct Likelihoods {
    /// The row as the model gave it.
    logits: Vec<f32>,
    /// The logarithm of all their exponentials' sum.
    normaliser: f64,
    best: Vec<Candidate>,
    maxima: Vec<f32>,
    runs: Vec<f32>,
}

impl Likelihoods {
    /// Looks at a row, and at its `count` most likely tokens.
    pub fn look(&mut self, logits: &[f32], count: usize) -> Result<(), BadLogits> {
        let Self { best, maxima, runs, .. } = self;
        let row = Row::new(logits, maxima).ok_or(BadLogits)?;
        best.clear();
        if count > 0 {
            best.extend(row.from(row.bound(count, runs).max(f32::MIN)));
            best.sort_unstable_by(Candidate::rank);
            best.truncate(count);
        }
        row.run_weights(1.0, runs);
        self.normaliser = f64::from(row.max) + runs.iter().map(|&sum| f64::from(sum)).sum::<f64>().ln();
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        Ok(())
    }

    /// A token of the row that was looked at last.
    pub fn of(&self, token: u32) -> TokenLogprobs {
        let logit = self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let top = self.best.iter().map(|best| (best.id, self.logprob(best.logit))).collect();
        TokenLogprobs { token, logprob: self.logprob(logit), top }
    }

    fn logprob(&self, logit: f32) -> f32 {
        ((f64::from(logit) - self.normaliser) as f32).max(TokenLogprobs::NEVER)
    }
}
