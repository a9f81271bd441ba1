//! Chooses the next token from a row of logits, without sorting the vocabulary.
//!
//! Every filter is a `Cut` in the ranking of tokens (higher logit first, of equal ones the lower id): it names the last
//! token that is kept. Top-k and min-p choose the `Survivors`, usually few; only these are weighed, and among them top-p
//! cuts once more and the draw goes through them by id. The draw depends on nothing but logits, parameters, seed and
//! position: a sequence gets the same tokens in any batch and after any preemption.
//!
//! ```text
//! repetition penalty ─▶ (temperature 0: arg-max) ─▶ temperature ─▶ top-k ─▶ min-p ─▶ top-p ─▶ draw
//! ```

mod math;
#[cfg(test)]
mod oracle;
mod survivors;

use super::{batch::Want, request::SamplingParams};
use math::{arg_max, count_from, max_or_nan, uniform};
use survivors::Survivors;

/// The row holds no choice: NaN or infinity among its logits, or every token excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLogits;

/// What a request with these parameters needs of a row: nobody looks at all logits to find the largest.
pub fn want(params: &SamplingParams) -> Want {
    if is_greedy(params) && params.repetition_penalty == 1.0 { Want::Best } else { Want::Logits }
}

/// Also where the temperature is negative or NaN, which callers have refused.
fn is_greedy(params: &SamplingParams) -> bool {
    params.temperature.is_nan() || params.temperature <= 0.0 || params.top_k == 1
}

/// A token in the ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    logit: f32,
    id: u32,
}

impl Candidate {
    /// Better tokens are less.
    fn rank(&self, other: &Self) -> std::cmp::Ordering {
        other.logit.partial_cmp(&self.logit).expect("rows with NaN are refused").then(self.id.cmp(&other.id))
    }
}

/// The last token that is kept.
type Cut = Candidate;

impl Cut {
    /// Keeps every token.
    const NOTHING: Self = Self { logit: f32::NEG_INFINITY, id: u32::MAX };

    /// Keeps every token of at least this logit.
    fn at(logit: f32) -> Self {
        Self { logit, id: u32::MAX }
    }

    fn stricter(self, other: Self) -> Self {
        if self.rank(&other).is_le() { self } else { other }
    }
}

/// Rows are passed in runs of this many logits; a run that lies below a cut is skipped.
const RUN: usize = 64;

/// Scratch for sampling; one serves any number of sequences, one after the other.
#[derive(Debug)]
pub struct Sampler {
    /// Ids from here up are padding of the model's output and are never chosen.
    vocabulary: usize,
    candidates: Vec<Candidate>,
    survivors: Survivors,
    /// One bit per token: seen. All zero between calls.
    seen: Vec<u64>,
}

impl Sampler {
    /// A sampler for a tokenizer of `vocabulary` tokens.
    pub fn new(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            candidates: Vec::new(),
            survivors: Survivors::default(),
            seen: vec![0; vocabulary.div_ceil(64)],
        }
    }

    /// The token that follows `tokens` (prompt and answer so far), given its row of logits; `params.seed` is not read, the
    /// caller has drawn `seed` where there was none. Leaves penalties in `logits`.
    ///
    /// # Errors
    /// [`BadLogits`]: the model's output is broken for this sequence.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        params: &SamplingParams,
        tokens: &[u32],
        seed: u64,
    ) -> Result<u32, BadLogits> {
        let vocabulary = self.vocabulary.min(logits.len());
        let row = &mut logits[..vocabulary];
        if params.repetition_penalty != 1.0 {
            self.penalise(row, tokens, params.repetition_penalty);
        }
        let max = max_or_nan(row);
        if !max.is_finite() {
            return Err(BadLogits);
        }
        if is_greedy(params) {
            return Ok(arg_max(row, max));
        }
        let cut = self.top_k(row, params.top_k as usize).stricter(min_p(max, params));
        self.survivors.collect(row, cut, max, params.temperature);
        let cut = self.survivors.top_p(params.top_p);
        Ok(self.survivors.draw(cut, uniform(seed, tokens.len() as u64)).unwrap_or_else(|| arg_max(row, max)))
    }

    /// Divides positive logits of seen tokens by `penalty` and multiplies negative ones, each token once
    /// (Keskar et al. 2019, "CTRL", §4.1, in the form that others have settled on).
    fn penalise(&mut self, row: &mut [f32], tokens: &[u32], penalty: f32) {
        for &token in tokens {
            let Some(logit) = row.get_mut(token as usize) else { continue };
            let (word, bit) = (token as usize / 64, 1 << (token % 64));
            if self.seen[word] & bit == 0 {
                self.seen[word] |= bit;
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for &token in tokens {
            if let Some(word) = self.seen.get_mut(token as usize / 64) {
                *word = 0;
            }
        }
    }

    /// The `k`-th token. Candidates pile up above the best known bound; at `2 k` of them the worse half is dropped, which
    /// raises the bound, so that ever fewer are looked at.
    fn top_k(&mut self, row: &[f32], k: usize) -> Cut {
        if k == 0 || k >= row.len() {
            return Cut::NOTHING;
        }
        self.candidates.clear();
        let mut bound = Cut::NOTHING;
        for (index, run) in row.chunks(RUN).enumerate() {
            // One equal to the bound has the higher id and ranks after it.
            if count_from(run, bound.logit.next_up()) == 0 {
                continue;
            }
            for (offset, &logit) in run.iter().enumerate() {
                if logit > bound.logit {
                    self.candidates.push(Candidate { logit, id: (index * RUN + offset) as u32 });
                    if self.candidates.len() == 2 * k {
                        bound = self.select(k);
                        self.candidates.truncate(k);
                    }
                }
            }
        }
        // Fewer than k: the others are excluded anyhow.
        if self.candidates.len() < k { Cut::NOTHING } else { self.select(k) }
    }

    /// The `k`-th best candidate; the better ones are moved before it.
    fn select(&mut self, k: usize) -> Candidate {
        *self.candidates.select_nth_unstable_by(k - 1, Candidate::rank).1
    }
}

/// Tokens with `min_p` of the best token's probability.
fn min_p(max: f32, params: &SamplingParams) -> Cut {
    if params.min_p > 0.0 { Cut::at((max + params.temperature * params.min_p.ln()).min(max)) } else { Cut::NOTHING }
}
