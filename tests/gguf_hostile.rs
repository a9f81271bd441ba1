//! Broken, lying and foreign model files: each gives one clear line, no panic and no large allocation.

#![cfg(feature = "engine")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    io::Cursor,
    path::Path,
};

use candle_core::quantized::gguf_file;
use sconce::engine::{
    gguf::{Gguf, GgufError, GgufWriter, TensorType},
    tokenizer::Tokenizer,
};

/// Remembers the largest allocation of each thread.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system allocator unchanged; the cell is const-initialised and has no
// destructor, so touching it allocates nothing.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's obligations are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// No file here has more than a few kilobytes, so nothing read from one may take more than this at once.
const ALLOCATION_BYTES_MAX: usize = 64 << 10;

/// Reads `bytes` as a model file and gives what is wrong with it.
#[track_caller]
fn read(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let bytes: &'static [u8] = bytes.to_vec().leak();
    LARGEST.with(|largest| largest.set(0));
    let read = Gguf::from_static(bytes);
    let largest = LARGEST.with(Cell::get);
    assert!(largest <= ALLOCATION_BYTES_MAX, "an allocation of {largest} bytes for a file of {}", bytes.len());
    read
}

#[track_caller]
fn refused(bytes: &[u8], says: &str) {
    let line = read(bytes).expect_err(says).to_string();
    assert!(line.contains(says), "{line:?} does not say {says:?}");
    assert!(!line.contains('\n') && line.len() < 200, "{line:?}");
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A key with the value `bytes` of type `kind`.
fn key(name: &str, kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&string(name.as_bytes()), kind.to_le_bytes().as_slice(), bytes].concat()
}

fn array(element: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes(), count.to_le_bytes().as_slice(), bytes].concat()
}

