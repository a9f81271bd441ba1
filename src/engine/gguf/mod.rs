//! GGUF model files: a strict reader over mapped (or embedded) bytes, and a small writer.
//!
//! Knows the container (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little endian):
//! metadata, tensor names, shapes, formats and where their bytes are. Knows nothing of models.
//!
//! A file is not trusted: every count, length, offset and size is checked against the bytes that are really there
//! before it is used, so a broken or hostile file gives one [`GgufError`] and costs no more memory than its own size.
//!
//! ```text
//! magic version | tensor count, key count | keys and values | tensor names, shapes, types, offsets | padding | data
//! ```

mod cursor;
mod error;
mod metadata;
mod tensor_type;
mod write;

use std::{fs, ops::Deref, path::Path, sync::Arc};

use cursor::Cursor;
pub use error::GgufError;
pub use metadata::{Array, FromValue, Metadata, Strings, Value, ValueType};
pub use tensor_type::TensorType;
pub use write::GgufWriter;

/// Where a tensor's data may begin when the file does not say (`general.alignment`).
const ALIGNMENT_DEFAULT: u32 = 32;
/// Files align to 32; more than the largest page size is no alignment any more.
const ALIGNMENT_MAX: u32 = 65_536;
/// More tensors than any real file has (a large mixture of experts has a few thousand).
const TENSORS_MAX: u64 = 1 << 20;
/// ggml's `GGML_MAX_DIMS`.
const DIMENSIONS_MAX: u32 = 4;

/// An open model file. Cheap to clone; the bytes stay as long as one clone lives.
#[derive(Debug, Clone)]
pub struct Gguf {
    bytes: Bytes,
    metadata: Metadata,
    /// In the file's order.
    tensors: Arc<[TensorInfo]>,
    /// Indices into `tensors`, sorted by name.
    by_name: Arc<[u32]>,
}

/// A tensor's name, shape and bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub dtype: TensorType,
    /// Outermost dimension first: a matrix that ggml calls `ne = [k, n]` is `[n, k]`, `n` rows of `k` values.
    pub shape: Vec<usize>,
    /// All rows, end to end, in blocks of [`TensorType::block_bytes`].
    pub data: &'a [u8],
}

#[derive(Debug)]
struct TensorInfo {
    name: Box<str>,
    dtype: TensorType,
    shape: Vec<usize>,
    /// From the start of the data section until all of the file is known, from the start of the file after that.
    offset: u64,
    bytes: usize,
}

impl Gguf {
    /// Maps the file at `path` and checks all of it but the weights' values.
    ///
    /// The mapping shows the file as it is on disk: replace a model by renaming a new file over it, since shortening
    /// a mapped file ends the process (SIGBUS).
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        // Asked before opening: to open a pipe would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(GgufError::NotAFile);
        }
        let file = fs::File::open(path)?;
        // SAFETY: the mapping is read-only and private, and all access goes through bounds-checked slices of its
        // fixed length. Another process that writes to the file while it is served can change values under us; that
        // is the documented condition of serving a file in place, here and in every other server that maps models.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Self::read(Bytes(Arc::new(Source::Mapped(map))))
    }

    /// Reads a file that is part of the program.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, GgufError> {
        Self::read(Bytes(Arc::new(Source::Static(bytes))))
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let at = self.by_name.binary_search_by(|&i| (*self.tensors[i as usize].name).cmp(name)).ok()?;
        Some(self.view(&self.tensors[self.by_name[at] as usize]))
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        self.tensors.iter().map(|info| self.view(info))
    }

    /// The file's size in bytes.
    pub fn file_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> Tensor<'a> {
        let at = info.offset as usize;
        Tensor {
            name: &info.name,
            dtype: info.dtype,
            shape: info.shape.clone(),
            data: &self.bytes[at..at + info.bytes],
        }
    }

    fn read(bytes: Bytes) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(&bytes, 0);
        let (tensor_count, key_count) = read_header(&mut cursor)?;
        let metadata = Metadata::read(&bytes, &mut cursor, key_count)?;
        let alignment = read_alignment(&metadata)?;

        let mut tensors = Vec::new();
        for index in 0..tensor_count {
            tensors.push(TensorInfo::read(&mut cursor, index, alignment)?);
        }
        let data_start = cursor.position().next_multiple_of(alignment as usize);
        for info in &mut tensors {
            info.place(data_start, bytes.len())?;
        }
        refuse_overlaps(&tensors)?;

        let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
        by_name.sort_by(|&a, &b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
        let name = |&i: &u32| &*tensors[i as usize].name;
        if let Some(twice) = by_name.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(GgufError::invalid(format!("tensor {:?}", name(&twice[0])), "given twice"));
        }
        Ok(Self { metadata, tensors: tensors.into(), by_name: by_name.into(), bytes })
    }
}

