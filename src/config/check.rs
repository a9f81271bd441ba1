//! Checks what the three sources say together: ranges, sizes, files, and what must not be combined.
//!
//! A value keeps the place it was given at in its writer's words (`--port`, `SCONCE_PORT`, `models.toml: [server] port`),
//! so that an error says what to edit.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, ConfigError, KvType, Low, LowModel, LowServer, Machine, ModelConfig, ModelSource, Quantize, ServerConfig,
    Size, Speculation, parse_size, show_bytes,
};
use crate::engine::device::DeviceChoice;

/// More compute threads than this for each CPU only wait for each other.
const THREADS_PER_CPU_MAX: usize = 4;
const KV_BYTES_MIN: u64 = 64 << 10;

/// The configuration that the layers come to.
pub fn config(layers: &Layers) -> Result<Config, ConfigError> {
    Ok(Config { server: check_server(layers)?, model: check_model(layers)? })
}

/// The three sources side by side, and the machine that their settings are for.
pub struct Layers {
    pub flags: Low,
    pub env: Low,
    pub file: Low,
    pub path: PathBuf,
    pub machine: Machine,
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

/// `None` stays; a word that is not among the `choices` is refused.
fn chosen<T: Copy>(given: Option<Given<String>>, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    match choices.iter().find(|(word, _)| *word == given.value) {
        Some((_, choice)) => Ok(Some(*choice)),
        None => {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            given.refuse(format_args!("must be {}", words.join(" or ")))
        }
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
        Some(path) => ModelSource::File(check_path(layers, path, Kind::Model)?),
        None => ModelSource::Demo,
    };
    let template = match layers.model("template", |m| &m.template) {
        Some(path) => Some(check_path(layers, path, Kind::Template)?),
        None => None,
    };
    Ok(ModelConfig {
        name: check_name(layers, &source)?,
        source,
        context: ranged(layers.model("context", |m| &m.context), 32, 1 << 24)?.map(|n| n as usize),
        device: check_device(layers)?,
        threads: check_threads(layers)?,
        kv_bytes: check_kv_memory(layers)?,
        running_max: ranged(layers.model("running_max", |m| &m.running_max), 1, 4_096)?.map(|n| n as usize),
        gap: ranged(layers.model("gap_ms", |m| &m.gap_ms), 1, 60_000)?.map(Duration::from_millis),
        quantize: chosen(
            layers.model("quantize", |m| &m.quantize),
            &[("q8_0", Quantize::Q8_0), ("q4_k", Quantize::Q4K)],
        )?,
        kv_type: chosen(layers.model("kv_type", |m| &m.kv_type), &[("f16", KvType::F16), ("q8_0", KvType::Q8_0)])?,
        prefix_cache: layers.model("prefix_cache", |m| &m.prefix_cache).map(|given| given.value),
        speculation: chosen(
            layers.model("speculation", |m| &m.speculation),
            &[("auto", Speculation::Auto), ("off", Speculation::Off)],
        )?,
        template,
    })
}

fn check_device(layers: &Layers) -> Result<Option<DeviceChoice>, ConfigError> {
    let Some(given) = layers.model("device", |m| &m.device) else { return Ok(None) };
    match given.value.parse() {
        Ok(device) => Ok(Some(device)),
        Err(_) => given.refuse("must be \"auto\", \"cpu\", \"cuda\", \"cuda:NUMBER\" or \"metal\""),
    }
}

fn check_threads(layers: &Layers) -> Result<Option<usize>, ConfigError> {
    let Some(given) = layers.model("threads", |m| &m.threads) else { return Ok(None) };
    let cpus = layers.machine.cpus;
    match usize::try_from(given.value) {
        Ok(threads) if (1..=cpus * THREADS_PER_CPU_MAX).contains(&threads) => Ok(Some(threads)),
        _ => given.refuse(format_args!(
            "must be 1 to {}, as this process may use {cpus} CPUs; leave it out for one thread on each",
            cpus * THREADS_PER_CPU_MAX
        )),
    }
}

fn check_kv_memory(layers: &Layers) -> Result<Option<u64>, ConfigError> {
    let memory = layers.machine.memory_bytes.unwrap_or(1 << 44);
    sized(layers.model("kv_memory", |m| &m.kv_memory), KV_BYTES_MIN, memory.max(KV_BYTES_MIN))
}

/// A path in the file is relative to the file; elsewhere to the working directory. It must be a readable file.
/// What a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Template,
}

