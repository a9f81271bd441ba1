//! `tools` and `tool_choice`.

use serde_json::{Value, json};

use crate::{
    api::{
        ask::Chat,
        error::ApiError,
        fields::{Fields, kind},
    },
    engine::dialect::{Tool, ToolChoice},
};

use super::request::read_cache_control;

const TOOLS_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 128;

/// Reads both into `chat`.
pub fn read(fields: &mut Fields, chat: &mut Chat) -> Result<(), ApiError> {
    chat.tools = match fields.take("tools") {
        Some(Value::Array(items)) => read_tools(items)?,
        Some(other) => return fields.refuse("tools", format!("expected a list, not {}", kind(&other))),
        None => Vec::new(),
    };
    chat.parallel = true;
    if let Some(choice) = fields.object("tool_choice")? {
        read_choice(choice, chat)?;
    }
    if chat.tools.is_empty() && chat.must_call() {
        return fields.refuse("tool_choice", "only allowed with tools".to_owned());
    }
    Ok(())
}

fn read_tools(items: Vec<Value>) -> Result<Vec<Tool>, ApiError> {
    if items.len() > TOOLS_MAX {
        return Err(ApiError::field("tools", format!("{} tools, {TOOLS_MAX} are allowed", items.len())));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let mut fields = Fields::inside(item, &format!("tools[{i}]"))?;
        let tool = read_tool(&mut fields)?;
        if tools.iter().any(|other| other.name == tool.name) {
            return fields.refuse("name", "there is another tool of this name".to_owned());
        }
        fields.finish()?;
        tools.push(tool);
    }
    Ok(tools)
}

fn read_tool(fields: &mut Fields) -> Result<Tool, ApiError> {
    if fields.text("type")?.is_some_and(|tool| tool != "custom") {
        // Tools that Anthropic runs, or that its models were trained on.
        return fields.refuse("type", "only custom tools are supported".to_owned());
    }
    let Some(name) = fields.text("name")? else { return fields.missing("name", "the tool's name") };
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !is_plain || !(1..=NAME_BYTES_MAX).contains(&name.len()) {
        return fields.refuse("name", format!("must be 1 to {NAME_BYTES_MAX} of letters, digits, _ and -"));
    }
    let mut description = fields.text("description")?;
    let schema = match fields.take("input_schema") {
        Some(Value::Object(schema)) => schema,
        Some(other) => return fields.refuse("input_schema", format!("expected a JSON schema, not {}", kind(&other))),
        None => return fields.missing("input_schema", "the JSON schema of what the tool takes"),
    };
    if schema.get("type").is_some_and(|shape| shape != "object") {
        return fields.refuse("input_schema.type", "must be object".to_owned());
    }
    let strict = fields.flag("strict")?.unwrap_or(false);
    if let Some(examples) = read_examples(fields)? {
        // Templates have no other place for them.
        description = Some(format!("{}\n\nExamples of input: {examples}", description.unwrap_or_default()));
    }
    // Input is always told while it comes.
    fields.flag("eager_input_streaming")?;
    if fields.flag("defer_loading")? == Some(true) {
        return fields.refuse("defer_loading", "there is no search for tools".to_owned());
    }
    if fields.take("allowed_callers").is_some_and(|callers| callers != json!(["direct"])) {
        return fields.refuse("allowed_callers", "there is only [\"direct\"]".to_owned());
    }
    read_cache_control(fields)?;
    Ok(Tool { name, description, parameters: Some(Value::Object(schema)), strict })
}

/// `input_examples`, written side by side.
fn read_examples(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    match fields.take("input_examples") {
        None => Ok(None),
        Some(Value::Array(items)) if items.iter().all(Value::is_object) => {
            let examples: Vec<String> = items.iter().map(Value::to_string).collect();
            Ok((!examples.is_empty()).then(|| examples.join(", ")))
        }
        Some(_) => fields.refuse("input_examples", "expected a list of objects".to_owned()),
    }
}

