//! Takes keys and tensors out of a GGUF file, checked against what the model expects of them.

use std::borrow::Cow;

use super::{
    LoadError,
    layout::{MatrixNames, VectorName},
};
use crate::engine::{
    gguf::{FromValue, Gguf, Tensor, TensorType},
    kernels::matmul::Kind,
    layers::{Linear, LinearBuilder, RmsNorm, WeightsError},
    team::Team,
};

pub struct Weights<'a> {
    gguf: &'a Gguf,
    /// Prefix of the architecture's keys.
    architecture: &'static str,
    team: &'a Team,
}

impl<'a> Weights<'a> {
    pub fn new(gguf: &'a Gguf, architecture: &'static str, team: &'a Team) -> Self {
        Self { gguf, architecture, team }
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
        if Kind::of(tensor.dtype).is_none() {
            return Err(LoadError::Type { tensor: name, dtype: tensor.dtype });
        }
        Ok(Matrix { dtype: tensor.dtype, data: tensor.read()? })
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
        let mut builder = LinearBuilder::new(self.team, names.inputs);
        for (name, outputs) in &names.parts {
            let Matrix { dtype, data } = self.matrix(name, *outputs, names.inputs)?;
            let refused = |e: WeightsError| LoadError::Weights { tensor: name.clone(), why: e.0 };
            builder = builder.matrix(dtype, &data).map_err(refused)?;
        }
        Ok(builder.build(self.bias(names)?))
    }
}

/// A matrix as its kernels take it.
pub struct Matrix<'a> {
    pub dtype: TensorType,
    /// All rows, end to end.
    pub data: Cow<'a, [u8]>,
}
