//! Speculation without a draft model: prompt lookup (Saxena 2023, "Prompt Lookup Decoding"). What followed the last time the
//! newest tokens came in this order is taken for a guess, and the model checks all of the guess in one step.
//!
//! Answers that quote, correct or continue their prompt are guessed well; others are not, so every sequence measures how
//! good its guesses are. It measures each token, drafted or not, so it also knows when to begin again.
//!
//! Knows tokens only; whether a draft pays is the scheduler's to say. Which tokens are generated does not depend on any of
//! this: a draft is kept as far as it is what would have been chosen anyway.

use std::collections::HashMap;

/// Tokens of a draft.
pub const DRAFT_MAX: usize = 7;

/// So many tokens are looked for, longest first: the longer the run, the better the guess.
const RUNS: [usize; 3] = [4, 3, 2];
/// Share of right guesses by run, before any is measured.
const PRIOR: [f64; 3] = [0.6, 0.5, 0.3];
/// Weight of the newest guess.
const SMOOTHING: f64 = 0.1;

/// What one sequence has said, and how well that foretells what it says next.
#[derive(Debug)]
pub struct Speculation {
    /// Where the token after the newest occurrence of a run is.
    after: HashMap<u128, usize>,
    /// Share of right guesses, by run.
    accuracy: [f64; RUNS.len()],
    /// Runs that are followed by one of `tokens[..indexed]` can be found.
    indexed: usize,
}

/// What may come next.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub tokens: Vec<u32>,
    /// The share of such guesses that was right, per token.
    pub accuracy: f64,
}

impl Speculation {
    pub fn new(prompt: &[u32]) -> Self {
        let mut speculation = Self { after: HashMap::new(), accuracy: PRIOR, indexed: 0 };
        speculation.index(prompt);
        speculation
    }

    /// `tokens` has one token more than the last time.
    pub fn push(&mut self, tokens: &[u32]) {
        if let Some((&token, before)) = tokens.split_last()
            && let Some((run, at)) = self.find(before)
        {
            let right = if before[at] == token { 1.0 } else { 0.0 };
            self.accuracy[run] += SMOOTHING * (right - self.accuracy[run]);
        }
        self.index(tokens);
    }

    /// At most `count` tokens that may follow `tokens`.
    pub fn draft(&self, tokens: &[u32], count: usize) -> Option<Draft> {
        let (run, at) = self.find(tokens)?;
        let mut draft: Vec<u32> = Vec::with_capacity(count);
        for next in at..at + count {
            // What ends in itself goes round.
            let token = tokens.get(next).or_else(|| draft.get(next - tokens.len())).copied();
            draft.extend(token);
        }
        (count > 0).then(|| Draft { tokens: draft, accuracy: self.accuracy[run] })
    }

    /// Which run `tokens` end with that was there before, and where the token after it is.
    fn find(&self, tokens: &[u32]) -> Option<(usize, usize)> {
        RUNS.iter().enumerate().find_map(|(run, &len)| {
            let newest = tokens.len().checked_sub(len).map(|start| &tokens[start..])?;
            Some((run, *self.after.get(&key(newest))?))
        })
    }

    fn index(&mut self, tokens: &[u32]) {
        for at in self.indexed..tokens.len() {
            for len in RUNS.into_iter().filter(|&len| len <= at) {
                self.after.insert(key(&tokens[at - len..at]), at);
            }
        }
        self.indexed = tokens.len();
    }
}

/// Up to four tokens side by side; none is zero then, so that runs of different lengths differ.
fn key(run: &[u32]) -> u128 {
    run.iter().fold(0, |key, &token| key << 32 | u128::from(token.wrapping_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::Rng;

    #[track_caller]
    fn check(tokens: &[u32], count: usize, expected: &[u32]) {
        let draft = Speculation::new(tokens).draft(tokens, count).map_or(Vec::new(), |draft| draft.tokens);
        assert_eq!(draft, expected, "{tokens:?}");
    }

    #[test]
    fn guesses_what_followed_the_last_time() {
        check(&[], 4, &[]);
        check(&[1, 2], 4, &[]);
        check(&[1, 2, 3, 4, 1, 2], 2, &[3, 4]);
        check(&[1, 2, 3, 4, 1, 2], 0, &[]);
        // The newest occurrence, and of the longest run.
        check(&[1, 2, 3, 1, 2, 4, 1, 2], 1, &[4]);
        check(&[9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2], 1, &[3]);
        // A loop goes round.
        check(&[5, 6, 7, 5, 6, 7, 5, 6], 7, &[7, 5, 6, 7, 5, 6, 7]);
        check(&[5, 5, 5], 3, &[5, 5, 5]);
    }

    /// Against a search through the whole text, token by token.
    #[test]
    fn finds_what_a_search_finds() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let choices = rng.within(2, 30);
            let mut tokens: Vec<u32> = (0..rng.within(0, 50)).map(|_| rng.within(0, choices) as u32).collect();
            let mut speculation = Speculation::new(&tokens);
            for _ in 0..500 {
                tokens.push(rng.within(0, choices) as u32);
                speculation.push(&tokens);
                let searched = RUNS.iter().find_map(|&len| {
                    let newest = &tokens[tokens.len().checked_sub(len)?..];
                    (len..tokens.len()).rev().find(|&at| tokens[at - len..at] == *newest)
                });
                let guess = speculation.draft(&tokens, 1).map(|draft| draft.tokens[0]);
                assert_eq!(guess, searched.map(|at| tokens[at]), "seed {seed}: {} tokens", tokens.len());
            }
        }
    }

    #[test]
    fn measures_how_good_its_guesses_are() {
        let loops: Vec<u32> = (0..200).map(|i| i % 5).collect();
        let mut speculation = Speculation::new(&loops[..10]);
        for end in 11..=200 {
            speculation.push(&loops[..end]);
        }
        assert!(speculation.draft(&loops, 1).unwrap().accuracy > 0.95);

        // Two tokens by chance: runs come again, and say nothing.
        let mut rng = Rng::new(1);
        let noise: Vec<u32> = (0..500).map(|_| rng.within(0, 9) as u32).collect();
        let mut speculation = Speculation::new(&noise[..10]);
        for end in 11..=500 {
            speculation.push(&noise[..end]);
        }
        assert!(speculation.accuracy[2] < 0.25, "{:?}", speculation.accuracy);
    }
}
