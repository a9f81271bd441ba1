//! `keep_alive`: how long a model stays in memory after a request.

use std::time::Duration;

use serde_json::Value;

use crate::api::{
    error::ApiError,
    fields::{Fields, kind},
    state::Api,
};

/// Longer is for ever.
const LONGEST_SECONDS: f64 = 1e9;

/// How long a model stays after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// It goes when its requests have ended.
    Unload,
    For(Duration),
    Forever,
}

impl KeepAlive {
    /// Reads the field: seconds, or a duration as Go writes it (`5m`, `1h30m`, `250ms`); negative is for ever.
    pub fn read(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let seconds = match fields.take("keep_alive") {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => seconds(&text),
            Some(other) => {
                let message = format!("expected seconds or a duration such as \"5m\", not {}", kind(&other));
                return fields.refuse("keep_alive", message);
            }
        };
        match seconds {
            Some(0.0) => Ok(Some(Self::Unload)),
            Some(seconds) if !(0.0..=LONGEST_SECONDS).contains(&seconds) => Ok(Some(Self::Forever)),
            Some(seconds) => Ok(Some(Self::For(Duration::from_secs_f64(seconds)))),
            None => fields.refuse("keep_alive", "expected seconds or a duration such as \"5m\"".to_owned()),
        }
    }

    /// Has the model of this name stay so long from now on.
    pub fn apply(self, api: &Api, name: &str) -> Result<(), ApiError> {
        match self {
            Self::Unload => api.models().unload(name),
            Self::For(time) => api.models().keep(Some(name), Some(time)),
            Self::Forever => api.models().keep(Some(name), None),
        }
    }
}

/// A duration as Go writes it: a sign, then numbers with units. A number alone is seconds.
fn seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut sum = 0.0;
    let mut first = true;
    while first || !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" if first && after.is_empty() => 1.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * scale;
        rest = after;
        first = false;
    }
    Some(sign * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let read = |json: &str| KeepAlive::read(&mut Fields::parse(format!("{{\"keep_alive\":{json}}}").as_bytes())?);
        let after = |seconds: f64| Some(KeepAlive::For(Duration::from_secs_f64(seconds)));
        for (json, expected) in [
            ("null", None),
            ("0", Some(KeepAlive::Unload)),
            ("\"0\"", Some(KeepAlive::Unload)),
            ("\"0s\"", Some(KeepAlive::Unload)),
            ("-1", Some(KeepAlive::Forever)),
            ("\"-1m\"", Some(KeepAlive::Forever)),
            ("1e300", Some(KeepAlive::Forever)),
            ("300", after(300.0)),
            ("1.5", after(1.5)),
            ("\"5m\"", after(300.0)),
            ("\"1h30m\"", after(5400.0)),
            ("\"250ms\"", after(0.25)),
        ] {
            assert_eq!(read(json).unwrap(), expected, "{json}");
        }
        for json in ["\"\"", "\"m\"", "\"5x\"", "\"5m3\"", "\"soon\"", "\".\"", "true", "[]", "{}", "\"1h-5m\""] {
            assert_eq!(read(json).unwrap_err().param(), Some("keep_alive"), "{json}");
        }
    }
}
