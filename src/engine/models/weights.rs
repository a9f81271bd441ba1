//! Takes keys and tensors out of a model's source, checked against what the model expects of them.

use std::{borrow::Cow, cell::RefCell, ops::Range};

use super::{
    LoadError, LoadOptions, Source,
    layout::{MatrixNames, MatrixPart, VectorName},
    quantize,
};
use crate::engine::{
    gguf::{FromValue, Tensor, TensorType, Value},
    kernels::matmul::Kind,
    layers::{Linear, LinearBuilder, PairStyle, RmsNorm, WeightsError},
    memory::Arena,
    team::Team,
};

pub struct Weights<'a> {
    source: &'a Source,
    /// Prefix of the architecture's keys.
    architecture: &'static str,
    team: &'a Team,
    /// Where packed weights go.
    arena: RefCell<Arena>,
    options: LoadOptions,
}

impl<'a> Weights<'a> {
    /// `team` packs, and quantises where that is wanted.
    pub fn new(source: &'a Source, architecture: &'static str, team: &'a Team, options: LoadOptions) -> Self {
        Self { source, architecture, team, arena: RefCell::default(), options }
    }

    /// How rotary pairs lie in the weights of the llama family.
    pub fn llama_pairs(&self) -> PairStyle {
        self.source.llama_pairs()
    }

    /// Positions that will be served at most, if that is known, else what the model can do.
    pub fn context(&self, model: usize) -> usize {
        self.options.context.unwrap_or(model).min(model)
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
        Ok(self.source.metadata().find(&self.key(name))?)
    }

