//! Methods of Python's strings and lists that minijinja's own set lacks, and bounds for those that make long texts.

use minijinja::{Error, ErrorKind, State, Value, value::Tuple};
use minijinja_contrib::pycompat;

use super::operators::{STRING_BYTES_MAX, bounded, too_long};

/// Called for a method that a value does not have itself.
pub fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return match (method, args) {
            ("index", [item]) if value.try_iter().is_ok() => {
                let index = value.try_iter()?.position(|other| other == *item);
                index.map(Value::from).ok_or_else(|| invalid("the list does not have this item".into()))
            }
            _ => pycompat::unknown_method_callback(state, value, method, args),
        };
    };
    let arg = |index: usize| args.get(index).and_then(Value::as_str);
    let number = |index: usize| args.get(index).cloned().map(usize::try_from).transpose();
    Ok(match (method, arg(0)) {
        ("replace", Some(from)) => {
            let to = arg(1).ok_or_else(|| invalid("replace takes two strings".into()))?;
            let limit = args.get(2).cloned().map(i64::try_from).transpose()?.unwrap_or(-1);
            replace(text, from, to, usize::try_from(limit).ok())?.into()
        }
        ("removeprefix", Some(prefix)) => text.strip_prefix(prefix).unwrap_or(text).into(),
        ("removesuffix", Some(suffix)) => text.strip_suffix(suffix).unwrap_or(text).into(),
        ("partition", Some(separator)) => parts(text.split_once(separator), separator, [text, "", ""]),
        ("rpartition", Some(separator)) => parts(text.rsplit_once(separator), separator, ["", "", text]),
        ("rsplit", Some(separator)) if !separator.is_empty() => {
            let limit = number(1)?.unwrap_or(usize::MAX - 1);
            let mut pieces: Vec<&str> = text.rsplitn(limit + 1, separator).collect();
            pieces.reverse();
            pieces.into_iter().map(Value::from).collect()
        }
        ("index" | "rindex", Some(part)) => {
            let at = if method == "index" { text.find(part) } else { text.rfind(part) };
            let at = at.ok_or_else(|| invalid("the text does not have this part".into()))?;
            text[..at].chars().count().into()
        }
        ("zfill", _) => {
            let width = width(number(0)?)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            format!("{sign}{digits:0>width$}", width = width.saturating_sub(sign.len())).into()
        }
        ("ljust" | "rjust" | "center", _) => {
            let missing = width(number(0)?)?.saturating_sub(text.chars().count());
            let fill = arg(1).unwrap_or(" ");
            let left = match method {
                "ljust" => 0,
                "rjust" => missing,
                // Python's rounding.
                _ => missing / 2 + (missing & width(number(0)?)? & 1),
            };
            bounded([&fill.repeat(left), text, &fill.repeat(missing - left)].concat())?.into()
        }
        ("swapcase", _) => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            text.chars().map(swap).collect::<String>().into()
        }
        ("casefold", _) => text.to_lowercase().into(),
        ("encode", _) => text.as_bytes().to_vec().into(),
        _ => {
            if method == "join" {
                joins_within_bounds(text, args.first())?;
            }
            pycompat::unknown_method_callback(state, value, method, args)?
        }
    })
}

/// Python's `str.replace`: where nothing is looked for, `to` goes between all characters.
pub fn replace(text: &str, from: &str, to: &str, limit: Option<usize>) -> Result<String, Error> {
    let found = limit.unwrap_or(usize::MAX).min(text.matches(from).count());
    if text.len().saturating_add(found.saturating_mul(to.len())) > STRING_BYTES_MAX {
        return Err(too_long());
    }
    Ok(text.replacen(from, to, found))
}

/// Refuses to put items together whose text is too long.
pub fn joins_within_bounds(separator: &str, items: Option<&Value>) -> Result<(), Error> {
    let Some(items) = items else { return Ok(()) };
    let mut bytes = 0_usize;
    for item in items.try_iter()? {
        bytes += separator.len() + item.as_str().map_or(8, str::len);
        if bytes > STRING_BYTES_MAX {
            return Err(too_long());
        }
    }
    Ok(())
}

fn parts(split: Option<(&str, &str)>, separator: &str, whole: [&str; 3]) -> Value {
    let parts = split.map_or(whole, |(before, behind)| [before, separator, behind]);
    Value::from(Tuple::from(parts.map(Value::from)))
}

fn width(width: Option<usize>) -> Result<usize, Error> {
    match width {
        Some(width) if width <= STRING_BYTES_MAX => Ok(width),
        Some(_) => Err(too_long()),
        None => Err(invalid("a width is missing".into())),
    }
}

fn invalid(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}
