//! Chooses the next token from a row of logits, without sorting the vocabulary.
//!
//! Every filter is a `Cut` in the ranking of tokens (higher logit first, of equal ones the lower id): it names the last
//! token that is kept. One pass finds the largest logit of each run of the `Row`; from then on only runs are looked into
//! that may hold something. Top-k and min-p choose the `Survivors`, usually few; only these are weighed, and among them
//! top-p cuts once more and the draw goes through them by id. Where many are left, as top-p alone leaves them of a flat
//! row, they are a `Crowd` that is never listed: a few passes over the row do the same.
//!
//! ```text
//! bias ─▶ penalties ─▶ DRY ─▶ (temperature 0: arg-max) ─▶ temperature ─▶ top-k ─▶ min-p ─▶ top-p ─▶ draw
//! ```
//!
//! That is the usual order. Other filters and other orders work one by one on what is `Left`, which is the row until one of
//! them makes it a list (`filters`, `mirostat`).
//!
//! The draw depends on nothing but logits, parameters, the tokens so far and the seed: a sequence gets the same tokens in
//! any batch and after any preemption. Mirostat alone carries something from token to token, in the sequence's [`Memory`]:
//! it changes with each token that is chosen and with nothing else. Guesses are not chosen but checked: a row behind a
//! wrong guess is never sampled, so it moves nothing.

mod chance;
mod check;
mod crowd;
mod dry;
mod filters;
mod left;
mod logprobs;
mod mirostat;
#[cfg(test)]
mod oracle;
mod penalties;
mod row;
mod survivors;
#[cfg(test)]
mod textbook;

use super::{
    batch::Want,
    request::{Filter, SamplingParams, TokenLogprobs},
    tokenizer::Tokenizer,
};
use chance::uniform;
pub use check::check;
use crowd::Crowd;
use dry::Repetitions;
use left::{Left, Space};
use logprobs::Likelihoods;
use penalties::Tally;
use row::Row;
use survivors::Survivors;

/// Tokens in more runs than these are a crowd.
const RUNS_OF_FEW: usize = 192;

/// The row holds no choice: NaN or infinity among its logits, or every token excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLogits;

/// What a request with these parameters needs of a row: nobody looks at all logits to find the largest.
pub fn want(params: &SamplingParams) -> Want {
    let plain = params.logit_bias.is_empty() && !params.filters().any(is_edit);
    if plain && is_greedy(params) { Want::Best } else { Want::Logits }
}

/// Also where the temperature is negative or NaN, which callers have refused.
fn is_greedy(params: &SamplingParams) -> bool {
    let coldest = params.temperature.is_nan() || params.temperature <= 0.0;
    coldest || (params.top_k == 1 && params.mirostat.is_none() && Usual::of(params).is_some())
}

/// Changes logits by what was said before, and leaves nothing out.
fn is_edit(filter: Filter) -> bool {
    matches!(filter, Filter::Penalties | Filter::Dry)
}

/// What is known of a sequence whose next token is to be chosen.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// `seed` is not read.
    pub params: &'a SamplingParams,
    /// Prompt and answer so far.
    pub tokens: &'a [u32],
    pub prompt_tokens: usize,
    /// The request's, or drawn for it.
    pub seed: u64,
    pub texts: &'a dyn Texts,
}

impl Ask<'_> {
    /// The last `count` tokens; `None`: all.
    fn last_tokens(&self, count: Option<usize>) -> &[u32] {
        &self.tokens[self.tokens.len().saturating_sub(count.unwrap_or(usize::MAX))..]
    }
}

/// What tokens look like in text.
pub trait Texts: Sync {
    /// Of an unknown token, nothing.
    fn bytes(&self, token: u32) -> &[u8];
}

impl Texts for Tokenizer {
    fn bytes(&self, token: u32) -> &[u8] {
        self.token_bytes(token)
    }
}

/// What a sequence carries from one token to the next, beside the tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Memory {
    /// Mirostat's: less likely tokens are left out, in bits. `None` before the first token.
    surprise_max: Option<f64>,
}

/// Temperature, top-k, min-p and top-p in this order, as far as they are there; the others' neutral values.
struct Usual {
    temperature: f32,
    top_k: usize,
    min_p: f32,
    top_p: f32,
}

impl Usual {
    /// `None`: there are other filters, or they come in another order.
    fn of(params: &SamplingParams) -> Option<Self> {
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
    space: Space,
    runs: Vec<f32>,
    candidates: Vec<Candidate>,
    survivors: Survivors,
    crowd: Crowd,
    tally: Tally,
    repetitions: Repetitions,
    likelihoods: Likelihoods,
}

impl Sampler {
    /// A sampler for a tokenizer of `vocabulary` tokens.
    pub fn new(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            space: Space::default(),
            runs: Vec::new(),
            candidates: Vec::new(),
            survivors: Survivors::default(),
            crowd: Crowd::default(),
            tally: Tally::default(),
            repetitions: Repetitions::default(),
            likelihoods: Likelihoods::default(),
        }
    }

