//! Python's `+`, `~`, `*` and `%` in templates.
//!
//! minijinja's know no `'%s' % x`, and make strings of any length: a template that doubles one sixty times would take all
//! memory long before it runs out of steps. So a template's source is rewritten (`rewrite`): `a + b` becomes `__add(a, b)`,
//! and these functions do what Python does, within bounds.

use minijinja::{
    Environment, Error, ErrorKind, Value,
    formatting::{FormatStyle, format},
    value::{Tuple, ValueKind},
};

/// Bytes of one string that a template makes.
pub const STRING_BYTES_MAX: usize = 16 << 20;
/// Items of one list that a template makes.
const ITEMS_MAX: usize = 1 << 18;

/// Makes the functions known that a rewritten template calls.
pub fn define(environment: &mut Environment<'static>) {
    environment.add_function("__add", add);
    environment.add_function("__concat", concat);
    environment.add_function("__mul", multiply);
    environment.add_function("__mod", remainder);
}

fn concat(left: Value, right: Value) -> Result<String, Error> {
    joined(&text(&left)?, &text(&right)?)
}

/// What Python's `str` makes of a value.
pub fn text(value: &Value) -> Result<String, Error> {
    match value.kind() {
        // minijinja writes floats without exponents.
        ValueKind::Number if !value.is_integer() => format(FormatStyle::Printf, "%s", std::slice::from_ref(value)),
        _ => Ok(value.to_string()),
    }
}

fn add(left: Value, right: Value) -> Result<Value, Error> {
    match (left.kind(), right.kind()) {
        (ValueKind::String, ValueKind::String) => {
            joined(left.as_str().unwrap_or_default(), right.as_str().unwrap_or_default()).map(Value::from)
        }
        (ValueKind::Seq | ValueKind::Iterable, ValueKind::Seq | ValueKind::Iterable)
            if left.is_tuple() == right.is_tuple() =>
        {
            list(left.try_iter()?.chain(right.try_iter()?).take(ITEMS_MAX + 1).collect(), left.is_tuple())
        }
        _ => arithmetic("+", &left, &right, i128::checked_add, |a, b| a + b),
    }
}

fn multiply(left: Value, right: Value) -> Result<Value, Error> {
    let (many, times) = if is_integer(&left) { (&right, &left) } else { (&left, &right) };
    let times = || Ok::<_, Error>(usize::try_from(integer(times)?.max(0)).unwrap_or(usize::MAX));
    match many.kind() {
        ValueKind::String => {
            let (text, times) = (many.as_str().unwrap_or_default(), times()?);
            match text.len().checked_mul(times) {
                Some(bytes) if bytes <= STRING_BYTES_MAX => Ok(text.repeat(times).into()),
                _ => Err(too_long()),
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = many.try_iter()?.collect();
            let times = if items.is_empty() { 0 } else { times()? };
            if items.len().saturating_mul(times) > ITEMS_MAX {
                return Err(too_long());
            }
            list(std::iter::repeat_n(items, times).flatten().collect(), many.is_tuple())
        }
        _ => arithmetic("*", &left, &right, i128::checked_mul, |a, b| a * b),
    }
}

fn remainder(left: Value, right: Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        let values = match right.is_tuple() {
            true => right.try_iter()?.collect(),
            false => vec![right],
        };
        return bounded(format(FormatStyle::Printf, text, &values)?).map(Value::from);
    }
    // The sign is the right side's, as in Python.
    let floored = |a: f64, b: f64| a - b * (a / b).floor();
    arithmetic(
        "%",
        &left,
        &right,
        |a, b| a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }),
        floored,
    )
}

fn arithmetic(
    name: &str,
    left: &Value,
    right: &Value,
    integers: impl Fn(i128, i128) -> Option<i128>,
    floats: impl Fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let wrong = || {
        let (left, right) = (left.kind(), right.kind());
        Error::new(ErrorKind::InvalidOperation, format!("{name} can't be used on {left} and {right}"))
    };
    let is_number = |value: &Value| is_integer(value) || value.kind() == ValueKind::Number;
    if is_integer(left) && is_integer(right) {
        return Ok(Value::from(integers(integer(left)?, integer(right)?).ok_or_else(wrong)?));
    }
    if !is_number(left) || !is_number(right) {
        return Err(wrong());
    }
    let float =
        |value: &Value| if is_integer(value) { integer(value).map(|n| n as f64) } else { f64::try_from(value.clone()) };
    Ok(Value::from(floats(float(left)?, float(right)?)))
}

fn is_integer(value: &Value) -> bool {
    value.is_integer() || value.kind() == ValueKind::Bool
}

fn integer(value: &Value) -> Result<i128, Error> {
    if value.kind() == ValueKind::Bool { Ok(value.is_true().into()) } else { i128::try_from(value.clone()) }
}

fn joined(left: &str, right: &str) -> Result<String, Error> {
    if left.len() + right.len() > STRING_BYTES_MAX {
        return Err(too_long());
    }
    Ok([left, right].concat())
}

fn list(items: Vec<Value>, is_tuple: bool) -> Result<Value, Error> {
    match items.len() <= ITEMS_MAX {
        true if is_tuple => Ok(Value::from(Tuple::from(items))),
        true => Ok(Value::from(items)),
        false => Err(too_long()),
    }
}

/// `text`, unless it is too long.
pub fn bounded(text: String) -> Result<String, Error> {
    if text.len() <= STRING_BYTES_MAX { Ok(text) } else { Err(too_long()) }
}

pub fn too_long() -> Error {
    let why = format!("it makes texts of more than {STRING_BYTES_MAX} bytes, or lists of more than {ITEMS_MAX} items");
    Error::new(ErrorKind::InvalidOperation, why)
}
