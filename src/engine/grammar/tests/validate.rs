//! A validator of JSON by schema: the keywords that `random_schema` uses, read off the specification.

use serde_json::Value;

/// Whether `value` is what `schema`, of the document `root`, describes.
pub fn is_valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema == &Value::Bool(true) };
    keywords.iter().all(|(name, asked)| match name.as_str() {
        "$ref" => is_valid(value, root.pointer(&asked.as_str().unwrap()[1..]).unwrap(), root),
        "anyOf" => asked.as_array().unwrap().iter().any(|option| is_valid(value, option, root)),
        "oneOf" => asked.as_array().unwrap().iter().filter(|option| is_valid(value, option, root)).count() == 1,
        "allOf" => asked.as_array().unwrap().iter().all(|part| is_valid(value, part, root)),
        "const" => equal(value, asked),
        "enum" => asked.as_array().unwrap().iter().any(|option| equal(value, option)),
        "type" => match asked {
            Value::Array(names) => names.iter().any(|name| is_a(value, name.as_str().unwrap())),
            _ => is_a(value, asked.as_str().unwrap()),
        },
        "minimum" => value.as_f64().is_none_or(|number| number >= asked.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= asked.as_f64().unwrap()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > asked.as_f64().unwrap()),
        "exclusiveMaximum" => value.as_f64().is_none_or(|number| number < asked.as_f64().unwrap()),
        "multipleOf" => value.as_f64().is_none_or(|number| number % asked.as_f64().unwrap() == 0.0),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= asked.as_u64().unwrap()),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= asked.as_u64().unwrap()),
        "pattern" => value.as_str().is_none_or(|text| matches(text, asked.as_str().unwrap())),
        "format" => value.as_str().is_none_or(|text| is_formatted(text, asked.as_str().unwrap())),
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= asked.as_u64().unwrap()),
        "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= asked.as_u64().unwrap()),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| is_valid(item, asked, root))),
        "required" => value.as_object().is_none_or(|entries| {
            asked.as_array().unwrap().iter().all(|name| entries.contains_key(name.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|entries| {
            asked
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, schema)| entries.get(name).is_none_or(|value| is_valid(value, schema, root)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|entries| {
            let named = keywords.get("properties").and_then(Value::as_object);
            entries
                .iter()
                .filter(|(name, _)| named.is_none_or(|named| !named.contains_key(*name)))
                .all(|(_, value)| is_valid(value, asked, root))
        }),
        "$defs" | "title" | "description" => true,
        other => panic!("the validator does not know {other}"),
    })
}

/// Numbers are equal by value.
fn equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

fn matches(text: &str, pattern: &str) -> bool {
    regex::Regex::new(pattern).unwrap().is_match(text)
}

fn is_formatted(text: &str, format: &str) -> bool {
    let pattern = match format {
        "date" => r"^\d{4}-(0\d|1[0-2])-([0-2]\d|3[01])$",
        "time" => r"^\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)$",
        "date-time" => r"^\d{4}-\d\d-\d\d[tT]\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)$",
        "uuid" => r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        "ipv4" => r"^(\d{1,3}\.){3}\d{1,3}$",
        other => panic!("no format {other}"),
    };
    matches(text, pattern)
}
