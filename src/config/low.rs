//! The configuration as its three sources spell it, before any check: flags, environment, `models.toml`.
//!
//! Every field is optional and loosely typed, so that a bad value is refused by the check in [`super`], which names
//! where it came from. Knows the TOML syntax and the environment's names; no defaults and no ranges.

use std::path::PathBuf;

use serde::Deserialize;

/// One source, parsed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Low {
    pub server: LowServer,
    pub model: Vec<LowModel>,
}

/// The `[server]` table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LowServer {
    pub host: Option<String>,
    pub port: Option<i64>,
    pub allow_open: Option<bool>,
    pub hosts: Option<Vec<String>>,
    pub loops: Option<i64>,
    pub connections_max: Option<i64>,
    pub body_bytes_max: Option<Size>,
    pub queue_max: Option<i64>,
    pub queue_seconds: Option<i64>,
    pub head_seconds: Option<i64>,
    pub idle_seconds: Option<i64>,
    pub ping_seconds: Option<i64>,
    pub drain_seconds: Option<i64>,
    pub models_memory: Option<Size>,
}

/// One `[[model]]` entry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LowModel {
    pub name: Option<String>,
    pub aliases: Option<Vec<String>>,
    pub path: Option<PathBuf>,
    pub default: Option<bool>,
    pub load: Option<String>,
    pub idle_seconds: Option<i64>,
    pub context: Option<i64>,
    pub device: Option<String>,
    pub threads: Option<i64>,
    pub kv_memory: Option<Size>,
    pub running_max: Option<i64>,
    pub gap_ms: Option<i64>,
    pub quantize: Option<String>,
    pub kv_type: Option<String>,
    pub prefix_cache: Option<bool>,
    pub speculation: Option<String>,
    pub template: Option<PathBuf>,
}

/// An amount of memory as written: a number of bytes, or text such as `"512 MiB"`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Bytes(i64),
    Text(String),
}

/// Parses `models.toml`. The error is the parser's: line, column and what was expected there.
pub fn parse(text: &str) -> Result<Low, toml::de::Error> {
    toml::from_str(text)
}

/// Names of the environment variables that are read, beside `SCONCE_CONFIG` and `SCONCE_LOG` of the command line.
pub const VARIABLES: [&str; 14] = [
    "SCONCE_HOST",
    "SCONCE_PORT",
    "SCONCE_ALLOW_OPEN",
    "SCONCE_LOOPS",
    "SCONCE_MODEL",
    "SCONCE_CONTEXT",
    "SCONCE_DEVICE",
    "SCONCE_THREADS",
    "SCONCE_KV_MEMORY",
    "SCONCE_RUNNING_MAX",
    "SCONCE_QUANTIZE",
    "SCONCE_KV_TYPE",
    "SCONCE_PREFIX_CACHE",
    "SCONCE_SPECULATION",
];

/// Reads the environment through `variable`; `Err` names the variable and what it should hold.
pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Low, String> {
    let text = |name: &str| variable(name).filter(|value| !value.is_empty());
    let integer = |name: &str| match text(name) {
        None => Ok(None),
        Some(value) => match value.trim().parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{name}={value:?}: expected a whole number")),
        },
    };
    let flag = |name: &str| match text(name).as_deref() {
        None => Ok(None),
        Some("1" | "true" | "yes") => Ok(Some(true)),
        Some("0" | "false" | "no") => Ok(Some(false)),
        Some(value) => Err(format!("{name}={value:?}: expected true or false")),
    };
    let server = LowServer {
        host: text("SCONCE_HOST"),
        port: integer("SCONCE_PORT")?,
        allow_open: flag("SCONCE_ALLOW_OPEN")?,
        loops: integer("SCONCE_LOOPS")?,
        ..LowServer::default()
    };
    let model = LowModel {
        path: text("SCONCE_MODEL").map(PathBuf::from),
        context: integer("SCONCE_CONTEXT")?,
        device: text("SCONCE_DEVICE"),
        threads: integer("SCONCE_THREADS")?,
        kv_memory: text("SCONCE_KV_MEMORY").map(Size::Text),
        running_max: integer("SCONCE_RUNNING_MAX")?,
        quantize: text("SCONCE_QUANTIZE"),
        kv_type: text("SCONCE_KV_TYPE"),
        prefix_cache: flag("SCONCE_PREFIX_CACHE")?,
        speculation: text("SCONCE_SPECULATION"),
        ..LowModel::default()
    };
    Ok(Low { server, model: vec![model] })
}

/// Bytes of `"512 MiB"`, `"1.5 GB"`, `"4096"`; `None` when it is not a size that fits.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let bytes = number.parse::<f64>().ok()? * scale as f64;
    (bytes < 9e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("512 MiB", Some(512 << 20)),
            ("2GiB", Some(2 << 30)),
            (" 1.5 GB ", Some(1_500_000_000)),
            ("64k", Some(65536)),
            ("", None),
            ("MiB", None),
            ("-1 MiB", None),
            ("1.2.3 MB", None),
            ("12 parsecs", None),
            ("99999999999999999999 GiB", None),
            ("18446744073709551615 KiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn environment() {
        let read = |pairs: &'static [(&str, &str)]| {
            from_environment(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
        };
        let low = read(&[("SCONCE_PORT", "9"), ("SCONCE_MODEL", "m.gguf"), ("SCONCE_ALLOW_OPEN", "yes")]).unwrap();
        assert_eq!(low.server.port, Some(9));
        assert_eq!(low.server.allow_open, Some(true));
        assert_eq!(low.model[0].path, Some("m.gguf".into()));
        assert_eq!(read(&[("SCONCE_PORT", "")]).unwrap().server.port, None, "empty is unset");
        assert_eq!(read(&[("SCONCE_PORT", "x")]).unwrap_err(), r#"SCONCE_PORT="x": expected a whole number"#);
        assert!(read(&[("SCONCE_ALLOW_OPEN", "2")]).unwrap_err().contains("SCONCE_ALLOW_OPEN"));
    }
}