fn tensor(name: &str, ne: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name.as_bytes());
    bytes.extend((ne.len() as u32).to_le_bytes());
    ne.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn header(tensors: u64, keys: u64) -> Vec<u8> {
    [b"GGUF", 3u32.to_le_bytes().as_slice(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
}

fn with_keys(keys: &[Vec<u8>]) -> Vec<u8> {
    [header(0, keys.len() as u64), keys.concat()].concat()
}

/// A file with these tensors and 4096 bytes of data.
fn with_tensors(tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [header(tensors.len() as u64, 0), tensors.concat()].concat();
    bytes.resize(bytes.len().next_multiple_of(32) + 4096, 0);
    bytes
}

/// A valid file with a value of each kind and three tensors.
fn valid() -> Vec<u8> {
    let data: Vec<u8> = (0..34 * 4).collect();
    let mut file = GgufWriter::new();
    file.str("general.architecture", "qwen3").u32("qwen3.block_count", 2).f32("qwen3.rope.freq_base", 1e6);
    file.bool("tokenizer.ggml.add_bos_token", true).u64("big", u64::MAX).i32s("types", &[1, -1]);
    file.strings("tokenizer.ggml.tokens", &[b"a".as_slice(), b"", b"\xff\xfe"]).f32s("scores", &[0.5, -1.0]);
    file.tensor("a", TensorType::Q8_0, &[2, 64], &data);
    file.tensor("b", TensorType::F32, &[3], &data[..12]).tensor("c", TensorType::Bf16, &[1, 2, 1, 3], &data[..12]);
    file.to_bytes()
}

#[test]
fn a_valid_file_reads_as_it_was_written() {
    let bytes = valid();
    let gguf = read(&bytes).unwrap();
    let meta = gguf.metadata();
    assert_eq!(meta.str("general.architecture").unwrap(), "qwen3");
    assert_eq!(meta.u32("qwen3.block_count").unwrap(), 2);
    assert_eq!(meta.usize("qwen3.block_count").unwrap(), 2);
    assert_eq!(meta.f32("qwen3.rope.freq_base").unwrap(), 1e6);
    assert!(meta.bool("tokenizer.ggml.add_bos_token").unwrap());
    assert_eq!(meta.u64("big").unwrap(), u64::MAX);
    assert_eq!(meta.i32s("types").unwrap(), [1, -1]);
    assert_eq!(meta.f32s("scores").unwrap(), [0.5, -1.0]);
    assert_eq!(meta.strings("tokenizer.ggml.tokens").unwrap().collect::<Vec<_>>(), [b"a".as_slice(), b"", b"\xff\xfe"]);
    assert_eq!(meta.find::<u32>("absent").unwrap(), None);
    assert_eq!(meta.keys().count(), 8);
    let c = gguf.tensor("c").unwrap();
    assert_eq!((c.dtype, c.shape.as_slice(), c.bytes), (TensorType::Bf16, &[1, 2, 1, 3][..], 12));
    assert_eq!(gguf.tensors().map(|t| t.name.to_string()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(gguf.tensor("d").is_none());
}

/// candle's reader sees the same tensors, and its writer's files are read here.
#[test]
fn candle_agrees() {
    let bytes = valid();
    let ours = read(&bytes).unwrap();
    let theirs = gguf_file::Content::read(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!(theirs.tensor_infos.len(), 3);
    for tensor in ours.tensors() {
        let info = &theirs.tensor_infos[tensor.name];
        assert_eq!(info.shape.dims(), tensor.shape, "{}", tensor.name);
        let at = (theirs.tensor_data_offset + info.offset) as usize;
        assert_eq!(bytes[at..at + tensor.bytes], *tensor.read().unwrap(), "{}", tensor.name);
    }

    let mut written = Cursor::new(Vec::new());
    let value =
        gguf_file::Value::Array(vec![gguf_file::Value::String("x".into()), gguf_file::Value::String("".into())]);
    gguf_file::write(&mut written, &[("list", &value), ("n", &gguf_file::Value::I64(-3))], &[]).unwrap();
    let read = read(written.get_ref()).unwrap();
    assert_eq!(read.metadata().strings("list").unwrap().collect::<Vec<_>>(), [b"x".as_slice(), b""]);
    assert_eq!(
        read.metadata().i32s("n").unwrap_err().to_string(),
        "key \"n\" must be an array of integers that fit i32, but is the integer -3"
    );
}

#[test]
fn every_truncation_is_refused() {
    let bytes = valid();
    // The last tensor's padding may be missing.
    let needed = bytes.len() - 20;
    for length in 0..bytes.len() {
        assert_eq!(read(&bytes[..length]).is_ok(), length >= needed, "cut at {length}");
    }
}

#[test]
fn foreign_files() {
    refused(b"", "the file is empty");
    refused(b"GG", "cut short: the magic number");
    refused(b"hello, this is a text file", "does not begin with GGUF");
    refused(b"lmggrest of a ggml file", "old ggml file");
    refused(b"tjggrest of a ggjt file", "old ggml file");
    refused(b"PK\x03\x04 a zip", "zip archive");
    refused(b"version https://git-lfs.github.com/spec/v1", "git lfs pull");
    refused(b"<!doctype html>", "HTML");
    refused(b"\x40\x01\x00\x00\x00\x00\x00\x00{\"a\":", "safetensors");
    refused(b"GGUF\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00", "big endian");
    refused(b"GGUF\x01\x00\x00\x00\x00\x00\x00\x00", "version 1 is not supported");
    refused(b"GGUF\x04\x00\x00\x00\x00\x00\x00\x00", "version 4 is not supported");
}

#[test]
fn lying_counts() {
    refused(&header(u64::MAX, 0), "tensors, at most");
    refused(&header(1 << 20, 0), "the name of tensor 0");
    refused(&header(0, 1 << 63), "metadata keys, at most");
    refused(&header(0, 1000), "metadata key 0");
    refused(&with_keys(&[(1u64 << 63).to_le_bytes().to_vec()]), "metadata key 0 at byte 32 needs 9223372036854775808");
    refused(&with_keys(&[key("k", 8, &u64::MAX.to_le_bytes())]), "value of key \"k\"");
    refused(&with_keys(&[key("k", 9, &array(4, 1 << 62, &[0; 64]))]), "elements overflow");
    refused(&with_keys(&[key("k", 9, &array(4, 1 << 40, &[0; 64]))]), "the array of key \"k\"");
    refused(&with_keys(&[key("k", 9, &array(8, u64::MAX, &[0; 64]))]), "the array of key \"k\"");
}

#[test]
fn broken_metadata() {
    refused(&with_keys(&[key("k", 13, &[0; 8])]), "value type 13 does not exist");
    refused(&with_keys(&[key("k", 9, &array(99, 1, &[0; 8]))]), "element type 99 does not exist");
    refused(&with_keys(&[key("k", 9, &array(9, 1, &array(0, 0, &[])))]), "arrays of arrays");
    refused(&with_keys(&[key("k", 7, &[2])]), "a bool must be 0 or 1, not 2");
    refused(&with_keys(&[key("k", 0, &[1]), key("j", 0, &[1]), key("k", 0, &[1])]), "key \"k\": given twice");
    refused(&with_keys(&[[string(b"\xff"), vec![0; 5]].concat()]), "not UTF-8");
    for alignment in [0, 3, 1 << 30] {
        let bytes = with_keys(&[key("general.alignment", 4, &u32::to_le_bytes(alignment))]);
        refused(&bytes, &format!("{alignment} is not a power of two"));
    }
    refused(&with_keys(&[key("general.alignment", 8, &string(b"32"))]), "must be an integer that fits u32");
}

#[test]
fn broken_tensors() {
    refused(&with_tensors(&[tensor("t", &[], 0, 0)]), "0 dimensions");
    refused(&with_tensors(&[tensor("t", &[1; 5], 0, 0)]), "5 dimensions");
    refused(&with_tensors(&[tensor("t", &[4, 0], 0, 0)]), "a dimension of 0");
    refused(&with_tensors(&[tensor("t", &[1 << 63, 2], 0, 0)]), "overflows");
    refused(&with_tensors(&[tensor("t", &[1 << 32, 1 << 32], 0, 0)]), "overflows");
    refused(&with_tensors(&[tensor("t", &[1 << 62], 0, 0)]), "overflows");
    refused(&with_tensors(&[tensor("t", &[4], 4, 0)]), "tensor type 4 is unknown or was removed");
    refused(&with_tensors(&[tensor("t", &[4], 999, 0)]), "tensor type 999");
    refused(&with_tensors(&[tensor("t", &[33], 8, 0)]), "not whole blocks of 32 (q8_0)");
    refused(&with_tensors(&[tensor("t", &[4], 0, 7)]), "offset 7 is not aligned to 32");
    refused(&with_tensors(&[tensor("t", &[4], 0, 4096)]), "the data of tensor \"t\"");
    refused(&with_tensors(&[tensor("t", &[4], 0, u64::MAX - 31)]), "the data of tensor \"t\"");
    refused(&with_tensors(&[tensor("t", &[2048], 0, 0)]), "needs 8192 bytes, 4096 are left");
    refused(&with_tensors(&[tensor("t", &[4], 0, 0), tensor("t", &[4], 0, 32)]), "tensor \"t\": given twice");
    refused(&with_tensors(&[tensor("t", &[16], 0, 0), tensor("u", &[4], 0, 32)]), "overlap those of tensor \"t\"");
    refused(&with_tensors(&[[string(b"\xff"), vec![0; 24]].concat()]), "its name is not UTF-8");
}

#[test]
fn keys_of_the_wrong_type() {
    let gguf = read(&valid()).unwrap();
    let meta = gguf.metadata();
    let line = |error: GgufError| error.to_string();
    assert_eq!(line(meta.u32("no.such.key").unwrap_err()), "the file has no key \"no.such.key\"");
    assert_eq!(
        line(meta.u32("general.architecture").unwrap_err()),
        "key \"general.architecture\" must be an integer that fits u32, but is a string"
    );
    assert_eq!(
        line(meta.u32("big").unwrap_err()),
        "key \"big\" must be an integer that fits u32, but is the integer 18446744073709551615"
    );
    assert!(meta.str("types").is_err() && meta.strings("types").is_err() && meta.u32s("types").is_err());
    assert!(meta.f32("big").is_err() && meta.bool("big").is_err() && meta.find::<bool>("big").is_err());
}

#[test]
fn paths_that_are_no_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(matches!(Gguf::open(folder), Err(GgufError::NotAFile)));
    assert!(matches!(Gguf::open(&folder.join("no such file")), Err(GgufError::Io(_))));
    let empty = std::env::temp_dir().join(format!("sconce-empty-{}.gguf", std::process::id()));
    fs::write(&empty, b"").unwrap();
    let error = Gguf::open(&empty).unwrap_err().to_string();
    fs::write(&empty, valid()).unwrap();
    let opened = Gguf::open(&empty).map(|gguf| gguf.tensors().len());
    fs::remove_file(&empty).unwrap();
    assert_eq!(error, "not a GGUF file: the file is empty");
    assert_eq!(opened.unwrap(), 3);
}

/// A file that is cut after it was opened: an error for the tensors that are gone, the others can be read.
#[test]
fn cut_while_it_is_read() {
    let path = std::env::temp_dir().join(format!("sconce-cut-{}.gguf", std::process::id()));
    let bytes = valid();
    fs::write(&path, &bytes).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64 - 1).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(gguf.file_bytes(), bytes.len() as u64);
    assert_eq!(gguf.tensor("a").unwrap().read().unwrap().len(), 34 * 4);
    // The writer pads the last tensor's 12 bytes to 32: cut into those.
    file.set_len(bytes.len() as u64 - 21).unwrap();
    let error = gguf.tensor("c").unwrap().read().unwrap_err().to_string();
    assert!(error.contains("cut short: the data of tensor \"c\"") && error.ends_with("11 are left"), "{error}");
}

/// Keys longer than what is read at first.
#[test]
fn a_long_head() {
    let path = std::env::temp_dir().join(format!("sconce-long-{}.gguf", std::process::id()));
    let (small, long) = ("x".repeat(1 << 20), "y".repeat(20 << 20));
    let mut file = GgufWriter::new();
    for i in 0..18 {
        file.str(&format!("small.{i}"), &small);
    }
    let bytes = file.str("long", &long).tensor("a", TensorType::F32, &[3], &[7; 12]).to_bytes();
    fs::write(&path, &bytes).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    fs::write(&path, &bytes[..30 << 20]).unwrap();
    let cut = Gguf::open(&path).unwrap_err().to_string();
    fs::remove_file(&path).unwrap();
    assert_eq!(gguf.metadata().str("long").unwrap().len(), long.len());
    assert!(gguf.metadata().str("small.17").unwrap() == small);
    assert!(cut.contains("cut short: the value of key \"long\""), "{cut}");
}

/// Changes bytes of a valid file at random: whatever comes out is read or refused, and what is read can be looked at.
#[test]
fn random_damage() {
    let bytes = valid();
    for seed in 1..=20_000u64 {
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut damaged = bytes.clone();
        for _ in 0..=random(3) {
            let at = random(damaged.len());
            damaged[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
        }
        let Ok(gguf) = read(&damaged) else { continue };
        for key in gguf.metadata().keys() {
            gguf.metadata().value(key).unwrap_or_else(|| panic!("seed {seed}: {key:?} has no value"));
        }
        let total: usize = gguf.tensors().map(|tensor| tensor.read().unwrap().len()).sum();
        assert!(total <= damaged.len(), "seed {seed}");
        Tokenizer::from_gguf(gguf.metadata()).unwrap_err();
    }
}
