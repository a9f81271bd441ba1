//! Reads the cases of tests/data/h1, for tests; the README there says how they are written.

use std::fs;

/// Some bytes, and what must come out.
pub struct Case {
    pub name: String,
    /// RFC and section.
    pub rule: String,
    pub input: Vec<u8>,
    pub events: Vec<String>,
}

/// The cases of a file in `directory`.
pub fn read(directory: &str, file: &str) -> Vec<Case> {
    let path = format!("{directory}/{file}");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.split("\n\n").filter(|part| !part.starts_with("## ")).map(case).collect()
}

fn case(text: &str) -> Case {
    let lines = |mark| text.lines().filter_map(move |line| line.strip_prefix(mark));
    let only =
        |mark| lines(mark).next().unwrap_or_else(|| panic!("no line begins with {mark:?} in: {text}")).to_string();
    Case {
        name: only("# "),
        rule: only("% "),
        input: lines("> ").flat_map(unescape).collect(),
        events: lines("= ").map(String::from).collect(),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (kind, after) = escape.split_at(1);
        rest = after;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                let (digits, after) = rest.split_at(2);
                bytes.push(u8::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("\\x{digits} in {text}: {e}")));
                rest = after;
            }
            "*" => {
                let (count, after) = rest.split_once('(').unwrap_or_else(|| panic!("\\* without ( in {text}"));
                let (repeated, after) = after.split_once(')').unwrap_or_else(|| panic!("\\* without ) in {text}"));
                let count = count.parse().unwrap_or_else(|e| panic!("\\*{count} in {text}: {e}"));
                bytes.extend(unescape(repeated).repeat(count));
                rest = after;
            }
            _ => panic!("unknown escape in {text}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
