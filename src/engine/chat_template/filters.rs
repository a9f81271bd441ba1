//! Filters and tests where minijinja's differ from Python's Jinja2, or have no bounds.

use minijinja::{
    Environment, Error, State, Value,
    value::{Kwargs, Rest, ValueKind},
};

use super::{json, methods, operators};

/// Makes them known.
pub fn define(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("replace", |text: String, from: String, to: String, limit: Option<usize>| {
        methods::replace(&text, &from, &to, limit)
    });
    environment.add_filter("center", |state: &mut State, text: String, width: Option<usize>| {
        methods::call(state, &text.into(), "center", &[width.unwrap_or(80).into()])
    });
    environment.add_filter("wordcount", |text: String| text.split_whitespace().count());
    environment.add_filter("string", |value: &Value| operators::text(value));
    environment.add_filter("int", int);
    environment.add_filter("float", |value: Value, default: Option<f64>| {
        number(&value).unwrap_or(default.unwrap_or_default())
    });
    environment.add_filter("e", escape);
    environment.add_filter("escape", escape);
    environment.add_test("iterable", |value: &Value| {
        !matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number)
    });
    // What has a length and items.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
}

/// What is no number is the default, 0.
fn int(value: Value, default: Option<i64>) -> Value {
    let whole = value.as_str().and_then(|text| text.trim().replace('_', "").parse::<i64>().ok());
    match whole {
        Some(whole) => whole.into(),
        None if value.is_integer() => value,
        None => number(&value).map_or(default.unwrap_or_default(), |number| number as i64).into(),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::String => value.as_str()?.trim().parse().ok(),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        _ => f64::try_from(value.clone()).ok(),
    }
}

fn escape(text: String) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `join(d="", attribute=None)`, within bounds.
fn join(value: Value, rest: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let option = |index: usize, name| match rest.get(index) {
        Some(value) => Ok(Some(value.clone())),
        None => options.get::<Option<Value>>(name),
    };
    let separator = option(0, "d")?.map(|separator| separator.to_string()).unwrap_or_default();
    let attribute = option(1, "attribute")?.map(|attribute| attribute.to_string());
    options.assert_all_used()?;
    let mut joined = String::new();
    for (index, mut item) in value.try_iter()?.enumerate() {
        for name in attribute.iter().flat_map(|path| path.split('.')) {
            item = item.get_attr(name)?;
        }
        if index > 0 {
            joined.push_str(&separator);
        }
        joined = operators::bounded(joined + &operators::text(&item)?)?;
    }
    Ok(joined)
}

/// `indent(width=4, first=False, blank=False)`; minijinja's takes a line feed at the end away.
fn indent(text: String, rest: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let option = |index: usize, name| match rest.get(index) {
        Some(value) => Ok(Some(value.clone())),
        None => options.get::<Option<Value>>(name),
    };
    let space = match option(0, "width")? {
        Some(text) if text.as_str().is_some() => text.to_string(),
        Some(width) => " ".repeat(usize::try_from(width)?.min(1000)),
        None => " ".repeat(4),
    };
    let [first, blank] = [option(1, "first")?, option(2, "blank")?].map(|flag| flag.is_some_and(|flag| flag.is_true()));
    options.assert_all_used()?;
    if text.len().saturating_add(space.len() * text.matches('\n').count()) > operators::STRING_BYTES_MAX {
        return Err(operators::too_long());
    }
    let line = |(index, line): (usize, &str)| match index == 0 && !first || index > 0 && line.is_empty() && !blank {
        true => line.to_owned(),
        false => format!("{space}{line}"),
    };
    Ok(text.split('\n').enumerate().map(line).collect::<Vec<_>>().join("\n"))
}
