//! The model that the server tests serve: small, random, real in every part.

use std::{path::PathBuf, sync::OnceLock};

use sconce::engine::models::Architecture;

use super::tiny::Tiny;

/// Positions it was "trained" for.
pub const CONTEXT: usize = 4096;

/// The file's bytes.
pub fn bytes() -> Vec<u8> {
    Tiny { context: CONTEXT, hidden: 64, heads: 4, feed_forward: 128, ..Tiny::new(Architecture::Qwen3) }.write().bytes
}

/// Writes the file once per process; gives its path.
pub fn tiny() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny-{}.gguf", std::process::id()));
        std::fs::write(&path, bytes()).unwrap();
        path
    })
    .clone()
}
