//! The output head: what the rows that are sampled give, without writing logits that nobody wants.

use super::{
    Best, Outcome,
    parts::{Logits, Parts},
};
use crate::engine::{
    batch::Want,
    kernels::kernels,
    layers::{Linear, SharedOperand},
    team::{Crew, DisjointMut},
};

/// Parts that the vocabulary is cut into; each finds the best of its tokens.
const PARTS: usize = 64;

/// One step's outcome in the making.
pub(super) struct Head<'a> {
    rows: &'a [(usize, Want)],
    choices: usize,
    vocabulary: usize,
    logits: Logits,
    outcome: &'a mut Outcome,
    /// Of each part and sampled row.
    best: Vec<Best>,
}

/// The head as the threads of a region share it.
pub(super) struct SharedHead<'a> {
    rows: &'a [(usize, Want)],
    choices: usize,
    vocabulary: usize,
    /// Of each sampled row: its index among those of its want.
    places: Vec<usize>,
    change: Logits,
    logits: DisjointMut<'a, f32>,
    best: DisjointMut<'a, Best>,
}

impl<'a> Head<'a> {
    /// For the sampled `rows` of which logits are wanted, among `choices`; `best` is memory to be used again.
    pub fn new(
        rows: &'a [(usize, Want)],
        choices: usize,
        parts: &Parts,
        outcome: &'a mut Outcome,
        mut best: Vec<Best>,
    ) -> Self {
        let vocabulary = parts.spec.vocabulary;
        let full_rows = rows.iter().filter(|(_, want)| *want == Want::Logits).count();
        outcome.clear();
        outcome.logits.resize(full_rows * vocabulary, 0.0);
        best.clear();
        best.resize(PARTS * rows.len(), Best { token: 0, logit: f32::NEG_INFINITY });
        Self { rows, choices, vocabulary, logits: parts.logits, outcome, best }
    }

    /// # Safety
    /// As [`Rows::share`](crate::engine::layers::Rows::share).
    pub unsafe fn share(&mut self) -> SharedHead<'_> {
        let (mut logits, mut best) = (0, 0);
        let mut place = |want: Want| {
            let count = match want {
                Want::Logits => &mut logits,
                Want::Best => &mut best,
                // Not among the head's rows.
                Want::Hidden => return 0,
            };
            *count += 1;
            *count - 1
        };
        SharedHead {
            rows: self.rows,
            choices: self.choices,
            vocabulary: self.vocabulary,
            places: self.rows.iter().map(|(_, want)| place(*want)).collect(),
            change: self.logits,
            logits: DisjointMut::new(&mut self.outcome.logits),
            best: DisjointMut::new(&mut self.best),
        }
    }

    /// Puts the best of the parts together; gives the memory back.
    pub fn finish(self) -> Vec<Best> {
        let rows = self.rows.len();
        for (row, (_, want)) in self.rows.iter().enumerate() {
            if *want == Want::Best {
                let parts = self.best.iter().skip(row).step_by(rows);
                let best = parts.copied().reduce(|a, b| if exceeds(b.logit, a.logit) { b } else { a });
                // Scale and cap keep the order, so it is enough to change the one that wins.
                self.outcome.best.extend(best.map(|Best { token, mut logit }| {
                    self.logits.change(std::slice::from_mut(&mut logit));
                    Best { token, logit }
                }));
            }
        }
        self.best
    }
}

impl SharedHead<'_> {
    /// A stage: the products of the sampled rows with the head.
    pub fn forward(&self, crew: &Crew, head: &Linear, x: &SharedOperand) {
        let rows = self.rows.len();
        head.products_in_parts(crew, x, PARTS, |part, row, first, products| match self.rows[row].1 {
            Want::Logits => {
                let at = self.places[row] * self.vocabulary + first;
                // SAFETY: each product is handed out once.
                let logits = unsafe { self.logits.range(at..at + products.len()) };
                logits.copy_from_slice(products);
                self.change.change(logits);
            }
            Want::Best => {
                let at = part * rows + row;
                // SAFETY: a part is one thread's.
                let best = unsafe { &mut self.best.range(at..at + 1)[0] };
                update(best, first, &products[..products.len().min(self.choices.saturating_sub(first))]);
            }
            Want::Hidden => {}
        });
    }
}

impl Logits {
    /// Turns products into logits.
    fn change(&self, logits: &mut [f32]) {
        if self.scale != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= self.scale);
        }
        if let Some(cap) = self.soft_cap {
            kernels().soft_cap(logits, cap);
        }
    }
}

/// Whether `logit` takes the place of `best`: it is larger, or NaN where there was none, which then stays.
fn exceeds(logit: f32, best: f32) -> bool {
    logit > best || (logit.is_nan() && !best.is_nan())
}

/// Takes the logits of the tokens from `first` on into account.
fn update(best: &mut Best, first: usize, logits: &[f32]) {
    // Nearly always none exceeds it, which is found out without branches.
    if !logits.iter().fold(false, |any, logit| any | exceeds(*logit, best.logit)) {
        return;
    }
    for (token, logit) in (first as u32..).zip(logits) {
        if exceeds(*logit, best.logit) {
            *best = Best { token, logit: *logit };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(logits: &[f32], token: u32) {
        let mut best = Best { token: 99, logit: f32::NEG_INFINITY };
        for (i, part) in logits.chunks(3).enumerate() {
            update(&mut best, 3 * i, part);
        }
        assert_eq!(best.token, token, "{logits:?}");
        assert_eq!(best.logit.to_bits(), logits[token as usize].to_bits());
    }

    #[test]
    fn the_first_of_the_largest_wins_and_nan_shows() {
        check(&[1.0, 3.0, 2.0, 3.0], 1);
        check(&[-5.0, -4.0, -4.5, -6.0], 1);
        check(&[1.0, 2.0, f32::NAN, 9.0, f32::NAN], 2);
        check(&[f32::INFINITY, 1.0], 0);
    }
}
