//! GGUF model files: a strict reader of files and of embedded bytes, and a small writer.
//!
//! Knows the container (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little endian):
//! metadata, tensor names, shapes, formats and where their bytes are. Knows nothing of models.
//!
//! A file is not trusted: every count, length, offset and size is checked against the bytes that are really there
//! before it is used, so a broken or hostile file gives one [`GgufError`] and costs no more memory than its own size.
//! Nothing is mapped: a file that somebody cuts while it is read gives an error, too, and not a signal (SIGBUS).
//!
//! ```text
//! magic version | tensor count, key count | keys and values | tensor names, shapes, types, offsets | padding | data
//! ```

mod cursor;
mod error;
mod metadata;
mod tensor_type;
mod write;

use std::{
    borrow::Cow,
    fs,
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

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
/// What is read of a file before its data is asked for; more if keys and tensor table are longer. Vocabularies of a
/// quarter of a million tokens fit.
const HEAD_BYTES: u64 = 16 << 20;

/// An open model file: its head in memory, its tensors where they were. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gguf {
    source: Arc<Source>,
    metadata: Metadata,
    /// In the file's order.
    tensors: Arc<[TensorInfo]>,
    /// Indices into `tensors`, sorted by name.
    by_name: Arc<[u32]>,
}

/// A tensor's name and shape, and the way to its bytes.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub dtype: TensorType,
    /// Outermost dimension first: a matrix that ggml calls `ne = [k, n]` is `[n, k]`, `n` rows of `k` values.
    pub shape: Vec<usize>,
    /// Size of its data.
    pub bytes: usize,
    pub(in crate::engine) offset: u64,
    pub(in crate::engine) source: &'a Source,
}

impl<'a> Tensor<'a> {
    /// Some of its outermost slices: rows of a matrix.
    ///
    /// # Panics
    /// If it does not have them.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let count = self.shape[0];
        assert!(rows.start <= rows.end && rows.end <= count, "{rows:?} of {count} rows of {}", self.name);
        // Blocks are of values of the innermost dimension; a vector's slices would cut through them.
        assert!(self.shape.len() > 1 || rows == (0..count));
        let row_bytes = self.bytes / count;
        let mut part = self.clone();
        part.shape[0] = rows.len();
        part.bytes = rows.len() * row_bytes;
        part.offset += (rows.start * row_bytes) as u64;
        part
    }

    /// All rows, end to end, in blocks of [`TensorType::block_bytes`]: read from the file, or lent if it is embedded.
    ///
    /// # Errors
    /// The file can't be read, or has been cut since it was opened.
    pub fn read(&self) -> Result<Cow<'a, [u8]>, GgufError> {
        let what = || format!("the data of tensor {:?}", self.name);
        let data = self.source.read(self.offset, self.bytes, &what)?;
        if let Source::File { read, .. } = self.source {
            read.fetch_add(self.bytes as u64, Relaxed);
        }
        Ok(data)
    }
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
    /// Opens the file at `path` and checks all of it but the weights' values.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let source = Source::open(path)?;
        let bytes = source.bytes();
        let mut head_bytes = HEAD_BYTES.min(bytes);
        loop {
            let head = source.read(0, head_bytes as usize, &|| "the head".into())?;
            match Head::read(&Arc::new(head.into_owned().into())) {
                Err(GgufError::Truncated { what, at, needed, .. }) if head_bytes < bytes => {
                    let left = bytes.saturating_sub(at as u64);
                    if needed > left {
                        return Err(GgufError::Truncated { what, at, needed, left: left as usize });
                    }
                    head_bytes = (4 * head_bytes).max(at as u64 + needed).min(bytes);
                }
                head => return Self::new(head?, source),
            }
        }
    }

    /// Reads a file that is part of the program.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, GgufError> {
        Self::new(Head::read(&Arc::new(bytes.into()))?, Source::Static(bytes))
    }

    /// Reads a file that was made in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GgufError> {
        let bytes: Bytes = Arc::new(bytes.into());
        Self::new(Head::read(&bytes)?, Source::Memory(bytes))
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
    pub fn file_bytes(&self) -> u64 {
        self.source.bytes()
    }

    /// How far the loading of the tensors is, 0 to 1: the share of their bytes that were read through this and its
    /// clones. What is embedded has nothing to read and stays at 0.
    pub fn read_share(&self) -> f32 {
        let all: u64 = self.tensors.iter().map(|info| info.bytes as u64).sum();
        (self.source.read_bytes() as f32 / all.max(1) as f32).min(1.0)
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> Tensor<'a> {
        Tensor {
            name: &info.name,
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: info.bytes,
            offset: info.offset,
            source: &self.source,
        }
    }

    /// Finds every tensor's place in the file.
    fn new(Head { metadata, mut tensors, data_start }: Head, source: Source) -> Result<Self, GgufError> {
        for info in &mut tensors {
            info.place(data_start, source.bytes())?;
        }
        refuse_overlaps(&tensors)?;

        let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
        by_name.sort_by(|&a, &b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
        let name = |&i: &u32| &*tensors[i as usize].name;
        if let Some(twice) = by_name.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(GgufError::invalid(format!("tensor {:?}", name(&twice[0])), "given twice"));
        }
        Ok(Self { metadata, tensors: tensors.into(), by_name: by_name.into(), source: Arc::new(source) })
    }
}

