//! The command line: what can be typed, and how it becomes the `flags` layer of the configuration.

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::{Low, LowModel, LowServer, Size};

/// Serve a language model over HTTP from one binary.
///
/// Without arguments and without a models.toml it serves a small embedded demo model on http://127.0.0.1:8080.
#[derive(Debug, Parser)]
#[command(name = "sconce", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

const AFTER_HELP: &str = "\
Settings come from flags, else from the environment (SCONCE_HOST, SCONCE_PORT, SCONCE_MODEL, SCONCE_DEVICE,
SCONCE_THREADS, SCONCE_CONTEXT, SCONCE_KV_MEMORY, SCONCE_RUNNING_MAX, SCONCE_QUANTIZE, SCONCE_KV_TYPE,
SCONCE_PREFIX_CACHE, SCONCE_SPECULATION, SCONCE_LOOPS, SCONCE_ALLOW_OPEN, SCONCE_CONFIG), else from ./models.toml.

Exit codes: 0 done, 1 failed while running (port taken, ...), 2 wrong usage, 78 wrong configuration or unusable model file.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve models over HTTP (the default).
    Serve(ServeArgs),
    /// Generate once and print the text as it comes.
    Generate(GenerateArgs),
    /// Measure how fast the model is, beside what the machine does at most.
    Bench(BenchArgs),
    /// Check the configuration and the model files, and print what would be served.
    Check(ServeArgs),
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Configuration file [default: ./models.toml if there is one].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to log to stderr: error, warn, info, debug, trace, or a filter as RUST_LOG takes it [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// GGUF file or Hugging Face directory [default: the embedded demo model]; may be given more than once.
    #[arg(short, long, value_name = "FILE")]
    pub model: Vec<PathBuf>,
    /// When to load: start or first_use [default: the first model at the start, others on first use].
    #[arg(long, value_name = "WHEN")]
    pub load: Option<String>,
    /// Name of the model for clients [default: the file's name].
    #[arg(long)]
    pub name: Option<String>,
    /// Tokens that prompt and answer may have together [default: what the model was trained for].
    #[arg(short, long, value_name = "TOKENS")]
    pub context: Option<i64>,
    /// What computes: auto, cpu, cuda, cuda:NUMBER or metal [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Compute threads [default: from the CPU quota].
    #[arg(short, long, value_name = "N")]
    pub threads: Option<i64>,
    /// Memory of the KV cache, such as "512 MiB".
    #[arg(long, value_name = "SIZE")]
    pub kv_memory: Option<String>,
    /// Sequences generated side by side.
    #[arg(long, value_name = "N")]
    pub running_max: Option<i64>,
    /// Bound on the gap between tokens of running streams while prompts are read, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub gap_ms: Option<i64>,
    /// Quantise float weights at load: q8_0 or q4_k [default: as the file has them].
    #[arg(long, value_name = "TYPE")]
    pub quantize: Option<String>,
    /// Keep keys and values as f16 or q8_0 [default: f16].
    #[arg(long, value_name = "TYPE")]
    pub kv_type: Option<String>,
    /// Share the keys and values of prompts that begin alike [default: true].
    #[arg(long, value_name = "BOOL")]
    pub prefix_cache: Option<bool>,
    /// Guess tokens from the text so far: auto, when it pays, or off [default: auto].
    #[arg(long, value_name = "WHEN")]
    pub speculation: Option<String>,
    /// Chat template (Jinja) to use instead of the model's own.
    #[arg(long, value_name = "FILE")]
    pub template: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    pub host: Option<String>,
    /// Port to listen on; 0 lets the system choose [default: 8080].
    #[arg(short, long)]
    pub port: Option<i64>,
    /// Listen beyond loopback although there are no keys.
    #[arg(long)]
    pub allow_open: bool,
    /// Event loops [default: by the number of CPUs].
    #[arg(long, value_name = "N")]
    pub loops: Option<i64>,
    /// Requests that may wait for a place.
    #[arg(long, value_name = "N")]
    pub queue_max: Option<i64>,
    /// Longest request body, such as "2 MiB".
    #[arg(long, value_name = "SIZE")]
    pub body_bytes_max: Option<String>,
    /// How long streams may go on after SIGTERM [default: 30].
    #[arg(long, value_name = "SECONDS")]
    pub drain_seconds: Option<i64>,
    /// Memory that all models may take together, such as "8 GiB" [default: what the machine has left].
    #[arg(long, value_name = "SIZE")]
    pub models_memory: Option<String>,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The prompt; without it, or as "-", it is read from standard input.
    pub prompt: Option<String>,
    /// System prompt of the chat.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Continue the prompt as it is, without the model's chat template.
    #[arg(long)]
    pub raw: bool,
    /// Print one JSON object at the end instead of text.
    #[arg(long)]
    pub json: bool,
    /// Tokens to generate at most.
    #[arg(short = 'n', long, value_name = "N")]
    pub max_tokens: Option<i64>,
    /// 0 is greedy.
    #[arg(long)]
    pub temperature: Option<f64>,
    #[arg(long)]
    pub top_p: Option<f64>,
    #[arg(long)]
    pub top_k: Option<i64>,
    #[arg(long)]
    pub min_p: Option<f64>,
    #[arg(long)]
    pub repetition_penalty: Option<f64>,
    /// The same prompt with the same seed gives the same text.
    #[arg(long)]
    pub seed: Option<u64>,
    /// End before this text would appear; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on past the model's end token.
    #[arg(long)]
    pub ignore_eos: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub struct BenchArgs {
    /// Prompts to read, by length [default, if --decode is not given either: 32,128,512,2048].
    #[arg(long, value_name = "TOKENS,…", value_delimiter = ',', value_parser = lengths)]
    pub prefill: Vec<usize>,
    /// Sequences to generate side by side [default, if --prefill is not given either: 1,2,4,8,16,32].
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = widths)]
    pub decode: Vec<usize>,
    /// Tokens that are there before those that are generated.
    #[arg(long, value_name = "TOKENS,…", value_delimiter = ',', value_parser = depths, default_value = "0,2048,8192")]
    pub depth: Vec<usize>,
    /// Runs of each case; medians are printed.
    #[arg(long, value_name = "N", value_parser = repeats, default_value = "5")]
    pub repeat: usize,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Show how many times as fast everything is as in this file, written by --json before.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub compare: Option<PathBuf>,
    /// Measure quality instead: how far predictions are from those in a file of llama-perplexity --kl-divergence-base.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prefill", "decode", "compare"])]
    pub score: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

