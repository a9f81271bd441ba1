//! Configuration: flags over environment over `models.toml` → [`Low`] (as written) → [`Config`] (checked).
//!
//! A [`Config`] that exists is valid: every number is in range, every size fits, the model file is there. An error is
//! one line that names the source, the key, the value and what to do. Knows no command line syntax and opens no
//! socket.

mod low;

use std::{
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    time::Duration,
};

pub use low::{Low, LowModel, LowServer, Size, VARIABLES, from_environment, parse_size};

/// Everything the server needs to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    pub model: ModelConfig,
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
}

/// The one `[[model]]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `[A-Za-z0-9._-]{1,96}`.
    pub name: String,
    pub source: ModelSource,
    /// Positions to serve; `None`: what the model was trained for, as far as the KV memory goes.
    pub context: Option<usize>,
    /// Compute threads; `None`: from the CPU quota.
    pub threads: Option<usize>,
    /// Bytes of KV cache; `None`: chosen by model and context.
    pub kv_bytes: Option<u64>,
    /// Sequences that run at once at most.
    pub running_max: Option<usize>,
    /// Bound on the gap between tokens of running streams while a long prompt is read.
    pub gap: Option<Duration>,
    /// A chat template to use instead of the model's own.
    pub template: Option<PathBuf>,
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelSource {
    /// The model embedded in the binary.
    Demo,
    /// A GGUF file.
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
        let from_file = match std::fs::read_to_string(path) {
            Ok(text) => parse_file(path, &text)?,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Low::default(),
            Err(error) => return Err(ConfigError(format!("{}: can't read it: {error}", path.display()))),
        };
        Config::check(&Layers { flags, env, file: from_file, path: path.to_path_buf() })
    }

    /// Checks what the sources say together.
    fn check(layers: &Layers) -> Result<Config, ConfigError> {
        Ok(Config { server: check_server(layers)?, model: check_model(layers)? })
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

/// The three sources side by side.
struct Layers {
    flags: Low,
    env: Low,
    file: Low,
    path: PathBuf,
}

/// A value and where it was given, in the words its writer used.
struct Given<T> {
    value: T,
    place: String,
}

impl Layers {
    fn server<T: Clone>(&self, key: &str, get: impl Fn(&LowServer) -> &Option<T>) -> Option<Given<T>> {
        self.pick(key, "[server]", [get(&self.flags.server), get(&self.env.server), get(&self.file.server)])
    }

    fn model<T: Clone>(&self, key: &str, get: impl Fn(&LowModel) -> &Option<T>) -> Option<Given<T>> {
        let none = LowModel::default();
        let [flags, env] = [&self.flags, &self.env].map(|low| low.model.first().unwrap_or(&none));
        // `--model` names another model than the file does: what the file says of its own does not apply to it.
        let file = match flags.path.is_some() || env.path.is_some() {
            true => &none,
            false => self.file.model.first().unwrap_or(&none),
        };
        self.pick(key, "[[model]]", [get(flags), get(env), get(file)])
    }

    fn pick<T: Clone>(&self, key: &str, table: &str, [flag, env, file]: [&Option<T>; 3]) -> Option<Given<T>> {
        if let Some(value) = flag {
            let name = if key == "path" { "model" } else { key };
            return Some(Given { value: value.clone(), place: format!("--{}", name.replace('_', "-")) });
        }
        if let Some(value) = env {
            let name = if key == "path" { "model" } else { key };
            return Some(Given { value: value.clone(), place: format!("SCONCE_{}", name.to_ascii_uppercase()) });
        }
        let value = file.clone()?;
        Some(Given { value, place: format!("{}: {table} {key}", self.path.display()) })
    }
}

impl<T: fmt::Debug> Given<T> {
    fn refuse<U>(&self, why: impl fmt::Display) -> Result<U, ConfigError> {
        Err(ConfigError(format!("{} = {:?}: {why}", self.place, self.value)))
    }
}

/// `None` stays; a number outside `low..=high` is refused.
fn ranged(given: Option<Given<i64>>, low: u64, high: u64) -> Result<Option<u64>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    match u64::try_from(given.value) {
        Ok(value) if (low..=high).contains(&value) => Ok(Some(value)),
        _ => given.refuse(format_args!("must be {low} to {high}")),
    }
}

