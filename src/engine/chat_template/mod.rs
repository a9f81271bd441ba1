//! Chat templates: messages to the prompt text a model was trained on.
//!
//! A template is a Jinja program that comes with the model and was written for Python's Jinja2 as `transformers` sets it up;
//! `program` makes minijinja agree with that (`tests/chat_template.rs` holds it to what Python prints). `capabilities` finds
//! out what a template takes, `messages` brings conversations into that form. Templates come from model files and the
//! operator only, never from clients, can load nothing, and run on a budget of steps and bytes.

mod capabilities;
mod date;
mod filters;
mod json;
mod messages;
mod methods;
mod operators;
mod program;
mod rewrite;
#[cfg(test)]
mod tests;
mod without_tools;

use std::fmt;

pub use capabilities::TemplateCapabilities;
pub use program::Program;
use serde_json::{Map, Value as Json, json};

use self::messages::Form;
use super::{
    dialect::{Calls, Dialect, Tool},
    tokenizer::Tokenizer,
};

/// Why a prompt could not be made.
#[derive(Debug)]
pub enum TemplateError {
    /// The template does not compile.
    Syntax(String),
    /// The template refused these messages, in its own words (`raise_exception`).
    Refused(String),
    /// The template failed on these messages.
    Render(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "the chat template is broken: {why}"),
            Self::Refused(why) => write!(f, "the chat template refuses these messages: {why}"),
            Self::Render(why) => write!(f, "the chat template failed: {why}"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// The templates that come with a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateSources {
    pub default: String,
    /// Taken where there are tools, if there is one.
    pub tool_use: Option<String>,
}

impl From<String> for TemplateSources {
    fn from(default: String) -> Self {
        Self { default, tool_use: None }
    }
}

impl TemplateSources {
    /// What a file of templates says: Jinja; or, in JSON, an object with `chat_template`, which is a template or a list of
    /// `{"name", "template"}`. `None`: JSON without one.
    pub fn read(text: &str) -> Option<Self> {
        match serde_json::from_str::<Json>(text) {
            Ok(Json::Object(object)) => Self::of_json(object.get("chat_template")?),
            _ => Some(text.to_owned().into()),
        }
    }

    /// The value of `chat_template` in `tokenizer_config.json` or `chat_template.json`: a template, or several with names.
    pub fn of_json(value: &Json) -> Option<Self> {
        if let Some(source) = value.as_str() {
            return Some(source.to_owned().into());
        }
        let named = |name: &str| {
            let template = value.as_array()?.iter().find(|t| t.get("name").and_then(Json::as_str) == Some(name))?;
            template.get("template")?.as_str().map(str::to_owned)
        };
        let tool_use = named("tool_use");
        // Whoever has but one for tools takes it for all.
        let default = named("default").or_else(|| tool_use.clone())?;
        Some(Self { default, tool_use })
    }
}

/// What is to be written out.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    /// As OpenAI's clients write them: `{"role", "content", …}`.
    pub messages: &'a [Json],
    pub tools: &'a [Tool],
    /// Texts to answer from, for templates that know some: a list of `{"title", "text"}`.
    pub documents: Option<&'a Json>,
    pub ending: Ending,
    /// Further variables, such as `enable_thinking` (`chat_template_kwargs`). They replace none of the above.
    pub variables: &'a Map<String, Json>,
}

/// How a prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With the start of a reply (`add_generation_prompt`).
    Reply,
    /// With the end of the last message.
    Closed,
    /// In the last message, the assistant's, which is to be gone on with (`continue_final_message`).
    Open,
}

/// Stands behind the text of a message that is to be continued, to be found in the prompt. The space tells whether the
/// template trims.
const CONTINUED: &str = "CONTINUED-TO-BE-5831 ";

/// A model's compiled chat templates. `Send + Sync`.
#[derive(Debug)]
pub struct ChatTemplate {
    sources: TemplateSources,
    default: Program,
    tool_use: Option<Program>,
    capabilities: TemplateCapabilities,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles templates for a model whose special tokens `tokenizer` spells.
    pub fn for_tokenizer(sources: impl Into<TemplateSources>, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        let spelt = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
        Self::new(sources, &spelt(tokenizer.bos()), &spelt(tokenizer.eos()))
    }

