//! The keywords of JSON Schema and what their values may be.

use llguidance::{
    derivre::{RegexAst, RegexBuilder},
    regex_to_lark,
};
use serde_json::Value;

/// What a keyword's value is.
pub enum Keyword {
    /// Says nothing about the value described.
    Annotation,
    Schema,
    /// A schema, or a list of them.
    SchemaOrList,
    Schemas,
    /// Schemas by name.
    SchemaMap,
    /// Schemas by regular expression.
    Patterns,
    /// Of a schema in the document.
    Reference,
    /// Values that the one described may have.
    Values,
    Value,
    /// Nothing with schemas in it.
    Plain(fn(&Value) -> Result<(), String>),
    /// Not supported, but with this value it asks for nothing.
    Unless(Value),
}

/// `None`: not supported.
pub fn keyword(name: &str) -> Option<Keyword> {
    Some(match name {
        "$schema" | "$id" | "id" | "$comment" | "$anchor" | "$vocabulary" | "title" | "description" | "default"
        | "example" | "examples" | "deprecated" | "readOnly" | "writeOnly" | "contentMediaType" | "contentEncoding"
        | "contentSchema" | "discriminator" | "enumNames" | "externalDocs" => Keyword::Annotation,
        // What the matcher reads as its own options is not the client's to set.
        "x-guidance" => return None,
        _ if name.starts_with("x-") => Keyword::Annotation,
        "properties" | "$defs" | "definitions" => Keyword::SchemaMap,
        "patternProperties" => Keyword::Patterns,
        "additionalProperties" | "additionalItems" => Keyword::Schema,
        "items" => Keyword::SchemaOrList,
        "anyOf" | "oneOf" | "allOf" | "prefixItems" => Keyword::Schemas,
        "$ref" => Keyword::Reference,
        "enum" => Keyword::Values,
        "const" => Keyword::Value,
        "type" => Keyword::Plain(types),
        "required" => Keyword::Plain(names),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
            Keyword::Plain(count)
        }
        "minimum" | "maximum" => Keyword::Plain(number),
        "exclusiveMinimum" | "exclusiveMaximum" => Keyword::Plain(bound),
        "multipleOf" => Keyword::Plain(step),
        "pattern" => Keyword::Plain(|value| pattern(value.as_str().ok_or("must be a string")?)),
        "format" => Keyword::Plain(format),
        "uniqueItems" | "nullable" => Keyword::Unless(false.into()),
        "minContains" => Keyword::Unless(0.into()),
        _ => return None,
    })
}

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// Formats that are held to.
const FORMATS: [&str; 11] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"];

/// Repetitions of more than this take too much to count.
const COUNT_MAX: u64 = 100_000;

/// `multipleOf` is matched by remainders, a state each.
const STEP_MAX: f64 = 1_000.0;

fn types(value: &Value) -> Result<(), String> {
    let known = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let good = match value {
        Value::Array(names) => !names.is_empty() && names.iter().all(known),
        _ => known(value),
    };
    if good { Ok(()) } else { Err(format!("must be one of {} or a list of them", TYPES.join(", "))) }
}

fn names(value: &Value) -> Result<(), String> {
    let good = value.as_array().is_some_and(|names| names.iter().all(Value::is_string));
    if good { Ok(()) } else { Err("must be a list of strings".into()) }
}

fn count(value: &Value) -> Result<(), String> {
    match value.as_u64() {
        Some(count) if count <= COUNT_MAX => Ok(()),
        Some(_) => Err(format!("more than {COUNT_MAX} is not supported")),
        None => Err("must be an integer, and not negative".into()),
    }
}

fn number(value: &Value) -> Result<(), String> {
    if value.is_number() { Ok(()) } else { Err("must be a number".into()) }
}

/// A number; of draft 4, a boolean.
fn bound(value: &Value) -> Result<(), String> {
    if value.is_boolean() { Ok(()) } else { number(value) }
}

fn step(value: &Value) -> Result<(), String> {
    match value.as_f64() {
        Some(step) if step > 0.0 && (1.0 / STEP_MAX..=STEP_MAX).contains(&step) => Ok(()),
        Some(_) => Err(format!("must be between {} and {STEP_MAX}", 1.0 / STEP_MAX)),
        None => Err("must be a number".into()),
    }
}

/// The regular expression of a keyword, which may match anywhere in a text.
pub fn pattern(text: &str) -> Result<(), String> {
    expression(RegexAst::SearchRegex(regex_to_lark(text, "dw")))
}

/// An expression that can be matched from left to right, without looking ahead or back.
pub fn expression(expression: RegexAst) -> Result<(), String> {
    // Only the last line says what is wrong; the others draw arrows.
    RegexBuilder::new().mk(&expression).map(drop).map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("not a regular expression that is supported: {last}")
    })
}

fn format(value: &Value) -> Result<(), String> {
    let known = value.as_str().is_some_and(|name| FORMATS.contains(&name));
    if known { Ok(()) } else { Err(format!("supported formats are {}", FORMATS.join(", "))) }
}
