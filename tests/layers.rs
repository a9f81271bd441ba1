//! What features cannot hold: which words a layer's code may not contain, and where `unsafe` is.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    if folder.is_file() {
        return vec![folder.to_path_buf()];
    }
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// No line of code under `folder` has one of these words; comments may explain.
#[track_caller]
fn check(folder: &str, words: &[&str]) {
    check_but(folder, "nothing is left out", words);
}

/// As `check`, but not in the files under the folder `left_out`.
#[track_caller]
fn check_but(folder: &str, left_out: &str, words: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let mut files = sources(&root);
    files.retain(|file| !file.starts_with(root.join(left_out)) && !file.ends_with("tests.rs"));
    assert!(!files.is_empty(), "nothing to look at in {folder}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // The tests at a file's end, as those beside it, may use a clock to drive the machine.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.to_lowercase().contains(word), "{}:{}: {line}", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn the_reactor_names_nothing_of_http() {
    check("reactor", &["http", "request", "router", "reply", "crate::api", "crate::engine"]);
}

#[test]
fn the_h1_machine_names_no_socket_and_no_clock() {
    check("http/h1", &["mio", "socket", "tcpstream", "instant::now", "systemtime", "std::net", "thread", "router"]);
}

#[test]
fn http_names_no_upper_layer() {
    check("http", &["crate::api", "crate::engine", "crate::config", "crate::cli"]);
}

#[test]
fn http_knows_json_in_one_place() {
    check_but("http", "json", &["serde"]);
}

#[test]
fn the_engine_names_no_http() {
    check("engine", &["crate::http", "crate::reactor", "crate::api", "crate::config", "crate::cli", "std::net"]);
}

#[test]
fn scheduler_and_blocks_name_no_clock_and_no_tensor() {
    let scheduler =
        ["mod", "clients", "pace", "plan", "queue", "room", "width"].map(|part| format!("scheduler/{part}"));
    let beside = ["blocks", "prefix", "sequence", "speculation"].map(String::from);
    for part in scheduler.iter().chain(&beside) {
        check(
            &format!("engine/{part}.rs"),
            &["instant::now", "systemtime", "candle", "tensor", "thread", "tokenizer", "crate::engine::models"],
        );
    }
}

/// The only files with `unsafe`, or folders of them, and what for. A new one wants a reason as good.
const UNSAFE: [(&str, &str); 19] = [
    ("reactor/sendfile.rs", "a system call: sendfile"),
    ("http/files/root/openat2.rs", "a system call: openat2, and the descriptor that it gives"),
    ("engine/process.rs", "environment variables before there are threads; allocator settings; a thread's priority"),
    ("engine/team/disjoint.rs", "one slice, written by many threads in places of their own"),
    ("engine/team/shared.rs", "a borrowed closure, run by threads that end before it does"),
    ("engine/team/tests.rs", "writes its own places of a shared slice"),
    ("engine/kv_cache.rs", "one cache, written by many threads in places of their own"),
    ("engine/layers/attention", "writes its own places of the two above"),
    ("engine/layers/linear/tests.rs", "shares rows as a decoder does"),
    ("engine/layers/matrix.rs", "packs its own panels of a shared slice"),
    ("engine/layers/operand.rs", "writes its own blocks of a shared slice"),
    ("engine/layers/rows.rs", "writes its own rows of a shared slice"),
    ("engine/encoder/model.rs", "shares a step's rows, and says which stage writes what"),
    ("engine/models/decoder.rs", "shares a step's rows, and says which stage writes what"),
    ("engine/models/head.rs", "writes its own places of a shared slice"),
    ("engine/memory.rs", "cuts large allocations into pieces"),
    ("engine/kernels", "vector instructions, by pointer, for CPUs that have them"),
    ("cli/mod.rs", "passes on what engine/process.rs asks for"),
    ("main.rs", "is the first to run, and alone, as cli/mod.rs asks for"),
];

/// Whether code in this file has the word; comments and texts may.
fn has_unsafe(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    // What is between quotes is every second part.
    let code = code.flat_map(|line| line.split('"').step_by(2));
    code.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|word| word == "unsafe")
}

#[test]
fn unsafe_is_only_where_there_is_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let listed: Vec<PathBuf> = UNSAFE.iter().map(|(path, _)| root.join(path)).collect();
    let is_rust = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "rs");
    for file in sources(&root).into_iter().filter(is_rust) {
        let is_listed = listed.iter().any(|path| file.starts_with(path));
        assert!(is_listed || !has_unsafe(&file), "{} has unsafe code and is not listed", file.display());
    }
    for path in listed {
        assert!(sources(&path).iter().any(|file| has_unsafe(file)), "{} needs no line in the list", path.display());
    }
}
