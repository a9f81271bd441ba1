//! Configuration: flags over environment over `models.toml` → [`Low`] (as written) → [`Config`] (checked).
//!
//! A [`Config`] that exists is valid: every number is in range, every size fits, the model file is there. An error is
//! one line that names the source, the key, the value and what to do. Knows no command line syntax and opens no
//! socket.

mod check;
mod lines;
mod low;
mod machine;
mod model;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::engine::device::DeviceChoice;
use check::Layers;
use lines::Lines;
pub use low::{Low, LowModel, LowServer, Size, VARIABLES, from_environment, parse_size};
pub use machine::{Machine, available_bytes};

/// Everything the server needs to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    /// One at least, in the order they were given in. Names and aliases are unique over all of them, and exactly one is
    /// the default.
    pub models: Vec<ModelConfig>,
}

impl Config {
    /// The model of requests that name none, and of commands that use one.
    pub fn default_model(&self) -> &ModelConfig {
        self.models.iter().find(|model| model.default).unwrap_or(&self.models[0])
    }
}

/// `[server]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Where to listen; port 0 lets the system choose one.
    pub address: SocketAddr,
    /// Names that clients may put into `Host` beside the loopback ones. Checked only when bound to loopback.
    pub hosts: Vec<String>,
    /// Event loops; `None`: chosen by the number of CPUs.
    pub loops: Option<usize>,
    /// Open connections at most, over all loops.
    pub connections_max: usize,
    /// A longer request body is answered with 413.
    pub body_bytes_max: usize,
    /// Requests that may wait for admission; one more is answered with 503.
    pub queue_max: usize,
    /// A request waits for admission this long at most.
    pub queue_timeout: Duration,
    /// A request head must arrive within this.
    pub head_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A silent stream sends a comment this often.
    pub ping_interval: Duration,
    /// Streams may finish for this long after SIGTERM.
    pub drain_timeout: Duration,
    /// Bytes that all models may take together, weights and KV caches; `None`: what the machine has.
    pub models_bytes_max: Option<u64>,
}

/// A `[[model]]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `[A-Za-z0-9._-]{1,96}`.
    pub name: String,
    /// Other names that clients may use for it: `[A-Za-z0-9._:/-]{1,96}`.
    pub aliases: Vec<String>,
    /// Requests that name no model are for this one.
    pub default: bool,
    pub load: Load,
    /// Unloaded after so long without a request; `None`: never.
    pub idle_max: Option<Duration>,
    pub source: ModelSource,
    /// Positions to serve; `None`: what the model was trained for, as far as the KV memory goes.
    pub context: Option<usize>,
    /// What computes; `None`: the best that there is.
    pub device: Option<DeviceChoice>,
    /// Compute threads; `None`: from the CPU quota.
    pub threads: Option<usize>,
    /// Bytes of KV cache; `None`: chosen by model and context.
    pub kv_bytes: Option<u64>,
    /// Sequences that run at once at most.
    pub running_max: Option<usize>,
    /// Bound on the gap between tokens of running streams while a long prompt is read.
    pub gap: Option<Duration>,
    /// How weights that the file has as floats are kept; `None`: as they are.
    pub quantize: Option<Quantize>,
    /// How keys and values are kept; `None`: in half precision.
    pub kv_type: Option<KvType>,
    /// Whether prompts that begin alike share their keys and values; `None`: yes.
    pub prefix_cache: Option<bool>,
    /// Whether the next tokens are guessed from the text so far; `None`: when it pays.
    pub speculation: Option<Speculation>,
    /// A chat template to use instead of the model's own.
    pub template: Option<PathBuf>,
}

impl ModelConfig {
    /// The embedded model, with nothing set.
    pub fn demo() -> Self {
        Self {
            name: "demo".to_owned(),
            aliases: Vec::new(),
            default: true,
            load: Load::Start,
            idle_max: None,
            source: ModelSource::Demo,
            context: None,
            device: None,
            threads: None,
            kv_bytes: None,
            running_max: None,
            gap: None,
            quantize: None,
            kv_type: None,
            prefix_cache: None,
            speculation: None,
            template: None,
        }
    }

    /// Whether the other is loaded just as this is: they may differ in who asks for them by which alias, and when they
    /// come and go.
    pub fn loads_as(&self, other: &Self) -> bool {
        let Self { aliases, default, load, idle_max, .. } = self;
        let (aliases, default, load, idle_max) = (aliases.clone(), *default, *load, *idle_max);
        *self == Self { aliases, default, load, idle_max, ..other.clone() }
    }
}

/// `load`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// When the server starts.
    Start,
    /// When the first request for it comes.
    FirstUse,
}

/// `quantize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    Q8_0,
    Q4K,
}

/// `kv_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    F16,
    Q8_0,
}

/// `speculation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculation {
    /// When it pays.
    Auto,
    Off,
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelSource {
    /// The model embedded in the binary.
    Demo,
    /// A GGUF file, or the directory of a Hugging Face model.
    File(PathBuf),
}

/// One line: where, what, and what to do.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The file that is read when it is there and no other is named.
pub const DEFAULT_FILE: &str = "models.toml";

impl Config {
    /// Loads and checks the configuration. `file` is the one named by the caller; without it [`DEFAULT_FILE`] of the
    /// working directory is read if it exists. `environment` looks up one variable.
    pub fn load(
        flags: Low,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        let env = from_environment(environment).map_err(ConfigError)?;
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError(format!("{}: can't read it: {error}", path.display()))),
        };
        let (file, lines) = (parse_file(path, &text)?, Lines::of(&text));
        check::config(&Layers { flags, env, file, lines, path: path.to_path_buf(), machine: Machine::this() })
    }
}

fn parse_file(path: &Path, text: &str) -> Result<Low, ConfigError> {
    low::parse(text).map_err(|error| {
        let what = error.message().trim().replace('\n', " ").replace("expected i64", "expected a whole number");
        let Some(span) = error.span() else { return ConfigError(format!("{}: {what}", path.display())) };
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.matches('\n').count();
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let written = text.lines().nth(line).unwrap_or_default().trim();
        ConfigError(format!("{}:{}:{column}: {what}, in: {written}", path.display(), line + 1))
    })
}

/// `1536 KiB`, `2 GiB`: whole units, as the file would spell them.
pub fn show_bytes(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{} GiB", b >> 30),
        b if b >= 10 << 20 => format!("{} MiB", b >> 20),
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}
