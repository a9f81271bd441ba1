//! `messages` and `tools`: from Ollama's form into the one that chat templates are given (OpenAI's).

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use crate::{
    api::{
        error::ApiError,
        fields::{Fields, kind},
        openai,
    },
    engine::dialect::Tool,
};

const MESSAGES_MAX: usize = 4096;
const CALLS_MAX: usize = 128;
const TOOLS_MAX: usize = 128;

/// Reads the conversation. Ollama's results of tools need not say whose they are: those of a message's calls come in their
/// order, or name the function.
pub fn read(value: Value) -> Result<Vec<Value>, ApiError> {
    let items = list(value, "messages", MESSAGES_MAX)?;
    let mut open = Calls::default();
    let message = |(i, item)| message(item, &format!("messages[{i}]"), &mut open);
    items.into_iter().enumerate().map(message).collect()
}

/// Calls that have no result yet.
#[derive(Default)]
struct Calls {
    open: VecDeque<(String, String)>,
    count: usize,
}

impl Calls {
    /// Some templates want nine characters.
    fn begin(&mut self, id: Option<String>, name: &str) -> String {
        self.count += 1;
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{:09}", self.count));
        self.open.push_back((id.clone(), name.to_owned()));
        id
    }

    /// The call that a result is of.
    fn end(&mut self, id: Option<String>, name: Option<&str>) -> (String, Option<String>) {
        let by_id = |id: &str| self.open.iter().position(|call| call.0 == id);
        let by_name = || self.open.iter().position(|call| Some(&*call.1) == name);
        let found = match &id {
            Some(id) => by_id(id),
            None => by_name().or((!self.open.is_empty()).then_some(0)),
        };
        match found.and_then(|at| self.open.remove(at)) {
            Some((id, called)) => (id, Some(called)),
            None => (id.unwrap_or_else(|| format!("{:09}", self.count)), None),
        }
    }
}

fn message(item: Value, at: &str, calls: &mut Calls) -> Result<Value, ApiError> {
    let mut fields = Fields::inside(item, at)?;
    let role = match fields.text("role")? {
        Some(role) if ["system", "user", "assistant", "tool"].contains(&role.as_str()) => role,
        Some(_) => return fields.refuse("role", "must be system, user, assistant or tool".to_owned()),
        None => return fields.missing("role", "system, user, assistant or tool"),
    };
    let mut message = Map::new();
    message.insert("role".into(), role.as_str().into());
    let content = fields.text("content")?.unwrap_or_default();
    refuse_images(&mut fields, at)?;
    let thinking = fields.text("thinking")?;
    let tool_calls = fields.take("tool_calls");
    let (tool_name, call_id) = (fields.text("tool_name")?, fields.text("tool_call_id")?);
    fields.finish()?;
    if let Some(thoughts) = thinking.filter(|thoughts| role == "assistant" && !thoughts.is_empty()) {
        message.insert("reasoning_content".into(), thoughts.into());
    }
    if role == "tool" {
        let (id, called) = calls.end(call_id, tool_name.as_deref());
        message.insert("tool_call_id".into(), id.into());
        if let Some(name) = tool_name.or(called) {
            message.insert("name".into(), name.into());
        }
    }
    if let Some(value) = tool_calls {
        let at = format!("{at}.tool_calls");
        let items = list(value, &at, CALLS_MAX)?;
        if role != "assistant" && !items.is_empty() {
            return Err(ApiError::field(at, "only allowed in messages of the assistant"));
        }
        let call = |(i, item)| call(item, &format!("{at}[{i}]"), calls);
        let made: Vec<Value> = items.into_iter().enumerate().map(call).collect::<Result<_, _>>()?;
        if !made.is_empty() {
            message.insert("tool_calls".into(), made.into());
        }
    }
    message.insert("content".into(), content.into());
    Ok(Value::Object(message))
}

