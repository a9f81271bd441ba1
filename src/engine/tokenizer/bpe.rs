//! Byte-pair encoding: pieces of text to tokens by ranked merges (Sennrich et al. 2016; over bytes as in GPT-2).
//!
//! Knows one piece at a time; cutting text into pieces is [`super::split`]'s business.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    merge::{Join, Joined, Merger, Symbol},
    split::Unit,
    vocabulary::Vocabulary,
};

/// Merge rules over a vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    merges: HashMap<u64, Joined, BuildHasherDefault<PairHasher>>,
    /// What text is cut into before merging.
    unit: Unit,
    /// A piece that is a token needs no merging, whatever the merges say.
    whole_pieces: bool,
}

impl Bpe {
    /// `merges`: what joins, best first, in the vocabulary's own spelling. Those that speak of tokens which do not exist
    /// can never apply and are left out.
    pub fn new<'a>(
        vocabulary: &Vocabulary,
        merges: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        unit: Unit,
        whole_pieces: bool,
    ) -> Self {
        let mut table = HashMap::with_capacity_and_hasher(merges.size_hint().0, Default::default());
        let (mut joined, mut scratch) = (Vec::new(), Vec::new());
        let mut find = |spelled: &[u8]| vocabulary.find_spelled(spelled, &mut scratch);
        for (rank, (left, right)) in merges.enumerate() {
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            if let (Some(left), Some(right), Some(id)) = (find(left), find(right), find(&joined)) {
                table.entry(pair(left, right)).or_insert(Joined { rank: rank as u32, id });
            }
        }
        Self { merges: table, unit, whole_pieces }
    }

    /// Appends the tokens of one piece.
    pub fn encode(&self, piece: &[u8], vocabulary: &Vocabulary, merger: &mut Merger, ids: &mut Vec<u32>) {
        if self.whole_pieces
            && let Some(id) = vocabulary.find(piece)
        {
            ids.push(id);
            return;
        }
        merger.clear();
        match self.unit {
            Unit::Bytes => {
                for (at, &byte) in piece.iter().enumerate() {
                    merger.push(vocabulary.byte(byte).unwrap_or(Symbol::UNKNOWN), at + 1);
                }
            }
            Unit::Chars => {
                for (start, end) in char_spans(piece) {
                    merger.push(vocabulary.find(&piece[start..end]).unwrap_or(Symbol::UNKNOWN), end);
                }
            }
        }
        for symbol in merger.run(piece, self) {
            vocabulary.push_symbol(piece, symbol, ids);
        }
    }
}

impl Join for Bpe {
    fn join(&self, _piece: &[u8], left: &Symbol, right: &Symbol) -> Option<Joined> {
        self.merges.get(&pair(left.id, right.id)).copied()
    }
}

/// The two parts of a merge that is written as a line, `left right`; one that is not joins nothing.
pub(super) fn merge_of_line(line: &[u8]) -> (&[u8], &[u8]) {
    // The first part may itself begin with a space where text is merged as it is.
    match line.iter().skip(1).position(|&b| b == b' ') {
        Some(space) => (&line[..space + 1], &line[space + 2..]),
        None => (line, &[]),
    }
}

/// The spans of the characters of UTF-8 text.
pub(super) fn char_spans(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let continuation = rest[1..].iter().take_while(|&&byte| byte & 0xc0 == 0x80).count();
        let span = (start, start + 1 + continuation);
        start = span.1;
        Some(span)
    })
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Hashes a pair of token ids. Only a model file adds keys, never a client, so it need not resist chosen keys.
#[derive(Debug, Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write_u64(&mut self, pair: u64) {
        // Multiplication mixes upwards, so the high half is folded down, where the table looks.
        let wide = u128::from(pair ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
