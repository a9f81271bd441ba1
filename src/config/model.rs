//! Checks the models: which entries there are, what each says, and that no two share a name.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    ConfigError, KvType, Load, LowModel, ModelConfig, ModelSource, Quantize, Speculation,
    check::{Given, Layers, chosen, ranged, sized},
};
use crate::engine::device::DeviceChoice;

/// More compute threads than this for each CPU only wait for each other.
const THREADS_PER_CPU_MAX: usize = 4;
const KV_BYTES_MIN: u64 = 64 << 10;
const NAME_BYTES_MAX: usize = 96;
const ALIASES_MAX: usize = 32;
const MODELS_MAX: usize = 256;

/// What the three sources say of one model.
struct Entry<'a> {
    layers: &'a Layers,
    flags: &'a LowModel,
    env: &'a LowModel,
    file: &'a LowModel,
    /// Among those of its source.
    index: usize,
}

impl Entry<'_> {
    fn get<T: Clone>(&self, key: &str, get: impl Fn(&LowModel) -> &Option<T>) -> Option<Given<T>> {
        self.layers.pick(key, "model", self.index, [get(self.flags), get(self.env), get(self.file)])
    }
}

/// Every model that is served. `--model` names others than the file does: what the file says of its own does not apply
/// to them. What flags and environment say beside a path holds for all.
pub fn check(layers: &Layers) -> Result<Vec<ModelConfig>, ConfigError> {
    let none = LowModel::default();
    let [flag, env] = [&layers.flags, &layers.env].map(|low| low.model.first().unwrap_or(&none));
    let entry = |flags, file, index| Entry { layers, flags, env, file, index };
    let entries: Vec<Entry> = if flag.path.is_some() {
        layers.flags.model.iter().enumerate().map(|(index, flags)| entry(flags, &none, index)).collect()
    } else if env.path.is_some() || layers.file.model.is_empty() {
        vec![entry(flag, &none, 0)]
    } else {
        layers.file.model.iter().enumerate().map(|(index, file)| entry(flag, file, index)).collect()
    };
    if entries.len() > MODELS_MAX {
        return Err(ConfigError(format!("{} models: {MODELS_MAX} at most", entries.len())));
    }
    let mut names = Names::default();
    let mut models = Vec::with_capacity(entries.len());
    for entry in &entries {
        models.push(check_model(entry, entries.len(), &mut names)?);
    }
    if names.default.is_none() {
        models[0].default = true;
    }
    Ok(models)
}

/// Who has which name, and where that is said.
#[derive(Default)]
struct Names {
    taken: HashMap<String, String>,
    default: Option<String>,
}

impl Names {
    fn take(&mut self, name: Given<String>) -> Result<String, ConfigError> {
        if let Some(place) = self.taken.get(&name.value) {
            return name.refuse(format_args!("already taken by {place}: give each model a name of its own"));
        }
        self.taken.insert(name.value.clone(), name.place);
        Ok(name.value)
    }
}

fn check_model(entry: &Entry, models: usize, names: &mut Names) -> Result<ModelConfig, ConfigError> {
    let layers = entry.layers;
    let path = entry.get("path", |m| &m.path);
    if path.is_none() && !layers.file.model.is_empty() {
        let place = layers.place("path", "model", entry.index);
        let name = entry.file.name.as_ref().map_or(String::new(), |name| format!(" of {name:?}"));
        return Err(ConfigError(format!(
            "{place}{name}: missing; add path = \"FILE.gguf\", or remove the entry (without any, the demo model is served)"
        )));
    }
    let source = match path {
        Some(path) => ModelSource::File(check_path(layers, path, Kind::Model)?),
        None => ModelSource::Demo,
    };
    let template = match entry.get("template", |m| &m.template) {
        Some(path) => Some(check_path(layers, path, Kind::Template)?),
        None => None,
    };
    let name = names.take(check_name(entry, models, &source)?)?;
    Ok(ModelConfig {
        name,
        aliases: check_aliases(entry, names)?,
        default: check_default(entry, names)?,
        load: chosen(entry.get("load", |m| &m.load), &[("start", Load::Start), ("first_use", Load::FirstUse)])?
            .unwrap_or(if entry.index == 0 { Load::Start } else { Load::FirstUse }),
        idle_max: ranged(entry.get("idle_seconds", |m| &m.idle_seconds), 0, 31_536_000)?
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        source,
        context: ranged(entry.get("context", |m| &m.context), 32, 1 << 24)?.map(|n| n as usize),
        device: check_device(entry)?,
        threads: check_threads(entry)?,
        kv_bytes: check_kv_memory(entry)?,
        running_max: ranged(entry.get("running_max", |m| &m.running_max), 1, 4_096)?.map(|n| n as usize),
        gap: ranged(entry.get("gap_ms", |m| &m.gap_ms), 1, 60_000)?.map(Duration::from_millis),
        quantize: chosen(entry.get("quantize", |m| &m.quantize), &[("q8_0", Quantize::Q8_0), ("q4_k", Quantize::Q4K)])?,
        kv_type: chosen(entry.get("kv_type", |m| &m.kv_type), &[("f16", KvType::F16), ("q8_0", KvType::Q8_0)])?,
        prefix_cache: entry.get("prefix_cache", |m| &m.prefix_cache).map(|given| given.value),
        speculation: chosen(
            entry.get("speculation", |m| &m.speculation),
            &[("auto", Speculation::Auto), ("off", Speculation::Off)],
        )?,
        template,
    })
}

