//! SentencePiece's BPE: joins neighbours into the token with the best score (Kudo & Richardson 2018).
//!
//! Spaces are written `▁` (U+2581). Characters that are no token become their bytes' tokens (`<0x0A>`).

use super::{
    bpe::char_spans,
    merge::{Join, Joined, Merger, Symbol},
    vocabulary::Vocabulary,
};

/// How SentencePiece writes a space.
pub(super) const SPACE: &str = "\u{2581}";

/// Joins by score.
#[derive(Debug)]
pub(super) struct SentencePiece {
    /// By token id: 0 for the best score, equal for equal scores.
    ranks: Vec<u32>,
}

impl SentencePiece {
    /// `scores`: one for each token, higher joins first.
    pub fn new(scores: &[f32]) -> Self {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        let mut ranks = vec![0; scores.len()];
        let mut rank = 0;
        for (place, &id) in order.iter().enumerate() {
            if place > 0 && scores[id as usize] != scores[order[place - 1] as usize] {
                rank = place as u32;
            }
            ranks[id as usize] = rank;
        }
        Self { ranks }
    }

    /// Appends the tokens of `text`, whose spaces are already written `▁`.
    pub fn encode(&self, text: &[u8], vocabulary: &Vocabulary, merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.clear();
        for (start, end) in char_spans(text) {
            merger.push(vocabulary.find(&text[start..end]).unwrap_or(Symbol::UNKNOWN), end);
        }
        for symbol in merger.run(text, &Scored { ranks: &self.ranks, vocabulary }) {
            vocabulary.push_symbol(text, symbol, ids);
        }
    }
}

struct Scored<'a> {
    ranks: &'a [u32],
    vocabulary: &'a Vocabulary,
}

impl Join for Scored<'_> {
    fn join(&self, piece: &[u8], left: &Symbol, right: &Symbol) -> Option<Joined> {
        let id = self.vocabulary.find(&piece[left.start as usize..right.end as usize])?;
        Some(Joined { rank: *self.ranks.get(id as usize)?, id })
    }
}
