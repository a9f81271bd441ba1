//! `messages`: checked one by one, and given on as they are, for the chat template.

use serde_json::{Map, Value, json};

use crate::api::{
    error::ApiError,
    fields::{Fields, kind},
};

const MESSAGES_MAX: usize = 4096;
const PARTS_MAX: usize = 1024;
const CALLS_MAX: usize = 128;

/// The messages, and whether the last one asks to be gone on with (`"prefix": true`, as DeepSeek and Mistral have it).
pub fn read(value: Value) -> Result<(Vec<Value>, bool), ApiError> {
    let Value::Array(items) = value else {
        return Err(ApiError::field("messages", format!("expected a list of messages, not {}", kind(&value))));
    };
    let count = items.len();
    if !(1..=MESSAGES_MAX).contains(&count) {
        return Err(ApiError::field("messages", format!("{count} messages, 1 to {MESSAGES_MAX} are allowed")));
    }
    let mut messages = Vec::with_capacity(count);
    let mut continues = false;
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("messages[{i}]");
        let mut fields = Fields::inside(item, &at)?;
        let prefix = fields.flag("prefix")?.unwrap_or(false);
        let message = message(&mut fields, &at)?;
        if prefix && (i + 1 < count || message["role"] != "assistant") {
            return fields.refuse("prefix", "only allowed in a last message of the assistant".to_owned());
        }
        continues |= prefix;
        fields.finish()?;
        messages.push(message);
    }
    Ok((messages, continues))
}

fn message(fields: &mut Fields, at: &str) -> Result<Value, ApiError> {
    let role = match fields.text("role")? {
        Some(role) if ["system", "developer", "user", "assistant", "tool"].contains(&role.as_str()) => role,
        Some(role) if role == "function" => {
            return Err(ApiError::unsupported(
                format!("{at}.role"),
                "functions are called tools now: use the role tool",
            ));
        }
        Some(_) => return fields.refuse("role", "must be system, developer, user, assistant or tool".to_owned()),
        None => return fields.missing("role", "system, developer, user, assistant or tool"),
    };
    let content = match fields.take("content") {
        Some(value) => Some(content(value, &format!("{at}.content"))?),
        None => None,
    };
    let mut message = Map::new();
    message.insert("role".into(), role.as_str().into());
    if let Some(name) = fields.text("name")? {
        message.insert("name".into(), name.into());
    }
    match role.as_str() {
        "assistant" => assistant(fields, at, &mut message, content.is_some())?,
        "tool" => {
            let Some(id) = fields.text("tool_call_id")? else {
                return fields.missing("tool_call_id", "the id of the call that this is the result of");
            };
            message.insert("tool_call_id".into(), id.into());
        }
        _ => {}
    }
    match content {
        Some(content) => drop(message.insert("content".into(), content)),
        None if role == "assistant" => {}
        None => return fields.missing("content", "the text"),
    }
    Ok(Value::Object(message))
}

/// What the assistant's messages have, as they came from here: what was said of the answer is taken back, too.
fn assistant(
    fields: &mut Fields,
    at: &str,
    message: &mut Map<String, Value>,
    has_content: bool,
) -> Result<(), ApiError> {
    let thoughts = [fields.text("reasoning_content")?, fields.text("reasoning")?];
    let has_thoughts = thoughts.iter().any(Option::is_some);
    if let Some(thoughts) = thoughts.into_iter().flatten().next() {
        message.insert("reasoning_content".into(), thoughts.into());
    }
    let refusal = fields.text("refusal")?.is_some();
    match fields.take("annotations") {
        None => {}
        Some(Value::Array(none)) if none.is_empty() => {}
        Some(_) => return Err(ApiError::unsupported(format!("{at}.annotations"), "annotations are not supported")),
    }
    for name in ["audio", "function_call"] {
        if fields.take(name).is_some() {
            return Err(ApiError::unsupported(format!("{at}.{name}"), "this server does not support it"));
        }
    }
    let has_calls = match fields.take("tool_calls") {
        Some(calls) => {
            let calls = read_calls(calls, &format!("{at}.tool_calls"))?;
            let any = !calls.is_empty();
            if any {
                message.insert("tool_calls".into(), calls.into());
            }
            any
        }
        None => false,
    };
    if !(has_content || has_calls || has_thoughts || refusal) {
        return fields.missing("content", "the text, or tool_calls");
    }
    Ok(())
}