fn check_device(entry: &Entry) -> Result<Option<DeviceChoice>, ConfigError> {
    let Some(given) = entry.get("device", |m| &m.device) else { return Ok(None) };
    match given.value.parse() {
        Ok(device) => Ok(Some(device)),
        Err(_) => given.refuse("must be \"auto\", \"cpu\", \"cuda\", \"cuda:NUMBER\" or \"metal\""),
    }
}

fn check_threads(entry: &Entry) -> Result<Option<usize>, ConfigError> {
    let Some(given) = entry.get("threads", |m| &m.threads) else { return Ok(None) };
    let cpus = entry.layers.machine.cpus;
    match usize::try_from(given.value) {
        Ok(threads) if (1..=cpus * THREADS_PER_CPU_MAX).contains(&threads) => Ok(Some(threads)),
        _ => given.refuse(format_args!(
            "must be 1 to {}, as this process may use {cpus} CPUs; leave it out for one thread on each",
            cpus * THREADS_PER_CPU_MAX
        )),
    }
}

fn check_kv_memory(entry: &Entry) -> Result<Option<u64>, ConfigError> {
    let memory = entry.layers.machine.memory_bytes.unwrap_or(1 << 44);
    sized(entry.get("kv_memory", |m| &m.kv_memory), KV_BYTES_MIN, memory.max(KV_BYTES_MIN))
}

/// What a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Template,
}

/// A path in the file is relative to the file; elsewhere to the working directory. It must be a readable file.
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

/// The name that was given, or the file's.
fn check_name(entry: &Entry, models: usize, source: &ModelSource) -> Result<Given<String>, ConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if let Some(given) = entry.get("name", |m| &m.name) {
        if models > 1 && !given.place.contains("[[model]]") {
            return given.refuse(format_args!("names one model, but there are {models}"));
        }
        let good = (1..=NAME_BYTES_MAX).contains(&given.value.len()) && given.value.chars().all(plain);
        return if good { Ok(given) } else { given.refuse("1 to 96 letters, digits, '.', '_' or '-'") };
    }
    let (stem, place) = match source {
        ModelSource::Demo => ("demo".into(), "the demo model".to_owned()),
        ModelSource::File(path) => {
            // A folder's name has no ending: the one in Qwen2.5-0.5B is part of it.
            let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
            (stem.map(|s| s.to_string_lossy()).unwrap_or_default(), path.display().to_string())
        }
    };
    let name: String = stem.chars().take(NAME_BYTES_MAX).map(|c| if plain(c) { c } else { '-' }).collect();
    let value = if name.is_empty() { "model".to_owned() } else { name };
    Ok(Given { value, place: format!("the file name of {place}") })
}

fn check_aliases(entry: &Entry, names: &mut Names) -> Result<Vec<String>, ConfigError> {
    let Some(given) = entry.get("aliases", |m| &m.aliases) else { return Ok(Vec::new()) };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    let good = |name: &String| (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(plain);
    if !given.value.iter().all(good) || given.value.len() > ALIASES_MAX {
        return given.refuse("at most 32, each of 1 to 96 letters, digits, '.', '_', '-', ':' or '/'");
    }
    let take = |name| names.take(Given { value: name, place: given.place.clone() });
    given.value.into_iter().map(take).collect()
}

fn check_default(entry: &Entry, names: &mut Names) -> Result<bool, ConfigError> {
    let Some(given) = entry.get("default", |m| &m.default).filter(|given| given.value) else { return Ok(false) };
    match names.default.replace(given.place.clone()) {
        Some(other) => given.refuse(format_args!("one model can be the default, and {other} says so, too")),
        None => Ok(true),
    }
}
