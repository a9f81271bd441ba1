//! `sconce bench` on a tiny model: what it prints, for people and for programs, and what it refuses.

#![cfg(feature = "server")]

mod common;

use std::{path::PathBuf, process::Command};

use common::{
    model,
    server::{run, sconce},
};
use serde_json::{Value, json};

fn bench(args: &[&str]) -> Command {
    let mut command = sconce();
    command.args(["bench", "--threads", "1", "--repeat", "1", "--model"]).arg(model::tiny()).args(args);
    command
}

/// Of this name, and of this process only.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

#[test]
fn json_and_a_comparison_with_it() {
    let args = ["--prefill", "16,40", "--decode", "1,3", "--depth", "0,64"];
    let (status, stdout, stderr) = run(bench(&[&args[..], &["--json"]].concat()));
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["model"]["architecture"], &report["machine"]["threads"]), (&json!("qwen3"), &json!(1)));
    for rate in ["read_gb_per_second", "int8_gmac_per_second", "f32_gmac_per_second"] {
        assert!(report["machine"]["one_thread"][rate].as_f64() > Some(0.0), "{rate}");
    }
    let shapes = |kind: &str, keys: [&str; 2]| -> Vec<Value> {
        report[kind].as_array().unwrap().iter().map(|one| json!(keys.map(|key| one[key].clone()))).collect()
    };
    assert_eq!(shapes("prefill", ["tokens", "runs"]), [json!([16, 1]), json!([40, 1])]);
    assert_eq!(shapes("decode", ["width", "depth"]), [json!([1, 0]), json!([3, 0]), json!([1, 64]), json!([3, 64])]);
    for one in report["prefill"].as_array().unwrap().iter().chain(report["decode"].as_array().unwrap()) {
        for figure in ["tokens_per_second", "gb_per_second", "gmac_per_second", "of_memory", "of_int8"] {
            assert!(one[figure].as_f64() > Some(0.0), "{figure}: {one}");
        }
        let at = |figure: &str| one[figure].as_f64().unwrap();
        assert!(at("tokens_per_second_min") <= at("tokens_per_second"));
        assert!(at("tokens_per_second") <= at("tokens_per_second_max"));
    }

    let old = path("old.json");
    std::fs::write(&old, stdout).unwrap();
    let (status, page, stderr) = run(bench(&[&args[..4], &["--compare", old.to_str().unwrap()]].concat()));
    assert_eq!((status, stderr.contains("left out")), (Some(0), true), "{stderr}");
    for words in ["The machine at most", "16 tokens", "Decode behind 0 tokens", "3 sequences", "× old"] {
        assert!(page.contains(words), "no {words:?} in\n{page}");
    }
    // The cases at other depths have nothing to be compared with.
    assert!(page.lines().any(|line| line.contains("1 sequence ") && line.ends_with('–')), "{page}");
}

#[test]
fn what_is_named_alone_is_measured_alone() {
    let (status, stdout, _) = run(bench(&["--prefill", "8", "--json"]));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(status, Some(0));
    assert_eq!((report["prefill"].as_array().unwrap().len(), &report["decode"]), (1, &json!([])));
}

#[test]
fn what_it_refuses() {
    let bad = path("bad.json");
    std::fs::write(&bad, "{}").unwrap();
    let bad = bad.to_str().unwrap();
    for (args, code, words) in [
        (&["--decode", "0"][..], 2, "must be 1 to 1024"),
        (&["--decode", "x"], 2, "must be 1 to 1024"),
        (&["--repeat", "0"], 2, "must be 1 to 1000"),
        (&["--threads", "99999"], 78, "must be 1 to"),
        (&["--compare", "none.json"], 2, "none.json"),
        (&["--compare", bad], 2, "missing field"),
        (&["--score", bad], 1, "fill whole buffer"),
        (&["--score", "none.kld"], 1, "none.kld"),
    ] {
        let mut command = sconce();
        command.arg("bench").arg("--model").arg(model::tiny()).args(args);
        let (status, _, stderr) = run(command);
        assert_eq!((status, stderr.contains(words)), (Some(code), true), "{args:?}: {stderr}");
    }
}