/// `{"type": "auto" | "any" | "tool" | "none", "name", "disable_parallel_tool_use"}`.
fn read_choice(mut fields: Fields, chat: &mut Chat) -> Result<(), ApiError> {
    let choice = match fields.text("type")?.as_deref() {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Required,
        Some("none") => ToolChoice::None,
        Some("tool") => match fields.text("name")? {
            Some(name) if chat.tools.iter().any(|tool| tool.name == name) => ToolChoice::Named(name),
            Some(_) => return fields.refuse("name", "there is no tool of this name".to_owned()),
            None => return fields.missing("name", "the tool's name"),
        },
        Some(_) => return fields.refuse("type", "must be auto, any, tool or none".to_owned()),
        None => return fields.missing("type", "auto, any, tool or none"),
    };
    chat.parallel = !fields.flag("disable_parallel_tool_use")?.unwrap_or(false);
    chat.tool_choice = Some(choice);
    fields.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: Value) -> Result<Chat, ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes())?;
        let mut chat = Chat::default();
        read(&mut fields, &mut chat)?;
        fields.finish()?;
        Ok(chat)
    }

    fn tool(more: Value) -> Value {
        let mut tool = json!({"name": "a", "input_schema": {"type": "object"}});
        tool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tool
    }

    #[test]
    fn tools_are_read() {
        let full = tool(json!({"type": "custom", "description": "Adds.", "strict": true, "input_examples": [{"x": 1}],
            "cache_control": {"type": "ephemeral"}, "eager_input_streaming": true, "allowed_callers": ["direct"]}));
        let tools = parse(json!({"tools": [full]})).unwrap().tools;
        let parameters = Some(json!({"type": "object"}));
        let description = Some("Adds.\n\nExamples of input: {\"x\":1}".to_owned());
        assert_eq!(tools, [Tool { name: "a".into(), description, parameters, strict: true }]);
    }

    #[test]
    fn choices() {
        for (choice, expected, parallel) in [
            (json!(null), None, true),
            (json!({"type": "auto"}), Some(ToolChoice::Auto), true),
            (json!({"type": "none"}), Some(ToolChoice::None), true),
            (json!({"type": "any", "disable_parallel_tool_use": true}), Some(ToolChoice::Required), false),
            (json!({"type": "tool", "name": "a"}), Some(ToolChoice::Named("a".into())), true),
        ] {
            let chat = parse(json!({"tools": [tool(json!({}))], "tool_choice": choice})).unwrap();
            assert_eq!((chat.tool_choice, chat.parallel), (expected, parallel), "{choice}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let with = |more: Value| json!({"tools": [tool(more)]});
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": vec![tool(json!({})); 129]}), "tools"),
            (json!({"tools": ["a"]}), "tools[0]"),
            (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools[0].type"),
            (json!({"tools": [{"name": "a"}]}), "tools[0].input_schema"),
            (json!({"tools": [tool(json!({})), tool(json!({}))]}), "tools[1].name"),
            (with(json!({"name": "a b"})), "tools[0].name"),
            (with(json!({"input_schema": []})), "tools[0].input_schema"),
            (with(json!({"input_schema": {"type": "array"}})), "tools[0].input_schema.type"),
            (with(json!({"input_examples": [1]})), "tools[0].input_examples"),
            (with(json!({"defer_loading": true})), "tools[0].defer_loading"),
            (with(json!({"allowed_callers": ["code_execution_20250825"]})), "tools[0].allowed_callers"),
            (with(json!({"parameters": {}})), "tools[0].parameters"),
            (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
            (json!({"tool_choice": {"type": "tool", "name": "b"}}), "tool_choice.name"),
            (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
            (json!({"tool_choice": {"type": "some"}}), "tool_choice.type"),
            (json!({"tool_choice": "any"}), "tool_choice"),
            (json!({"tool_choice": {"type": "auto", "name": "a"}}), "tool_choice.name"),
        ] {
            let error = parse(body.clone()).unwrap_err();
            assert_eq!((error.status(), error.param()), (400, Some(param)), "{body}: {error}");
        }
    }
}
