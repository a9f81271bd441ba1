//! `input`: checked item by item, kept as OpenAI tells items, and turned into messages for the chat template.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{
    error::ApiError,
    fields::{Fields, kind},
    request_id::RequestId,
};

/// Items of one conversation.
pub const ITEMS_MAX: usize = 4096;
const PARTS_MAX: usize = 1024;

/// The items of a request: a text is a message of the user's. Each gets an id if it has none.
pub fn read(value: Value) -> Result<Vec<Value>, ApiError> {
    let items = match value {
        Value::String(text) => return Ok(vec![message("user", vec![part("input_text", text)], None)]),
        Value::Array(items) => items,
        other => {
            return Err(ApiError::field(
                "input",
                format!("expected a string or a list of items, not {}", kind(&other)),
            ));
        }
    };
    if !(1..=ITEMS_MAX).contains(&items.len()) {
        return Err(ApiError::field("input", format!("{} items, 1 to {ITEMS_MAX} are allowed", items.len())));
    }
    let item = |(i, item)| {
        let at = format!("input[{i}]");
        let mut fields = Fields::inside(item, &at)?;
        let item = read_item(&mut fields, &at)?;
        fields.finish()?;
        Ok(item)
    };
    items.into_iter().enumerate().map(item).collect()
}

/// An item as it is kept.
pub fn text(item: &Value) -> Arc<str> {
    item.to_string().into()
}

fn read_item(fields: &mut Fields, at: &str) -> Result<Value, ApiError> {
    let id = fields.text("id")?;
    if let Some(status) = fields.text("status")?
        && !["in_progress", "completed", "incomplete"].contains(&status.as_str())
    {
        return fields.refuse("status", "must be in_progress, completed or incomplete".to_owned());
    }
    match fields.text("type")?.as_deref() {
        None | Some("message") => read_message(fields, at, id),
        Some("reasoning") => read_reasoning(fields, at, id),
        Some("function_call") => read_call(fields, id),
        Some("function_call_output") => read_call_output(fields, at, id),
        Some("item_reference") => {
            Err(ApiError::unsupported(format!("{at}.type"), "send the item itself, or previous_response_id"))
        }
        Some(_) => {
            let message = "only message, reasoning, function_call and function_call_output are supported";
            Err(ApiError::unsupported(format!("{at}.type"), message))
        }
    }
}

fn read_message(fields: &mut Fields, at: &str, id: Option<String>) -> Result<Value, ApiError> {
    let role = match fields.text("role")? {
        Some(role) if ["user", "assistant", "system", "developer"].contains(&role.as_str()) => role,
        Some(_) => return fields.refuse("role", "must be user, assistant, system or developer".to_owned()),
        None => return fields.missing("role", "user, assistant, system or developer"),
    };
    // What of the answer it was makes no difference to a template.
    fields.text("phase")?;
    let Some(content) = fields.take("content") else { return fields.missing("content", "the text, or its parts") };
    let kind = if role == "assistant" { "output_text" } else { "input_text" };
    let texts = read_texts(content, &format!("{at}.content"))?;
    Ok(message(&role, texts.into_iter().map(|text| part(kind, text)).collect(), id))
}

fn read_reasoning(fields: &mut Fields, at: &str, id: Option<String>) -> Result<Value, ApiError> {
    if fields.take("encrypted_content").is_some() {
        return Err(ApiError::unsupported(
            format!("{at}.encrypted_content"),
            "send content; nothing is encrypted here",
        ));
    }
    let mut texts = Vec::new();
    for name in ["content", "summary"] {
        if let Some(value) = fields.take(name)
            && value != json!([])
        {
            texts.push(read_texts(value, &format!("{at}.{name}"))?);
        }
    }
    // The thoughts themselves, or what is told of them.
    let content = texts.into_iter().next().unwrap_or_default();
    Ok(json!({
        "id": id.unwrap_or_else(|| fresh("rs")),
        "type": "reasoning",
        "summary": [],
        "content": content.into_iter().map(|text| part("reasoning_text", text)).collect::<Vec<_>>(),
        "status": "completed",
    }))
}

