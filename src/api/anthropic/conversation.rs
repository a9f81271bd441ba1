//! `system` and `messages`: blocks of Anthropic's, turned into messages as chat templates take them.
//!
//! Texts of one message are joined as they are, for a cache breakpoint may stand anywhere between two; messages in a row
//! by the same speaker become one, with an empty line between.
//! Every call has its result in the next message: templates write them side by side.

use serde_json::{Map, Value, json};

use crate::api::{
    ask::Chat,
    error::ApiError,
    fields::{Fields, kind},
};

use super::request::read_cache_control;

const MESSAGES_MAX: usize = 100_000;
/// Calls in one message.
const CALLS_MAX: usize = 128;

/// Reads both into `chat`.
pub fn read(fields: &mut Fields, chat: &mut Chat) -> Result<(), ApiError> {
    let mut conversation = Conversation::default();
    if let Some(system) = fields.take("system") {
        conversation.message(Role::System, system, "system")?;
    }
    let items = match fields.take("messages") {
        Some(Value::Array(items)) => items,
        Some(other) => return fields.refuse("messages", format!("expected a list, not {}", kind(&other))),
        None => return fields.missing("messages", "the conversation"),
    };
    let count = items.len();
    if !(1..=MESSAGES_MAX).contains(&count) {
        return fields.refuse("messages", format!("{count} messages, 1 to {MESSAGES_MAX} are allowed"));
    }
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("messages[{i}]");
        let mut message = Fields::inside(item, &at)?;
        let role = match message.text("role")?.as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => Role::System,
            Some(_) => return message.refuse("role", "must be user, assistant or system".to_owned()),
            None => return message.missing("role", "user, assistant or system"),
        };
        let Some(content) = message.take("content") else { return message.missing("content", "the text") };
        message.finish()?;
        if role == Role::Assistant {
            conversation.expect_results(&at)?;
        }
        conversation.message(role, content, &format!("{at}.content"))?;
    }
    conversation.expect_results(&format!("messages[{}]", count - 1))?;
    chat.continues = conversation.said.last().is_some_and(|last| last.speaker == Speaker::Assistant);
    chat.messages = conversation.said.into_iter().map(Said::into_json).collect();
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

/// Who says something, by the roles that templates know.
#[derive(Debug, PartialEq, Eq)]
enum Speaker {
    System,
    User,
    Assistant,
    /// The result of a call.
    Tool {
        id: String,
        name: String,
    },
}

/// One message of the result.
struct Said {
    speaker: Speaker,
    text: String,
    thoughts: String,
    calls: Vec<Value>,
}

impl Said {
    fn into_json(self) -> Value {
        let mut message = Map::new();
        let role = match self.speaker {
            Speaker::System => "system",
            Speaker::User => "user",
            Speaker::Assistant => "assistant",
            Speaker::Tool { id, name } => {
                message.insert("tool_call_id".into(), id.into());
                message.insert("name".into(), name.into());
                "tool"
            }
        };
        message.insert("role".into(), role.into());
        message.insert("content".into(), self.text.into());
        if !self.thoughts.is_empty() {
            message.insert("reasoning_content".into(), self.thoughts.into());
        }
        if !self.calls.is_empty() {
            message.insert("tool_calls".into(), self.calls.into());
        }
        Value::Object(message)
    }
}

/// What has been read so far.
#[derive(Default)]
struct Conversation {
    said: Vec<Said>,
    /// Calls without a result: ids and names.
    open: Vec<(String, String)>,
    /// No text of this message has been read.
    begins: bool,
}

impl Conversation {
    /// Whoever is asked to go on must know what came of the calls.
    fn expect_results(&self, at: &str) -> Result<(), ApiError> {
        match self.open.first() {
            None => Ok(()),
            Some((id, _)) => {
                let id: String = id.chars().take(64).collect();
                Err(ApiError::field(at, format!("the tool_use {id:?} has no tool_result in the message behind it")))
            }
        }
    }

    /// A message, whose content stands at `at`.
    fn message(&mut self, role: Role, content: Value, at: &str) -> Result<(), ApiError> {
        self.begins = true;
        match content {
            Value::String(text) => self.text(role, &text, at),
            Value::Array(blocks) if blocks.is_empty() => self.text(role, "", at),
            Value::Array(blocks) => {
                for (i, block) in blocks.into_iter().enumerate() {
                    self.block(role, block, &format!("{at}[{i}]"))?;
                }
                Ok(())
            }
            other => Err(ApiError::field(at, format!("expected a string or a list of blocks, not {}", kind(&other)))),
        }
    }

    fn block(&mut self, role: Role, block: Value, at: &str) -> Result<(), ApiError> {
        let mut fields = Fields::inside(block, at)?;
        let Some(block_type) = fields.text("type")? else { return fields.missing("type", "the kind of block") };
        match (block_type.as_str(), role) {
            ("text", _) => {
                let text = read_text(&mut fields)?;
                self.text(role, &text, at)?;
            }
            ("thinking", Role::Assistant) => {
                let Some(thoughts) = fields.text("thinking")? else {
                    return fields.missing("thinking", "the thoughts");
                };
                fields.text("signature")?;
                if !thoughts.is_empty() {
                    self.by(Speaker::Assistant).thoughts.push_str(&thoughts);
                }
            }
            // Another server's, which nobody here can read.
            ("redacted_thinking", Role::Assistant) => drop(fields.text("data")?),
            ("tool_use", Role::Assistant) => self.call(&mut fields)?,
            ("tool_result", Role::User) => self.result(&mut fields, at)?,
            ("thinking" | "redacted_thinking" | "tool_use" | "tool_result", _) => {
                let message = format!("a message of this role can't have a block {block_type}");
                return fields.refuse("type", message);
            }
            _ => return Err(unsupported_block(&block_type, at)),
        }
        read_cache_control(&mut fields)?;
        fields.finish()
    }

