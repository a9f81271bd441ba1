//! Joins neighbouring symbols, best pair first: the loop that byte-pair encoding and SentencePiece share.
//!
//! Knows ids and spans; which pairs join, and how eagerly, is the [`Join`]'s business. Takes O(n log n) for n symbols.

use std::{cmp::Reverse, collections::BinaryHeap};

/// "No neighbour".
const NONE: u32 = u32::MAX;

/// A run of the piece's bytes that stands for one token, or for nothing in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol {
    /// The token, or [`Symbol::UNKNOWN`].
    pub id: u32,
    /// First byte in the piece.
    pub start: u32,
    /// One past the last byte; equal to `start` once joined into its left neighbour.
    pub end: u32,
    previous: u32,
    next: u32,
}

impl Symbol {
    /// No token has this text.
    pub const UNKNOWN: u32 = u32::MAX;
}

/// What two neighbours join to.
pub(super) trait Join {
    /// The joined token and its rank (lower joins first), or `None` if the two do not join.
    fn join(&self, piece: &[u8], left: &Symbol, right: &Symbol) -> Option<Joined>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Joined {
    pub rank: u32,
    pub id: u32,
}

/// A join that was possible when it was queued. Ordered by rank, then from left to right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    /// Where the right symbol begins and ends: it has gone stale if that is no longer so.
    middle: u32,
    end: u32,
    id: u32,
}

/// The symbols of one piece, and the space to join them in; used again for the next piece.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends the next symbol, which ends at byte `end` of the piece.
    pub fn push(&mut self, id: u32, end: usize) {
        let index = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |symbol| symbol.end);
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        let previous = index.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start, end: end as u32, previous, next: NONE });
    }

    /// Joins what can be joined, and gives the symbols that remain.
    pub fn run(&mut self, piece: &[u8], rules: &impl Join) -> impl Iterator<Item = &Symbol> {
        for left in 0..self.symbols.len() as u32 {
            self.consider(piece, rules, left);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let left = self.symbols[best.left as usize];
            let right_index = left.next;
            if left.start == left.end || left.end != best.middle || right_index == NONE {
                continue;
            }
            let right = self.symbols[right_index as usize];
            if right.end != best.end {
                continue;
            }
            self.symbols[right_index as usize].end = right.start;
            let joined = &mut self.symbols[best.left as usize];
            joined.id = best.id;
            joined.end = right.end;
            joined.next = right.next;
            if right.next != NONE {
                self.symbols[right.next as usize].previous = best.left;
            }
            self.consider(piece, rules, best.left);
            if left.previous != NONE {
                self.consider(piece, rules, left.previous);
            }
        }
        self.symbols.iter().filter(|symbol| symbol.start < symbol.end)
    }

    /// Queues the join of the symbol at `left` with its right neighbour, if there is one.
    fn consider(&mut self, piece: &[u8], rules: &impl Join, left: u32) {
        let symbol = &self.symbols[left as usize];
        let Some(right) = self.symbols.get(symbol.next as usize) else { return };
        if let Some(Joined { rank, id }) = rules.join(piece, symbol, right) {
            self.queue.push(Reverse(Candidate { rank, left, middle: symbol.end, end: right.end, id }));
        }
    }
}
