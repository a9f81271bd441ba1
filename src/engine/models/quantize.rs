//! Weights made smaller while they are loaded.

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor, quantized::QTensor};

use crate::engine::{
    gguf::{self, TensorType},
    team::Team,
};

/// Rows that a thread takes at once.
const CHUNK_ROWS: usize = 32;

/// The format that float weights are turned into; those that are quantised already stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    /// 8.5 bits a weight, next to no loss.
    Q8_0,
    /// 4.5 bits a weight; embeddings and output head 6.6.
    Q4K,
}

impl Quantize {
    /// What a tensor is kept as, and the bytes of that.
    pub fn kept(self, tensor: &gguf::Tensor) -> (TensorType, usize) {
        match tensor.shape[..] {
            [rows, inputs] if tensor.dtype.is_float() => match self.target(tensor.name, inputs) {
                Some(target) => (target, rows * (inputs / target.block_len() * target.block_bytes())),
                None => (tensor.dtype, tensor.bytes),
            },
            _ => (tensor.dtype, tensor.bytes),
        }
    }

    /// What matrix `name`, with rows of `inputs` values, is turned into; `None` leaves it as it is.
    pub(super) fn target(self, name: &str, inputs: usize) -> Option<TensorType> {
        let wanted = match self {
            Self::Q8_0 => TensorType::Q8_0,
            // As in llama.cpp's mixtures: an error in the head goes to the probabilities as it is, and one in a token's
            // vector through all layers, where that of a layer's matrix is one of many that even out.
            Self::Q4K if matches!(name, "token_embd.weight" | "output.weight") => TensorType::Q6K,
            Self::Q4K => TensorType::Q4K,
        };
        // Rows that are no whole blocks of 256 take the smallest format of blocks of 32 that is no worse.
        [wanted, if wanted == TensorType::Q4K { TensorType::Q5_0 } else { TensorType::Q8_0 }]
            .into_iter()
            .find(|dtype| inputs.is_multiple_of(dtype.block_len()))
    }
}

/// Rows of `inputs` floats as blocks of `target`, computed by the team's threads, each a few rows at a time.
///
/// # Errors
/// If candle refuses the numbers, in its words.
pub(super) fn quantize(
    team: &Team,
    floats: TensorType,
    data: &[u8],
    inputs: usize,
    target: TensorType,
) -> candle_core::Result<Vec<u8>> {
    let (from_bytes, to_bytes) = (inputs * floats.block_bytes(), inputs / target.block_len() * target.block_bytes());
    let mut out = vec![0; data.len() / from_bytes * to_bytes];
    let chunks: Vec<_> = data
        .chunks(CHUNK_ROWS * from_bytes)
        .zip(out.chunks_mut(CHUNK_ROWS * to_bytes))
        .map(|(from, to)| Mutex::new((from, to, Ok(()))))
        .collect();
    team.for_each_chunk(chunks.len(), 1, |range| {
        for chunk in &chunks[range] {
            let (from, to, result) = &mut *chunk.lock().unwrap_or_else(PoisonError::into_inner);
            *result = quantize_rows(floats.to_floats(from), inputs, target, to);
        }
    });
    chunks.into_iter().try_for_each(|chunk| chunk.into_inner().unwrap_or_else(PoisonError::into_inner).2)?;
    Ok(out)
}

fn quantize_rows(values: Vec<f32>, inputs: usize, target: TensorType, to: &mut [u8]) -> candle_core::Result<()> {
    let rows = values.len() / inputs;
    let tensor = Tensor::from_vec(values, (rows, inputs), &Device::Cpu)?;
    let candles = target.candles().expect("targets are candle's types");
    to.copy_from_slice(&QTensor::quantize(&tensor, candles)?.data()?);
    Ok(())
}
