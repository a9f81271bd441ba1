//! Options that exclude each other: where one of them holds, exactly one does.

use serde_json::{Map, Value};

use super::resolve;

/// Whether no value satisfies two of `options`, as far as their types and the constants of their required properties tell.
pub fn exclude_each_other(options: &[Value], root: &Value) -> bool {
    let options: Option<Vec<&Map<String, Value>>> = options.iter().map(|option| target(option, root)).collect();
    let Some(options) = options else { return false };
    (1..options.len()).all(|i| options[..i].iter().all(|earlier| apart(earlier, options[i], root)))
}

/// What an option that is nothing but a reference refers to.
fn target<'a>(mut option: &'a Value, root: &'a Value) -> Option<&'a Map<String, Value>> {
    // References of references are rare, and may go round.
    for _ in 0..8 {
        let schema = option.as_object()?;
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) if schema.len() == 1 => option = resolve(root, reference)?,
            _ => return Some(schema),
        }
    }
    None
}

fn apart(one: &Map<String, Value>, other: &Map<String, Value>, root: &Value) -> bool {
    if let (Some(ones), Some(others)) = (types(one), types(other))
        && ones.iter().all(|one| others.iter().all(|other| !overlap(one, other)))
    {
        return true;
    }
    if let (Some(ones), Some(others)) = (constants(one), constants(other)) {
        return ones.iter().all(|one| !others.contains(one));
    }
    // A property that both must have and that tells them apart.
    let is_object = |schema: &Map<String, Value>| types(schema).is_some_and(|types| types == ["object"]);
    let required = |schema: &Map<String, Value>, name: &str| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    let (Some(ones), Some(others)) = (properties(one), properties(other)) else { return false };
    is_object(one)
        && is_object(other)
        && ones.iter().any(|(name, one_schema)| {
            let both = required(one, name) && required(other, name);
            let schemas = (target(one_schema, root), others.get(name).and_then(|schema| target(schema, root)));
            match schemas {
                (Some(one), Some(other)) if both => match (constants(one), constants(other)) {
                    (Some(ones), Some(others)) => ones.iter().all(|one| !others.contains(one)),
                    _ => false,
                },
                _ => false,
            }
        })
}

fn properties(schema: &Map<String, Value>) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn overlap(one: &str, other: &str) -> bool {
    one == other || matches!((one, other), ("integer", "number") | ("number", "integer"))
}

/// Strings, booleans and null only: 1 and 1.0 are equal, but not here.
fn constants(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    let values = match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => vec![value],
        (None, Some(Value::Array(values))) => values.iter().collect(),
        _ => return None,
    };
    values.iter().all(|value| value.is_string() || value.is_boolean() || value.is_null()).then_some(values)
}
