//! For tests: a model whose next token is a hash of every token it sees through the block table.
//!
//! A wrong block, a wrong position, a row that was never computed or a block that somebody else has overwritten shows as
//! a wrong token. [`alone`] is the oracle: the same tokens without blocks, batches or other sequences.

use super::{
    batch::{Batch, Segment, Want},
    blocks::{BLOCK_TOKENS, BlockId},
    gguf::{Gguf, GgufWriter},
    kv_cache::KvCache,
    models::{Best, ForwardError, Model, Outcome, Spec},
    tokenizer::Tokenizer,
};

/// Mixes 64 bits (the finaliser of SplitMix64).
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Seeded chance for tests.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5851_f42d_4c95_7f2d))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One of `low..high`.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.within(0, n) == 0
    }
}

/// What is kept of a token at a position.
fn entry(token: u32, position: usize) -> u64 {
    mix(u64::from(token) << 32 | position as u64)
}

/// What is known after one more entry has been seen.
fn see(known: u64, entry: u64) -> u64 {
    (known ^ entry).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
}

fn choose(known: u64, choices: usize) -> u32 {
    (mix(known) % choices as u64) as u32
}

/// What a sequence generates after `prompt` when it has the model for itself.
pub fn alone(prompt: &[u32], count: usize, choices: usize) -> Vec<u32> {
    let entries = prompt.iter().enumerate().map(|(position, &token)| entry(token, position));
    let mut known = entries.fold(1, see);
    let mut generated = Vec::new();
    for position in prompt.len()..prompt.len() + count {
        let token = choose(known, choices);
        known = see(known, entry(token, position));
        generated.push(token);
    }
    generated
}

pub struct HashModel {
    spec: Spec,
    /// Only smaller ids are generated.
    choices: usize,
    /// The cache: (block, token in block).
    slots: Vec<u64>,
}

impl HashModel {
    pub fn new(blocks: usize, vocabulary: usize, choices: usize, context: usize) -> Self {
        let architecture = "hash".to_owned();
        let spec = Spec { architecture, layers: 1, kv_heads: 1, head_dim: 32, vocabulary, context };
        Self { spec, choices, slots: vec![0; blocks * BLOCK_TOKENS] }
    }

    /// Writes the batch's tokens into the cache.
    pub fn write(&mut self, batch: &Batch) {
        for segment in &batch.segments {
            for row in 0..segment.rows {
                let position = segment.start + row;
                assert_eq!(batch.positions[segment.first_row + row] as usize, position);
                self.slots[slot(&segment.blocks, position)] = entry(batch.tokens[segment.first_row + row], position);
            }
        }
    }

    /// The token after one row of a segment.
    pub fn token_after(&self, segment: &Segment, row: usize) -> u32 {
        let tokens = segment.start + row - segment.first_row + 1;
        let visible = (0..tokens).map(|position| self.slots[slot(&segment.blocks, position)]);
        choose(visible.fold(1, see), self.choices)
    }
}

fn slot(blocks: &[BlockId], position: usize) -> usize {
    blocks[position / BLOCK_TOKENS].0 as usize * BLOCK_TOKENS + position % BLOCK_TOKENS
}

impl Model for HashModel {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn hidden(&self) -> Option<usize> {
        Some(2)
    }

    fn forward(&mut self, batch: &Batch, _: &mut KvCache, outcome: &mut Outcome) -> Result<(), ForwardError> {
        self.write(batch);
        outcome.clear();
        for &(row, want) in &batch.sampled {
            let segment = batch.segments.iter().find(|s| (s.first_row..s.first_row + s.rows).contains(&row));
            let token = self.token_after(segment.expect("a segment's row"), row);
            match want {
                Want::Best => outcome.best.push(Best { token, logit: 10.0 }),
                Want::Logits => {
                    let row = (0..self.spec.vocabulary).map(|id| if id == token as usize { 10.0 } else { 0.0 });
                    outcome.logits.extend(row);
                }
                Want::Hidden => outcome.hidden.extend([token as f32, 1.0]),
            }
        }
        Ok(())
    }
}

/// A tokenizer whose token `i` is the byte `i`; 256 is an end token.
pub fn byte_tokenizer() -> Tokenizer {
    byte_tokenizer_with(&[])
}

/// The same with further control tokens, from 257 on.
pub fn byte_tokenizer_with(control: &[&str]) -> Tokenizer {
    // GPT-2's spelling of bytes: printable ones are themselves, the others come from U+0100 on.
    let mut others = 0x100..;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| match byte {
            33..=126 | 161..=172 | 174..=255 => char::from(byte).to_string(),
            _ => char::from_u32(others.next().unwrap()).unwrap().to_string(),
        })
        .collect();
    tokens.push("<|endoftext|>".into());
    tokens.extend(control.iter().map(|&token| token.to_owned()));
    let mut types = vec![1; 256];
    types.resize(tokens.len(), 3);
    let mut writer = GgufWriter::new();
    writer
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .strings::<&str>("tokenizer.ggml.merges", &[])
        .u32("tokenizer.ggml.eos_token_id", 256);
    let gguf = Gguf::from_static(writer.to_bytes().leak()).unwrap();
    Tokenizer::from_gguf(gguf.metadata()).unwrap()
}