    /// The value of one of the architecture's keys, whatever its type.
    pub fn value(&self, name: &str) -> Option<Value<'a>> {
        self.source.metadata().value(&self.key(name))
    }

    /// A size that must be there, in `1..=max`.
    pub fn size(&self, name: &str, max: usize) -> Result<usize, LoadError> {
        let size = self.source.metadata().usize(&self.key(name))?;
        if (1..=max).contains(&size) {
            return Ok(size);
        }
        Err(self.bad_value(name, format!("{size} is not in 1..={max}")))
    }

    /// A number above 0, if it is there.
    pub fn positive(&self, name: &str) -> Result<Option<f32>, LoadError> {
        match self.find::<f32>(name)? {
            Some(x) if !(x > 0.0 && x.is_finite()) => {
                Err(self.bad_value(name, format!("{x} is not a positive number")))
            }
            found => Ok(found),
        }
    }

    pub fn bad_value(&self, name: &str, why: impl Into<String>) -> LoadError {
        LoadError::Value { key: self.key(name), why: why.into() }
    }

    pub fn has(&self, tensor: &str) -> bool {
        self.source.tensor(tensor).is_some()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, LoadError> {
        let tensor = self.source.tensor(name).ok_or_else(|| LoadError::MissingTensor(name.into()))?;
        if tensor.shape != shape {
            let expected = shape.to_vec();
            return Err(LoadError::Shape { tensor: name.into(), expected, found: tensor.shape });
        }
        Ok(tensor)
    }

    /// The shape of a tensor of two dimensions: (rows, columns).
    pub fn matrix_shape(&self, name: &str) -> Result<(usize, usize), LoadError> {
        let tensor = self.source.tensor(name).ok_or_else(|| LoadError::MissingTensor(name.into()))?;
        match tensor.shape[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(LoadError::Shape { tensor: name.into(), expected: vec![0, 0], found: tensor.shape }),
        }
    }

    /// A vector of `len` floats, as norms and biases are stored.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name, &[len])?;
        if !tensor.dtype.is_float() {
            return Err(LoadError::Type { tensor: name.into(), dtype: tensor.dtype });
        }
        Ok(tensor.dtype.to_floats(&tensor.read()?))
    }

    /// Some rows of `width` floats, end to end. A table of one row may be stored as a vector.
    pub fn float_rows(&self, name: &str, rows: Range<usize>, width: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.source.tensor(name).ok_or_else(|| LoadError::MissingTensor(name.into()))?;
        match tensor.shape[..] {
            _ if !tensor.dtype.is_float() => Err(LoadError::Type { tensor: name.into(), dtype: tensor.dtype }),
            [columns] if columns == width && rows == (0..1) => Ok(tensor.dtype.to_floats(&tensor.read()?)),
            [count, columns] if columns == width && rows.end <= count => {
                Ok(tensor.dtype.to_floats(&tensor.rows(rows).read()?))
            }
            _ => Err(LoadError::Shape { tensor: name.into(), expected: vec![rows.end, width], found: tensor.shape }),
        }
    }

    /// A whole matrix as the file has it, if it is of floats.
    pub fn floats(&self, part: &MatrixPart, inputs: usize) -> Result<Option<Matrix<'a>>, LoadError> {
        let tensor = self.tensor(&format!("{}.weight", part.name), &[part.stored, inputs])?;
        let float = tensor.dtype.is_float();
        float.then(|| Ok(Matrix { dtype: tensor.dtype, data: tensor.read()? })).transpose()
    }

    pub fn norm(&self, name: &VectorName, eps: f32) -> Result<RmsNorm, LoadError> {
        Ok(RmsNorm::new(self.vector(&name.name, name.len)?, eps))
    }

    /// The part's rows of `inputs` values, in a format that there are kernels for; quantised if that is wanted.
    pub fn matrix(&self, part: &MatrixPart, inputs: usize) -> Result<Matrix<'a>, LoadError> {
        let name = format!("{}.weight", part.name);
        let tensor = self.tensor(&name, &[part.stored, inputs])?;
        if Kind::of(tensor.dtype).is_none() {
            return Err(LoadError::Type { tensor: name, dtype: tensor.dtype });
        }
        let data = tensor.rows(part.outputs.clone()).read()?;
        let wanted = self.options.quantize.filter(|_| tensor.dtype.is_float());
        match wanted.and_then(|quantize| quantize.target(&name, inputs)) {
            Some(target) => match quantize::quantize(self.team, tensor.dtype, &data, inputs, target) {
                Ok(data) => Ok(Matrix { dtype: target, data: data.into() }),
                Err(error) => Err(LoadError::Weights { tensor: name, why: error.to_string() }),
            },
            None => Ok(Matrix { dtype: tensor.dtype, data }),
        }
    }

    /// The biases of all matrices, end to end; `None` if they have none.
    pub fn bias(&self, matrices: &MatrixNames) -> Result<Option<Vec<f32>>, LoadError> {
        let name = |part: &MatrixPart| format!("{}.bias", part.name);
        if !matrices.parts.iter().any(|part| self.has(&name(part))) {
            return Ok(None);
        }
        let mut biases = Vec::with_capacity(matrices.outputs());
        for part in &matrices.parts {
            biases.extend_from_slice(&self.vector(&name(part), part.stored)?[part.outputs.clone()]);
        }
        Ok(Some(biases))
    }

    /// The matrices as one layer, with their biases if there are any.
    pub fn linear(&self, names: &MatrixNames) -> Result<Linear, LoadError> {
        let mut arena = self.arena.borrow_mut();
        let mut builder = LinearBuilder::new(self.team, &mut arena, names.inputs);
        for part in &names.parts {
            let Matrix { dtype, data } = self.matrix(part, names.inputs)?;
            let refused = |e: WeightsError| LoadError::Weights { tensor: part.name.clone(), why: e.0 };
            builder = builder.matrix(dtype, &data).map_err(refused)?;
        }
        Ok(builder.build(self.bias(names)?))
    }

    /// Gate and up, which are used together.
    pub fn gate_up(&self, names: &MatrixNames) -> Result<Linear, LoadError> {
        let [gate, up] = &names.parts[..] else { panic!("a gate and an up") };
        let [gates, ups] = [self.matrix(gate, names.inputs)?, self.matrix(up, names.inputs)?];
        let mut arena = self.arena.borrow_mut();
        let pair = [(gates.dtype, &gates.data[..]), (ups.dtype, &ups.data[..])];
        let refused = |e: WeightsError| LoadError::Weights { tensor: format!("{}, {}", gate.name, up.name), why: e.0 };
        let builder = LinearBuilder::new(self.team, &mut arena, names.inputs).pair(pair).map_err(refused)?;
        Ok(builder.build(self.bias(names)?))
    }
}

/// A matrix as its kernels take it.
pub struct Matrix<'a> {
    pub dtype: TensorType,
    /// All rows, end to end.
    pub data: Cow<'a, [u8]>,
}
