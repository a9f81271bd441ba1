//! Weights in a device's memory: matrices, with their biases, and norms.

use std::sync::Arc;

use candle_core::{
    DType, Device, Result, Tensor,
    quantized::{GgmlDType, QStorage, QTensor},
};

use crate::engine::models::{
    LoadError,
    layout::{MatrixNames, MatrixPart, VectorName},
    weights::Weights,
};

/// Reads tensors by name onto a device.
pub struct Loader<'a> {
    pub weights: &'a Weights<'a>,
    pub device: &'a Device,
    /// Epsilon of all norms.
    pub eps: f32,
}

impl Loader<'_> {
    pub fn linear(&self, names: &MatrixNames) -> std::result::Result<Linear, LoadError> {
        let biases = self.weights.bias(names)?;
        let mut first = 0;
        let mut matrices = Vec::with_capacity(names.parts.len());
        for part in &names.parts {
            let bias = biases.as_ref().map(|all| &all[first..first + part.outputs.len()]);
            matrices.push((self.matrix(part, names.inputs)?, self.bias(&part.name, bias)?));
            first += part.outputs.len();
        }
        Ok(Linear { matrices })
    }

    /// The one matrix of `names`, which has no bias.
    pub fn table(&self, names: &MatrixNames) -> std::result::Result<Matrix, LoadError> {
        self.matrix(&names.parts[0], names.inputs)
    }

    pub fn norm(&self, name: &VectorName) -> std::result::Result<Norm, LoadError> {
        let weight = self.weights.vector(&name.name, name.len)?;
        let weight = Tensor::from_vec(weight, name.len, self.device).map_err(refused(&name.name))?;
        Ok(Norm { weight, eps: self.eps })
    }

    fn matrix(&self, part: &MatrixPart, inputs: usize) -> std::result::Result<Matrix, LoadError> {
        let stored = self.weights.matrix(part, inputs)?;
        let Some(dtype) = stored.dtype.candles() else {
            return Err(LoadError::Type { tensor: part.name.clone(), dtype: stored.dtype });
        };
        let shape = (part.outputs.len(), inputs);
        Matrix::new(dtype, &stored.data, shape, self.device).map_err(refused(&part.name))
    }

    fn bias(&self, name: &str, bias: Option<&[f32]>) -> std::result::Result<Option<Tensor>, LoadError> {
        bias.map(|bias| Tensor::from_slice(bias, bias.len(), self.device)).transpose().map_err(refused(name))
    }
}

fn refused(name: &str) -> impl FnOnce(candle_core::Error) -> LoadError {
    move |error| LoadError::Weights { tensor: name.to_owned(), why: error.to_string() }
}

/// A matrix of shape (outputs, inputs). Cheap to clone.
#[derive(Clone)]
pub enum Matrix {
    Quantised(Arc<QTensor>),
    /// f32, f16 or bf16: products are computed in this type, with sums in f32.
    Float(Tensor),
}

impl Matrix {
    fn new(stored: GgmlDType, data: &[u8], shape: (usize, usize), device: &Device) -> Result<Self> {
        let float = match stored {
            GgmlDType::F32 => DType::F32,
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            _ => {
                let storage = QStorage::from_data(data.into(), device, stored)?;
                return Ok(Self::Quantised(Arc::new(QTensor::new(storage, shape)?)));
            }
        };
        let matrix = Tensor::from_raw_buffer(data, float, &[shape.0, shape.1], device)?;
        // Candle's CPU multiplies no bf16.
        Ok(Self::Float(if device.is_cpu() { matrix.to_dtype(DType::F32)? } else { matrix }))
    }

    /// (tokens, inputs) → (tokens, outputs), both f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantised(matrix) => x.contiguous()?.apply_op1_no_bwd(matrix.as_ref()),
            Self::Float(matrix) => x.to_dtype(matrix.dtype())?.matmul(&matrix.t()?)?.to_dtype(DType::F32),
        }
    }

    /// The rows of these indices: (tokens) → (tokens, inputs), f32.
    pub fn rows(&self, indices: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantised(matrix) => matrix.embedding(indices),
            Self::Float(matrix) => matrix.index_select(indices, 0)?.to_dtype(DType::F32),
        }
    }
}

/// Matrices of the same inputs, each with a bias if there are any.
pub struct Linear {
    matrices: Vec<(Matrix, Option<Tensor>)>,
}

impl Linear {
    /// (tokens, inputs) → (tokens, width) for each of `widths`, which together are all outputs.
    pub fn split<const N: usize>(&self, x: &Tensor, widths: [usize; N]) -> Result<[Tensor; N]> {
        let outputs = self.matrices.iter().map(|(matrix, bias)| {
            let y = matrix.forward(x)?;
            bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
        });
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        // Stored as they are wanted, or as one matrix that is cut here.
        outputs.try_into().or_else(|outputs: Vec<Tensor>| {
            let whole = Tensor::cat(&outputs, 1)?;
            let mut first = 0;
            let parts = widths.map(|width| {
                first += width;
                whole.narrow(1, first - width, width)?.contiguous()
            });
            let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
            Ok(parts.try_into().expect("as many as widths"))
        })
    }

    /// (tokens, inputs) → (tokens, outputs).
    pub fn forward(&self, x: &Tensor, outputs: usize) -> Result<Tensor> {
        let [y] = self.split(x, [outputs])?;
        Ok(y)
    }
}

/// RMSNorm over the last dimension (Zhang & Sennrich 2019).
pub struct Norm {
    weight: Tensor,
    eps: f32,
}

impl Norm {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps)
    }
}
