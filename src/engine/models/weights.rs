//! Takes keys and tensors out of a GGUF file, checked against what the model expects of them.

use std::borrow::Cow;

use candle_core::quantized::GgmlDType;

use super::{
    LoadError,
    layout::{MatrixNames, VectorName},
};
use crate::engine::{
    gguf::{FromValue, Gguf, Tensor, TensorType},
    layers::{Linear, LinearBuilder, RmsNorm, WeightsError},
    team::Team,
};

pub struct Weights<'a> {
    gguf: &'a Gguf,
    /// Prefix of the architecture's keys.
    architecture: &'static str,
    threads: usize,
}

impl<'a> Weights<'a> {
    pub fn new(gguf: &'a Gguf, architecture: &'static str, team: &Team) -> Self {
        Self { gguf, architecture, threads: team.threads() }
    }

    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// The full name of one of the architecture's keys.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// The value of one of the architecture's keys, if it is there.
    pub fn find<T: FromValue<'a>>(&self, name: &str) -> Result<Option<T>, LoadError> {
        Ok(self.gguf.metadata().find(&self.key(name))?)
    }

    /// A size that must be there, in `1..=max`.
    pub fn size(&self, name: &str, max: usize) -> Result<usize, LoadError> {
        let size = self.gguf.metadata().usize(&self.key(name))?;
        if (1..=max).contains(&size) {
            return Ok(size);
        }
        Err(self.bad_value(name, format!("{size} is not in 1..={max}")))
    }

    pub fn bad_value(&self, name: &str, why: impl Into<String>) -> LoadError {
        LoadError::Value { key: self.key(name), why: why.into() }
    }

    pub fn has(&self, tensor: &str) -> bool {
        self.gguf.tensor(tensor).is_some()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, LoadError> {
        let tensor = self.gguf.tensor(name).ok_or_else(|| LoadError::MissingTensor(name.into()))?;
        if tensor.shape != shape {
            let expected = shape.to_vec();
            return Err(LoadError::Shape { tensor: name.into(), expected, found: tensor.shape });
        }
        Ok(tensor)
    }

    /// The shape of a tensor of two dimensions: (rows, columns).
    pub fn matrix_shape(&self, name: &str) -> Result<(usize, usize), LoadError> {
        let tensor = self.gguf.tensor(name).ok_or_else(|| LoadError::MissingTensor(name.into()))?;
        match tensor.shape[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(LoadError::Shape { tensor: name.into(), expected: vec![0, 0], found: tensor.shape }),
        }
    }

    /// A vector of `len` floats, as norms and biases are stored.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name, &[len])?;
        let data = tensor.read()?;
        match tensor.dtype {
            TensorType::F32 => Ok(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            TensorType::F16 => {
                Ok(data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
            }
            dtype => Err(LoadError::Type { tensor: name.into(), dtype }),
        }
    }

    pub fn norm(&self, name: &VectorName, eps: f32) -> Result<RmsNorm, LoadError> {
        Ok(RmsNorm::new(self.vector(&name.name, name.len)?, eps))
    }

    /// Matrix `NAME.weight` of shape (outputs, inputs), in a format that there are kernels for.
    pub fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix<'a>, LoadError> {
        let name = format!("{name}.weight");
        let tensor = self.tensor(&name, &[outputs, inputs])?;
        match ggml_dtype(tensor.dtype) {
            Some(dtype) => Ok(Matrix { dtype, data: tensor.read()? }),
            None => Err(LoadError::Type { tensor: name, dtype: tensor.dtype }),
        }
    }

    /// The biases of all matrices, end to end; `None` if they have none.
    pub fn bias(&self, matrices: &MatrixNames) -> Result<Option<Vec<f32>>, LoadError> {
        let name = |part: &str| format!("{part}.bias");
        if !matrices.parts.iter().any(|(part, _)| self.has(&name(part))) {
            return Ok(None);
        }
        let biases = matrices.parts.iter().map(|(part, outputs)| self.vector(&name(part), *outputs));
        Ok(Some(biases.collect::<Result<Vec<_>, _>>()?.concat()))
    }

    /// The matrices as one layer, with their biases if there are any.
    pub fn linear(&self, names: &MatrixNames) -> Result<Linear, LoadError> {
        let read = |(name, outputs): &(String, usize)| self.matrix(name, *outputs, names.inputs);
        let matrices = names.parts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut builder = LinearBuilder::new(names.inputs);
        let refused = |tensor: &str, e: WeightsError| LoadError::Weights { tensor: tensor.into(), why: e.0 };
        for ((name, _), Matrix { dtype, data }) in names.parts.iter().zip(&matrices) {
            builder = builder.matrix(*dtype, data).map_err(|e| refused(name, e))?;
        }
        builder.build(self.threads, self.bias(names)?).map_err(|e| refused(&names.parts[0].0, e))
    }
}

/// A matrix as its kernels take it.
pub struct Matrix<'a> {
    pub dtype: GgmlDType,
    /// All rows, end to end.
    pub data: Cow<'a, [u8]>,
}

/// Candle's name of a format, if it has kernels for it.
fn ggml_dtype(dtype: TensorType) -> Option<GgmlDType> {
    Some(match dtype {
        TensorType::F32 => GgmlDType::F32,
        TensorType::F16 => GgmlDType::F16,
        TensorType::Bf16 => GgmlDType::BF16,
        TensorType::Q4_0 => GgmlDType::Q4_0,
        TensorType::Q4_1 => GgmlDType::Q4_1,
        TensorType::Q5_0 => GgmlDType::Q5_0,
        TensorType::Q5_1 => GgmlDType::Q5_1,
        TensorType::Q8_0 => GgmlDType::Q8_0,
        TensorType::Q2K => GgmlDType::Q2K,
        TensorType::Q3K => GgmlDType::Q3K,
        TensorType::Q4K => GgmlDType::Q4K,
        TensorType::Q5K => GgmlDType::Q5K,
        TensorType::Q6K => GgmlDType::Q6K,
        _ => return None,
    })
}
