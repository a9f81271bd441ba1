//! Messages as OpenAI's clients write them, brought into the form that a template takes.

use serde_json::{Map, Value as Json, json};

use super::{
    capabilities::{NoText, TemplateCapabilities},
    without_tools,
};
use crate::engine::dialect::{Calls, Tool};

/// A message.
pub type Message = Map<String, Json>;

/// How the messages of a conversation are written for one template.
pub struct Form<'a> {
    pub capabilities: &'a TemplateCapabilities,
    /// The template names the role `developer`.
    pub knows_developer: bool,
    /// How the model writes calls.
    pub calls: Calls,
}

impl Form<'_> {
    /// `messages` in the template's form, with `tools` described where the template does not show them.
    pub fn of(&self, messages: &[Json], tools: &[Tool]) -> Vec<Json> {
        let mut formed: Vec<Message> = messages.iter().filter_map(Json::as_object).cloned().collect();
        formed.iter_mut().for_each(|message| self.text_and_role(message));
        let in_words = self.calls == Calls::Generic;
        if in_words || !self.capabilities.supports_tool_calls {
            formed = without_tools::with_calls_as_text(formed, self.calls);
        }
        if in_words || !self.capabilities.supports_tool_role {
            formed = without_tools::with_results_as_text(formed);
        }
        if in_words {
            formed = without_tools::with_tools_described(formed, tools);
        }
        if !self.capabilities.supports_system_role {
            formed = with_system_in_user(formed);
        }
        for message in &mut formed {
            self.form_calls(message);
            if !self.capabilities.supports_string_content
                && let Some(Json::String(text)) = message.get("content")
            {
                let parts = json!([{ "type": "text", "text": text }]);
                message.insert("content".into(), parts);
            }
        }
        formed.into_iter().map(Json::Object).collect()
    }

    fn text_and_role(&self, message: &mut Message) {
        if message.get("role").and_then(Json::as_str) == Some("developer") && !self.knows_developer {
            message.insert("role".into(), "system".into());
        }
        if let Some(Json::Array(parts)) = message.get("content")
            && let Some(text) = joined(parts)
        {
            message.insert("content".into(), text.into());
        }
        let has_calls = message.get("tool_calls").and_then(Json::as_array).is_some_and(|calls| !calls.is_empty());
        if !has_calls {
            // Templates take the mere presence of the field for calls.
            message.remove("tool_calls");
            if message.get("content").is_none_or(Json::is_null) {
                message.insert("content".into(), "".into());
            }
        }
    }

    /// Calls and their results: arguments, ids, the text beside them.
    fn form_calls(&self, message: &mut Message) {
        if let Some(Json::Array(calls)) = message.get_mut("tool_calls") {
            for call in calls {
                self.id(call.get_mut("id"));
                if let Some(arguments) = call.get_mut("function").and_then(|function| function.get_mut("arguments")) {
                    self.arguments(arguments);
                }
            }
            if message.get("content").is_none_or(|text| text.is_null() || text == "") {
                match self.capabilities.no_text {
                    NoText::Empty => drop(message.insert("content".into(), "".into())),
                    NoText::Null => drop(message.insert("content".into(), Json::Null)),
                    NoText::Missing => drop(message.remove("content")),
                }
            }
        }
        self.id(message.get_mut("tool_call_id"));
    }

    fn arguments(&self, arguments: &mut Json) {
        match arguments {
            Json::String(text) if self.capabilities.supports_object_arguments => {
                if text.trim().is_empty() {
                    *arguments = json!({});
                } else if let Ok(object @ Json::Object(_)) = serde_json::from_str(text) {
                    *arguments = object;
                }
            }
            Json::Object(_) if !self.capabilities.supports_object_arguments => {
                *arguments = arguments.to_string().into()
            }
            _ => {}
        }
    }

    fn id(&self, id: Option<&mut Json>) {
        if let Some(id) = id
            && self.capabilities.short_ids
            && let Some(text) = id.as_str()
            && !(text.len() == 9 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        {
            *id = short_id(text).into();
        }
    }
}

/// The text of parts that are all text.
fn joined(parts: &[Json]) -> Option<String> {
    let text = |part: &Json| match part.get("type").and_then(Json::as_str) {
        Some("text" | "input_text" | "output_text") | None => part.get("text")?.as_str().map(str::to_owned),
        Some(_) => None,
    };
    parts.iter().map(text).collect()
}

/// Nine letters and digits that stand for an id: FNV-1a, which is the same in every run, so that prompts are found in the
/// cache again.
fn short_id(id: &str) -> String {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..9)
        .scan(hash, |rest, _| {
            let digit = digits[(*rest % 36) as usize];
            *rest /= 36;
            Some(char::from(digit))
        })
        .collect()
}

/// For templates that know no system: what it says begins the user's next message.
fn with_system_in_user(messages: Vec<Message>) -> Vec<Message> {
    let mut said: Vec<String> = Vec::new();
    let mut formed: Vec<Message> = Vec::with_capacity(messages.len());
    for mut message in messages {
        let text = message.get("content").and_then(Json::as_str).unwrap_or_default();
        match message.get("role").and_then(Json::as_str) {
            Some("system") => {
                said.push(text.to_owned());
                continue;
            }
            Some("user") if !said.is_empty() => {
                said.push(text.to_owned());
                message.insert("content".into(), said.join("\n\n").into());
                said.clear();
            }
            _ => {}
        }
        formed.push(message);
    }
    if !said.is_empty() {
        formed.push(Map::from_iter([("role".into(), "user".into()), ("content".into(), said.join("\n\n").into())]));
    }
    formed
}