fn read_call(fields: &mut Fields, id: Option<String>) -> Result<Value, ApiError> {
    let Some(call_id) = fields.text("call_id")? else { return fields.missing("call_id", "the call's id") };
    let Some(name) = fields.text("name")? else { return fields.missing("name", "the function's name") };
    let Some(arguments) = fields.text("arguments")? else {
        return fields.missing("arguments", "the arguments, as JSON text");
    };
    Ok(json!({
        "id": id.unwrap_or_else(|| fresh("fc")),
        "type": "function_call",
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }))
}

fn read_call_output(fields: &mut Fields, at: &str, id: Option<String>) -> Result<Value, ApiError> {
    let Some(call_id) = fields.text("call_id")? else {
        return fields.missing("call_id", "the id of the call that this is the result of");
    };
    let Some(output) = fields.take("output") else { return fields.missing("output", "the result") };
    let output = read_texts(output, &format!("{at}.output"))?.join("\n");
    Ok(json!({
        "id": id.unwrap_or_else(|| fresh("fco")),
        "type": "function_call_output",
        "status": "completed",
        "call_id": call_id,
        "output": output,
    }))
}

/// A text, or the texts of a list of parts.
fn read_texts(value: Value, at: &str) -> Result<Vec<String>, ApiError> {
    let items = match value {
        Value::String(text) => return Ok(vec![text]),
        Value::Array(items) => items,
        other => {
            return Err(ApiError::field(at, format!("expected a string or a list of parts, not {}", kind(&other))));
        }
    };
    if items.len() > PARTS_MAX {
        return Err(ApiError::field(at, format!("{} parts, {PARTS_MAX} are allowed", items.len())));
    }
    let part = |(i, item)| {
        let at = format!("{at}[{i}]");
        let mut fields = Fields::inside(item, &at)?;
        let text = match fields.text("type")?.as_deref() {
            Some("input_text" | "output_text" | "reasoning_text" | "summary_text" | "text") => fields.text("text")?,
            Some("refusal") => fields.text("refusal")?,
            Some("input_image") => {
                return Err(ApiError::unsupported(at, "images are not supported; none is ever fetched"));
            }
            Some("input_file" | "input_audio") => {
                return Err(ApiError::unsupported(at, "audio and files are not supported"));
            }
            Some(_) => {
                return fields.refuse("type", "must be input_text, or output_text of the assistant's".to_owned());
            }
            None => return fields.missing("type", "input_text, or output_text of the assistant's"),
        };
        let Some(text) = text else { return fields.missing("text", "the text") };
        // What was said of the answer comes back with it.
        match fields.take("annotations") {
            None => {}
            Some(Value::Array(none)) if none.is_empty() => {}
            Some(_) => return Err(ApiError::unsupported(format!("{at}.annotations"), "there are none here")),
        }
        fields.take("logprobs");
        fields.finish()?;
        Ok(text)
    };
    items.into_iter().enumerate().map(part).collect()
}

fn part(kind: &str, text: String) -> Value {
    match kind {
        "output_text" => json!({ "type": kind, "annotations": [], "logprobs": [], "text": text }),
        _ => json!({ "type": kind, "text": text }),
    }
}

fn message(role: &str, content: Vec<Value>, id: Option<String>) -> Value {
    let id = id.unwrap_or_else(|| fresh("msg"));
    json!({ "id": id, "type": "message", "status": "completed", "role": role, "content": content })
}

fn fresh(prefix: &str) -> String {
    format!("{prefix}_{}", RequestId::fresh())
}

/// Items as a chat template knows them: thoughts, text and calls that follow one another are one message of the
/// assistant's.
pub fn messages(items: &[Value]) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut assistant = Map::new();
    for item in items {
        let role = item["role"].as_str();
        match item["type"].as_str() {
            Some("reasoning") => {
                flush_if(&mut messages, &mut assistant, &["reasoning_content", "content", "tool_calls"]);
                assistant.insert("reasoning_content".into(), joined(&item["content"]).into());
            }
            Some("message") if role == Some("assistant") => {
                flush_if(&mut messages, &mut assistant, &["content", "tool_calls"]);
                assistant.insert("content".into(), joined(&item["content"]).into());
            }
            Some("function_call") => {
                let function = json!({ "name": item["name"], "arguments": item["arguments"] });
                let call = json!({ "id": item["call_id"], "type": "function", "function": function });
                let calls = assistant.entry("tool_calls").or_insert_with(|| json!([]));
                calls.as_array_mut().into_iter().for_each(|calls| calls.push(call.clone()));
            }
            Some("function_call_output") => {
                flush_if(&mut messages, &mut assistant, &["reasoning_content", "content", "tool_calls"]);
                let (id, output) = (&item["call_id"], &item["output"]);
                messages.push(json!({ "role": "tool", "tool_call_id": id, "content": output }));
            }
            _ => {
                flush_if(&mut messages, &mut assistant, &["reasoning_content", "content", "tool_calls"]);
                messages.push(json!({ "role": role.unwrap_or("user"), "content": joined(&item["content"]) }));
            }
        }
    }
    flush_if(&mut messages, &mut assistant, &["reasoning_content", "content", "tool_calls"]);
    messages
}

