//! The targets on inputs that seeded generators make: cases of the corpus, spliced and damaged, and sentences of small
//! grammars. `SCONCE_FUZZ_SECONDS` says how long each target runs instead of how often, `SCONCE_FUZZ_SEED` where it begins.

use std::panic;
use std::time::{Duration, Instant};

use crate::http::h1::corpus;
use crate::http::seeded::{Random, number_from_env};

/// Inputs of a target when no time is given.
const RUNS: u64 = if cfg!(miri) { 20 } else { 3_000 };

fn run(name: &str, target: fn(&[u8]), mut generate: impl FnMut(&mut Random) -> Vec<u8>) {
    let first = number_from_env("SCONCE_FUZZ_SEED").unwrap_or(0);
    let time = number_from_env("SCONCE_FUZZ_SECONDS").map(Duration::from_secs);
    let start = Instant::now();
    let mut seed = first;
    while time.map_or(seed < first + RUNS, |time| start.elapsed() < time) {
        let input = generate(&mut Random::new(seed));
        if let Err(panic) = panic::catch_unwind(|| target(&input)) {
            eprintln!("{name}, SCONCE_FUZZ_SEED={seed}: {}", input.escape_ascii());
            panic::resume_unwind(panic);
        }
        seed += 1;
    }
    println!("{name}: {} inputs from seed {first} in {:?}", seed - first, start.elapsed());
}

/// What the corpus says, as seeds.
fn corpus() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/h1");
    let files = ["valid.txt", "refused.txt", "limits.txt"];
    files.into_iter().flat_map(|file| corpus::read(directory, file)).map(|case| case.input).collect()
}

/// Some damage: bytes that mean something, runs doubled, moved or lost.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let (at, len) = (random.below(bytes.len() + 1), 1 + random.below(8));
        let end = (at + len).min(bytes.len());
        match random.below(6) {
            0 => bytes.insert(at, *random.pick(b"\r\n\t\0 :;,%/*0a\x7f\x80\xff\"[].")),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let run = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, run);
            }
            _ => bytes.truncate(bytes.len() - random.below(bytes.len() / 4 + 1)),
        }
    }
}

/// Flags and places to cut at, then one or two of `seeds` joined anywhere, damaged.
fn mutant(random: &mut Random, flags: u8, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.pick(seeds).clone();
    match random.below(3) {
        0 => {
            let other = random.pick(seeds);
            let (at, from) = (random.below(input.len() + 1), random.below(other.len() + 1));
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        1 => input.extend(random.pick(seeds)),
        _ => {}
    }
    damage(random, &mut input);
    let chosen = [random.next() as u8 & flags, random.next() as u8, random.next() as u8];
    [&chosen[..], &input].concat()
}

#[test]
fn requests() {
    let seeds = corpus();
    run("requests", super::requests, |random| mutant(random, 1, &seeds));
}

fn chunked(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..random.below(5) {
        let data: Vec<u8> = (0..random.within(1, 30)).map(|_| *random.pick(b"ab\r\n0;")).collect();
        let extension = random.pick(&["", "", "", ";a", ";a=b", " ;a=\"b;c\"", "\t; x = y"]);
        let zeros = "0".repeat(random.below(4) / 3 * random.below(16));
        body.extend(format!("{zeros}{:x}{extension}\r\n", data.len()).bytes().chain(data).chain(*b"\r\n"));
    }
    body.extend(random.pick(&["0\r\n", "000\r\n", "0;x\r\n"]).bytes());
    (0..random.below(3))
        .for_each(|_| body.extend(random.pick(&["X: y\r\n", "Content-Length: 5\r\n", "a:\r\n"]).bytes()));
    body.extend(b"\r\n");
    body
}

#[test]
fn chunks() {
    run("chunks", super::chunks, |random| {
        let seeds = [chunked(random), chunked(random)];
        mutant(random, 1, &seeds)
    });
}

#[test]
fn routes() {
    let words = ["a", "b", "c", "", "{x}", "{y}", "{*rest}", "{x}", "a%2f", "{", "{}", "{*}"];
    run("routes", super::routes, |random| {
        let mut text = String::new();
        let path = |random: &mut Random, words: &[&str]| -> String {
            (0..random.within(1, 5)).map(|_| format!("/{}", random.pick(words))).collect()
        };
        for _ in 0..random.below(12) {
            text += &format!("{}\n", path(random, &words));
        }
        text += "\n";
        for _ in 0..random.below(8) {
            text += &format!("{}\n", path(random, &words[..9]));
        }
        let mut bytes = text.into_bytes();
        if random.one_in(4) {
            damage(random, &mut bytes);
        }
        bytes
    });
}

#[test]
fn paths() {
    let words = [
        "a",
        "b.css",
        "..",
        ".",
        "",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "\\",
        "%00",
        "%",
        "%c0%ae",
        ".git",
        ".well-known",
        "C:",
        "é",
        "%c3%a9",
        "%252e",
        "x%0a",
        "/",
        "..%2f",
    ];
    run("paths", super::paths, |random| {
        let mut text: String = (0..random.within(1, 8)).map(|_| *random.pick(&words)).collect();
        (0..random.below(4)).for_each(|_| text += &format!("/{}", random.pick(&words)));
        let mut bytes = text.into_bytes();
        if random.one_in(3) {
            damage(random, &mut bytes);
        }
        bytes
    });
}

#[test]
fn answers() {
    run("answers", super::answers, |random| {
        let mut answer = String::new();
        let statuses = ["200 OK", "204 No Content", "304 ", "404 Not Found", "101 Up", "299", "099 x", "200"];
        if random.one_in(4) {
            answer += "HTTP/1.1 100 Continue\r\n\r\n";
        }
        answer += &format!("HTTP/1.{} {}\r\n", random.pick(&["1", "1", "0", "2"]), random.pick(&statuses));
        for _ in 0..random.below(4) {
            let lines = [
                "Content-Length: 5\r\n",
                "content-length: 0\r\n",
                "Content-Length: 5, 5\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: gzip, chunked\r\n",
                "Connection: close\r\n",
                "Connection: keep-alive\r\n",
                "Keep-Alive: timeout=5\r\n",
                "X: y\r\n",
            ];
            answer.push_str(random.pick::<&str>(&lines));
        }
        answer += "\r\n";
        let body = if random.one_in(2) { chunked(random) } else { b"helloHTTP/1.1 200 OK\r\n\r\n".to_vec() };
        let seeds = [[answer.as_bytes(), &body].concat(), body];
        mutant(random, 3, &seeds)
    });
}