/// Checks magic and version; gives the number of tensors and of keys.
fn read_header(cursor: &mut Cursor<'_>) -> Result<(u64, u64), GgufError> {
    if cursor.left() == 0 {
        return Err(GgufError::NotGguf("the file is empty"));
    }
    let magic = cursor.take(4, &|| "the magic number".into())?;
    if magic != b"GGUF" {
        return Err(GgufError::NotGguf(match magic {
            b"lmgg" | b"fmgg" | b"tjgg" | b"algg" => "an old ggml file; convert the model again",
            b"PK\x03\x04" => "a zip archive, perhaps a PyTorch checkpoint; convert the model to GGUF",
            b"FUGG" => "byte-swapped magic number",
            b"vers" => "a Git LFS pointer; download the file itself (git lfs pull)",
            b"<!do" | b"<!DO" | b"<htm" | b"<HTM" => "an HTML page; the download went wrong",
            [_, _, _, 0] => "perhaps a safetensors file; convert the model to GGUF",
            _ => "it does not begin with GGUF",
        }));
    }
    let version = cursor.u32(&|| "the version".into())?;
    match version {
        2 | 3 => {}
        v if v & 0xffff == 0 => return Err(GgufError::NotGguf("the file is big endian; convert it for this machine")),
        v => return Err(GgufError::Version(v)),
    }
    let tensors = cursor.u64(&|| "the tensor count".into())?;
    let keys = cursor.u64(&|| "the key count".into())?;
    if tensors > TENSORS_MAX {
        return Err(GgufError::invalid("header", format!("{tensors} tensors, at most {TENSORS_MAX} make sense")));
    }
    Ok((tensors, keys))
}

fn read_alignment(metadata: &Metadata) -> Result<u32, GgufError> {
    let alignment = metadata.find("general.alignment")?.unwrap_or(ALIGNMENT_DEFAULT);
    if alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX {
        Ok(alignment)
    } else {
        let why = format!("{alignment} is not a power of two from 1 to {ALIGNMENT_MAX}");
        Err(GgufError::invalid("key \"general.alignment\"", why))
    }
}

impl TensorInfo {
    /// Reads one entry of the tensor table; whether its bytes are in the file is checked by [`Self::place`].
    fn read(cursor: &mut Cursor<'_>, index: u64, alignment: u32) -> Result<Self, GgufError> {
        let name = cursor.string(&|| format!("the name of tensor {index}"))?;
        let name = std::str::from_utf8(name)
            .map_err(|_| GgufError::invalid(format!("tensor {index}"), "its name is not UTF-8"))?;
        let what = || format!("the description of tensor {name:?}");
        let invalid = |why: String| GgufError::invalid(format!("tensor {name:?}"), why);

        let dimensions = cursor.u32(&what)?;
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(invalid(format!("{dimensions} dimensions, must have 1 to {DIMENSIONS_MAX}")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            let length = cursor.u64(&what)?;
            match usize::try_from(length) {
                Ok(length) if length > 0 => shape.push(length),
                _ => return Err(invalid(format!("a dimension of {length}"))),
            }
        }
        let type_id = cursor.u32(&what)?;
        let dtype = TensorType::from_id(type_id)
            .ok_or_else(|| invalid(format!("tensor type {type_id} is unknown or was removed from GGUF")))?;
        if !shape[0].is_multiple_of(dtype.block_len()) {
            let (row, block) = (shape[0], dtype.block_len());
            return Err(invalid(format!("rows of {row} values are not whole blocks of {block} ({dtype})")));
        }
        let values = shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
        let bytes = values.and_then(|values| (values / dtype.block_len()).checked_mul(dtype.block_bytes()));
        let bytes = bytes.ok_or_else(|| invalid(format!("the size of {shape:?} x {dtype} overflows")))?;
        let offset = cursor.u64(&what)?;
        if offset % u64::from(alignment) != 0 {
            return Err(invalid(format!("offset {offset} is not aligned to {alignment}")));
        }
        shape.reverse();
        Ok(Self { name: name.into(), dtype, shape, offset, bytes })
    }

    /// Turns the offset within the data section into one within the file, where all of its bytes must be.
    fn place(&mut self, data_start: usize, file_bytes: usize) -> Result<(), GgufError> {
        let start = self.offset.checked_add(data_start as u64);
        let fits = start.and_then(|start| start.checked_add(self.bytes as u64)).is_some_and(|e| e <= file_bytes as u64);
        match start {
            Some(start) if fits => {
                self.offset = start;
                Ok(())
            }
            _ => {
                let at = start.and_then(|start| usize::try_from(start).ok()).unwrap_or(usize::MAX);
                let what = format!("the data of tensor {:?}", self.name);
                Err(GgufError::Truncated { what, at, needed: self.bytes as u64, left: file_bytes.saturating_sub(at) })
            }
        }
    }
}

/// No two tensors may share bytes: no writer does that, and a table that does is wrong somewhere.
fn refuse_overlaps(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut in_order: Vec<&TensorInfo> = tensors.iter().collect();
    in_order.sort_by_key(|info| info.offset);
    for pair in in_order.windows(2) {
        if pair[0].offset + pair[0].bytes as u64 > pair[1].offset {
            let why = format!("its bytes overlap those of tensor {:?}", pair[0].name);
            return Err(GgufError::invalid(format!("tensor {:?}", pair[1].name), why));
        }
    }
    Ok(())
}

/// The bytes of a file, shared by all that point into it.
#[derive(Debug, Clone)]
struct Bytes(Arc<Source>);

#[derive(Debug)]
enum Source {
    Static(&'static [u8]),
    Mapped(memmap2::Mmap),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            Source::Static(bytes) => bytes,
            Source::Mapped(map) => map,
        }
    }
}
