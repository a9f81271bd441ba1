//! Tools for models whose template has none: described in the system's message, called and answered in words.
//!
//! The form of calls is [`Calls::Generic`](crate::engine::dialect::Calls::Generic).

use serde_json::{Map, Value as Json, json};

use super::messages::Message;
use crate::engine::dialect::Tool;

/// `messages` without calls and results, and with a description of `tools` in the system's message if there are any.
pub fn in_words(messages: Vec<Message>, tools: &[Tool]) -> Vec<Message> {
    let mut formed: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    if !tools.is_empty() {
        formed.push(said("system", description(tools)));
    }
    for mut message in messages {
        let role = message.get("role").and_then(Json::as_str).unwrap_or_default().to_owned();
        let text = message.get("content").and_then(Json::as_str).unwrap_or_default().to_owned();
        if let Some(calls) = message.remove("tool_calls") {
            let separator = if text.is_empty() { "" } else { "\n" };
            message.insert("content".into(), format!("{text}{separator}{}", written(&calls)).into());
            formed.push(message);
            continue;
        }
        let text = match role.as_str() {
            "tool" => format!("Result of {}: {text}", message.get("name").and_then(Json::as_str).unwrap_or("the call")),
            _ => text,
        };
        match formed.last_mut() {
            // Templates without tools want turns: all results together are the user's.
            Some(last) if role == "tool" && is_results(last) => append(last, "\n", &text),
            Some(last) if role == "system" && !tools.is_empty() && last.get("role") == Some(&"system".into()) => {
                append(last, "\n\n", &text);
            }
            _ if role == "tool" => formed.push(said("user", text)),
            _ => formed.push(message),
        }
    }
    formed
}

fn said(role: &str, text: String) -> Message {
    Map::from_iter([("role".into(), role.into()), ("content".into(), text.into())])
}

fn is_results(message: &Message) -> bool {
    let text = message.get("content").and_then(Json::as_str).unwrap_or_default();
    message.get("role") == Some(&"user".into()) && text.starts_with("Result of ")
}

fn append(message: &mut Message, separator: &str, text: &str) {
    if let Some(Json::String(content)) = message.get_mut("content") {
        content.push_str(separator);
        content.push_str(text);
    }
}

/// What the model is told of tools.
fn description(tools: &[Tool]) -> String {
    let mut text = String::from("You can call these functions:\n");
    for tool in tools {
        let any = json!({ "type": "object" });
        let parameters = tool.parameters.as_ref().unwrap_or(&any);
        let about = json!({ "name": tool.name, "description": tool.description.as_deref().unwrap_or_default(), "parameters": parameters });
        text.push_str(&about.to_string());
        text.push('\n');
    }
    text.push_str(
        "To call some of them, answer with nothing but a JSON object of this form:\n\
         {\"tool_calls\": [{\"name\": \"the function's name\", \"arguments\": {\"a parameter\": \"its value\"}}]}\n\
         You then get their results. If no function is needed, answer in plain text.",
    );
    text
}

/// Calls as the model was told to write them.
fn written(calls: &Json) -> String {
    let call = |call: &Json| {
        let function = call.get("function")?;
        let name = function.get("name")?.as_str()?;
        let arguments = match function.get("arguments") {
            Some(Json::String(text)) if !text.trim().is_empty() => text.clone(),
            Some(object @ Json::Object(_)) => object.to_string(),
            _ => "{}".into(),
        };
        Some(format!("{{\"name\": {}, \"arguments\": {arguments}}}", Json::from(name)))
    };
    let calls: Vec<String> = calls.as_array().into_iter().flatten().filter_map(call).collect();
    format!("{{\"tool_calls\": [{}]}}", calls.join(", "))
}