    fn text(&mut self, role: Role, text: &str, at: &str) -> Result<(), ApiError> {
        let speaker = match role {
            // As an answer without any text, which comes back.
            Role::Assistant if text.is_empty() => return Ok(()),
            _ if text.is_empty() => return Err(ApiError::field(at, "must not be empty")),
            Role::Assistant => Speaker::Assistant,
            Role::User => Speaker::User,
            Role::System => Speaker::System,
        };
        let begins = std::mem::take(&mut self.begins);
        let said = self.by(speaker);
        if begins && !said.text.is_empty() {
            said.text.push_str("\n\n");
        }
        said.text.push_str(text);
        Ok(())
    }

    fn call(&mut self, fields: &mut Fields) -> Result<(), ApiError> {
        let Some(id) = fields.text("id")? else { return fields.missing("id", "the call's id") };
        let Some(name) = fields.text("name")? else { return fields.missing("name", "the tool's name") };
        let input = match fields.take("input") {
            Some(input @ Value::Object(_)) => input,
            Some(other) => return fields.refuse("input", format!("expected an object, not {}", kind(&other))),
            None => return fields.missing("input", "what the tool is called with"),
        };
        read_caller(fields)?;
        if self.open.iter().any(|(other, _)| *other == id) {
            return fields.refuse("id", "another call of this message has it".to_owned());
        }
        if self.open.len() == CALLS_MAX {
            return fields.refuse("type", format!("more than {CALLS_MAX} calls in one message"));
        }
        let function = json!({ "name": name, "arguments": input.to_string() });
        let call = json!({ "id": id, "type": "function", "function": function });
        self.by(Speaker::Assistant).calls.push(call);
        self.open.push((id, name));
        Ok(())
    }

    fn result(&mut self, fields: &mut Fields, at: &str) -> Result<(), ApiError> {
        let Some(id) = fields.text("tool_use_id")? else { return fields.missing("tool_use_id", "the call's id") };
        let Some(call) = self.open.iter().position(|(open, _)| *open == id) else {
            let message = "the assistant's message before has no tool_use of this id, or it has its result already";
            return fields.refuse("tool_use_id", message.to_owned());
        };
        let text = match fields.take("content") {
            None => String::new(),
            Some(content) => result_text(content, &format!("{at}.content"))?,
        };
        read_toolset(fields)?;
        // Templates have no other place for it.
        let mark = if fields.flag("is_error")? == Some(true) { "Error: " } else { "" };
        let (id, name) = self.open.remove(call);
        self.by(Speaker::Tool { id, name }).text = format!("{mark}{text}");
        Ok(())
    }

    /// What this speaker says now: more of the last message if that was his, or a new one.
    fn by(&mut self, speaker: Speaker) -> &mut Said {
        let goes_on = self.said.last().is_some_and(|last| last.speaker == speaker);
        if !goes_on {
            self.said.push(Said { speaker, text: String::new(), thoughts: String::new(), calls: Vec::new() });
        }
        let last = self.said.len() - 1;
        &mut self.said[last]
    }
}

/// The text of a block.
fn read_text(fields: &mut Fields) -> Result<String, ApiError> {
    let Some(text) = fields.text("text")? else { return fields.missing("text", "the text") };
    match fields.take("citations") {
        None => Ok(text),
        Some(Value::Array(none)) if none.is_empty() => Ok(text),
        Some(_) => fields.refuse("citations", "citations are not supported".to_owned()),
    }
}

/// What a tool has answered.
fn result_text(content: Value, at: &str) -> Result<String, ApiError> {
    let blocks = match content {
        Value::String(text) => return Ok(text),
        Value::Array(blocks) => blocks,
        other => {
            return Err(ApiError::field(at, format!("expected a string or a list of blocks, not {}", kind(&other))));
        }
    };
    let mut text = String::new();
    for (i, block) in blocks.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        let mut fields = Fields::inside(block, &at)?;
        match fields.text("type")?.as_deref() {
            Some("text") => text.push_str(&read_text(&mut fields)?),
            Some(other) => return Err(unsupported_block(other, &at)),
            None => return fields.missing("type", "text"),
        }
        read_cache_control(&mut fields)?;
        fields.finish()?;
    }
    Ok(text)
}

/// Who has called: the model itself.
fn read_caller(fields: &mut Fields) -> Result<(), ApiError> {
    if let Some(caller) = fields.take("caller")
        && caller["type"] != "direct"
    {
        return fields.refuse("caller", "only direct calls are supported".to_owned());
    }
    read_toolset(fields)
}

fn read_toolset(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.take("toolset_name") {
        None => Ok(()),
        Some(_) => fields.refuse("toolset_name", "toolsets are not supported".to_owned()),
    }
}

fn unsupported_block(block_type: &str, at: &str) -> ApiError {
    let block_type: String = block_type.chars().take(64).collect();
    let message = match block_type.as_str() {
        "image" => "images are not supported; none is ever fetched".to_owned(),
        "document" => "documents are not supported; none is ever fetched".to_owned(),
        _ => format!("blocks of the type {block_type:?} are not supported"),
    };
    ApiError::unsupported(at, message)
}

#[cfg(test)]
mod tests;
