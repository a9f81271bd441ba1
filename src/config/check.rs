//! Checks what the three sources say together: ranges, sizes, files, and what must not be combined.
//!
//! A value keeps the place it was given at in its writer's words (`--port`, `SCONCE_PORT`, `models.toml: [server] port`),
//! so that an error says what to edit.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use super::{Config, ConfigError, Lines, Low, LowServer, Machine, ServerConfig, Size, model, parse_size, show_bytes};

/// Less holds no model.
const MODELS_BYTES_MIN: u64 = 1 << 20;

/// The configuration that the layers come to.
pub fn config(layers: &Layers) -> Result<Config, ConfigError> {
    Ok(Config { server: check_server(layers)?, models: model::check(layers)? })
}

/// The three sources side by side, and the machine that their settings are for.
pub struct Layers {
    pub flags: Low,
    pub env: Low,
    pub file: Low,
    /// Where the file's keys stand.
    pub lines: Lines,
    pub path: PathBuf,
    pub machine: Machine,
}

/// A value and where it was given, in the words its writer used.
pub struct Given<T> {
    pub value: T,
    pub place: String,
}

impl Layers {
    fn server<T: Clone>(&self, key: &str, get: impl Fn(&LowServer) -> &Option<T>) -> Option<Given<T>> {
        let given = [get(&self.flags.server), get(&self.env.server), get(&self.file.server)];
        self.pick(key, "server", 0, given)
    }

    /// The first that is given. In the file it is in `[table]`, or in the so-manieth `[[table]]`.
    pub fn pick<T: Clone>(
        &self,
        key: &str,
        table: &str,
        index: usize,
        [flag, env, file]: [&Option<T>; 3],
    ) -> Option<Given<T>> {
        if let Some(value) = flag {
            let name = if key == "path" { "model" } else { key };
            return Some(Given { value: value.clone(), place: format!("--{}", name.replace('_', "-")) });
        }
        if let Some(value) = env {
            let name = if key == "path" { "model" } else { key };
            return Some(Given { value: value.clone(), place: format!("SCONCE_{}", name.to_ascii_uppercase()) });
        }
        Some(Given { value: file.clone()?, place: self.place(key, table, index) })
    }

    /// Where a key stands in the file, or where it is missing.
    pub fn place(&self, key: &str, table: &str, index: usize) -> String {
        let line = self.lines.get(table, index, key).map_or(String::new(), |line| format!(":{line}"));
        let table = if table == "model" { "[[model]]" } else { "[server]" };
        format!("{}{line}: {table} {key}", self.path.display())
    }
}

impl<T: fmt::Debug> Given<T> {
    pub fn refuse<U>(&self, why: impl fmt::Display) -> Result<U, ConfigError> {
        Err(ConfigError(format!("{} = {:?}: {why}", self.place, self.value)))
    }
}

/// `None` stays; a number outside `low..=high` is refused.
pub fn ranged(given: Option<Given<i64>>, low: u64, high: u64) -> Result<Option<u64>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    match u64::try_from(given.value) {
        Ok(value) if (low..=high).contains(&value) => Ok(Some(value)),
        _ => given.refuse(format_args!("must be {low} to {high}")),
    }
}