const BENCH_HELP: &str = "\
Times the forward pass alone: no HTTP, no scheduler. GB/s are of weights, keys and values read, GMAC/s of the matrix
products; both stand beside what the machine's threads do at most when they do nothing else.";

fn lengths(text: &str) -> Result<usize, String> {
    within(text, 1..=1 << 20)
}

fn widths(text: &str) -> Result<usize, String> {
    within(text, 1..=1024)
}

fn depths(text: &str) -> Result<usize, String> {
    within(text, 0..=1 << 20)
}

fn repeats(text: &str) -> Result<usize, String> {
    within(text, 1..=1000)
}

fn within(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let value = text.trim().parse().ok().filter(|value| range.contains(value));
    value.ok_or_else(|| format!("must be {} to {}", range.start(), range.end()))
}

impl ModelArgs {
    /// One entry for each path, with the same settings; one without a path where none is given.
    fn into_low(self) -> Vec<LowModel> {
        let settings = LowModel {
            name: self.name,
            load: self.load,
            context: self.context,
            device: self.device,
            threads: self.threads,
            kv_memory: self.kv_memory.map(Size::Text),
            running_max: self.running_max,
            gap_ms: self.gap_ms,
            quantize: self.quantize,
            kv_type: self.kv_type,
            prefix_cache: self.prefix_cache,
            speculation: self.speculation,
            template: self.template,
            ..LowModel::default()
        };
        match self.model.is_empty() {
            true => vec![settings],
            false => self.model.into_iter().map(|path| LowModel { path: Some(path), ..settings.clone() }).collect(),
        }
    }

    /// The flags layer of a command without a server.
    pub fn into_flags(self) -> Low {
        Low { server: LowServer::default(), model: self.into_low() }
    }
}

impl ServerArgs {
    /// The flags layer of a command with a server.
    pub fn into_flags(self, model: ModelArgs) -> Low {
        let server = LowServer {
            host: self.host,
            port: self.port,
            allow_open: self.allow_open.then_some(true),
            loops: self.loops,
            queue_max: self.queue_max,
            body_bytes_max: self.body_bytes_max.map(Size::Text),
            drain_seconds: self.drain_seconds,
            models_memory: self.models_memory.map(Size::Text),
            ..LowServer::default()
        };
        Low { server, model: model.into_low() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        let implied = Cli::try_parse_from(["sconce", "--model", "x.gguf", "--port", "0"]).unwrap();
        assert!(implied.command.is_none());
        assert_eq!(implied.serve.model.model, ["x.gguf"].map(PathBuf::from));
        let said = Cli::try_parse_from(["sconce", "serve", "--model", "x.gguf", "--port", "0"]).unwrap();
        let Some(Command::Serve(args)) = said.command else { panic!("not serve") };
        assert_eq!(args.server.into_flags(args.model), implied.serve.server.into_flags(implied.serve.model));
        assert!(Cli::try_parse_from(["sconce", "--prot", "1"]).is_err());
    }
}