/// `None` stays; a size that can't be read or lies outside `low..=high` is refused.
fn sized(given: Option<Given<Size>>, low: u64, high: u64) -> Result<Option<u64>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    let bytes = match &given.value {
        Size::Bytes(bytes) => u64::try_from(*bytes).ok(),
        Size::Text(text) => parse_size(text),
    };
    // Shown as it was written, not as the enum prints.
    let given = match given.value {
        Size::Bytes(bytes) => Given { value: bytes.to_string(), place: given.place },
        Size::Text(text) => Given { value: text, place: given.place },
    };
    match bytes {
        Some(bytes) if (low..=high).contains(&bytes) => Ok(Some(bytes)),
        Some(_) => given.refuse(format_args!("must be {} to {}", show_bytes(low), show_bytes(high))),
        None => given.refuse("expected a size such as \"512 MiB\" or \"2 GiB\""),
    }
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

fn check_server(layers: &Layers) -> Result<ServerConfig, ConfigError> {
    let seconds = |value: Option<u64>, default: u64| Duration::from_secs(value.unwrap_or(default));
    let config = ServerConfig {
        address: check_address(layers)?,
        hosts: check_hosts(layers)?,
        loops: ranged(layers.server("loops", |s| &s.loops), 1, 256)?.map(|n| n as usize),
        connections_max: ranged(layers.server("connections_max", |s| &s.connections_max), 1, 1_000_000)?
            .unwrap_or(10_000) as usize,
        body_bytes_max: sized(layers.server("body_bytes_max", |s| &s.body_bytes_max), 1 << 10, 64 << 20)?
            .unwrap_or(2 << 20) as usize,
        queue_max: ranged(layers.server("queue_max", |s| &s.queue_max), 1, 100_000)?.unwrap_or(1024) as usize,
        queue_timeout: seconds(ranged(layers.server("queue_seconds", |s| &s.queue_seconds), 1, 86_400)?, 300),
        head_timeout: seconds(ranged(layers.server("head_seconds", |s| &s.head_seconds), 1, 3_600)?, 10),
        idle_timeout: seconds(ranged(layers.server("idle_seconds", |s| &s.idle_seconds), 1, 86_400)?, 60),
        ping_interval: seconds(ranged(layers.server("ping_seconds", |s| &s.ping_seconds), 1, 3_600)?, 10),
        drain_timeout: seconds(ranged(layers.server("drain_seconds", |s| &s.drain_seconds), 0, 86_400)?, 30),
    };
    Ok(config)
}

fn check_address(layers: &Layers) -> Result<SocketAddr, ConfigError> {
    let port = ranged(layers.server("port", |s| &s.port), 0, 65_535)?.unwrap_or(8080) as u16;
    let host = layers
        .server("host", |s| &s.host)
        .unwrap_or(Given { value: "127.0.0.1".to_owned(), place: "[server] host".to_owned() });
    let literal = host.value.trim_start_matches('[').trim_end_matches(']');
    let address = match literal.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port),
        Err(_) => match (literal, port).to_socket_addrs().ok().and_then(|mut found| found.next()) {
            Some(address) => address,
            None => return host.refuse("not an address of this machine; 127.0.0.1 is the usual one"),
        },
    };
    let open = layers.server("allow_open", |s| &s.allow_open).is_some_and(|given| given.value);
    if !address.ip().is_loopback() && !open {
        return host.refuse(
            "everyone who can reach this machine could use the model, as there are no keys; bind 127.0.0.1 and put a \
             proxy in front, or say --allow-open (allow_open = true in [server]) if this is what you want",
        );
    }
    Ok(address)
}

