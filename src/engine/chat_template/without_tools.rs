//! Tools for models whose template has none: described in the system's message, called and answered in words.
//!
//! The form of such calls is [`Calls::Generic`]. Templates that show tools, but write no calls, get those in the model's own.

use serde_json::{Map, Value as Json, json};

use super::messages::Message;
use crate::engine::dialect::{Calls, Tool};

/// `messages` with their calls written as text in this form.
pub fn with_calls_as_text(mut messages: Vec<Message>, form: Calls) -> Vec<Message> {
    for message in &mut messages {
        if let Some(calls) = message.remove("tool_calls") {
            let text = message.get("content").and_then(Json::as_str).unwrap_or_default();
            let separator = if text.is_empty() { "" } else { "\n" };
            let text = format!("{text}{separator}{}", written(&calls, form));
            message.insert("content".into(), text.into());
        }
    }
    messages
}

/// `messages` with results as the user's words; those in a row are one message, for templates that want turns.
pub fn with_results_as_text(messages: Vec<Message>) -> Vec<Message> {
    let mut formed: Vec<Message> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for message in messages {
        let is_result = role(&message) == "tool";
        if !is_result {
            formed.push(message);
        } else {
            let name = message.get("name").and_then(Json::as_str).unwrap_or("the call");
            let text = format!("Result of {name}: {}", text(&message));
            match formed.last_mut().filter(|_| after_result) {
                Some(last) => append(last, "\n", &text),
                None => formed.push(said("user", text)),
            }
        }
        after_result = is_result;
    }
    formed
}

/// `messages` with a description of `tools` at the beginning of what the system says.
pub fn with_tools_described(messages: Vec<Message>, tools: &[Tool]) -> Vec<Message> {
    if tools.is_empty() {
        return messages;
    }
    let mut formed = vec![said("system", description(tools))];
    for message in messages {
        match formed.as_mut_slice() {
            [first] if role(&message) == "system" => append(first, "\n\n", text(&message)),
            _ => formed.push(message),
        }
    }
    formed
}

fn role(message: &Message) -> &str {
    message.get("role").and_then(Json::as_str).unwrap_or_default()
}

fn text(message: &Message) -> &str {
    message.get("content").and_then(Json::as_str).unwrap_or_default()
}

fn said(role: &str, text: String) -> Message {
    Map::from_iter([("role".into(), role.into()), ("content".into(), text.into())])
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

/// Calls, as OpenAI's clients write them, in the model's own words.
fn written(calls: &Json, form: Calls) -> String {
    let call = |call: &Json| {
        let function = call.get("function")?;
        let arguments = match function.get("arguments") {
            Some(Json::String(text)) if !text.trim().is_empty() => text.clone(),
            Some(object @ Json::Object(_)) => object.to_string(),
            _ => "{}".into(),
        };
        Some((function.get("name")?.as_str()?.to_owned(), arguments))
    };
    let calls: Vec<(String, String)> = calls.as_array().into_iter().flatten().filter_map(call).collect();
    let calls: Vec<(&str, &str)> = calls.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str())).collect();
    form.write(&calls)
}
