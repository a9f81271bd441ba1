//! A matrix of weights, multiplied with rows of activations on the team.
//!
//! Quantised weights are computed by candle's kernels, a thread at a time on a shard of the outputs: candle is held to
//! one thread (see [`prepare_process`](crate::engine::prepare_process)), the team is the parallelism. Float weights stay
//! in the type they came in and are computed by our own.
//!
//! Invariants: the shards cover every output once; an output's sum is made in the same order whatever the number of
//! rows or threads, for which candle's choice of kernel must not depend on either (see `kernel_rows` and `OUTPUT_TILE`).

use std::{borrow::Cow, ops::Range};

use candle_core::{
    CpuStorage, CustomOp1, Device, Layout, Shape, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};
use half::{bf16, f16};

use super::Rows;
use crate::engine::{
    kernels::kernels,
    team::{DisjointMut, Team},
};

/// Candle's tiles hold 16 outputs; a matrix whose height is not a multiple takes another path. Shards are cut at
/// multiples, and what is left over at the end is a shard of its own, so that the path does not depend on the threads.
const OUTPUT_TILE: usize = 16;
/// Rows that candle is given at once. From 32 up it would use AMX where there is any, with sums in another order.
const KERNEL_ROWS_MAX: usize = 28;
/// Rows of activations that a float shard keeps at hand while it goes through its weights.
const FLOAT_ROWS: usize = 16;

/// A thread gets one shard, since activations are quantised for each anew; more, to be shared out as threads become
/// free, where the shards stay large enough for that not to matter.
const SHARD_OUTPUTS_MIN: usize = 8 * 1024;
const SHARDS_PER_THREAD_MAX: usize = 4;

/// Weights that can't be used; says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsError(pub String);

/// What is done with a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Store,
    /// Add it to what the output holds (a residual).
    Add,
}

pub struct Linear {
    inputs: usize,
    outputs: usize,
    shards: Vec<Shard>,
    bias: Option<Vec<f32>>,
}

/// Consecutive outputs, computed by one thread.
struct Shard {
    outputs: Range<usize>,
    weights: Weights,
}

/// Shape (outputs, inputs).
enum Weights {
    Quantised(QTensor),
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// Collects matrices of the same width into one [`Linear`], their outputs side by side.
pub struct LinearBuilder<'a> {
    inputs: usize,
    runs: Vec<Run<'a>>,
}

/// Matrices of one type in a row: one matrix as far as the kernels are concerned, so that activations are quantised
/// once for all of them.
struct Run<'a> {
    dtype: GgmlDType,
    matrices: Vec<&'a [u8]>,
}

impl<'a> LinearBuilder<'a> {
    pub fn new(inputs: usize) -> Self {
        Self { inputs, runs: Vec::new() }
    }

    /// Adds a matrix of whole rows of `inputs` values, stored as `dtype`.
    pub fn matrix(mut self, dtype: GgmlDType, data: &'a [u8]) -> Result<Self, WeightsError> {
        let row_bytes = row_bytes(dtype, self.inputs)?;
        if data.is_empty() || !data.len().is_multiple_of(row_bytes) {
            return Err(WeightsError(format!("{} bytes are not rows of {row_bytes} bytes", data.len())));
        }
        if !data.as_ptr().addr().is_multiple_of(align_of::<u32>()) {
            return Err(WeightsError("its data is not aligned to 4 bytes in the file".into()));
        }
        match self.runs.last_mut() {
            Some(run) if run.dtype == dtype => run.matrices.push(data),
            _ => self.runs.push(Run { dtype, matrices: vec![data] }),
        }
        Ok(self)
    }

    /// Copies the weights into shards for a team of `threads`. `bias` is as long as the outputs.
    pub fn build(self, threads: usize, bias: Option<Vec<f32>>) -> Result<Linear, WeightsError> {
        let mut shards = Vec::new();
        let mut outputs = 0;
        for run in &self.runs {
            let row_bytes = row_bytes(run.dtype, self.inputs)?;
            let rows = run.matrices.iter().map(|m| m.len()).sum::<usize>() / row_bytes;
            for range in split(rows, threads) {
                let data = slice_of(&run.matrices, range.start * row_bytes..range.end * row_bytes);
                let weights = Weights::new(run.dtype, &data, range.len(), self.inputs)?;
                shards.push(Shard { outputs: outputs + range.start..outputs + range.end, weights });
            }
            outputs += rows;
        }
        assert!(bias.as_ref().is_none_or(|b| b.len() == outputs), "a bias for every output");
        Ok(Linear { inputs: self.inputs, outputs, shards, bias })
    }
}

