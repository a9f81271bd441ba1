use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;
use crate::http::files::path::{Hidden, SafePath};
use crate::http::files::scratch::Scratch;

/// A tree with a secret beside it, and links of every kind.
fn tree() -> (Scratch, Vec<Root>) {
    let scratch = Scratch::new();
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("dir/deep")).unwrap();
    fs::create_dir_all(scratch.path().join("root-beside")).unwrap();
    for (path, text) in [
        ("secret", "secret"),
        ("root-beside/secret", "secret"),
        ("root/plain", "plain"),
        ("root/dir/inner", "inner"),
        ("root/dir/deep/%2e%2e", "literal"),
        ("root/.env", "hidden"),
    ] {
        fs::write(scratch.path().join(path), text).unwrap();
    }
    let full = scratch.path().canonicalize().unwrap();
    for (target, link) in [
        ("plain", "link-inside"),
        ("dir", "link-dir"),
        ("dir/../plain", "link-around"),
        ("../secret", "link-out"),
        ("..", "link-up"),
        ("../root/plain", "link-out-and-in"),
        ("../root-beside/secret", "link-beside"),
        ("loop", "loop"),
        ("absent", "dangling"),
        ("/proc/self/root/etc/passwd", "magic"),
        ("/etc/passwd", "absolute-out"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    symlink(full.join("root/plain"), root.join("absolute-in")).unwrap();
    symlink(full.join("secret"), root.join("dir/absolute-out")).unwrap();
    let best = Root::new(&root).unwrap();
    let portable = Root { path: best.path.clone(), lookup: Lookup::Resolved };
    (scratch, vec![best, portable])
}

fn text(found: Found) -> String {
    match found {
        Found::File(mut file, _) => {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        }
        Found::Directory => "(directory)".into(),
        Found::Nothing => "(nothing)".into(),
    }
}

#[test]
fn links_are_followed_as_far_as_they_stay_inside() {
    let (_scratch, roots) = tree();
    for root in roots {
        for (name, expected) in [
            ("plain", "plain"),
            ("dir/inner", "inner"),
            ("dir/deep/%2e%2e", "literal"),
            ("", "(directory)"),
            ("dir", "(directory)"),
            ("link-inside", "plain"),
            ("link-around", "plain"),
            ("link-dir/inner", "inner"),
            ("absolute-in", "plain"),
            ("absent", "(nothing)"),
            ("plain/inner", "(nothing)"),
            ("link-out", "(nothing)"),
            ("link-up/secret", "(nothing)"),
            ("link-up", "(nothing)"),
            ("link-beside", "(nothing)"),
            ("absolute-out", "(nothing)"),
            ("dir/absolute-out", "(nothing)"),
            ("magic", "(nothing)"),
            ("loop", "(nothing)"),
            ("dangling", "(nothing)"),
            // A SafePath never says this; the second line of defence holds all the same.
            ("../secret", "(nothing)"),
            ("dir/../../secret", "(nothing)"),
            ("/etc/passwd", "(nothing)"),
            ("a\0b", "(nothing)"),
        ] {
            assert_eq!(text(root.open(name).unwrap()), expected, "{name} by {:?}", root.lookup);
        }
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let (scratch, roots) = tree();
    let path = |name: &str| scratch.path().join("root").join(name);
    let made = std::process::Command::new("mkfifo").arg(path("fifo")).status();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    symlink("/dev/zero", path("device")).unwrap();
    for root in roots {
        for name in ["socket", "device"].into_iter().chain(made.as_ref().is_ok_and(|s| s.success()).then_some("fifo")) {
            assert_eq!(text(root.open(name).unwrap()), "(nothing)", "{name} by {:?}", root.lookup);
        }
    }
}

#[test]
fn another_directory_may_take_the_place_of_the_root() {
    let (scratch, roots) = tree();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("next")).unwrap();
    fs::write(path("next/plain"), "new").unwrap();
    fs::rename(path("root"), path("old")).unwrap();
    for root in &roots {
        assert_eq!(text(root.open("plain").unwrap()), "(nothing)");
    }
    symlink("next", path("root")).unwrap();
    for root in &roots {
        assert_eq!(text(root.open("plain").unwrap()), "new");
    }
}

#[test]
fn a_root_must_be_a_directory() {
    let (scratch, _) = tree();
    assert!(Root::new(&scratch.path().join("absent")).is_err());
    assert!(Root::new(&scratch.path().join("secret")).is_err());
}

/// 10,000 paths made of what has let others out of their directories: none reaches the secret.
#[test]
fn no_generated_path_escapes() {
    const PARTS: [&str; 40] = [
        "..",
        ".",
        "/",
        "//",
        "%2e",
        "%2E",
        "%2e%2e",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%00",
        "\0",
        "%252e%252e",
        "%252f",
        "..%2f",
        "%c0%ae",
        "%c0%af",
        "%ff",
        "é",
        "%u002e",
        "．．",
        "∕",
        "%e2%88%95",
        "root",
        "plain",
        "dir",
        "deep",
        "inner",
        "secret",
        "link-out",
        "link-up",
        "link-dir",
        "link-beside",
        "absolute-out",
        "magic",
        "root-beside",
        "C:",
        " ",
        "etc/passwd",
    ];
    let (_scratch, roots) = tree();
    let seed = 0x5eed_u64;
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut opened, mut passed) = (0, 0);
    for round in 0..10_000 {
        let mut raw = String::new();
        for _ in 0..1 + random(8) {
            raw.push_str(PARTS[random(PARTS.len())]);
            raw.push_str(["/", "/", ""][random(3)]);
        }
        if random(50) == 0 {
            raw.push_str(&"long".repeat(random(400)));
        }
        let Some(path) = SafePath::parse(&raw, [Hidden::Refused, Hidden::Served][random(2)]) else { continue };
        passed += 1;
        for root in &roots {
            let text = text(root.open(&path.name).unwrap());
            assert!(
                ["plain", "inner", "literal", "(directory)", "(nothing)"].contains(&&*text),
                "seed {seed}, round {round}: {raw:?} gave {text:?}"
            );
            opened += usize::from(!text.starts_with('('));
        }
    }
    assert!(passed > 500 && opened > 10, "the generator must reach files too: {passed} passed, {opened} opened");
}
