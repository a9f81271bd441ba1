//! The `sconce` binary: everything is in [`sconce::cli`].

fn main() -> std::process::ExitCode {
    // SAFETY: this is the first thing that runs, so there is no other thread yet.
    unsafe { sconce::cli::main() }
}