/// `{"function": {"name", "arguments": {…}}}`
fn call(item: Value, at: &str, calls: &mut Calls) -> Result<Value, ApiError> {
    let mut fields = Fields::inside(item, at)?;
    let id = fields.text("id")?;
    fields.text("type")?;
    let Some(function) = fields.take("function") else { return fields.missing("function", "the call") };
    fields.finish()?;
    let mut function = Fields::inside(function, &format!("{at}.function"))?;
    function.integer("index", 0..=CALLS_MAX as i64)?;
    // What other servers' models are told of functions comes back with their calls.
    function.text("description")?;
    let Some(name) = function.text("name")? else { return function.missing("name", "the function's name") };
    let arguments = match function.take("arguments") {
        None => json!({}),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(other) => return function.refuse("arguments", format!("expected an object, not {}", kind(&other))),
    };
    function.finish()?;
    let id = calls.begin(id, &name);
    Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments.to_string() } }))
}

/// Says that images can't be had, if there are any.
pub fn refuse_images(fields: &mut Fields, at: &str) -> Result<(), ApiError> {
    match fields.take("images") {
        None => Ok(()),
        Some(Value::Array(none)) if none.is_empty() => Ok(()),
        Some(_) => {
            let dot = if at.is_empty() { "" } else { "." };
            Err(ApiError::unsupported(format!("{at}{dot}images"), "images are not supported"))
        }
    }
}

/// `[{"type": "function", "function": {…}}]`
pub fn read_tools(value: Value) -> Result<Vec<Tool>, ApiError> {
    let items = list(value, "tools", TOOLS_MAX)?;
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("tools[{i}]");
        let mut fields = Fields::inside(item, &at)?;
        if fields.text("type")?.is_some_and(|kind| kind != "function") {
            return Err(ApiError::unsupported(format!("{at}.type"), "only functions are supported"));
        }
        let Some(function) = fields.take("function") else { return fields.missing("function", "the function") };
        fields.finish()?;
        let tool = openai::tools::read_function(function, &format!("{at}.function"))?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(ApiError::field(format!("{at}.function.name"), "there is another tool of this name"));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn list(value: Value, at: &str, count_max: usize) -> Result<Vec<Value>, ApiError> {
    match value {
        Value::Array(items) if items.len() <= count_max => Ok(items),
        Value::Array(items) => Err(ApiError::field(at, format!("{} entries, {count_max} are allowed", items.len()))),
        other => Err(ApiError::field(at, format!("expected a list, not {}", kind(&other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_find_their_calls() {
        let call = |name: &str| json!({"function": {"name": name, "arguments": {"x": 1}}});
        let messages = read(json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "thinking": "hm", "tool_calls": [call("a"), call("b"), call("a")]},
            {"role": "tool", "content": "of b", "tool_name": "b"},
            {"role": "tool", "content": "of a"},
            {"role": "tool", "content": "of the other a", "tool_name": "a"},
            {"role": "tool", "content": "of none"},
        ]))
        .unwrap();
        let calls = messages[1]["tool_calls"].as_array().unwrap();
        assert_eq!(calls[0]["function"], json!({"name": "a", "arguments": "{\"x\":1}"}));
        assert_eq!((&messages[1]["reasoning_content"], &messages[1]["content"]), (&json!("hm"), &json!("")));
        for (result, call) in [(2, 1), (3, 0), (4, 2)] {
            assert_eq!(messages[result]["tool_call_id"], calls[call]["id"], "{result}");
            assert_eq!(messages[result]["name"], calls[call]["function"]["name"], "{result}");
        }
        assert!(messages[5]["tool_call_id"].is_string() && messages[5].get("name").is_none());
    }

    #[test]
    fn errors_name_the_place() {
        for (messages, param) in [
            (json!("Hi"), "messages"),
            (json!([1]), "messages[0]"),
            (json!([{"content": "a"}]), "messages[0].role"),
            (json!([{"role": "robot"}]), "messages[0].role"),
            (json!([{"role": "user", "content": []}]), "messages[0].content"),
            (json!([{"role": "user", "content": "a", "images": ["aGk="]}]), "messages[0].images"),
            (json!([{"role": "user", "content": "a", "x": 1}]), "messages[0].x"),
            (json!([{"role": "user", "tool_calls": [{}]}]), "messages[0].tool_calls"),
            (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls[0].function"),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ] {
            assert_eq!(read(messages.clone()).unwrap_err().param(), Some(param), "{messages}");
        }
        assert_eq!(read_tools(json!([{"function": {"name": "f"}}])).unwrap()[0].name, "f");
        assert_eq!(read_tools(json!([{"type": "x"}])).unwrap_err().param(), Some("tools[0].type"));
    }
}
