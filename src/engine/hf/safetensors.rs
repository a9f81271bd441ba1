//! The weight files of a directory: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
//!
//! A file is eight bytes with the length of its head, a JSON object with the type, shape and place of every tensor, and the
//! tensors, end to end (<https://huggingface.co/docs/safetensors>). The crate checks the heads; bytes are read when asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use safetensors::{Dtype, tensor::Metadata};

use super::{error::DirectoryError, json::Object};
use crate::engine::gguf::{Source, Tensor, TensorType};

/// The format's own bound on a head.
const HEAD_BYTES_MAX: u64 = 100_000_000;
/// Largest index file.
const INDEX_BYTES_MAX: u64 = 64 << 20;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All weight files, open.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<Shard>,
    /// Places by the files' own names.
    pub tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    name: String,
    source: Source,
}

/// A tensor's type and shape, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    file: usize,
    /// Of the file, as it calls it.
    dtype: Dtype,
    shape: Vec<usize>,
    offset: u64,
    bytes: usize,
}

impl Shards {
    pub fn open(directory: &Path) -> Result<Self, DirectoryError> {
        let index = Index::read(directory)?;
        let names = match &index {
            Some(index) => index.files.iter().cloned().collect(),
            None => vec![SINGLE.to_owned()],
        };
        let mut shards = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            shards.add(directory, name)?;
        }
        for (tensor, file) in index.iter().flat_map(|index| &index.tensors) {
            if shards.tensors.get(tensor).is_none_or(|place| shards.files[place.file].name != *file) {
                return Err(DirectoryError::invalid(INDEX, format!("{file} does not have the tensor {tensor:?}")));
            }
        }
        Ok(shards)
    }

    fn add(&mut self, directory: &Path, name: String) -> Result<(), DirectoryError> {
        let invalid = |why: &dyn std::fmt::Display| DirectoryError::invalid(&name, why);
        let path = directory.join(&name);
        if !path.exists() {
            let hint = "weights must be safetensors files; those of PyTorch can run code, convert them";
            return Err(DirectoryError::missing(&name, hint));
        }
        let source = Source::open(&path).map_err(|e| invalid(&e))?;
        let read = |at, count| source.read(at, count, &|| "the head".into()).map_err(|e| invalid(&e));
        if source.bytes() < 8 {
            return Err(invalid(&"the file is cut short: it has no head"));
        }
        let length = read(0, 8)?;
        let head_bytes = u64::from_le_bytes(length[..].try_into().unwrap_or_default());
        if head_bytes > HEAD_BYTES_MAX || head_bytes > source.bytes() - 8 {
            let why = format!("not a safetensors file, or cut short: its head would take {head_bytes} bytes");
            return Err(invalid(&why));
        }
        let head = read(8, head_bytes as usize)?;
        let head: Metadata = serde_json::from_slice(&head).map_err(|e| invalid(&e))?;
        let data_start = 8 + head_bytes;
        if source.bytes() - data_start != head.data_len() as u64 {
            let (found, needed) = (source.bytes() - data_start, head.data_len());
            return Err(invalid(&format!("{found} bytes of tensors where the head describes {needed}: cut short?")));
        }
        let file = self.files.len();
        for (tensor, info) in head.tensors() {
            let (start, end) = info.data_offsets;
            let place = Place {
                file,
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: data_start + start as u64,
                bytes: end - start,
            };
            if place.shape.contains(&0) {
                return Err(invalid(&format!("tensor {tensor:?} is empty: {:?}", place.shape)));
            }
            if self.tensors.insert(tensor.clone(), place).is_some() {
                return Err(invalid(&format!("tensor {tensor:?} is in another file, too")));
            }
        }
        self.files.push(Shard { name, source });
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|shard| shard.source.bytes()).sum()
    }

    /// Bytes of tensors that were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.files.iter().map(|shard| shard.source.read_bytes()).sum()
    }

    /// The engine's name of a tensor's format.
    pub fn dtype(&self, tensor: &str, place: &Place) -> Result<TensorType, DirectoryError> {
        float(place.dtype).ok_or_else(|| {
            let what = format!("tensor {tensor:?} as {}; f32, f16 and bf16 are, other types", place.dtype);
            DirectoryError::unsupported(&self.files[place.file].name, what)
        })
    }

    /// The tensor at a place, under the engine's name for it. Its type was checked by [`Self::dtype`].
    pub fn tensor<'a>(&'a self, name: &'a str, place: &Place) -> Tensor<'a> {
        Tensor {
            name,
            dtype: float(place.dtype).unwrap_or(TensorType::F32),
            shape: place.shape.clone(),
            bytes: place.bytes,
            offset: place.offset,
            source: &self.files[place.file].source,
        }
    }

    /// The values of a small tensor.
    pub fn floats(&self, place: &Place) -> Result<Vec<f32>, DirectoryError> {
        let tensor = self.tensor("", place);
        match tensor.read() {
            Ok(data) => Ok(tensor.dtype.to_floats(&data)),
            Err(e) => Err(DirectoryError::invalid(&self.files[place.file].name, e)),
        }
    }
}

/// The float types, which are the engine's too.
fn float(dtype: Dtype) -> Option<TensorType> {
    match dtype {
        Dtype::F32 => Some(TensorType::F32),
        Dtype::F16 => Some(TensorType::F16),
        Dtype::BF16 => Some(TensorType::Bf16),
        _ => None,
    }
}

/// Which file has which tensor.
struct Index {
    tensors: BTreeMap<String, String>,
    files: BTreeSet<String>,
}

impl Index {
    fn read(directory: &Path) -> Result<Option<Self>, DirectoryError> {
        let Some(object) = Object::read(directory, INDEX, INDEX_BYTES_MAX)? else { return Ok(None) };
        let map = object.object("weight_map")?.ok_or_else(|| object.invalid("weight_map", "is missing"))?;
        let mut index = Self { tensors: BTreeMap::new(), files: BTreeSet::new() };
        for (tensor, file) in map.map {
            // A name that leads out of the directory is nobody's shard.
            let plain = |name: &&str| name.ends_with(".safetensors") && !name.contains(['/', '\\']);
            let file = file.as_str().filter(plain).ok_or_else(|| {
                let why = format!("tensor {tensor:?} is in {file}, which is not the name of a shard");
                DirectoryError::invalid(INDEX, why)
            })?;
            index.files.insert(file.to_owned());
            index.tensors.insert(tensor, file.to_owned());
        }
        Ok(Some(index))
    }
}
