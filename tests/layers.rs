//! What features cannot hold: which words a layer's code may not contain.

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
    files.retain(|file| !file.starts_with(root.join(left_out)));
    assert!(!files.is_empty(), "nothing to look at in {folder}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // The tests at a file's end may use a clock to drive the machine.
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
    for part in ["engine/scheduler/mod.rs", "engine/scheduler/pace.rs", "engine/blocks.rs", "engine/sequence.rs"] {
        check(
            part,
            &["instant::now", "systemtime", "candle", "tensor", "thread", "tokenizer", "crate::engine::models"],
        );
    }
}
