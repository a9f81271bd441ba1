//! `tools`, `tool_choice` and `parallel_tool_calls`.

use serde_json::Value;

use crate::{
    api::{
        ask::Chat,
        error::ApiError,
        fields::{Fields, kind},
    },
    engine::dialect::{Tool, ToolChoice},
};

use super::format::{NAME_RULE, is_name};

const TOOLS_MAX: usize = 128;

/// Reads all three into `chat`.
pub fn read(fields: &mut Fields, chat: &mut Chat) -> Result<(), ApiError> {
    read_as(fields, chat, read_tool)
}

/// As [`read`], where `read_tool` reads what is beside a tool's type.
pub fn read_as(
    fields: &mut Fields,
    chat: &mut Chat,
    read_tool: fn(&mut Fields, &str) -> Result<Tool, ApiError>,
) -> Result<(), ApiError> {
    chat.tools = match fields.take("tools") {
        Some(value) => read_tools(value, read_tool)?,
        None => Vec::new(),
    };
    chat.parallel = fields.flag("parallel_tool_calls")?.unwrap_or(true);
    chat.tool_choice = match fields.take("tool_choice") {
        Some(value) => Some(read_choice(value, &chat.tools)?),
        None => None,
    };
    if chat.tools.is_empty() && matches!(chat.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_))) {
        return fields.refuse("tool_choice", "only allowed with tools".to_owned());
    }
    Ok(())
}

fn read_tools(value: Value, read_tool: fn(&mut Fields, &str) -> Result<Tool, ApiError>) -> Result<Vec<Tool>, ApiError> {
    let Value::Array(items) = value else {
        return Err(ApiError::field("tools", format!("expected a list, not {}", kind(&value))));
    };
    if items.len() > TOOLS_MAX {
        return Err(ApiError::field("tools", format!("{} tools, {TOOLS_MAX} are allowed", items.len())));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("tools[{i}]");
        let mut fields = Fields::inside(item, &at)?;
        match fields.text("type")?.as_deref() {
            Some("function") => {}
            Some(_) => return Err(ApiError::unsupported(format!("{at}.type"), "only functions are supported")),
            None => return fields.missing("type", "function"),
        }
        let tool = read_tool(&mut fields, &at)?;
        fields.finish()?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(ApiError::field(at, format!("there is another tool called {}", tool.name)));
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// `function`, beside the type.
fn read_tool(fields: &mut Fields, at: &str) -> Result<Tool, ApiError> {
    let Some(function) = fields.take("function") else { return fields.missing("function", "the function") };
    read_function(function, &format!("{at}.function"))
}

/// `{"name", "description", "parameters", "strict"}`, which stands at `at`.
pub fn read_function(value: Value, at: &str) -> Result<Tool, ApiError> {
    let mut fields = Fields::inside(value, at)?;
    let tool = read_function_fields(&mut fields, false)?;
    fields.finish()?;
    Ok(tool)
}

/// The fields of a function, wherever they stand; `strict` unless it says otherwise.
pub fn read_function_fields(fields: &mut Fields, strict: bool) -> Result<Tool, ApiError> {
    let Some(name) = fields.text("name")? else { return fields.missing("name", "the function's name") };
    if !is_name(&name) {
        return fields.refuse("name", NAME_RULE.to_owned());
    }
    let description = fields.text("description")?;
    let parameters = fields.take("parameters");
    if let Some(other) = parameters.as_ref().filter(|schema| !schema.is_object()) {
        return fields.refuse("parameters", format!("expected a JSON schema, not {}", kind(other)));
    }
    let strict = fields.flag("strict")?.unwrap_or(strict);
    Ok(Tool { name, description, parameters, strict })
}

fn read_choice(value: Value, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let name = match value {
        Value::String(word) => {
            return match word.as_str() {
                "none" => Ok(ToolChoice::None),
                "auto" => Ok(ToolChoice::Auto),
                "required" => Ok(ToolChoice::Required),
                _ => Err(ApiError::field("tool_choice", "must be none, auto, required or a function")),
            };
        }
        value => {
            let mut fields = Fields::inside(value, "tool_choice")?;
            match fields.text("type")?.as_deref() {
                Some("function") => {}
                Some(_) => return Err(ApiError::unsupported("tool_choice.type", "only function is supported")),
                None => return fields.missing("type", "function"),
            }
            // The Responses API writes the name here.
            let name = match fields.take("function") {
                Some(function) => {
                    let mut function = Fields::inside(function, "tool_choice.function")?;
                    let name = function.text("name")?;
                    function.finish()?;
                    name
                }
                None => fields.text("name")?,
            };
            let Some(name) = name else { return fields.missing("function.name", "the function's name") };
            fields.finish()?;
            name
        }
    };
    match tools.iter().any(|tool| tool.name == name) {
        true => Ok(ToolChoice::Named(name)),
        false => Err(ApiError::field("tool_choice.function.name", "none of the tools has this name")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Result<Chat, ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes())?;
        let mut chat = Chat::default();
        read(&mut fields, &mut chat)?;
        fields.finish()?;
        Ok(chat)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
    }

    #[test]
    fn tools_and_choices() {
        let chat = parse(json!({"tools": [tool("a"), tool("b")], "parallel_tool_calls": false})).unwrap();
        assert_eq!(chat.tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((chat.parallel, chat.tool_choice), (false, None));
        for (choice, expected) in [
            (json!("none"), ToolChoice::None),
            (json!("auto"), ToolChoice::Auto),
            (json!("required"), ToolChoice::Required),
            (json!({"type": "function", "function": {"name": "a"}}), ToolChoice::Named("a".into())),
            (json!({"type": "function", "name": "a"}), ToolChoice::Named("a".into())),
        ] {
            let chat = parse(json!({"tools": [tool("a")], "tool_choice": choice})).unwrap();
            assert_eq!(chat.tool_choice, Some(expected));
        }
    }

    #[test]
    fn errors_name_the_place() {
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": vec![tool("a"); 129]}), "tools"),
            (json!({"tools": [1]}), "tools[0]"),
            (json!({"tools": [{"type": "code_interpreter"}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (json!({"tools": [tool("a b")]}), "tools[0].function.name"),
            (json!({"tools": [tool("a"), tool("a")]}), "tools[1]"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}),
                "tools[0].function.parameters",
            ),
            (json!({"tools": [tool("a")], "tool_choice": "maybe"}), "tool_choice"),
            (
                json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}),
                "tool_choice.function.name",
            ),
            (json!({"tool_choice": "required"}), "tool_choice"),
        ] {
            assert_eq!(parse(body.clone()).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
