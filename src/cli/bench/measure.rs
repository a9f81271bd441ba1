//! Times a model's forward pass: prompts by length, decoding by width and depth. No scheduler, no sampling, no HTTP.
//!
//! Knows no printing and no files.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::engine::{
    EngineConfig,
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockId},
    kv_cache::{KvCache, KvType},
    models::{ForwardError, Model, Outcome},
};

/// A decoding case goes on for so long, or so many steps, for one figure.
const DECODE_TIME: Duration = Duration::from_millis(500);
const DECODE_STEPS: usize = 64;
/// Rows that are computed at once where a cache is filled.
const FILL_ROWS: usize = 256;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// A prompt of so many tokens, in the chunks that the engine would take it in while nobody else is served.
    Prefill { tokens: usize },
    /// A token for each of `width` sequences a step, behind `depth` tokens each.
    Decode { width: usize, depth: usize },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefill { tokens } => write!(f, "prefill of {tokens} tokens"),
            Self::Decode { width, depth } => write!(f, "decode of {width} behind {depth} tokens"),
        }
    }
}

impl Case {
    /// KV blocks that it needs.
    pub fn blocks(self) -> usize {
        match self {
            Self::Prefill { tokens } => tokens.div_ceil(BLOCK_TOKENS),
            Self::Decode { width, .. } => width * self.blocks_each(),
        }
    }

    /// Tokens of its longest sequence.
    pub fn context(self) -> usize {
        match self {
            Self::Prefill { tokens } => tokens,
            Self::Decode { depth, .. } => depth + DECODE_STEPS,
        }
    }

    fn blocks_each(self) -> usize {
        self.context().div_ceil(BLOCK_TOKENS)
    }
}

/// What one measurement took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub seconds: f64,
    /// Tokens that went in (prefill) or came out (decode).
    pub tokens: usize,
    /// Bytes of weights, keys and values that were read, counting what a step reads several times once.
    pub bytes: u64,
    /// Multiplications and additions of the matrix products; attention comes on top.
    pub macs: u64,
}

/// A model with a cache to time it on.
pub struct Bench<'a> {
    model: &'a mut dyn Model,
    cache: KvCache,
    outcome: Outcome,
    /// Of one token, over all layers.
    kv_bytes: u64,
    vocabulary: usize,
}

impl<'a> Bench<'a> {
    /// With a cache of `blocks` blocks, which must do for every case that will be timed.
    pub fn new(model: &'a mut dyn Model, blocks: usize, kv_type: KvType) -> Result<Self, ForwardError> {
        let cache = model.new_cache(blocks, kv_type)?;
        let kv_bytes = (KvCache::block_bytes(model.spec(), kv_type) / BLOCK_TOKENS) as u64;
        let vocabulary = model.spec().vocabulary;
        Ok(Self { model, cache, outcome: Outcome::default(), kv_bytes, vocabulary })
    }

    /// Runs a case `repeat` times after once for warmth, and tells `between` after each.
    pub fn time(&mut self, case: Case, repeat: usize, mut between: impl FnMut()) -> Result<Vec<Sample>, ForwardError> {
        if let Case::Decode { depth: 1.., .. } = case {
            self.fill(case)?;
        }
        let mut samples = Vec::new();
        for run in 0..=repeat {
            let sample = match case {
                Case::Prefill { tokens } => self.prefill(tokens)?,
                Case::Decode { width, depth } => self.decode(case, width, depth, run == 0)?,
            };
            samples.extend((run > 0).then_some(sample));
            between();
        }
        Ok(samples)
    }

    fn prefill(&mut self, tokens: usize) -> Result<Sample, ForwardError> {
        let chunk = EngineConfig::default().step_tokens_max;
        let table = table(0, tokens.div_ceil(BLOCK_TOKENS));
        let (mut bytes, mut macs) = (0, 0);
        let sizes = self.model.weights();
        let start = Instant::now();
        for first in (0..tokens).step_by(chunk) {
            let rows = chunk.min(tokens - first);
            let is_last = first + rows == tokens;
            let mut batch = Batch::new(self.vocabulary);
            let wants: &[Want] = if is_last { &[Want::Best] } else { &[] };
            batch.push(&self.tokens(first, rows), first, &table, wants);
            self.forward(&batch)?;
            let head = if is_last { sizes.head_bytes } else { 0 };
            bytes += sizes.layer_bytes + head + (first + rows) as u64 * self.kv_bytes;
            macs += sizes.step_macs(rows, usize::from(is_last));
        }
        Ok(Sample { seconds: start.elapsed().as_secs_f64(), tokens, bytes, macs })
    }

