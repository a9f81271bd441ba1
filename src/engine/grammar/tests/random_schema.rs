//! Schemas by chance: nested objects and lists, constants, ranges, lengths, patterns, formats, options, references.

use serde_json::{Map, Value, json};

use crate::engine::fake::Rng;

/// A schema of a few levels that some value satisfies.
pub fn random_schema(seed: u64) -> Value {
    let mut rng = Rng::new(seed);
    let mut root = object(&mut rng, 3);
    let point = object(&mut rng, 0);
    let list = json!({
        "type": "object",
        "properties": { "head": scalar(&mut rng), "tail": { "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/list" }] } },
        "required": ["head", "tail"],
        "additionalProperties": false,
    });
    root.insert("$defs".into(), json!({ "point": point, "list": list }));
    Value::Object(root)
}

fn any(rng: &mut Rng, depth: usize) -> Value {
    match rng.within(0, if depth == 0 { 8 } else { 12 }) {
        0..6 => scalar(rng),
        6 => json!({ "$ref": "#/$defs/point" }),
        7 => json!({ "$ref": "#/$defs/list" }),
        8 => array(rng, depth - 1),
        9 => {
            let options: Vec<Value> = (0..rng.within(2, 4)).map(|_| any(rng, depth - 1)).collect();
            json!({ "anyOf": options })
        }
        _ => Value::Object(object(rng, depth - 1)),
    }
}

fn object(rng: &mut Rng, depth: usize) -> Map<String, Value> {
    const NAMES: [&str; 8] = ["id", "name", "größe", "a b", "quote\"d", "x", "xy", "back\\slash"];
    let first = rng.within(0, NAMES.len());
    let names: Vec<&str> = NAMES.iter().cycle().skip(first).take(rng.within(0, 5)).copied().collect();
    let properties: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), if depth == 0 { scalar(rng) } else { any(rng, depth) })).collect();
    let required: Vec<&str> = names.iter().filter(|_| !rng.one_in(3)).copied().collect();
    let others = match rng.within(0, 4) {
        0 => scalar(rng),
        _ => Value::Bool(false),
    };
    let schema = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": others,
    });
    schema.as_object().unwrap().clone()
}

fn array(rng: &mut Rng, depth: usize) -> Value {
    let least = rng.within(0, 3);
    json!({ "type": "array", "items": any(rng, depth), "minItems": least, "maxItems": least + rng.within(0, 4) })
}

fn scalar(rng: &mut Rng) -> Value {
    let number = |rng: &mut Rng| rng.within(0, 2_000) as i64 - 1_000;
    match rng.within(0, 12) {
        0 => json!({ "type": "boolean" }),
        1 => json!({ "type": ["null", "integer"] }),
        2 => {
            let low = number(rng);
            json!({ "type": "integer", "minimum": low, "maximum": low + rng.within(0, 500) as i64 })
        }
        3 => json!({ "type": "integer", "exclusiveMinimum": number(rng), "multipleOf": rng.within(1, 20) }),
        4 => {
            let low = number(rng) as f64 / 8.0;
            json!({ "type": "number", "minimum": low, "exclusiveMaximum": low + rng.within(1, 99) as f64 / 4.0 })
        }
        5 => {
            let values = [json!("fixed"), json!(42), json!(null), json!(["a", { "b": -1 }])];
            json!({ "const": values[rng.within(0, values.len())] })
        }
        6 => json!({ "enum": ["red", "green", "a \"quoted\" one", 7, true, null] }),
        7 => {
            let least = rng.within(0, 5);
            json!({ "type": "string", "minLength": least, "maxLength": least + rng.within(0, 9) })
        }
        8 => {
            let patterns = ["^[a-z]{2,5}$", r"^\d{3}-\d{4}$", "^(foo|bar)+$", "x[0-9]y", "^ä?b*$", "^[^\"]{1,4}$"];
            json!({ "type": "string", "pattern": patterns[rng.within(0, patterns.len())] })
        }
        9 => {
            let formats = ["date", "time", "date-time", "uuid", "ipv4"];
            json!({ "type": "string", "format": formats[rng.within(0, formats.len())] })
        }
        10 => json!({ "type": "number" }),
        _ => json!({ "type": "string", "maxLength": 40 }),
    }
}