fn read_calls(value: Value, at: &str) -> Result<Vec<Value>, ApiError> {
    let Value::Array(items) = value else {
        return Err(ApiError::field(at, format!("expected a list, not {}", kind(&value))));
    };
    if items.len() > CALLS_MAX {
        return Err(ApiError::field(at, format!("{} calls, {CALLS_MAX} are allowed", items.len())));
    }
    let mut calls = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        let mut fields = Fields::inside(item, &at)?;
        // Its place among others is what some clients copy from the chunks of a stream.
        fields.integer("index", 0..=CALLS_MAX as i64)?;
        let id = fields.text("id")?.unwrap_or_default();
        match fields.text("type")?.as_deref() {
            None | Some("function") => {}
            Some(_) => return Err(ApiError::unsupported(format!("{at}.type"), "only functions are supported")),
        }
        let Some(function) = fields.take("function") else { return fields.missing("function", "the call") };
        fields.finish()?;
        let mut function = Fields::inside(function, &format!("{at}.function"))?;
        let Some(name) = function.text("name")? else { return function.missing("name", "the function's name") };
        let arguments = function.text("arguments")?.unwrap_or_default();
        function.finish()?;
        calls.push(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }));
    }
    Ok(calls)
}

/// A text, or a list of its parts.
fn content(value: Value, at: &str) -> Result<Value, ApiError> {
    let items = match value {
        Value::String(_) => return Ok(value),
        Value::Array(items) => items,
        other => {
            return Err(ApiError::field(at, format!("expected a string or a list of parts, not {}", kind(&other))));
        }
    };
    if items.len() > PARTS_MAX {
        return Err(ApiError::field(at, format!("{} parts, {PARTS_MAX} are allowed", items.len())));
    }
    let mut parts = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        let mut fields = Fields::inside(item, &at)?;
        let text = match fields.text("type")?.as_deref() {
            Some("text" | "input_text" | "output_text") => fields.text("text")?,
            Some("refusal") => fields.text("refusal")?,
            Some("image_url" | "input_image") => {
                return Err(ApiError::unsupported(at, "images are not supported; none is ever fetched"));
            }
            Some("input_audio" | "file" | "input_file") => {
                return Err(ApiError::unsupported(at, "audio and files are not supported"));
            }
            Some(_) => return fields.refuse("type", "must be text".to_owned()),
            None => return fields.missing("type", "text"),
        };
        let Some(text) = text else { return fields.missing("text", "the text") };
        fields.finish()?;
        parts.push(json!({ "type": "text", "text": text }));
    }
    Ok(parts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_given_on() {
        let given = json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ann"},
            {"role": "assistant", "content": null, "refusal": null, "annotations": [], "reasoning": "hm",
             "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"role": "assistant", "content": "The answer", "prefix": true},
        ]);
        let (messages, continues) = read(given).unwrap();
        assert!(continues);
        assert_eq!(messages[1], json!({"role": "user", "name": "Ann", "content": [{"type": "text", "text": "Hi"}]}));
        assert_eq!(messages[2]["reasoning_content"], "hm");
        assert_eq!(messages[2]["tool_calls"][0]["function"]["name"], "f");
        assert!(messages[2].get("content").is_none() && messages[2].get("refusal").is_none());
        assert_eq!(messages[4], json!({"role": "assistant", "content": "The answer"}));
    }

    #[test]
    fn errors_name_the_place() {
        let image = json!({"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}});
        for (messages, param) in [
            (json!("Hi"), "messages"),
            (json!([]), "messages"),
            (json!([1]), "messages[0]"),
            (json!([{"content": "a"}]), "messages[0].role"),
            (json!([{"role": "robot", "content": "a"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 1}]), "messages[0].content"),
            (json!([{"role": "user", "content": "a", "x": 1}]), "messages[0].x"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (json!([{"role": "user", "content": [image]}]), "messages[0].content[0]"),
            (json!([{"role": "assistant"}]), "messages[0].content"),
            (json!([{"role": "assistant", "tool_calls": [{"id": "x"}]}]), "messages[0].tool_calls[0].function"),
            (json!([{"role": "tool", "content": "a"}]), "messages[0].tool_call_id"),
            (json!([{"role": "user", "content": "a", "prefix": true}]), "messages[0].prefix"),
        ] {
            assert_eq!(read(messages.clone()).unwrap_err().param(), Some(param), "{messages}");
        }
    }
}