/// `None` stays; a size that can't be read or lies outside `low..=high` is refused.
pub fn sized(given: Option<Given<Size>>, low: u64, high: u64) -> Result<Option<u64>, ConfigError> {
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
pub fn chosen<T: Copy>(given: Option<Given<String>>, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
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
        models_bytes_max: sized(
            layers.server("models_memory", |s| &s.models_memory),
            MODELS_BYTES_MIN,
            layers.machine.memory_bytes.unwrap_or(1 << 44).max(MODELS_BYTES_MIN),
        )?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::{
        config::{
            KvType, Load, LowModel, ModelConfig, ModelSource, Quantize, Speculation, from_environment, parse_file,
        },
        engine::device::DeviceChoice,
    };

    fn load(flags: Low, env: &[(&str, &str)], file: &str) -> Result<Config, String> {
        let layers = Layers {
            flags,
            env: from_environment(|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))?,
            file: parse_file(Path::new("models.toml"), file).map_err(|e| e.to_string())?,
            lines: Lines::of(file),
            path: PathBuf::from("models.toml"),
            machine: Machine { cpus: 2, memory_bytes: Some(8 << 30) },
        };
        config(&layers).map_err(|e| e.to_string())
    }

    fn one(flags: Low, env: &[(&str, &str)], file: &str) -> ModelConfig {
        let mut models = load(flags, env, file).unwrap().models;
        assert_eq!(models.len(), 1);
        models.remove(0)
    }

    /// This file stands in for a model: it exists.
    const HERE: &str = file!();

    #[test]
    fn nothing_given_serves_the_demo_on_loopback() {
        let config = load(Low::default(), &[], "").unwrap();
        assert_eq!(config.server.address, "127.0.0.1:8080".parse().unwrap());
        let [model] = &config.models[..] else { panic!("{:?}", config.models) };
        assert_eq!((&model.source, model.name.as_str()), (&ModelSource::Demo, "demo"));
        assert_eq!((model.default, model.load, model.idle_max), (true, Load::Start, None));
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
    fn model_flags_replace_the_files_entries() {
        let file = format!("[[model]]\npath = {HERE:?}\ncontext = 64\n[[model]]\npath = {HERE:?}\nname = \"b\"");
        assert_eq!(load(Low::default(), &[], &file).unwrap().models.len(), 2);
        let flag = |path: &str| LowModel { path: Some(path.into()), threads: Some(2), ..LowModel::default() };
        let flags = Low { model: vec![flag(HERE)], ..Low::default() };
        let model = one(flags.clone(), &[("SCONCE_MODEL", "unseen.gguf")], &file);
        assert_eq!((model.context, model.threads), (None, Some(2)));
        assert_eq!(model.name, "check", "the file's own name");
        let env = [("SCONCE_MODEL", HERE), ("SCONCE_CONTEXT", "99")];
        assert_eq!(one(Low::default(), &env, &file).context, Some(99));

        let two = Low { model: vec![flag(HERE), flag("Cargo.toml")], ..Low::default() };
        let models = load(two.clone(), &[], &file).unwrap().models;
        let told: Vec<_> = models.iter().map(|m| (m.name.as_str(), m.default, m.load, m.threads)).collect();
        assert_eq!(told, [("check", true, Load::Start, Some(2)), ("Cargo", false, Load::FirstUse, Some(2))]);
        let mut named = two;
        named.model.iter_mut().for_each(|model| model.name = Some("x".to_owned()));
        assert!(load(named, &[], "").unwrap_err().contains("--name = \"x\": names one model, but there are 2"));
        let twice = Low { model: vec![flag(HERE), flag(HERE)], ..Low::default() };
        assert!(load(twice, &[], "").unwrap_err().contains("\"check\""));
    }

    #[test]
    fn several_models() {
        let file = format!(
            "[server]\nmodels_memory = \"2 GiB\"\n[[model]]\npath = {HERE:?}\nname = \"a\"\naliases = [\"gpt-4o\", \"x/y:z\"]\n\
             idle_seconds = 0\n[[model]]\npath = {HERE:?}\nname = \"b\"\ndefault = true\nidle_seconds = 60\n[[model]]\n\
             path = {HERE:?}\nname = \"c\"\nload = \"start\"\nthreads = 1"
        );
        let env = [("SCONCE_THREADS", "3")];
        let config = load(Low::default(), &env, &file).unwrap();
        assert_eq!(config.server.models_bytes_max, Some(2 << 30));
        assert_eq!(config.default_model().name, "b");
        let minute = Some(Duration::from_secs(60));
        let told: Vec<_> = config.models.iter().map(|m| (m.name.as_str(), m.load, m.idle_max, m.threads)).collect();
        let (start, first_use) = (Load::Start, Load::FirstUse);
        assert_eq!(
            told,
            [("a", start, None, Some(3)), ("b", first_use, minute, Some(3)), ("c", start, None, Some(3))],
            "settings of the environment hold for all"
        );
        assert_eq!(config.models[0].aliases, ["gpt-4o", "x/y:z"]);
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
        check("[server]\nport = 70000", &["models.toml:2: [server] port = 70000", "0 to 65535"]);
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
        check("[server]\nmodels_memory = 1", &["models_memory = \"1\"", "1 MiB to 8 GiB"]);
        check("[[model]]\nname = \"x\"", &["models.toml: [[model]] path", "\"x\"", "missing"]);
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
        model("load = \"never\"", &["models.toml:3: [[model]] load = \"never\"", "\"start\" or \"first_use\""]);
        model("idle_seconds = -1", &["models.toml:3: [[model]] idle_seconds = -1", "0 to"]);
        model("aliases = \"a\"", &["models.toml:3:", "sequence"]);
        model("aliases = [\"a\", \"b c\"]", &["models.toml:3: [[model]] aliases", "\"b c\"", "letters"]);
        model("aliases = [\"a\", \"a\"]", &["models.toml:3: [[model]] aliases = \"a\"", "already", "models.toml:3"]);
        model("aliases = [\"check\"]", &["models.toml:3: [[model]] aliases = \"check\"", "already"]);
        let two = |first: &str, second: &str, parts: &[&str]| {
            let entry = |name: &str, line: &str| format!("[[model]]\npath = {HERE:?}\nname = {name:?}\n{line}\n");
            check(&(entry("a", first) + &entry("b", second)), parts);
        };
        two(
            "",
            "aliases = [\"a\"]",
            &["models.toml:8: [[model]] aliases = \"a\"", "already", "models.toml:3: [[model]] name"],
        );
        two(
            "default = true",
            "default = true",
            &["models.toml:8: [[model]] default", "models.toml:4: [[model]] default"],
        );
        two("", "threads = 0", &["models.toml:8: [[model]] threads = 0"]);
        check(&format!("[[model]]\npath = {HERE:?}\n[[model]]\npath = {HERE:?}"), &["\"check\"", "already", "name"]);
    }

    #[test]
    fn choices_of_a_model() {
        let file =
            format!("[[model]]\npath = {HERE:?}\nquantize = \"q4_k\"\nspeculation = \"off\"\nprefix_cache = false");
        let env = [("SCONCE_KV_TYPE", "q8_0"), ("SCONCE_SPECULATION", "auto"), ("SCONCE_DEVICE", "cuda:1")];
        let model = one(Low::default(), &env, &file);
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