    /// The token that follows, given its row of logits, which this may change.
    ///
    /// # Errors
    /// [`BadLogits`]: the model's output is broken for this sequence. Then `memory` is as it was.
    pub fn sample(&mut self, logits: &mut [f32], ask: &Ask, memory: &mut Memory) -> Result<u32, BadLogits> {
        let params = ask.params;
        let vocabulary = self.vocabulary.min(logits.len());
        let Self { space, tally, repetitions, .. } = self;
        let mut left = Left::all(&mut logits[..vocabulary], space);
        penalties::bias(&mut left, &params.logit_bias);
        let greedy = is_greedy(params);
        let first = params.filters().take_while(|filter| is_edit(*filter)).count();
        let first = if greedy || params.mirostat.is_some() { usize::MAX } else { first };
        for filter in params.filters().take(first).filter(|filter| is_edit(*filter)) {
            edit(filter, &mut left, tally, repetitions, vocabulary, ask);
        }
        let chance = uniform(ask.seed, ask.tokens.len() as u64);
        if greedy {
            let (row, maxima) = left.into_row();
            return Ok(Row::new(row, maxima).ok_or(BadLogits)?.best());
        }
        if let Some(mirostat) = params.mirostat {
            filters::temperature(&mut left, params)?;
            return mirostat::draw(&mut left, mirostat, vocabulary, chance, memory);
        }
        if let Some(usual) = Usual::of(params) {
            return self.draw_usual(&logits[..vocabulary], &usual, chance);
        }
        for filter in params.filters().skip(first) {
            match filter {
                Filter::Penalties | Filter::Dry => edit(filter, &mut left, tally, repetitions, vocabulary, ask),
                Filter::TopNSigma => filters::top_n_sigma(&mut left, params.top_n_sigma)?,
                Filter::TopK => left.keep_best(params.top_k as usize)?,
                Filter::Typical => left.keep_most_typical(params.typical_p)?,
                Filter::TopP => left.keep_most_likely(params.top_p)?,
                Filter::MinP => filters::min_p(&mut left, params.min_p)?,
                Filter::Xtc => {
                    if let Some(xtc) = params.xtc {
                        filters::xtc(&mut left, xtc, ask.seed, ask.tokens.len() as u64)?;
                    }
                }
                Filter::Temperature => filters::temperature(&mut left, params)?,
            }
        }
        left.draw(chance).map(|(token, _)| token)
    }

    /// Looks at a row of logits as the model gave it, for [`logprobs`](Self::logprobs), and at its `count` most likely
    /// tokens.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn look(&mut self, logits: &[f32], count: usize) -> Result<(), BadLogits> {
        self.likelihoods.look(&logits[..self.vocabulary.min(logits.len())], count)
    }

    /// How likely a token was in the row that was looked at last.
    pub fn logprobs(&self, token: u32) -> TokenLogprobs {
        self.likelihoods.of(token)
    }

    /// Filters in the usual order, and the draw.
    fn draw_usual(&mut self, row: &[f32], usual: &Usual, chance: f64) -> Result<u32, BadLogits> {
        let Self { space, runs, candidates, survivors, crowd, .. } = self;
        let row = Row::new(row, space.maxima()).ok_or(BadLogits)?;
        let inverse = inverse(usual.temperature);
        let keeps_all = usual.top_p >= 1.0;
        let cut = top_k(&row, usual.top_k, runs, candidates).stricter(min_p(row.max, usual));
        // Without another cut top-p makes one that is not too strict, and takes its share of all there is.
        let (cut, total) = match (cut == Cut::NOTHING, keeps_all) {
            (true, true) => return Ok(row.draw(inverse, chance, runs)),
            (true, false) => {
                row.run_weights(inverse, runs);
                let total = runs.iter().map(|&sum| f64::from(sum)).sum::<f64>();
                (Cut::at(least_for(total, &row, usual)), Some(total))
            }
            (false, _) => (cut, None),
        };
        let wanted = |all: f64| f64::from(usual.top_p) * total.unwrap_or(all);
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
}

/// Penalties or DRY.
fn edit(
    filter: Filter,
    left: &mut Left,
    tally: &mut Tally,
    repetitions: &mut Repetitions,
    vocabulary: usize,
    ask: &Ask,
) {
    match &ask.params.dry {
        Some(dry) if filter == Filter::Dry => repetitions.penalise(left, tally, vocabulary, dry, ask),
        _ => penalties::penalise(left, tally, vocabulary, ask),
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
