//! Packs documents into rows without padding.
//!
//! A row holds several documents one after the other, and a later one sees the earlier ones: that is how a long chat
//! looks, too, and teaches the model to leave old turns alone. Between documents the positions jump by chance, so that
//! short rows train every distance of the whole context (PoSE, Zhu et al., 2023).

use tokenizers::{Result, Tokenizer};

use crate::chance::Chance;
use crate::corpus::Corpus;

/// Rows one after the other; all four have as many entries.
#[derive(Default)]
pub struct Rows {
    pub inputs: Vec<u32>,
    pub targets: Vec<u32>,
    pub weights: Vec<f32>,
    pub positions: Vec<u32>,
}

pub struct Packer<'a> {
    tokenizer: &'a Tokenizer,
    corpus: &'a Corpus,
    length: usize,
    context: usize,
}

impl<'a> Packer<'a> {
    pub fn new(tokenizer: &'a Tokenizer, corpus: &'a Corpus, length: usize, context: usize) -> Self {
        Self { tokenizer, corpus, length, context }
    }

    pub fn batch(&mut self, rows: usize, chance: &mut Chance) -> Result<Rows> {
        let mut batch = Rows::default();
        for _ in 0..rows {
            self.row(&mut batch, chance)?;
        }
        Ok(batch)
    }

    /// Each row starts with a document; the last one is cut off at the row's end.
    fn row(&self, batch: &mut Rows, chance: &mut Chance) -> Result<()> {
        let (mut tokens, mut weights, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        let mut gap_left = if chance.happens(0.5) { self.context - self.length - 1 } else { 0 };
        let mut position = 0;
        while tokens.len() <= self.length {
            for part in self.corpus.document(chance) {
                let encoding = self.tokenizer.encode_fast(part.text, false)?;
                for &id in encoding.get_ids() {
                    tokens.push(id);
                    weights.push(part.weight);
                    positions.push(position);
                    position += 1;
                }
            }
            let gap = chance.below(gap_left + 1);
            gap_left -= gap;
            position += gap as u32;
        }
        batch.inputs.extend(&tokens[..self.length]);
        batch.targets.extend(&tokens[1..=self.length]);
        batch.weights.extend(&weights[1..=self.length]);
        batch.positions.extend(&positions[..self.length]);
        Ok(())
    }
}
