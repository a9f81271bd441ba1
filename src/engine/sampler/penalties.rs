//! Bias, and penalties by what was said before.

use super::{Ask, left::Left};

/// This much off is a ban, as in OpenAI's API.
pub const BAN: f32 = -100.0;

/// Counts tokens; one for any number of sequences, one after the other. All zero between calls.
#[derive(Debug, Default)]
pub struct Tally {
    /// By token, as far as has been needed.
    counts: Vec<u32>,
}

impl Tally {
    /// `visit` gets each of `tokens` once, with the result of `count` over its occurrences. In linear time.
    pub fn each(
        &mut self,
        tokens: impl Iterator<Item = (u32, u32)> + Clone,
        vocabulary: usize,
        count: impl Fn(u32, u32) -> u32,
        mut visit: impl FnMut(u32, u32),
    ) {
        self.counts.resize(vocabulary.max(self.counts.len()), 0);
        let known = tokens.filter(|(token, _)| (*token as usize) < vocabulary);
        for (token, value) in known.clone() {
            let counted = &mut self.counts[token as usize];
            *counted = count(*counted, value);
        }
        for (token, _) in known {
            match std::mem::take(&mut self.counts[token as usize]) {
                0 => {}
                counted => visit(token, counted),
            }
        }
    }

    #[cfg(test)]
    pub fn is_clear(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }
}

/// Adds the request's biases.
pub fn bias(left: &mut Left, biases: &[(u32, f32)]) {
    let (banned, biased): (Vec<_>, Vec<_>) = biases.iter().copied().partition(|(_, bias)| *bias <= BAN);
    for (token, bias) in biased {
        left.edit(token, |logit| logit + bias);
    }
    // Where a grammar allows nothing but what is banned, the grammar is kept.
    if !banned.is_empty() && !left.is_within(|token| banned.iter().any(|(banned, _)| *banned == token)) {
        left.exclude(banned.iter().map(|(token, _)| *token));
    }
}

/// The repetition penalty, then presence and frequency penalties.
pub fn penalise(left: &mut Left, tally: &mut Tally, vocabulary: usize, ask: &Ask) {
    let params = ask.params;
    if params.repetition_penalty != 1.0 {
        let window = ask.last_tokens(params.penalty_tokens);
        // Divides positive logits of seen tokens and multiplies negative ones, each token once (Keskar et al. 2019,
        // "CTRL", §4.1, in the form that others have settled on).
        let penalty = params.repetition_penalty;
        let change = |logit: f32| if logit > 0.0 { logit / penalty } else { logit * penalty };
        tally.each(window.iter().map(|&t| (t, 1)), vocabulary, u32::max, |token, _| left.edit(token, change));
    }
    if params.presence_penalty != 0.0 || params.frequency_penalty != 0.0 {
        // OpenAI's: only what was generated counts.
        let generated = ask.tokens.get(ask.prompt_tokens..).unwrap_or_default();
        tally.each(generated.iter().map(|&t| (t, 1)), vocabulary, u32::saturating_add, |token, count| {
            let penalty = params.presence_penalty + count as f32 * params.frequency_penalty;
            left.edit(token, |logit| logit - penalty);
        });
    }
}