    /// Steps one after another, each with the tokens that the one before has chosen.
    fn decode(&mut self, case: Case, width: usize, depth: usize, only_one: bool) -> Result<Sample, ForwardError> {
        let tables: Vec<_> = (0..width).map(|s| table(s * case.blocks_each(), case.blocks_each())).collect();
        let mut tokens = self.tokens(depth, width);
        let (mut steps, mut bytes) = (0, 0);
        let start = Instant::now();
        while steps < DECODE_STEPS && (steps == 0 || start.elapsed() < DECODE_TIME) && !(only_one && steps == 1) {
            let mut batch = Batch::new(self.vocabulary);
            for (token, table) in tokens.iter().zip(&tables) {
                batch.push(&[*token], depth + steps, table, &[Want::Best]);
            }
            self.forward(&batch)?;
            for (token, best) in tokens.iter_mut().zip(&self.outcome.best) {
                *token = best.token;
            }
            steps += 1;
            bytes += self.model.weights().step_bytes() + (width * (depth + steps)) as u64 * self.kv_bytes;
        }
        let seconds = start.elapsed().as_secs_f64();
        let macs = self.model.weights().step_macs(width, width) * steps as u64;
        Ok(Sample { seconds, tokens: width * steps, bytes, macs })
    }

    /// Writes to the blocks of a case, which would otherwise all be one and the same page of zeros to the memory. Two
    /// tokens a block are enough for that, each block a sequence of its own: that spares the attention.
    fn fill(&mut self, case: Case) -> Result<(), ForwardError> {
        let blocks: Vec<usize> = (0..case.blocks()).collect();
        for some in blocks.chunks(FILL_ROWS / 2) {
            let mut batch = Batch::new(self.vocabulary);
            for &block in some {
                for at in [0, BLOCK_TOKENS / 2] {
                    batch.push(&self.tokens(block + at, 1), at, &table(block, 1), &[]);
                }
            }
            self.forward(&batch)?;
        }
        Ok(())
    }

    fn forward(&mut self, batch: &Batch) -> Result<(), ForwardError> {
        self.model.forward(batch, &mut self.cache, &mut self.outcome)
    }

    /// Tokens of no meaning, all over the vocabulary.
    fn tokens(&self, first: usize, count: usize) -> Vec<u32> {
        (first..first + count).map(|i| (i * 7919 % self.vocabulary) as u32).collect()
    }
}

/// The blocks from `first` on.
fn table(first: usize, blocks: usize) -> Vec<BlockId> {
    (first..first + blocks).map(|block| BlockId(block as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_counts_what_it_does() {
        let mut model = crate::cli::load::tests::demo();
        let sizes = model.weights();
        assert!(sizes.layer_bytes > 0 && sizes.head_bytes > 0);
        let cases = [
            Case::Prefill { tokens: 1 },
            Case::Prefill { tokens: 300 },
            Case::Decode { width: 1, depth: 0 },
            Case::Decode { width: 3, depth: 200 },
        ];
        let blocks = cases.iter().map(|case| case.blocks()).max().unwrap();
        let kv_bytes = KvCache::block_bytes(model.spec(), KvType::F16) as u64 / BLOCK_TOKENS as u64;
        let mut bench = Bench::new(&mut *model, blocks, KvType::F16).unwrap();
        for case in cases {
            let mut told = 0;
            let samples = bench.time(case, 2, || told += 1).unwrap();
            assert_eq!((samples.len(), told), (2, 3));
            for sample in samples {
                assert!(sample.seconds > 0.0, "{case:?}");
                match case {
                    Case::Prefill { tokens } => {
                        let chunks = tokens.div_ceil(EngineConfig::default().step_tokens_max) as u64;
                        assert_eq!((sample.tokens, sample.macs), (tokens, sizes.step_macs(tokens, 1)));
                        assert!(
                            sample.bytes >= chunks * sizes.layer_bytes + sizes.head_bytes + tokens as u64 * kv_bytes
                        );
                    }
                    Case::Decode { width, depth } => {
                        let steps = (sample.tokens / width) as u64;
                        assert!(sample.tokens.is_multiple_of(width) && (1..=DECODE_STEPS as u64).contains(&steps));
                        assert_eq!(sample.macs, steps * sizes.step_macs(width, width));
                        assert!(sample.bytes >= steps * (sizes.step_bytes() + (width * depth) as u64 * kv_bytes));
                    }
                }
            }
        }
    }
}
