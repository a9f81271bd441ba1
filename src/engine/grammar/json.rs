//! How JSON is written.

use serde_json::{Map, Value, json};

/// Escapes within strings. Not `\u`: with it, a key could be spelled in a second way and slip past what its schema says.
const ESCAPES: &str = "nrbtf\\\"";

/// Between two tokens of JSON of an answer that no schema describes.
const BLANKS: &str = r" {1,4}|\r?\n( {0,32}|\t{0,8})";

/// Integers beyond it are not the same in every reader (RFC 8259 §6).
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// Keeps numbers that no schema bounds within what every reader takes, and free of exponents: `1e999` is JSON, too.
const NUMBER_MAX: f64 = 1e15;

/// A schema as the matcher takes it, with the options that go with it. `schema` is an object.
pub fn one_way(schema: Map<String, Value>) -> Value {
    with_options(
        schema,
        json!({
            "item_separator": ", ",
            "key_separator": ": ",
            "whitespace_flexible": false,
            "json_allowed_escapes": ESCAPES,
        }),
    )
}

/// Any object, laid out as the model likes.
pub fn any_object() -> Value {
    let any = json!({ "$ref": "#/$defs/any" });
    let mut number = Map::from_iter([("type".into(), "number".into())]);
    bound(&mut number);
    let schema = json!({
        "$ref": "#/$defs/object",
        "$defs": {
            "object": { "type": "object", "additionalProperties": any },
            "any": { "anyOf": [
                { "type": ["null", "boolean", "string"] },
                number,
                { "type": "array", "items": any },
                { "$ref": "#/$defs/object" },
            ] },
        },
    });
    let Value::Object(schema) = schema else { return schema };
    with_options(
        schema,
        json!({
            "item_separator": ",",
            "key_separator": ":",
            "whitespace_pattern": BLANKS,
            "json_allowed_escapes": ESCAPES,
        }),
    )
}

fn with_options(mut schema: Map<String, Value>, options: Value) -> Value {
    schema.insert("x-guidance".into(), options);
    Value::Object(schema)
}

/// Gives a schema of numbers the bounds that it does not have itself.
pub fn bound(schema: &mut Map<String, Value>) {
    let has = |name: &str| match schema.get("type") {
        Some(Value::String(kind)) => kind == name,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    let limit: Value = match (has("number"), has("integer")) {
        (true, _) => NUMBER_MAX.into(),
        (false, true) => INTEGER_MAX.into(),
        (false, false) => return,
    };
    let beyond = |keys: [&str; 2], sign: f64| {
        let bounds = keys.iter().filter_map(|key| schema.get(*key).and_then(Value::as_f64));
        bounds.into_iter().any(|bound| bound * sign >= limit.as_f64().unwrap_or(f64::MAX))
    };
    let lower = ["minimum", "exclusiveMinimum"];
    let upper = ["maximum", "exclusiveMaximum"];
    let needs_lower = lower.iter().all(|key| !schema.contains_key(*key)) && !beyond(upper, -1.0);
    let needs_upper = upper.iter().all(|key| !schema.contains_key(*key)) && !beyond(lower, 1.0);
    if needs_lower {
        let least = limit.as_i64().map_or_else(|| Value::from(-NUMBER_MAX), |limit| (-limit).into());
        schema.insert("minimum".into(), least);
    }
    if needs_upper {
        schema.insert("maximum".into(), limit);
    }
}
