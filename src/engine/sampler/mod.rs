//! Chooses the next token from a row of logits, without sorting the vocabulary.
//!
//! ```text
//!                                                            ┌─▶ temperature ─▶ top-k ─▶ min-p ─▶ top-p ─▶ draw   (usual)
//! bias ─▶ penalties ─▶ DRY ─▶ (temperature 0: arg-max) ──────┼─▶ any filters in any order ─▶ draw               (filters)
//!                                                            └─▶ temperature ─▶ mirostat                       (mirostat)
//! ```
//!
//! The usual filters are a fast path over the `Row` (`usual`). Others, and other orders, work one by one on what is `Left`,
//! which is the row until one of them makes it a list.
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
mod usual;

use super::{
    batch::Want,
    request::{Filter, SamplingParams, TokenLogprobs},
    tokenizer::Tokenizer,
};
use chance::uniform;
pub use check::check;
use dry::Repetitions;
use left::{Left, Space};
use logprobs::Likelihoods;
use penalties::Tally;
use row::Row;
use usual::Usual;

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
    usual: usual::Space,
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
            usual: usual::Space::default(),
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
            let (row, maxima) = left.into_row();
            return Ok(usual.draw(&Row::new(row, maxima).ok_or(BadLogits)?, chance, &mut self.usual));
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
