//! DRY, "don't repeat yourself" (p-e-w 2024): a token that would make the end of the text a longer repetition of something
//! that was said before loses the more the longer the repetition is.
//!
//! The end is compared with all that was said before by the Z-algorithm (Gusfield 1997, "Algorithms on Strings, Trees, and
//! Sequences", §1.3), in time linear in the number of tokens.

use super::{Ask, Texts, left::Left, penalties::Tally};
use crate::engine::request::Dry;

/// Memory that is used again from row to row.
#[derive(Debug, Default)]
pub struct Repetitions {
    /// The window, newest token first.
    reversed: Vec<u32>,
    lengths: Vec<u32>,
    text: Vec<u8>,
}

impl Repetitions {
    pub fn penalise(&mut self, left: &mut Left, tally: &mut Tally, vocabulary: usize, dry: &Dry, ask: &Ask) {
        let window = ask.last_tokens(dry.last_tokens);
        let length_max = self.unbroken(window, &dry.breakers, ask.texts);
        if length_max < dry.allowed_length {
            return;
        }
        self.reversed.clear();
        self.reversed.extend(window.iter().rev());
        common_prefixes(&self.reversed, &mut self.lengths);
        let Self { reversed, lengths, .. } = &*self;
        // What followed an earlier occurrence of the end, and how many tokens that was long. One more, so that none is zero.
        let followers = (1..reversed.len()).map(|k| (reversed[k - 1], (lengths[k] as usize).min(length_max)));
        let followers = followers.filter(|(_, length)| *length >= dry.allowed_length);
        let followers = followers.map(|(token, length)| (token, length as u32 + 1));
        tally.each(followers, vocabulary, u32::max, |token, length| {
            let breaks = dry.breakers.iter().any(|breaker| contains(ask.texts.bytes(token), breaker.as_bytes()));
            if !breaks {
                let exponent = (length - 1) as f32 - dry.allowed_length as f32;
                let penalty = (dry.multiplier * dry.base.powf(exponent)).min(f32::MAX);
                left.edit(token, |logit| logit - penalty);
            }
        });
    }

    /// Tokens after the last one in which a breaker ends.
    fn unbroken(&mut self, window: &[u32], breakers: &[String], texts: &dyn Texts) -> usize {
        let length_max = breakers.iter().map(String::len).max().unwrap_or(0);
        if length_max == 0 {
            return window.len();
        }
        // From the end on and backwards, as far as the first breaker.
        self.text.clear();
        let mut checked = 0;
        let mut ends = Vec::new();
        for (seen, &token) in (1..).zip(window.iter().rev()) {
            self.text.extend(texts.bytes(token).iter().rev());
            ends.push(self.text.len());
            let known =
                if seen == window.len() { self.text.len() } else { (self.text.len() + 1).saturating_sub(length_max) };
            for at in checked..known {
                let rest = &self.text[at..];
                if breakers.iter().any(|breaker| is_reversed(breaker.as_bytes(), rest)) {
                    return ends.partition_point(|&end| end <= at);
                }
            }
            checked = known.max(checked);
        }
        window.len()
    }
}

/// Whether `text` begins with `breaker` read backwards.
fn is_reversed(breaker: &[u8], text: &[u8]) -> bool {
    !breaker.is_empty() && text.len() >= breaker.len() && breaker.iter().rev().eq(&text[..breaker.len()])
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// How many tokens the whole and each of its ends have in common from their first on; of the whole itself, zero.
fn common_prefixes(tokens: &[u32], lengths: &mut Vec<u32>) {
    lengths.clear();
    lengths.resize(tokens.len(), 0);
    // The known stretch that reaches farthest: tokens[start..end] are the first ones.
    let (mut start, mut end) = (0, 0);
    for k in 1..tokens.len() {
        let mut length = if k < end { (lengths[k - start] as usize).min(end - k) } else { 0 };
        while k + length < tokens.len() && tokens[length] == tokens[k + length] {
            length += 1;
        }
        if k + length > end {
            (start, end) = (k, k + length);
        }
        lengths[k] = length as u32;
    }
}