impl Linear {
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `x · weightsᵀ + bias` for rows of `inputs` values, stored to or added to `out`. `x` is only read; it is borrowed
    /// mutably because candle takes its storage by value.
    pub fn forward(&self, team: &Team, x: &mut Rows, then: Then, out: &mut Rows) {
        assert_eq!(x.width(), self.inputs);
        let rows = x.rows();
        match then {
            Then::Store => out.reset(rows, self.outputs),
            Then::Add => assert!(out.rows() == rows && out.width() == self.outputs),
        }
        let input = CpuStorage::F32(x.take());
        let sink =
            Sink { out: DisjointMut::new(out.values_mut()), outputs: self.outputs, then, bias: self.bias.as_deref() };
        team.for_each_chunk(self.shards.len(), 1, |range| {
            for shard in &self.shards[range] {
                shard.forward(&input, self.inputs, rows, &sink);
            }
        });
        if let CpuStorage::F32(data) = input {
            x.put_back(data);
        }
    }

    /// The weights of output `index` as floats: a token's embedding, where the matrix is an embedding table.
    pub fn weight_row(&self, index: usize, out: &mut [f32]) {
        let shard = self.shards.iter().find(|s| s.outputs.contains(&index)).expect("an output of this layer");
        let row = index - shard.outputs.start;
        let range = row * self.inputs..(row + 1) * self.inputs;
        match &shard.weights {
            Weights::Quantised(tensor) => dequantise_row(tensor, row, out).expect("a row of the tensor"),
            Weights::F32(w) => out.copy_from_slice(&w[range]),
            Weights::F16(w) => out.iter_mut().zip(&w[range]).for_each(|(o, w)| *o = w.to_f32()),
            Weights::Bf16(w) => out.iter_mut().zip(&w[range]).for_each(|(o, w)| *o = w.to_f32()),
        }
    }
}

impl Shard {
    fn forward(&self, input: &CpuStorage, inputs: usize, rows: usize, sink: &Sink) {
        let x = input.as_slice::<f32>().expect("activations are f32");
        match &self.weights {
            Weights::Quantised(tensor) => {
                for first in (0..rows).step_by(KERNEL_ROWS_MAX) {
                    let chunk = first..rows.min(first + KERNEL_ROWS_MAX);
                    let product = multiply(tensor, input, inputs, chunk.clone()).expect("shapes were checked at load");
                    for (row, values) in chunk.zip(product.chunks_exact(self.outputs.len())) {
                        sink.put(row, self.outputs.start, values);
                    }
                }
            }
            Weights::F32(w) => self.forward_float(x, w, inputs, sink, |x, w, out| kernels().dot_f32(x, w, out)),
            Weights::F16(w) => self.forward_float(x, w, inputs, sink, |x, w, out| kernels().dot_f16(x, w, out)),
            Weights::Bf16(w) => self.forward_float(x, w, inputs, sink, |x, w, out| kernels().dot_bf16(x, w, out)),
        }
    }

    fn forward_float<W>(
        &self,
        x: &[f32],
        weights: &[W],
        inputs: usize,
        sink: &Sink,
        dot: impl Fn(&[f32], &[W], &mut [f32]),
    ) {
        for (chunk, x) in x.chunks(FLOAT_ROWS * inputs).enumerate() {
            let rows = x.len() / inputs;
            for (output, weights) in self.outputs.clone().zip(weights.chunks_exact(inputs)) {
                let mut products = [0.0; FLOAT_ROWS];
                dot(x, weights, &mut products[..rows]);
                for (row, value) in products[..rows].iter().enumerate() {
                    sink.put(chunk * FLOAT_ROWS + row, output, std::slice::from_ref(value));
                }
            }
        }
    }
}

/// Where the shards' products go.
struct Sink<'a> {
    out: DisjointMut<'a, f32>,
    outputs: usize,
    then: Then,
    bias: Option<&'a [f32]>,
}

impl Sink<'_> {
    /// Puts the products of `row` for the outputs from `first` on.
    fn put(&self, row: usize, first: usize, values: &[f32]) {
        let at = row * self.outputs + first;
        // SAFETY: shards have disjoint outputs, and a shard is taken by one thread.
        let out = unsafe { self.out.range(at..at + values.len()) };
        match (self.then, self.bias) {
            (Then::Store, None) => out.copy_from_slice(values),
            (Then::Store, Some(bias)) => {
                out.iter_mut().zip(values).zip(&bias[first..]).for_each(|((o, v), b)| *o = v + b);
            }
            (Then::Add, None) => out.iter_mut().zip(values).for_each(|(o, v)| *o += v),
            (Then::Add, Some(bias)) => {
                out.iter_mut().zip(values).zip(&bias[first..]).for_each(|((o, v), b)| *o += v + b);
            }
        }
    }
}

