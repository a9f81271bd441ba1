//! The `sconce` binary: everything is in [`sconce::cli`].

fn main() {}