/// Ends the assistant's message if it has one of these.
fn flush_if(messages: &mut Vec<Value>, assistant: &mut Map<String, Value>, names: &[&str]) {
    if names.iter().any(|name| assistant.contains_key(*name)) {
        let mut message = Map::from_iter([("role".to_owned(), "assistant".into())]);
        message.append(assistant);
        messages.push(Value::Object(message));
    }
}

/// The texts of parts, a line each.
fn joined(content: &Value) -> String {
    let texts: Vec<&str> = content.as_array().into_iter().flatten().filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_messages() {
        let items = read(json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content":
                [{"type": "output_text", "text": "So", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
            {"role": "assistant", "content": "Done"},
            {"role": "assistant", "content": "Really"},
        ]))
        .unwrap();
        assert_eq!((&items[2]["id"], &items[3]["id"]), (&json!("rs_1"), &json!("msg_1")));
        assert!(items.iter().all(|item| item["id"].is_string()));
        let call =
            |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
        let expected = [
            json!({"role": "developer", "content": "Be brief."}),
            json!({"role": "user", "content": "a\nb"}),
            json!({"role": "assistant", "reasoning_content": "hm", "content": "So",
                "tool_calls": [call("c1", "f"), call("c2", "g")]}),
            json!({"role": "tool", "tool_call_id": "c1", "content": "1"}),
            json!({"role": "tool", "tool_call_id": "c2", "content": "2"}),
            json!({"role": "assistant", "content": "Done"}),
            json!({"role": "assistant", "content": "Really"}),
        ];
        assert_eq!(messages(&items), expected);
        // What is kept reads as it was read.
        let again = read(Value::Array(items.clone())).unwrap();
        assert_eq!(again, items);
    }

    #[test]
    fn errors_name_the_place() {
        for (input, param) in [
            (json!(1), "input"),
            (json!([]), "input"),
            (json!([1]), "input[0]"),
            (json!([{"content": "a"}]), "input[0].role"),
            (json!([{"role": "tool", "content": "a"}]), "input[0].role"),
            (json!([{"role": "user"}]), "input[0].content"),
            (json!([{"role": "user", "content": 1}]), "input[0].content"),
            (json!([{"role": "user", "content": "a", "name": "b"}]), "input[0].name"),
            (json!([{"role": "user", "content": "a", "status": "lost"}]), "input[0].status"),
            (json!([{"role": "user", "content": [{"text": "a"}]}]), "input[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "input_text"}]}]), "input[0].content[0].text"),
            (
                json!([{"role": "user", "content": [{"type": "input_image", "image_url": "http://a"}]}]),
                "input[0].content[0]",
            ),
            (json!([{"type": "function_call", "name": "f", "arguments": "{}"}]), "input[0].call_id"),
            (json!([{"type": "function_call", "call_id": "c", "arguments": "{}"}]), "input[0].name"),
            (json!([{"type": "function_call", "call_id": "c", "name": "f"}]), "input[0].arguments"),
            (json!([{"type": "function_call_output", "call_id": "c"}]), "input[0].output"),
            (json!([{"type": "web_search_call"}]), "input[0].type"),
            (json!([{"type": "item_reference", "id": "x"}]), "input[0].type"),
            (json!([{"type": "reasoning", "encrypted_content": "x"}]), "input[0].encrypted_content"),
        ] {
            assert_eq!(read(input.clone()).unwrap_err().param(), Some(param), "{input}");
        }
    }
}
