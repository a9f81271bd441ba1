//! From what a step's rows gave to the tokens that follow: every chunk's by itself, side by side on the model's team where
//! there is more than one to do.
//!
//! A task holds all that it reads and writes, so what is chosen depends neither on who else is served nor on the threads.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError, TryLockError},
};

use super::{
    batch::{Batch, Want},
    error::RequestError,
    grammar::{Ahead, Allowed},
    job::Job,
    models::{Best, Outcome},
    sampler::{BadLogits, Sampler},
    scheduler::Chunk,
    team::Team,
    tokenizer::Tokenizer,
};

/// What the model gave for one row of which something was wanted.
pub enum Row<'a> {
    Best(Best),
    Logits(&'a mut [f32]),
    Hidden(&'a [f32]),
}

/// The rows of a batch of which something was wanted, in order.
pub fn rows<'a>(
    batch: &'a Batch,
    outcome: &'a mut Outcome,
    vocabulary: usize,
    hidden: usize,
) -> impl Iterator<Item = Row<'a>> {
    let mut best = outcome.best.iter().copied();
    let mut logits = outcome.logits.chunks_exact_mut(vocabulary);
    let mut states = outcome.hidden.chunks_exact(hidden);
    batch.sampled.iter().filter_map(move |(_, want)| match want {
        Want::Best => best.next().map(Row::Best),
        Want::Logits => logits.next().map(Row::Logits),
        Want::Hidden => states.next().map(Row::Hidden),
    })
}

/// What is to be chosen for one chunk.
pub struct Task<'a> {
    pub chunk: &'a Chunk,
    /// Those that score the prompt, then those that are sampled.
    pub rows: Vec<Row<'a>>,
    /// The sequence's.
    pub tokens: &'a [u32],
    /// What its grammar says of the sampled rows, if it has one.
    pub ahead: Result<Option<Ahead>, String>,
    pub job: Job,
}

/// A task that was done.
pub struct Done<'a> {
    pub chunk: &'a Chunk,
    pub job: Job,
    /// The tokens that follow; none where the chunk does not reach the end.
    pub chosen: Result<Vec<u32>, RequestError>,
}

/// Does every task. `samplers` are as many as the team has threads.
pub fn choose<'a>(
    tasks: Vec<Task<'a>>,
    samplers: &[Mutex<Sampler>],
    tokenizer: &Tokenizer,
    team: Option<&Team>,
) -> Vec<Done<'a>> {
    // Where a row's logits were not wanted there is nothing to do.
    let heavy = tasks.iter().flat_map(|task| &task.rows).filter(|row| matches!(row, Row::Logits(_))).count();
    let places: Vec<Mutex<(Option<Task>, Option<Done>)>> =
        tasks.into_iter().map(|task| Mutex::new((Some(task), None))).collect();
    let work = |index: usize| {
        let mut place = places[index].lock().unwrap_or_else(PoisonError::into_inner);
        // A thread holds one at a time, so one is free. It may be any, for it remembers nothing.
        let free = || {
            samplers.iter().find_map(|sampler| match sampler.try_lock() {
                Ok(sampler) => Some(sampler),
                Err(TryLockError::Poisoned(sampler)) => Some(sampler.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            })
        };
        if let Some(mut sampler) = std::iter::repeat_with(free).flatten().next() {
            place.1 = place.0.take().map(|task| task.done(&mut sampler, tokenizer));
        }
    };
    match team {
        Some(team) if heavy > 1 => team.for_each_chunk(places.len(), 1, |range| range.for_each(work)),
        _ => (0..places.len()).for_each(work),
    }
    places.into_iter().filter_map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner).1).collect()
}

impl<'a> Task<'a> {
    fn done(mut self, sampler: &mut Sampler, tokenizer: &Tokenizer) -> Done<'a> {
        let chosen = self.chosen(sampler, tokenizer);
        Done { chunk: self.chunk, job: self.job, chosen }
    }

    fn chosen(&mut self, sampler: &mut Sampler, tokenizer: &Tokenizer) -> Result<Vec<u32>, RequestError> {
        let Self { chunk, rows, tokens, ahead, job } = self;
        let ahead = std::mem::replace(ahead, Ok(None)).map_err(RequestError::Grammar)?;
        let mut rows = std::mem::take(rows).into_iter();
        for (position, row) in (chunk.first_scored()..).zip(rows.by_ref().take(chunk.scored)) {
            // Scored rows are wanted with all their logits, and have a token behind them.
            if let (Row::Logits(logits), Some(next)) = (row, tokens.get(position + 1)) {
                job.score(logits, *next, sampler).map_err(|BadLogits| RequestError::BadLogits)?;
            }
        }
        let allowed = |position: usize| match &ahead {
            None => Ok(&Allowed::All),
            Some(ahead) => ahead.get(position - tokens.len()).map(|(_, allowed)| allowed).ok_or(BadLogits),
        };
        let chosen = follow(chunk, rows, tokens, |row, tokens| match row {
            Row::Best(best) if best.logit.is_finite() => Ok(best.token),
            // Where a token is to be chosen no states are wanted.
            Row::Best(_) | Row::Hidden(_) => Err(BadLogits),
            Row::Logits(logits) => job.choose(logits, allowed(tokens.len())?, tokens, sampler, tokenizer),
        });
        let chosen = chosen.map_err(|BadLogits| RequestError::BadLogits)?;
        ahead.map_or(Ok(()), |ahead| job.advance(ahead, &chosen)).map_err(RequestError::Grammar)?;
        Ok(chosen)
    }
}

/// What a chunk brings after `tokens`: a token from its first sampled row and, as long as the draft has just that token, one
/// from the row after it. Each is chosen as if there were no draft: with the tokens before it, and none of a wrong guess.
fn follow<'a>(
    chunk: &Chunk,
    rows: impl Iterator<Item = Row<'a>>,
    tokens: &[u32],
    mut choose: impl FnMut(Row, &[u32]) -> Result<u32, BadLogits>,
) -> Result<Vec<u32>, BadLogits> {
    let mut tokens = Cow::Borrowed(tokens);
    let mut chosen = Vec::with_capacity(chunk.sampled_rows());
    for (i, row) in rows.enumerate() {
        match choose(row, &tokens) {
            Ok(token) => chosen.push(token),
            // A guess that can't be checked is not taken.
            Err(_) if i > 0 => break,
            Err(bad) => return Err(bad),
        }
        if chunk.draft.get(i) != chosen.last() {
            break;
        }
        tokens.to_mut().extend(chosen.last());
    }
    Ok(chosen)
}
