//! `response_format`, and the extensions `regex`, `choice` and `grammar`: what an answer must look like.

use serde_json::Value;

use crate::{
    api::{
        ask::Format,
        error::ApiError,
        fields::{Fields, kind},
    },
    engine::grammar::GrammarSource,
};

const CHOICES_MAX: usize = 2000;
const CHOICE_BYTES_MAX: usize = 4096;

/// Reads the one that is given.
pub fn read(fields: &mut Fields) -> Result<Option<Format>, ApiError> {
    let mut formats = Vec::new();
    if let Some(value) = fields.take("response_format") {
        formats.extend(response_format(value)?);
    }
    if let Some(regex) = fields.text("regex")? {
        formats.push(Format { source: GrammarSource::Regex(regex), param: "regex" });
    }
    let choices = fields.texts("choice", CHOICES_MAX, CHOICE_BYTES_MAX)?;
    if !choices.is_empty() {
        formats.push(Format { source: GrammarSource::Choice(choices), param: "choice" });
    }
    if let Some(lark) = fields.text("grammar")? {
        formats.push(Format { source: GrammarSource::Lark(lark), param: "grammar" });
    }
    match formats.len() {
        0 | 1 => Ok(formats.pop()),
        _ => fields.refuse(formats[1].param, format!("can't be combined with {}", formats[0].param)),
    }
}

/// <https://platform.openai.com/docs/guides/structured-outputs>
fn response_format(value: Value) -> Result<Option<Format>, ApiError> {
    let mut fields = Fields::inside(value, "response_format")?;
    let kind = fields.text("type")?;
    let schema = fields.take("json_schema");
    let format = match (kind.as_deref(), schema) {
        (Some("text"), None) => None,
        (Some("json_object"), None) => Some(Format { source: GrammarSource::JsonObject, param: "response_format" }),
        (Some("json_schema"), Some(value)) => {
            let mut inner = Fields::inside(value, "response_format.json_schema")?;
            let source = json_schema(&mut inner)?;
            inner.finish()?;
            Some(Format { source, param: "response_format.json_schema.schema" })
        }
        (Some("json_schema"), None) => return fields.missing("json_schema", "an object with the schema"),
        (Some("text" | "json_object"), Some(_)) => {
            return fields.refuse("json_schema", "only allowed with type json_schema".to_owned());
        }
        (Some(_), _) => return fields.refuse("type", "must be text, json_object or json_schema".to_owned()),
        (None, _) => return fields.missing("type", "text, json_object or json_schema"),
    };
    fields.finish()?;
    Ok(format)
}

/// The `text.format` of `/v1/responses`: the same on one level.
pub fn text_format(value: Value) -> Result<Option<Format>, ApiError> {
    let mut fields = Fields::inside(value, "text.format")?;
    let format = match fields.text("type")?.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(Format { source: GrammarSource::JsonObject, param: "text.format" }),
        Some("json_schema") => Some(Format { source: json_schema(&mut fields)?, param: "text.format.schema" }),
        Some(_) => return fields.refuse("type", "must be text, json_object or json_schema".to_owned()),
        None => return fields.missing("type", "text, json_object or json_schema"),
    };
    fields.finish()?;
    Ok(format)
}

/// `name`, `description`, `schema` and `strict`. The answer is held to the schema whether `strict` is set or not.
fn json_schema(fields: &mut Fields) -> Result<GrammarSource, ApiError> {
    fields.text("description")?;
    fields.flag("strict")?;
    let Some(name) = fields.text("name")? else { return fields.missing("name", "a name for the schema") };
    if !is_name(&name) {
        return fields.refuse("name", NAME_RULE.to_owned());
    }
    let Some(schema) = fields.take("schema") else { return fields.missing("schema", "the JSON schema") };
    if !schema.is_object() {
        return fields.refuse("schema", format!("expected an object, not {}", kind(&schema)));
    }
    Ok(GrammarSource::JsonSchema(schema))
}

pub const NAME_RULE: &str = "must be 1 to 64 of letters, digits, _ and -";

/// A name of a function or a schema.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Result<Option<Format>, ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes())?;
        let format = read(&mut fields)?;
        fields.finish()?;
        Ok(format)
    }

    #[test]
    fn formats() {
        let schema = json!({"type": "object"});
        let source = |body: Value| parse(body).unwrap().map(|format| format.source);
        assert_eq!(source(json!({})), None);
        assert_eq!(source(json!({"response_format": {"type": "text"}})), None);
        assert_eq!(source(json!({"response_format": {"type": "json_object"}})), Some(GrammarSource::JsonObject));
        assert_eq!(
            source(json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "x", "strict": true, "schema": schema}}})),
            Some(GrammarSource::JsonSchema(schema))
        );
        assert_eq!(source(json!({"regex": "a+"})), Some(GrammarSource::Regex("a+".into())));
        assert_eq!(source(json!({"choice": ["a", "b"]})), Some(GrammarSource::Choice(vec!["a".into(), "b".into()])));
        assert_eq!(source(json!({"grammar": "start: \"a\""})), Some(GrammarSource::Lark("start: \"a\"".into())));
    }

    #[test]
    fn errors_name_the_place() {
        for (body, param) in [
            (json!({"response_format": "json"}), "response_format"),
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (json!({"response_format": {"type": "text", "json_schema": {}}}), "response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
                "response_format.json_schema.name",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}),
                "response_format.json_schema.name",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": []}}}),
                "response_format.json_schema.schema",
            ),
            (json!({"regex": "a", "grammar": "b"}), "grammar"),
        ] {
            assert_eq!(parse(body.clone()).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