fn check_hosts(layers: &Layers) -> Result<Vec<String>, ConfigError> {
    let Some(hosts) = layers.server("hosts", |s| &s.hosts) else { return Ok(Vec::new()) };
    let plain = |name: &String| {
        !name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    match hosts.value.iter().find(|name| !plain(name)) {
        Some(_) => hosts.refuse("each must be a host name without scheme and port, such as \"sconce.lan\""),
        None => Ok(hosts.value.iter().map(|name| name.to_ascii_lowercase()).collect()),
    }
}

fn check_model(layers: &Layers) -> Result<ModelConfig, ConfigError> {
    let path = layers.model("path", |m| &m.path);
    let named_outside = path.as_ref().is_some_and(|p| !p.place.contains("[[model]]"));
    match layers.file.model.len() {
        0 | 1 => {}
        _ if named_outside => {}
        n => {
            return Err(ConfigError(format!(
                "{}: {n} [[model]] entries, but a server serves one model: keep one, or name one with --model FILE",
                layers.path.display()
            )));
        }
    }
    if layers.file.model.len() == 1 && path.is_none() {
        return Err(ConfigError(format!(
            "{}: the [[model]] entry has no path: add path = \"FILE.gguf\", or remove the entry to serve the demo model",
            layers.path.display()
        )));
    }
    let source = match path {
        Some(path) => ModelSource::File(check_path(layers, path, "a GGUF file")?),
        None => ModelSource::Demo,
    };
    let template = match layers.model("template", |m| &m.template) {
        Some(path) => Some(check_path(layers, path, "a chat template (Jinja)")?),
        None => None,
    };
    Ok(ModelConfig {
        name: check_name(layers, &source)?,
        source,
        context: ranged(layers.model("context", |m| &m.context), 32, 1 << 24)?.map(|n| n as usize),
        threads: ranged(layers.model("threads", |m| &m.threads), 1, 1_024)?.map(|n| n as usize),
        kv_bytes: sized(layers.model("kv_memory", |m| &m.kv_memory), 64 << 10, 1 << 44)?,
        running_max: ranged(layers.model("running_max", |m| &m.running_max), 1, 4_096)?.map(|n| n as usize),
        gap: ranged(layers.model("gap_ms", |m| &m.gap_ms), 1, 60_000)?.map(Duration::from_millis),
        template,
    })
}

/// A path in the file is relative to the file; elsewhere to the working directory. It must be a readable file.
fn check_path(layers: &Layers, given: Given<PathBuf>, what: &str) -> Result<PathBuf, ConfigError> {
    let in_file = given.place.contains("[[model]]");
    let base = if in_file { layers.path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
    let path = base.join(&given.value);
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => Ok(path),
        Ok(_) => given.refuse(format_args!("not a file; name {what}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            given.refuse(format_args!("no such file; name {what}, or leave it out to serve the demo model"))
        }
        Err(error) => given.refuse(format_args!("can't read it: {error}")),
    }
}

fn check_name(layers: &Layers, source: &ModelSource) -> Result<String, ConfigError> {
    const NAME_BYTES_MAX: usize = 96;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if let Some(given) = layers.model("name", |m| &m.name) {
        let good = (1..=NAME_BYTES_MAX).contains(&given.value.len()) && given.value.chars().all(plain);
        return if good { Ok(given.value) } else { given.refuse("1 to 96 letters, digits, '.', '_' or '-'") };
    }
    let ModelSource::File(path) = source else { return Ok("demo".to_owned()) };
    let stem = path.file_stem().map(|s| s.to_string_lossy()).unwrap_or_default();
    let name: String = stem.chars().take(NAME_BYTES_MAX).map(|c| if plain(c) { c } else { '-' }).collect();
    Ok(if name.is_empty() { "model".to_owned() } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: Low, env: &[(&str, &str)], file: &str) -> Result<Config, String> {
        let layers = Layers {
            flags,
            env: from_environment(|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))?,
            file: parse_file(Path::new("models.toml"), file).map_err(|e| e.to_string())?,
            path: PathBuf::from("models.toml"),
        };
        Config::check(&layers).map_err(|e| e.to_string())
    }

    /// This file stands in for a model: it exists.
    const HERE: &str = file!();

    #[test]
    fn nothing_given_serves_the_demo_on_loopback() {
        let config = load(Low::default(), &[], "").unwrap();
        assert_eq!(config.server.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.model.source, ModelSource::Demo);
        assert_eq!(config.model.name, "demo");
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = "[server]\nport = 1\nloops = 1\ndrain_seconds = 7";
        let env = [("SCONCE_PORT", "2"), ("SCONCE_LOOPS", "2")];
        let mut flags = Low::default();
        flags.server.port = Some(3);
        let config = load(flags, &env, file).unwrap();
        assert_eq!(config.server.address.port(), 3);
        assert_eq!(config.server.loops, Some(2));
        assert_eq!(config.server.drain_timeout, Duration::from_secs(7));
    }

    #[test]
    fn a_model_flag_replaces_the_files_entry() {
        let file = format!("[[model]]\npath = {HERE:?}\ncontext = 64\n[[model]]\npath = {HERE:?}");
        assert!(load(Low::default(), &[], &file).unwrap_err().contains("2 [[model]] entries"));
        let flags = Low {
            model: vec![LowModel { path: Some(HERE.into()), threads: Some(2), ..LowModel::default() }],
            ..Low::default()
        };
        let model = load(flags, &[], &file).unwrap().model;
        assert_eq!((model.context, model.threads), (None, Some(2)));
        assert_eq!(model.name, "mod");
    }

    #[test]
    fn bad_values_name_place_key_and_value() {
        #[track_caller]
        fn check(file: &str, parts: &[&str]) {
            let error = load(Low::default(), &[], file).expect_err(file);
            assert!(!error.contains('\n'), "one line: {error}");
            for part in parts {
                assert!(error.contains(part), "{file:?}: {error:?} lacks {part:?}");
            }
        }
        check("[server]\nport = 70000", &["models.toml: [server] port = 70000", "0 to 65535"]);
        check("[server]\nport = -1", &["port = -1"]);
        check("[server]\nport = \"a\"", &["models.toml:2:8", "a whole number", "in: port = \"a\""]);
        check("[server]\nprot = 1", &["models.toml:2:1", "prot", "port"]);
        check("[server]\nport =", &["models.toml:2:", "in: port ="]);
        check("[model]\npath = \"x\"", &["models.toml:1:"]);
        check("[server]\nbody_bytes_max = \"much\"", &["body_bytes_max = \"much\"", "512 MiB"]);
        check("[server]\nbody_bytes_max = \"2 TiB\"", &["1 KiB to 64 MiB"]);
        check("[server]\nhost = \"0.0.0.0\"", &["host = \"0.0.0.0\"", "--allow-open"]);
        check("[server]\nhost = \"no such host\"", &["no such host"]);
        check("[server]\nhosts = [\"http://x\"]", &["hosts", "without scheme"]);
        check("[[model]]\nname = \"x\"", &["no path"]);
        check("[[model]]\npath = \"no.gguf\"", &["[[model]] path = \"no.gguf\"", "no such file"]);
        check("[[model]]\npath = \"src\"", &["not a file"]);
        check(&format!("[[model]]\npath = {HERE:?}\nname = \"a b\""), &["name = \"a b\""]);
        check(&format!("[[model]]\npath = {HERE:?}\ncontext = 1"), &["context = 1", "32 to"]);
        check(&format!("[[model]]\npath = {HERE:?}\nkv_memory = 1.5"), &["models.toml:3:"]);
    }

    #[test]
    fn open_binding_must_be_said() {
        let file = "[server]\nhost = \"0.0.0.0\"\nallow_open = true";
        assert_eq!(load(Low::default(), &[], file).unwrap().server.address.to_string(), "0.0.0.0:8080");
        for host in ["localhost", "::1", "[::1]", "127.0.0.2"] {
            let low = Low { server: LowServer { host: Some(host.into()), ..LowServer::default() }, model: vec![] };
            assert!(load(low, &[], "").unwrap().server.address.ip().is_loopback(), "{host}");
        }
    }

    /// The example at the top of the repository serves the demo as it is, and each of its lines is right.
    #[test]
    fn the_example_file_holds() {
        let example = include_str!("../../models.toml");
        let config = load(Low::default(), &[], example).unwrap();
        assert_eq!(config, load(Low::default(), &[], "").unwrap());
        let told: Vec<&str> = example.lines().skip_while(|line| *line != "[server]").collect();
        let told: Vec<&str> = told.iter().map(|line| line.trim_start_matches("# ")).collect();
        let low = parse_file(Path::new("models.toml"), &told.join("\n")).unwrap();
        assert_eq!(low.server.port, Some(8080));
        assert_eq!(low.model[0].gap_ms, Some(100));
    }

    #[test]
    fn shown_sizes_read_back() {
        for bytes in [1, 1 << 10, 2 << 20, 64 << 20, 3 << 30, 1 << 44] {
            assert_eq!(parse_size(&show_bytes(bytes)), Some(bytes));
        }
    }
}
