//! The `sconce` binary: everything is in [`sconce::cli`].

fn main() -> std::process::ExitCode {
    sconce::cli::main()
}