/// What stands before the data.
struct Head {
    metadata: Metadata,
    /// Their offsets still within the data section.
    tensors: Vec<TensorInfo>,
    data_start: usize,
}

impl Head {
    /// `bytes` are the file's first.
    fn read(bytes: &Bytes) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes, 0);
        let (tensor_count, key_count) = read_header(&mut cursor)?;
        let metadata = Metadata::read(bytes, &mut cursor, key_count)?;
        let alignment = read_alignment(&metadata)?;
        let mut tensors = Vec::new();
        for index in 0..tensor_count {
            tensors.push(TensorInfo::read(&mut cursor, index, alignment)?);
        }
        Ok(Self { metadata, tensors, data_start: cursor.position().next_multiple_of(alignment as usize) })
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
    fn place(&mut self, data_start: usize, file_bytes: u64) -> Result<(), GgufError> {
        let start = self.offset.checked_add(data_start as u64);
        let fits = start.and_then(|start| start.checked_add(self.bytes as u64)).is_some_and(|end| end <= file_bytes);
        match start {
            Some(start) if fits => {
                self.offset = start;
                Ok(())
            }
            _ => {
                let at = start.unwrap_or(u64::MAX);
                let (what, left) = (format!("the data of tensor {:?}", self.name), file_bytes.saturating_sub(at));
                Err(GgufError::Truncated { what, at: at as usize, needed: self.bytes as u64, left: left as usize })
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

/// The first bytes of a file, shared by all that point into them.
pub(in crate::engine) type Bytes = Arc<Cow<'static, [u8]>>;

/// Where a file's bytes are.
#[derive(Debug)]
pub(in crate::engine) enum Source {
    Static(&'static [u8]),
    Memory(Bytes),
    File {
        file: fs::File,
        /// When it was opened.
        bytes: u64,
        /// Of tensors, so far.
        read: AtomicU64,
    },
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        // Asked before opening: to open a pipe would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(GgufError::NotAFile);
        }
        let file = fs::File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self::File { file, bytes, read: AtomicU64::new(0) })
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Self::Static(bytes) => bytes.len() as u64,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Bytes of tensors that were read so far.
    pub fn read_bytes(&self) -> u64 {
        match self {
            Self::Static(_) | Self::Memory(_) => 0,
            Self::File { read, .. } => read.load(Relaxed),
        }
    }

    /// `count` bytes from `at` on, which were there when the file was opened.
    pub fn read(&self, at: u64, count: usize, what: &dyn Fn() -> String) -> Result<Cow<'_, [u8]>, GgufError> {
        match self {
            Self::Static(bytes) => Ok(bytes[at as usize..][..count].into()),
            Self::Memory(bytes) => Ok(bytes[at as usize..][..count].into()),
            Self::File { file, .. } => {
                let mut buffer = vec![0; count];
                match file.read_exact_at(&mut buffer, at) {
                    Ok(()) => Ok(buffer.into()),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        let left = file.metadata()?.len().saturating_sub(at) as usize;
                        Err(GgufError::Truncated { what: what(), at: at as usize, needed: count as u64, left })
                    }
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}
