//! How close a model's predictions are to those of llama.cpp, teacher-forced over a text.
//!
//! Reads what `llama-perplexity --kl-divergence-base FILE` writes: the tokens, and for the later half of each chunk the
//! log-probabilities of the whole vocabulary, 16 bits each. The figures are those that
//! `llama-perplexity --kl-divergence` prints for a model of its own beside the same file.
//!
//! ```text
//! "_logits_"  u32 tokens of a chunk  i32 vocabulary  i32 chunks  i32 tokens…
//! for each chunk, for each position of its second half but the last:
//!     f32 scale  f32 lowest  u16 log-probability = scale · u16 + lowest, for each token, padded to an even number
//! ```

use std::io::{self, Read};

use serde::Serialize;

use crate::engine::{
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockId},
    kv_cache::{KvCache, KvType},
    models::{Model, Outcome},
};

/// Rows computed at once: their logits are held.
const ROWS: usize = 64;
/// Longer chunks than any context, more tokens than any vocabulary: no such file.
const SIZE_MAX: usize = 1 << 20;
/// As in llama.cpp: what the base finds less likely does not count.
const LOG_PROBABILITY_MIN: f32 = -16.0;

/// Over all scored positions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    pub positions: usize,
    pub perplexity: f64,
    /// Of the model that wrote the file.
    pub base_perplexity: f64,
    /// Kullback–Leibler divergence from the base, in nats.
    pub kl_mean: f64,
    pub kl_median: f64,
    pub kl_99th: f64,
    /// Share of the positions where both find the same token the likeliest.
    pub same_top: f64,
}

/// Tokens and log-probabilities of the base, read as they are needed.
struct Base<R> {
    file: R,
    chunk: usize,
    vocabulary: usize,
    /// All chunks, end to end.
    tokens: Vec<u32>,
}

impl<R: Read> Base<R> {
    fn open(mut file: R) -> io::Result<Self> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        if &magic != b"_logits_" {
            return Err(bad("not a file of llama-perplexity --kl-divergence-base"));
        }
        let mut number = || {
            let mut bytes = [0; 4];
            file.read_exact(&mut bytes)?;
            usize::try_from(i32::from_le_bytes(bytes)).map_err(|_| bad("a negative size"))
        };
        let (chunk, vocabulary, chunks) = (number()?, number()?, number()?);
        if !(4..=SIZE_MAX).contains(&chunk) || !(1..=SIZE_MAX).contains(&vocabulary) || chunks > SIZE_MAX {
            return Err(bad("sizes that make no sense"));
        }
        let tokens = (0..chunk * chunks).map(|_| number().map(|token| token as u32)).collect::<io::Result<_>>()?;
        Ok(Self { file, chunk, vocabulary, tokens })
    }

    /// The log-probabilities of the next position.
    fn next(&mut self) -> io::Result<Vec<f32>> {
        let mut record = vec![0; 8 + 2 * self.vocabulary.next_multiple_of(2)];
        self.file.read_exact(&mut record)?;
        let float = |at: usize| f32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let (scale, lowest) = (float(0), float(4));
        let codes = record[8..].chunks_exact(2).take(self.vocabulary);
        Ok(codes.map(|code| scale * f32::from(u16::from_le_bytes([code[0], code[1]])) + lowest).collect())
    }
}

/// Scores a model against a base. `bos` stands at the start of each chunk, where the model wants one; `between` is told
/// the share that is done.
pub fn score(
    model: &mut dyn Model,
    kv_type: KvType,
    bos: Option<u32>,
    base: impl Read,
    mut between: impl FnMut(f32),
) -> Result<Score, String> {
    let mut base = Base::open(base).map_err(|error| error.to_string())?;
    let vocabulary = model.spec().vocabulary;
    if base.vocabulary > vocabulary || base.tokens.iter().any(|token| *token as usize >= vocabulary) {
        return Err(format!("it is of a vocabulary of {}, the model has {vocabulary}", base.vocabulary));
    }
    let mut cache = model.new_cache(base.chunk.div_ceil(BLOCK_TOKENS), kv_type).map_err(|error| error.0)?;
    let mut sums = Sums::default();
    let chunks: Vec<Vec<u32>> = base.tokens.chunks(base.chunk).map(<[u32]>::to_vec).collect();
    for (done, tokens) in chunks.iter().enumerate() {
        between(done as f32 / chunks.len() as f32);
        let mut input = tokens.clone();
        input[0] = bos.unwrap_or(input[0]);
        let first = base.chunk / 2;
        each_logits(model, &mut cache, &input, first, |position, logits| {
            // The last one's next token is not in the chunk.
            let Some(next) = tokens.get(position + 1) else { return Ok(()) };
            let expected = base.next().map_err(|error| error.to_string())?;
            sums.add(&logits[..base.vocabulary], &expected, *next as usize);
            Ok(())
        })?;
    }
    sums.score().ok_or_else(|| "it has no positions".to_owned())
}

