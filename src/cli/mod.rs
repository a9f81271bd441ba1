//! The command line: parses it, sets up logging, runs a command, and turns its end into an exit code.
//!
//! | Code | Meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed while running: the port is taken, an output can't be written, the engine gave up |
//! | 2 | wrong usage of the command line |
//! | 78 | wrong configuration, or a model file that can't be used (`EX_CONFIG` of sysexits.h: a restart won't help) |

mod args;
mod bench;
mod catalog;
mod check;
mod encoder;
mod fingerprint;
mod generate;
mod load;
mod progress;
mod reload;
mod room;
mod serve;
mod words;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    config::{self, Config, ConfigError, Low},
    engine::prepare_process,
};
use args::{Cli, Command, CommonArgs};

/// Why a command ended without success: one line for stderr.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    Run(String),
    /// Exit code 2.
    Usage(String),
    /// Exit code 78.
    Config(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Run(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Run(line) | Self::Usage(line) | Self::Config(line)) = self;
        f.write_str(line)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

/// Runs the program.
///
/// # Safety
/// To be called by `main`, before there is any other thread (see [`prepare_process`]).
pub unsafe fn main() -> ExitCode {
    // SAFETY: the caller's promise.
    unsafe { prepare_process() };
    let cli = Cli::parse();
    let command = cli.command.unwrap_or(Command::Serve(cli.serve));
    let result = match command {
        Command::Serve(args) => serve::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Check(args) => check::run(args),
        Command::Generate(args) => generate::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sconce: {failure}");
            failure.exit_code().into()
        }
    }
}

/// Where the configuration comes from, so that it can be read again.
struct Sources {
    flags: Low,
    /// Named by the caller.
    file: Option<PathBuf>,
}

impl Sources {
    /// Loads and checks the configuration.
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.flags.clone(), variable, self.file.as_deref())
    }

    /// The file that is read if it is there.
    fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE))
    }
}

/// Sets up logging, then loads and checks the configuration. `log` is the level where nobody asks for another.
fn configure(common: CommonArgs, flags: Low, log: &str) -> Result<(Config, Sources), Failure> {
    let filter = common.log.or_else(|| variable("SCONCE_LOG")).or_else(|| variable("RUST_LOG"));
    env_logger::Builder::new().parse_filters(filter.as_deref().unwrap_or(log)).init();
    let sources = Sources { flags, file: common.config.or_else(|| variable("SCONCE_CONFIG").map(Into::into)) };
    Ok((sources.load()?, sources))
}

/// A variable of the environment; an empty one is none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
