//! Writes GGUF files (version 3): for examples that make models, for quantisation, and for tests.

use std::io::{self, Write};

use super::{ALIGNMENT_DEFAULT, TensorType, ValueType};

/// Collects metadata and tensors, then writes them in one go.
///
/// ```
/// use sconce::engine::gguf::{Gguf, GgufWriter, TensorType};
///
/// let mut file = GgufWriter::new();
/// file.str("general.architecture", "qwen3").u32("qwen3.block_count", 2);
/// file.tensor("output_norm.weight", TensorType::F32, &[2], &[0; 8]);
/// let bytes = file.to_bytes();
///
/// let read = Gguf::from_static(bytes.leak()).unwrap();
/// assert_eq!(read.metadata().u32("qwen3.block_count").unwrap(), 2);
/// assert_eq!(read.tensor("output_norm.weight").unwrap().shape, [2]);
/// ```
#[derive(Debug, Default)]
pub struct GgufWriter<'a> {
    keys: u64,
    /// Keys and values, as they stand in the file.
    metadata: Vec<u8>,
    /// The tensor table, as it stands in the file.
    table: Vec<u8>,
    tensors: Vec<&'a [u8]>,
    /// Bytes of all tensors so far, padding included.
    data_bytes: usize,
}

impl<'a> GgufWriter<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.value(key, ValueType::U32, &value.to_le_bytes())
    }

    pub fn u64(&mut self, key: &str, value: u64) -> &mut Self {
        self.value(key, ValueType::U64, &value.to_le_bytes())
    }

    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.value(key, ValueType::F32, &value.to_le_bytes())
    }

    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.value(key, ValueType::Bool, &[value.into()])
    }

    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        let mut bytes = Vec::new();
        put_string(&mut bytes, value.as_bytes());
        self.value(key, ValueType::String, &bytes)
    }

    /// An array of strings, which need not be UTF-8.
    pub fn strings<S: AsRef<[u8]>>(&mut self, key: &str, values: &[S]) -> &mut Self {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| put_string(&mut bytes, value.as_ref()));
        self.array(key, ValueType::String, values.len(), &bytes)
    }

    pub fn u32s(&mut self, key: &str, values: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.array(key, ValueType::U32, values.len(), &bytes)
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.array(key, ValueType::I32, values.len(), &bytes)
    }

    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.array(key, ValueType::F32, values.len(), &bytes)
    }

    pub fn bools(&mut self, key: &str, values: &[bool]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().map(|v| u8::from(*v)).collect();
        self.array(key, ValueType::Bool, values.len(), &bytes)
    }

    /// A tensor of `shape`, outermost dimension first, whose bytes are `data`.
    ///
    /// # Panics
    /// If `data` is not as long as the shape and type say: the caller made both.
    pub fn tensor(&mut self, name: &str, dtype: TensorType, shape: &[usize], data: &'a [u8]) -> &mut Self {
        let values: usize = shape.iter().product();
        assert_eq!(values % dtype.block_len(), 0, "tensor {name}: {values} values are not whole {dtype} blocks");
        let bytes = values / dtype.block_len() * dtype.block_bytes();
        assert_eq!(data.len(), bytes, "tensor {name}: {shape:?} x {dtype} takes {bytes} bytes");

        put_string(&mut self.table, name.as_bytes());
        self.table.extend((shape.len() as u32).to_le_bytes());
        for &length in shape.iter().rev() {
            self.table.extend((length as u64).to_le_bytes());
        }
        self.table.extend(dtype.id().to_le_bytes());
        self.table.extend((self.data_bytes as u64).to_le_bytes());
        self.data_bytes = padded(self.data_bytes + bytes);
        self.tensors.push(data);
        self
    }

    /// Writes the whole file.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut head = Vec::with_capacity(24 + self.metadata.len() + self.table.len());
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend(self.keys.to_le_bytes());
        head.extend(&self.metadata);
        head.extend(&self.table);
        head.resize(padded(head.len()), 0);
        out.write_all(&head)?;
        for data in &self.tensors {
            out.write_all(data)?;
            out.write_all(&[0; ALIGNMENT_DEFAULT as usize][..padded(data.len()) - data.len()])?;
        }
        Ok(())
    }

    /// The whole file in memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("writing to memory does not fail");
        bytes
    }

    fn array(&mut self, key: &str, element: ValueType, count: usize, elements: &[u8]) -> &mut Self {
        let mut bytes = Vec::with_capacity(12 + elements.len());
        bytes.extend(element.id().to_le_bytes());
        bytes.extend((count as u64).to_le_bytes());
        bytes.extend(elements);
        self.value(key, ValueType::Array, &bytes)
    }

    fn value(&mut self, key: &str, kind: ValueType, bytes: &[u8]) -> &mut Self {
        put_string(&mut self.metadata, key.as_bytes());
        self.metadata.extend(kind.id().to_le_bytes());
        self.metadata.extend(bytes);
        self.keys += 1;
        self
    }
}

/// `bytes` rounded up to where the next tensor may begin.
fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT_DEFAULT as usize)
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}
