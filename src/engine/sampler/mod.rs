//! Chooses the next token from a row of logits, without sorting the vocabulary.
//!
//! Every filter is a `Cut` in the ranking of tokens (higher logit first, of equal ones the lower id): it names the last
//! token that is kept. One pass finds the largest logit of each run of the `Row`; from then on only runs are looked into
//! that may hold something. Top-k and min-p choose the `Survivors`, usually few; only these are weighed, and among them
//! top-p cuts once more and the draw goes through them by id. Where many are left, as top-p alone leaves them of a flat
//! row, they are a `Crowd` that is never listed: a few passes over the row do the same. The draw depends on nothing but logits, parameters, seed and
//! position: a sequence gets the same tokens in any batch and after any preemption.
//!
//! ```text
//! repetition penalty ─▶ (temperature 0: arg-max) ─▶ temperature ─▶ top-k ─▶ min-p ─▶ top-p ─▶ draw
//! ```

mod chance;
mod crowd;
#[cfg(test)]
mod oracle;
mod row;
mod survivors;

use super::{batch::Want, request::SamplingParams};
use chance::uniform;
use crowd::Crowd;
use row::Row;
use survivors::Survivors;

/// Tokens in more runs than these are a crowd.
const RUNS_OF_FEW: usize = 192;

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

/// Scratch for sampling; one serves any number of sequences, one after the other.
#[derive(Debug)]
pub struct Sampler {
    /// Ids from here up are padding of the model's output and are never chosen.
    vocabulary: usize,
    /// Of each run of the row: its largest logit; its weight, or the largest ones once more.
    maxima: Vec<f32>,
    runs: Vec<f32>,
    candidates: Vec<Candidate>,
    survivors: Survivors,
    crowd: Crowd,
    /// One bit per token: seen. All zero between calls.
    seen: Vec<u64>,
}

impl Sampler {
    /// A sampler for a tokenizer of `vocabulary` tokens.
    pub fn new(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            maxima: Vec::new(),
            runs: Vec::new(),
            candidates: Vec::new(),
            survivors: Survivors::default(),
            crowd: Crowd::default(),
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
        let Self { maxima, runs, candidates, survivors, crowd, .. } = self;
        let row = Row::new(row, maxima).ok_or(BadLogits)?;
        if is_greedy(params) {
            return Ok(row.best());
        }
        let chance = uniform(seed, tokens.len() as u64);
        let inverse = inverse(params.temperature);
        let keeps_all = params.top_p.is_nan() || params.top_p >= 1.0;
        let cut = top_k(&row, params.top_k as usize, runs, candidates).stricter(min_p(row.max, params));
        // Without another cut top-p makes one that is not too strict, and takes its share of all there is.
        let (cut, total) = match (cut == Cut::NOTHING, keeps_all) {
            (true, true) => return Ok(row.draw(inverse, chance, runs)),
            (true, false) => {
                row.run_weights(inverse, runs);
                let total = runs.iter().map(|&sum| f64::from(sum)).sum::<f64>();
                (Cut::at(least_for(total, &row, params)), Some(total))
            }
            (false, _) => (cut, None),
        };
        let wanted = |all: f64| f64::from(params.top_p) * total.unwrap_or(all);
        let chosen = if row.runs_from(cut.logit) > RUNS_OF_FEW {
            crowd.collect(&row, cut, inverse);
            let cut = if keeps_all { Cut::NOTHING } else { crowd.top_p(&row, wanted(crowd.weight(&row))) };
            crowd.draw(&row, cut, chance)
        } else {
            survivors.collect(&row, cut, inverse);
            let cut = if keeps_all { Cut::NOTHING } else { survivors.top_p(wanted(survivors.weight())) };
            survivors.draw(cut, chance)
        };
        Ok(chosen.unwrap_or_else(|| row.best()))
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
}

/// By what distances to the best logit are multiplied; finite, so that the best's own stays zero.
fn inverse(temperature: f32) -> f32 {
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
fn min_p(max: f32, params: &SamplingParams) -> Cut {
    if params.min_p > 0.0 { Cut::at((max + params.temperature * params.min_p.ln()).min(max)) } else { Cut::NOTHING }
}

/// A logit so low that all tokens below it, were they as many as there are and all as likely as it, would not weigh what
/// top-p leaves out of `total`: so none of them is among those it keeps.
fn least_for(total: f64, row: &Row, params: &SamplingParams) -> f32 {
    // A tenth less, for what rounding may add.
    let left_out = 0.9 * (1.0 - f64::from(params.top_p)) * total;
    // Farther away nothing weighs anything.
    let distance = (row.logits.len() as f64 / left_out).ln().clamp(0.0, 88.0) as f32;
    row.max - distance * params.temperature
}