impl Weights {
    fn new(dtype: GgmlDType, data: &[u8], rows: usize, inputs: usize) -> Result<Self, WeightsError> {
        let halves = || data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        Ok(match dtype {
            GgmlDType::F32 => {
                Self::F32(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            GgmlDType::F16 => Self::F16(halves().map(f16::from_bits).collect()),
            GgmlDType::BF16 => Self::Bf16(halves().map(bf16::from_bits).collect()),
            _ => {
                let tensor = QStorage::from_data(Cow::Borrowed(data), &Device::Cpu, dtype)
                    .and_then(|storage| QTensor::new(storage, (rows, inputs)))
                    .map_err(|e| WeightsError(e.to_string()))?;
                Self::Quantised(tensor)
            }
        })
    }
}

/// Bytes of a row of `inputs` values.
fn row_bytes(dtype: GgmlDType, inputs: usize) -> Result<usize, WeightsError> {
    if inputs == 0 || !inputs.is_multiple_of(dtype.block_size()) {
        let block = dtype.block_size();
        return Err(WeightsError(format!("rows of {inputs} values are not whole blocks of {block} ({dtype:?})")));
    }
    Ok(inputs / dtype.block_size() * dtype.type_size())
}

/// Splits `rows` outputs into shards for `threads`, at multiples of [`OUTPUT_TILE`]; what is left over is one more.
fn split(rows: usize, threads: usize) -> Vec<Range<usize>> {
    let per_thread = (rows / threads / SHARD_OUTPUTS_MIN).clamp(1, SHARDS_PER_THREAD_MAX);
    let (tiles, shards) = (rows / OUTPUT_TILE, threads * per_thread);
    let even = (0..shards).map(|s| tiles * s / shards * OUTPUT_TILE..tiles * (s + 1) / shards * OUTPUT_TILE);
    even.chain([tiles * OUTPUT_TILE..rows]).filter(|range| !range.is_empty()).collect()
}

/// A range of bytes of matrices that follow each other.
fn slice_of<'a>(matrices: &[&'a [u8]], range: Range<usize>) -> Cow<'a, [u8]> {
    let mut start = 0;
    let mut found = Cow::Borrowed(&[] as &[u8]);
    for matrix in matrices {
        let from = range.start.clamp(start, start + matrix.len()) - start;
        let to = range.end.clamp(start, start + matrix.len()) - start;
        let piece = &matrix[from..to];
        if found.is_empty() {
            found = Cow::Borrowed(piece);
        } else if !piece.is_empty() {
            found.to_mut().extend_from_slice(piece);
        }
        start += matrix.len();
    }
    found
}

/// How many rows candle must be given for `rows` rows to be computed by the kernel that any number of rows would be.
///
/// On x86-64 a single row of Q6_K would be computed from the compact weights instead of the tiles; on aarch64 rows
/// past a multiple of four are computed one by one.
fn kernel_rows(dtype: GgmlDType, rows: usize) -> usize {
    if cfg!(target_arch = "aarch64") {
        rows.next_multiple_of(4)
    } else if dtype == GgmlDType::Q6K {
        rows.max(2)
    } else {
        rows
    }
}

/// The product of some rows of `input` with a shard, row by row.
fn multiply(tensor: &QTensor, input: &CpuStorage, inputs: usize, rows: Range<usize>) -> candle_core::Result<Vec<f32>> {
    let wanted = kernel_rows(tensor.dtype(), rows.len());
    let product = if wanted == rows.len() {
        let layout = Layout::contiguous_with_offset(Shape::from((rows.len(), inputs)), rows.start * inputs);
        tensor.cpu_fwd(input, &layout)?.0
    } else {
        let mut padded = input.as_slice::<f32>()?[rows.start * inputs..rows.end * inputs].to_vec();
        padded.resize(wanted * inputs, 0.0);
        tensor.cpu_fwd(&CpuStorage::F32(padded), &Layout::contiguous((wanted, inputs)))?.0
    };
    let CpuStorage::F32(mut product) = product else { candle_core::bail!("a product that is not f32") };
    product.truncate(product.len() / wanted * rows.len());
    Ok(product)
}

fn dequantise_row(tensor: &QTensor, row: usize, out: &mut [f32]) -> candle_core::Result<()> {
    let index = Tensor::from_slice(&[row as u32], 1, &Device::Cpu)?;
    let values = tensor.embedding(&index)?;
    let (storage, layout) = values.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else { candle_core::bail!("not on the CPU") };
    out.copy_from_slice(&storage.as_slice::<f32>()?[layout.start_offset()..][..out.len()]);
    Ok(())
}

#[cfg(test)]
mod tests;
