//! Seeded tests of the readers against naive ones, which split whole texts at their line ends and know nothing of speed or
//! of input that has not come yet.

use super::decode::Decoder;
use super::head::Framing;
use super::naive::{self, Said, read};
use super::violation::Violation;
use crate::http::types::Version;

/// Small numbers by xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Changes up to three bytes, mostly to those that mean something.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            let (at, byte) = (self.below(bytes.len() + 1), self.one_of(b"\r\n\t\0 :;,%/*0a\x7f\x80\xff\"[]"));
            let byte = if self.below(4) == 0 { self.below(256) as u8 } else { byte };
            match self.below(3) {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => {}
            }
        }
    }
}

/// One of the good ones mostly, else one of the bad ones.
fn mostly<'t>(random: &mut Random, good: &[&'t str], bad: &[&'t str]) -> &'t str {
    if random.below(12) == 0 { random.one_of(bad) } else { random.one_of(good) }
}

fn generated_head(random: &mut Random) -> Vec<u8> {
    let method = mostly(random, &["GET", "POST", "OPTIONS", "HEAD", "DELETE"], &["get", "BREW", "CONNECT"]);
    let targets = ["/", "/a/b?c=d", "http://a:80/x?y", "http://[::1]", "/%41%7a", "/{|}"];
    let target = mostly(random, &targets, &["/%zz", "/%00", "a", "*", "https://a/", "http://:80/"]);
    let version = mostly(random, &["1.1", "1.1", "1.0", "1.7"], &["2.0", "0.9"]);
    let mut head = format!("{method} {target} HTTP/{version}\r\n");
    let hosts = [" a", "", " a:80", " [::1]:1", " a%2db", "\ta \t"];
    let mut lines = vec![format!("Host:{}", mostly(random, &hosts, &[" a:65536", " u@a", " [::1", " ::1"]))];
    for _ in 0..random.below(4) {
        lines.push(match random.below(12) {
            0 => format!("host:{}", random.one_of(&hosts)),
            1 => format!(
                "Content-Length: {}",
                mostly(random, &["5", "0", "007"], &["5, 5", "-1", "99999999999999999999"])
            ),
            2 => format!(
                "transfer-encoding: {}",
                mostly(random, &["chunked", "Chunked "], &["gzip, chunked", ",chunked", ""])
            ),
            3 | 4 => format!("Connection: {}", random.one_of(&["close", "keep-alive", "x, CLOSE ,", "", "upgrade"])),
            5 | 6 => {
                format!("Expect: {}", mostly(random, &["100-continue", "", "100-Continue,"], &["x", "100-continue, x"]))
            }
            7 | 8 => format!("X-Long-Name-{}: {}", random.below(1000), "v".repeat(random.below(40))),
            _ => format!("accept: text/html;q=0.{}", random.below(10)),
        });
    }
    if random.below(12) == 0 {
        lines.remove(0);
    }
    for line in lines {
        head += &line;
        head += "\r\n";
    }
    let mut head = (head + "\r\n").into_bytes();
    if random.below(2) == 0 {
        random.mutate(&mut head);
    }
    head
}

#[test]
fn heads_are_read_as_a_naive_reader_does_at_every_split() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..20_000 {
        let input = generated_head(&mut Random::new(seed));
        let shown = String::from_utf8_lossy(&input);
        let whole = read(&input);
        match &whole {
            Ok(Some(said)) => {
                assert_eq!(Some(said), naive::head(&input).as_ref(), "seed {seed}: {shown:?}");
                agrees_with_httparse(said, &input, seed);
                accepted += 1;
            }
            Ok(None) => assert!(!input.windows(4).any(|end| end == b"\r\n\r\n"), "seed {seed}: {shown:?}"),
            Err(violation) => {
                assert_eq!(naive::head(&input), None, "seed {seed}: {violation:?} in {shown:?}");
                refused += 1;
            }
        }
        // What has been said of the beginning stays true, and nothing is said of a head that is fine but not complete.
        let mut before = Ok(None);
        for at in 0..=input.len() {
            let part = read(&input[..at]);
            assert!(
                before == Ok(None) || part == before,
                "seed {seed}, cut at {at}: {part:?} after {before:?}: {shown:?}"
            );
            before = part;
        }
        assert_eq!(before, whole, "seed {seed}: {shown:?}");
    }
    assert!(accepted > 3_000 && refused > 3_000, "{accepted} accepted, {refused} refused");
}

/// We take nothing that httparse does not take, but for later minor versions, and read the same in it.
fn agrees_with_httparse(said: &Said, input: &[u8], seed: u64) {
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(input) {
        Err(httparse::Error::Version) => return assert_eq!(said.version, Version::Http11, "seed {seed}"),
        parsed => assert_eq!(parsed, Ok(httparse::Status::Complete(said.len)), "seed {seed}"),
    }
    assert_eq!(request.headers.len(), said.headers.len(), "seed {seed}");
    for (theirs, (name, value)) in request.headers.iter().zip(&said.headers) {
        // An absolute target has taken the place of Host.
        let same = theirs.value == value || name.eq_ignore_ascii_case("host");
        assert!(theirs.name == name && same, "seed {seed}: {name}");
    }
}

fn generated_chunks(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..random.below(4) {
        let data: Vec<u8> = (0..1 + random.below(20)).map(|_| random.one_of(b"ab\r\n0;")).collect();
        let size = data.len();
        let size = random.one_of(&[&format!("{size:x}"), &format!("{size:X}"), &format!("000{size:x}")]).to_owned();
        let extension = random.one_of(&["", "", ";a", ";a=b", " ;a=\"b;c\"", "\t; x = y"]);
        body.extend(format!("{size}{extension}\r\n").bytes().chain(data).chain(*b"\r\n"));
    }
    body.extend(random.one_of(&["0", "000", "0;x"]).bytes().chain(*b"\r\n"));
    for _ in 0..random.below(3) {
        body.extend(random.one_of(&["X: y\r\n", "Content-Length: 5\r\n", "a:\r\n"]).bytes());
    }
    body.extend(b"\r\n");
    random.mutate(&mut body);
    body.extend(random.one_of(&["", "GET / HTTP/1.1\r\n"]).bytes());
    body
}

#[test]
fn chunks_are_decoded_as_a_naive_decoder_does_at_every_split() {
    let (mut complete, mut refused) = (0, 0);
    for seed in 0..20_000 {
        let input = generated_chunks(&mut Random::new(seed));
        let shown = String::from_utf8_lossy(&input);
        let decode = |parts: &[&[u8]]| {
            let mut decoder = Decoder::new(Framing::Chunked, 1 << 20);
            let (mut body, mut used) = (Vec::new(), 0);
            for part in parts {
                let (count, complete) = decoder.decode(part, &mut body)?;
                used += count;
                if complete {
                    return Ok(Some((body, used)));
                }
            }
            Ok(None)
        };
        let whole: Result<_, Violation> = decode(&[&input]);
        match &whole {
            Ok(Some(decoded)) => {
                assert_eq!(Some(decoded), naive::chunks(&input).as_ref(), "seed {seed}: {shown:?}");
                complete += 1;
            }
            Ok(None) => assert_eq!(naive::chunks(&input), None, "seed {seed}: {shown:?}"),
            Err(violation) => {
                assert_eq!(naive::chunks(&input), None, "seed {seed}: {violation:?} in {shown:?}");
                refused += 1;
            }
        }
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            assert_eq!(decode(&[first, second]), whole, "seed {seed}, cut at {at}: {shown:?}");
        }
    }
    assert!(complete > 3_000 && refused > 3_000, "{complete} complete, {refused} refused");
}