fn check_path(layers: &Layers, given: Given<PathBuf>, kind: Kind) -> Result<PathBuf, ConfigError> {
    let what = match kind {
        Kind::Model => "a GGUF file or a Hugging Face directory",
        Kind::Template => "a chat template (Jinja)",
    };
    let in_file = given.place.contains("[[model]]");
    let base = if in_file { layers.path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
    let path = base.join(&given.value);
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() || (kind == Kind::Model && meta.is_dir()) => Ok(path),
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
    // A folder's name has no ending: the one in Qwen2.5-0.5B is part of it.
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let stem = stem.map(|s| s.to_string_lossy()).unwrap_or_default();
    let name: String = stem.chars().take(NAME_BYTES_MAX).map(|c| if plain(c) { c } else { '-' }).collect();
    Ok(if name.is_empty() { "model".to_owned() } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{from_environment, parse_file};

    fn load(flags: Low, env: &[(&str, &str)], file: &str) -> Result<Config, String> {
        let layers = Layers {
            flags,
            env: from_environment(|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))?,
            file: parse_file(Path::new("models.toml"), file).map_err(|e| e.to_string())?,
            path: PathBuf::from("models.toml"),
            machine: Machine { cpus: 2, memory_bytes: Some(8 << 30) },
        };
        config(&layers).map_err(|e| e.to_string())
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
        assert_eq!(model.name, "check", "the file's own name");
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
        check(&format!("[[model]]\npath = {HERE:?}\ntemplate = \"src\""), &["template = \"src\"", "not a file"]);
        check(&format!("[[model]]\npath = {HERE:?}\nname = \"a b\""), &["name = \"a b\""]);
        check(&format!("[[model]]\npath = {HERE:?}\ncontext = 1"), &["context = 1", "32 to"]);
        check(&format!("[[model]]\npath = {HERE:?}\nkv_memory = 1.5"), &["models.toml:3:"]);
        let model = |line: &str, parts: &[&str]| check(&format!("[[model]]\npath = {HERE:?}\n{line}"), parts);
        model("device = \"gpu\"", &["device = \"gpu\"", "must be \"auto\"", "cuda:NUMBER"]);
        model("threads = 0", &["threads = 0", "1 to 8", "2 CPUs"]);
        model("threads = 9", &["threads = 9", "1 to 8"]);
        model("kv_memory = \"63 KiB\"", &["63 KiB", "64 KiB to 8 GiB"]);
        model("kv_memory = \"9 GiB\"", &["9 GiB", "64 KiB to 8 GiB"]);
        model("running_max = 0", &["running_max = 0", "1 to 4096"]);
        model("gap_ms = 0", &["gap_ms = 0", "1 to 60000"]);
        model("quantize = \"q5_k\"", &["quantize = \"q5_k\"", "must be \"q8_0\" or \"q4_k\""]);
        model("kv_type = \"f32\"", &["kv_type = \"f32\"", "must be \"f16\" or \"q8_0\""]);
        model("speculation = \"maybe\"", &["speculation", "must be \"auto\" or \"off\""]);
        model("speculation = true", &["models.toml:3:", "string"]);
        model("prefix_cache = \"off\"", &["models.toml:3:", "boolean"]);
    }

    #[test]
    fn choices_of_a_model() {
        let file =
            format!("[[model]]\npath = {HERE:?}\nquantize = \"q4_k\"\nspeculation = \"off\"\nprefix_cache = false");
        let env = [("SCONCE_KV_TYPE", "q8_0"), ("SCONCE_SPECULATION", "auto"), ("SCONCE_DEVICE", "cuda:1")];
        let model = load(Low::default(), &env, &file).unwrap().model;
        assert_eq!((model.quantize, model.kv_type), (Some(Quantize::Q4K), Some(KvType::Q8_0)));
        assert_eq!((model.speculation, model.prefix_cache), (Some(Speculation::Auto), Some(false)));
        assert_eq!(model.device, Some(DeviceChoice::Cuda(1)));
        let error = load(Low::default(), &[("SCONCE_KV_TYPE", "q4")], "").unwrap_err();
        assert_eq!(error, "SCONCE_KV_TYPE = \"q4\": must be \"f16\" or \"q8_0\"");
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