/// Runs a chunk through the model and gives the logits of its positions from `first` on.
fn each_logits(
    model: &mut dyn Model,
    cache: &mut KvCache,
    tokens: &[u32],
    first: usize,
    mut take: impl FnMut(usize, &[f32]) -> Result<(), String>,
) -> Result<(), String> {
    let vocabulary = model.spec().vocabulary;
    let blocks: Vec<BlockId> = (0..tokens.len().div_ceil(BLOCK_TOKENS)).map(|block| BlockId(block as u32)).collect();
    let mut outcome = Outcome::default();
    let mut start = 0;
    while start < tokens.len() {
        let rows = ROWS.min(tokens.len() - start);
        let wanted = (start + rows).saturating_sub(first.max(start));
        let mut batch = Batch::new(vocabulary);
        batch.push(&tokens[start..start + rows], start, &blocks, &vec![Want::Logits; wanted]);
        model.forward(&batch, cache, &mut outcome).map_err(|error| error.0)?;
        start += rows;
        for (position, logits) in (start - wanted..).zip(outcome.logits.chunks_exact(vocabulary)) {
            take(position, logits)?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Sums {
    surprise: f64,
    base_surprise: f64,
    divergences: Vec<f64>,
    same_top: usize,
}

impl Sums {
    /// One position: our logits, the base's log-probabilities, and the token that came.
    fn add(&mut self, logits: &[f32], base: &[f32], next: usize) {
        let top = largest(logits);
        let sum: f64 = logits.iter().map(|logit| f64::from((logit - logits[top]).exp())).sum();
        let log_sum = logits[top] + sum.ln() as f32;
        let divergence = |(logit, log_base): (&f32, &f32)| f64::from(log_base.exp() * (log_base - logit + log_sum));
        let likely = logits.iter().zip(base).filter(|(_, log_base)| **log_base > LOG_PROBABILITY_MIN);
        self.divergences.push(likely.map(divergence).sum());
        self.surprise += f64::from(log_sum - logits[next]);
        self.base_surprise -= f64::from(base[next]);
        self.same_top += usize::from(top == largest(base));
    }

    /// `None` of no positions.
    fn score(mut self) -> Option<Score> {
        self.divergences.sort_by(f64::total_cmp);
        let positions = self.divergences.len();
        let at = |share: f64| self.divergences.get((share * (positions - 1) as f64) as usize).copied();
        let mean = |sum: f64| sum / positions as f64;
        (positions > 0).then(|| Score {
            positions,
            perplexity: mean(self.surprise).exp(),
            base_perplexity: mean(self.base_surprise).exp(),
            kl_mean: mean(self.divergences.iter().sum()),
            kl_median: at(0.5).unwrap_or(0.0),
            kl_99th: at(0.99).unwrap_or(0.0),
            same_top: self.same_top as f64 / positions as f64,
        })
    }
}

/// The place of the first of the largest.
fn largest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 80;

    /// A file as llama.cpp would write it, of what `model` itself predicts.
    fn written_by(model: &mut dyn Model, chunks: &[Vec<u32>]) -> Vec<u8> {
        let vocabulary = model.spec().vocabulary;
        let mut file = b"_logits_".to_vec();
        for number in [CHUNK, vocabulary, chunks.len()] {
            file.extend((number as i32).to_le_bytes());
        }
        chunks.concat().iter().for_each(|token| file.extend((*token as i32).to_le_bytes()));
        let mut cache = KvCache::new(model.spec(), CHUNK.div_ceil(BLOCK_TOKENS), KvType::F16);
        for chunk in chunks {
            each_logits(model, &mut cache, chunk, CHUNK / 2, |position, logits| {
                if position + 1 == CHUNK {
                    return Ok(());
                }
                let top = logits[largest(logits)];
                let log_sum = top + logits.iter().map(|logit| (logit - top).exp()).sum::<f32>().ln();
                let lowest = -64.0f32;
                let scale = -lowest / 65_535.0;
                file.extend(scale.to_le_bytes());
                file.extend(lowest.to_le_bytes());
                for logit in logits {
                    let code = ((logit - log_sum).max(lowest) - lowest) / scale;
                    file.extend((code.round() as u16).to_le_bytes());
                }
                file.extend(vec![0; 2 * (vocabulary % 2)]);
                Ok(())
            })
            .unwrap();
        }
        file
    }

    #[test]
    fn a_model_agrees_with_itself() {
        let mut model = crate::cli::load::tests::demo();
        let chunks: Vec<Vec<u32>> =
            (0..2).map(|c| (0..CHUNK).map(|i| (i * 37 + c * 11) as u32 % 256).collect()).collect();
        let file = written_by(&mut *model, &chunks);
        let mut told = Vec::new();
        let same = score(&mut *model, KvType::F16, None, &file[..], |share| told.push(share)).unwrap();
        assert_eq!((same.positions, same.same_top, told), (2 * (CHUNK - 1 - CHUNK / 2), 1.0, vec![0.0, 0.5]));
        assert!(same.kl_mean.abs() < 1e-4 && (same.perplexity / same.base_perplexity - 1.0).abs() < 1e-3, "{same:?}");
        // Another token at the start changes what comes after it, and nothing of the base.
        let other = score(&mut *model, KvType::F16, Some(300), &file[..], |_| {}).unwrap();
        assert_eq!(other.base_perplexity, same.base_perplexity);
        assert!((other.perplexity / same.perplexity - 1.0).abs() > 1e-3 && other.kl_mean > same.kl_mean, "{other:?}");

        let mut long = file.clone();
        long.truncate(file.len() - 1);
        for (bytes, why) in
            [(&long[..], "fill"), (b"_logits", "fill"), (b"GGUF1234", "llama-perplexity"), (&file[..20], "fill")]
        {
            let error = score(&mut *model, KvType::F16, None, bytes, |_| {}).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let mut strange = file.clone();
        strange[24..28].copy_from_slice(&i32::MAX.to_le_bytes());
        assert!(score(&mut *model, KvType::F16, None, &strange[..], |_| {}).unwrap_err().contains("vocabulary"));
    }
}