    /// Compiles templates, and tries out what they can; `bos` and `eos` are how they spell these tokens.
    pub fn new(sources: impl Into<TemplateSources>, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let sources = sources.into();
        let default = Program::compile(&sources.default)?;
        let tool_use = sources.tool_use.as_deref().map(Program::compile).transpose()?;
        let capabilities = TemplateCapabilities::of(&default, tool_use.as_ref().unwrap_or(&default), bos, eos);
        Ok(Self { sources, default, tool_use, capabilities, bos: bos.into(), eos: eos.into() })
    }

    pub fn capabilities(&self) -> &TemplateCapabilities {
        &self.capabilities
    }

    pub fn sources(&self) -> &TemplateSources {
        &self.sources
    }

    /// How the model writes thoughts and calls, as far as its template tells.
    pub fn dialect(&self, tokenizer: &Tokenizer) -> Dialect {
        Dialect::new(Dialect::thoughts_of(&self.sources.default), self.calls(), tokenizer)
    }

    /// The form of calls: the template's own if it shows tools and the form is known, else ours.
    pub fn calls(&self) -> Calls {
        match self.capabilities.supports_tools {
            true => Calls::of(self.sources.tool_use.as_deref().unwrap_or(&self.sources.default)),
            false => Calls::Generic,
        }
    }

    /// The prompt for a conversation.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, TemplateError> {
        let Conversation { messages, tools, ending, .. } = *conversation;
        let calls = self.calls();
        let native_tools = calls != Calls::Generic;
        let with_tools = self.tool_use.as_ref().filter(|_| !tools.is_empty() && native_tools);
        let source = if with_tools.is_some() { self.sources.tool_use.as_deref() } else { None };
        let form = Form {
            capabilities: &self.capabilities,
            knows_developer: source.unwrap_or(&self.sources.default).contains("developer"),
            calls,
        };
        let mut messages = form.of(messages, tools);
        if ending == Ending::Open {
            mark_last(&mut messages)?;
        }

        let mut variables = conversation.variables.clone();
        let shown: Vec<Json> = tools.iter().filter(|_| native_tools).map(shown).collect();
        variables.extend([
            ("messages".to_owned(), messages.into()),
            ("tools".to_owned(), if shown.is_empty() { Json::Null } else { shown.into() }),
            ("add_generation_prompt".to_owned(), (ending == Ending::Reply).into()),
            ("bos_token".to_owned(), self.bos.as_str().into()),
            ("eos_token".to_owned(), self.eos.as_str().into()),
        ]);
        if let Some(documents) = conversation.documents {
            variables.insert("documents".into(), documents.clone());
        }
        variables.entry("documents").or_insert(Json::Null);
        let prompt = with_tools.unwrap_or(&self.default).run(variables)?;
        if ending == Ending::Open { cut_at_mark(prompt) } else { Ok(prompt) }
    }
}

/// A tool as templates know it. Many take a description and parameters for granted.
fn shown(tool: &Tool) -> Json {
    let none = || json!({ "type": "object", "properties": {} });
    json!({
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description.as_deref().unwrap_or_default(),
            "parameters": tool.parameters.clone().unwrap_or_else(none),
        },
    })
}

/// Puts [`CONTINUED`] behind the last message's text.
fn mark_last(messages: &mut [Json]) -> Result<(), TemplateError> {
    let last = messages.last_mut().filter(|message| message["role"] == "assistant");
    let content = last.and_then(|message| message.get_mut("content"));
    let text = match content {
        Some(Json::Array(parts)) => parts.last_mut().and_then(|part| part.get_mut("text")),
        content => content,
    };
    match text {
        Some(Json::String(text)) => text.push_str(CONTINUED),
        _ => {
            return Err(TemplateError::Refused(
                "only a text of the assistant, as the last message, can be continued".into(),
            ));
        }
    }
    Ok(())
}

/// The prompt up to the mark: as `transformers` has it, without the white space behind a text that the template trims.
fn cut_at_mark(mut prompt: String) -> Result<String, TemplateError> {
    let Some(at) = prompt.rfind(CONTINUED.trim_end()) else {
        return Err(TemplateError::Refused("it leaves out the last message, which is to be continued".into()));
    };
    let is_trimmed = !prompt[at..].starts_with(CONTINUED);
    prompt.truncate(at);
    if is_trimmed {
        prompt.truncate(prompt.trim_end().len());
    }
    Ok(prompt)
}
