use super::*;
use std::io::Write;

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % bound
    }
}

/// Takes a random part of what it is given, or nothing for now.
struct Moody {
    taken: Vec<u8>,
    random: Random,
}

impl Moody {
    fn share(&mut self, len: usize) -> io::Result<usize> {
        match self.random.below(4) {
            0 => Err(ErrorKind::WouldBlock.into()),
            1 => Ok(len),
            _ => Ok(1 + self.random.below(len)),
        }
    }
}

impl Sink for Moody {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.share(bytes.len())?;
        self.taken.send(&bytes[..count])
    }

    fn send_parts(&mut self, parts: &[IoSlice<'_>], _: bool) -> io::Result<usize> {
        assert!(parts.iter().all(|part| !part.is_empty()));
        let mut whole = Vec::new();
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        self.send(&whole)
    }

    fn send_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        let count = self.share(len)?;
        self.taken.send_file(file, offset, count)
    }
}

/// A file that is gone when it is closed.
fn file_of(bytes: &[u8]) -> Arc<File> {
    let name = format!("sconce-output-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    Arc::new(file)
}

/// Random pushes of all kinds and random writes, against a plain vector.
#[test]
fn everything_leaves_in_order_whatever_the_sink_takes() {
    // Miri has no files here, and is slow.
    let (seeds, steps, kinds, len) = if cfg!(miri) { (2, 40, 5, 13_000) } else { (60, 400, 6, 100_000u32) };
    let text: Vec<u8> = (0..len).map(|n| (n * 7 + n / 251) as u8).collect();
    let half = text.len() / 2;
    let shared: Arc<[u8]> = text[..half].into();
    let file = (!cfg!(miri)).then(|| file_of(&text));
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let mut sink = Moody { taken: Vec::new(), random: Random::new(seed + 1000) };
        let (mut output, mut pushed) = (Output::default(), Vec::new());
        for step in 0..steps {
            let len = random.below(3 * SHARED_BYTES_MIN);
            match random.below(kinds) {
                0 => {
                    output.push(&text[..len / 8]);
                    pushed.extend_from_slice(&text[..len / 8]);
                }
                1 => {
                    output.push_shared(text[..len].to_vec());
                    pushed.extend_from_slice(&text[..len]);
                }
                2 => {
                    output.push_shared(Arc::clone(&shared));
                    pushed.extend_from_slice(&shared);
                }
                3 | 4 => {
                    let (before, bytes_max) = (sink.taken.len(), 1 + random.below(50_000));
                    let written = output.write_to(&mut sink, bytes_max).unwrap();
                    let taken = sink.taken.len() - before;
                    assert!(taken <= bytes_max, "seed {seed}, step {step}");
                    assert_eq!(written == Written::All, output.is_empty(), "seed {seed}, step {step}");
                    assert!(written != Written::Share || taken == bytes_max, "seed {seed}, step {step}");
                }
                _ => {
                    let (offset, file) = (random.below(half), file.clone().unwrap());
                    output.push_file(FileRange { file, offset: offset as u64, len: len as u64 });
                    pushed.extend_from_slice(&text[offset..offset + len]);
                }
            }
            assert_eq!(sink.taken.len() + output.len(), pushed.len(), "seed {seed}, step {step}");
            assert_eq!(output.is_empty(), sink.taken.len() == pushed.len(), "seed {seed}, step {step}");
        }
        sink.taken.extend(output.take_bytes().unwrap());
        assert!(sink.taken == pushed, "seed {seed}");
        assert!(output.inserts.is_none() && output.copied.is_empty());
    }
}

#[test]
fn more_slices_than_one_write_takes() {
    let shared: Arc<[u8]> = vec![7; SHARED_BYTES_MIN].into();
    let (mut output, mut expected) = (Output::default(), Vec::new());
    for n in 0..3 * SLICES_MAX {
        output.push(&[n as u8]);
        output.push_shared(Arc::clone(&shared));
        expected.push(n as u8);
        expected.extend_from_slice(&shared);
    }
    assert!(output.take_bytes().unwrap() == expected);
}

#[test]
#[cfg_attr(miri, ignore = "uses a file")]
fn a_file_that_has_shrunk_is_an_error() {
    let mut output = Output::default();
    output.push(b"head");
    output.push_file(FileRange { file: file_of(b"0123456789"), offset: 8, len: 3 });
    output.push(b"behind");
    let mut sink = Vec::new();
    let error = output.write_to(&mut sink, usize::MAX).unwrap_err();
    assert_eq!((error.kind(), sink.as_slice()), (ErrorKind::UnexpectedEof, &b"head89"[..]));
}

#[test]
fn few_shared_bytes_and_plain_output_make_no_list() {
    let mut output = Output::default();
    output.push(b"a");
    output.push_shared("b");
    output.push_shared(vec![b'c'; SHARED_BYTES_MIN - 1]);
    output.push_shared(Vec::new());
    assert!(output.inserts.is_none());
    assert_eq!(output.take_bytes().unwrap().len(), SHARED_BYTES_MIN + 1);
}
