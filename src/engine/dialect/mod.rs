//! Dialects: how a model writes its thoughts and its tool calls, in the middle of its text.
//!
//! Pure: knows text, and of the tokenizer only how tags are spelt. Knows no wire format, no request and no clock.
//! [`Dialect::detect`] finds out which tags a chat template uses, [`Reader`] takes the text of an answer apart while it
//! comes, and [`Dialect::tool_grammar`] says what a model may write when it must call a tool.
//!
//! Invariants: what a [`Reader`] gives does not depend on where its input was cut; no character of an answer is lost,
//! but for tags, and white space around thoughts and calls.

mod call;
mod grammar;
mod reader;
mod tags;

pub use reader::Reader;
use serde_json::Value;

use super::tokenizer::{Markup, Special, Tokenizer};

/// What a model said, part by part, in order. `index` counts the calls of an answer from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// More of the thoughts before the answer.
    Thought(String),
    /// More of the answer.
    Text(String),
    /// A call of the tool `name` begins.
    ToolCall { index: usize, name: String },
    /// More of a call's arguments: JSON text as the model wrote it. All fragments of a call together are one object.
    Arguments { index: usize, fragment: String },
}

/// A function that the model may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    /// What the model is told of it.
    pub description: Option<String>,
    /// JSON schema of its arguments; `None`: it takes any object.
    pub parameters: Option<Value>,
    /// The model's arguments are held to the schema even if it need not call.
    pub strict: bool,
}

/// Whether the model calls tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// It does not.
    None,
    /// It calls one at least.
    Required,
    /// It calls this one.
    Named(String),
}

/// Tags around thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thoughts {
    pub open: &'static str,
    pub close: &'static str,
}

impl Thoughts {
    /// Qwen 3, DeepSeek, SmolLM3 and most others; Magistral.
    const KNOWN: [Self; 2] = [Self { open: "<think>", close: "</think>" }, Self { open: "[THINK]", close: "[/THINK]" }];

    /// The tags that a template mentions, if it mentions both or closes what the model opens.
    fn of(template: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|tags| template.contains(tags.close))
    }
}

/// The form of tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// `<tool_call>\n{"name": …, "arguments": …}\n</tool_call>`, once for each: Hermes, Qwen, SmolLM3, Granite 4.
    Tagged,
    /// A tag, then `[{"name": …, "arguments": …}, …]`: Mistral until 2024 (`[TOOL_CALLS]`), Granite 3 (`<|tool_call|>`).
    List { open: &'static str },
    /// `[TOOL_CALLS]name[ARGS]{…}`, once for each: Mistral since.
    Named,
    /// `{"name": …, "parameters": …}` as the whole answer, several separated by `; `: Llama 3. It may begin with a tag.
    Bare,
    /// `{"tool_calls": [{"name": …, "arguments": …}]}` as the whole answer: asked of models that know no form, by a
    /// system message of ours (`chat_template/without_tools`).
    Generic,
}

const TOOL_CALL: (&str, &str) = ("<tool_call>", "</tool_call>");
const TOOL_CALLS: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const LIST_TAG: &str = "<|tool_call|>";
const PYTHON_TAG: &str = "<|python_tag|>";

impl Calls {
    /// The form that a template speaks of.
    pub fn of(template: &str) -> Self {
        let has = |text: &str| template.contains(text);
        if !has("tools") {
            return Self::Generic;
        }
        if has(TOOL_CALLS) {
            return if has(ARGS) { Self::Named } else { Self::List { open: TOOL_CALLS } };
        }
        // `<function=name>` inside of the tag is a form of its own, in XML.
        if has(TOOL_CALL.0) && !has("<function=") {
            return Self::Tagged;
        }
        if has(LIST_TAG) {
            return Self::List { open: LIST_TAG };
        }
        if has(PYTHON_TAG) || has("<|start_header_id|>") && has("\"parameters\": ") {
            return Self::Bare;
        }
        Self::Generic
    }

    /// Calls as a model writes them; each is a name and the JSON text of its arguments.
    pub fn write(self, calls: &[(&str, &str)]) -> String {
        let key = if self == Self::Bare { "parameters" } else { "arguments" };
        let object =
            |(name, arguments): &(&str, &str)| format!("{{\"name\": {}, \"{key}\": {arguments}}}", Value::from(*name));
        let all = |write: &dyn Fn(&(&str, &str)) -> String, separator: &str| {
            calls.iter().map(write).collect::<Vec<_>>().join(separator)
        };
        match self {
            Self::Tagged => all(&|call| format!("{}\n{}\n{}", TOOL_CALL.0, object(call), TOOL_CALL.1), "\n"),
            Self::List { open } => format!("{open}[{}]", all(&object, ", ")),
            Self::Named => all(&|(name, arguments)| format!("{TOOL_CALLS}{name}{ARGS}{arguments}"), ""),
            Self::Bare => all(&object, "; "),
            Self::Generic => format!("{{\"tool_calls\": [{}]}}", all(&object, ", ")),
        }
    }

    /// The tags that begin a call, or several.
    fn opens(self) -> &'static [&'static str] {
        match self {
            Self::Tagged => &[TOOL_CALL.0],
            Self::List { open: LIST_TAG } => &[LIST_TAG],
            Self::List { .. } | Self::Named => &[TOOL_CALLS],
            Self::Bare => &[PYTHON_TAG],
            Self::Generic => &[],
        }
    }

    /// All tags.
    fn tags(self) -> impl Iterator<Item = &'static str> {
        let more: &[&str] = match self {
            Self::Tagged => &[TOOL_CALL.1],
            Self::Named => &[ARGS],
            _ => &[],
        };
        self.opens().iter().chain(more).copied()
    }
}

/// How a model writes. Cheap to copy about: a few names and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    thoughts: Option<Thoughts>,
    calls: Calls,
    /// The tags that are special tokens in this vocabulary.
    special: Vec<(&'static str, u32)>,
}

/// The tokens of the tags around thoughts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThoughtTokens {
    pub open: Vec<u32>,
    pub close: Vec<u32>,
}

impl Dialect {
    /// The dialect of a model with this chat template, whose special tokens `tokenizer` knows. Prefer
    /// [`ChatTemplate::dialect`](crate::engine::chat_template::ChatTemplate::dialect), which has tried the template.
    pub fn detect(template: Option<&str>, tokenizer: &Tokenizer) -> Self {
        let template = template.unwrap_or_default();
        Self::new(Thoughts::of(template), Calls::of(template), tokenizer)
    }

    pub fn new(thoughts: Option<Thoughts>, calls: Calls, tokenizer: &Tokenizer) -> Self {
        let tags = calls.tags().chain(thoughts.iter().flat_map(|tags| [tags.open, tags.close]));
        let special = |tag| Some((tag, tokenizer.token_to_id(tag).filter(|&id| tokenizer.is_special(id))?));
        Self { thoughts, calls, special: tags.filter_map(special).collect() }
    }

    /// The same, but thoughts are left in the text.
    pub fn without_thoughts(mut self) -> Self {
        self.thoughts = None;
        self
    }

    /// The tags around thoughts that a template speaks of.
    pub fn thoughts_of(template: &str) -> Option<Thoughts> {
        Thoughts::of(template)
    }

    pub fn thoughts(&self) -> Option<Thoughts> {
        self.thoughts
    }

    pub fn calls(&self) -> Calls {
        self.calls
    }

    /// Special tokens whose text a [`Reader`] wants to see (`GenerateRequest::visible`).
    pub fn visible(&self) -> Vec<u32> {
        self.special.iter().map(|(_, id)| *id).collect()
    }

    /// The tokens that open and close thoughts; `None` for a model that writes none.
    pub fn thought_tokens(&self, tokenizer: &Tokenizer) -> Option<ThoughtTokens> {
        let tokens = |tag| tokenizer.encode(tag, Special::None, Markup::Parse);
        self.thoughts.map(|tags| ThoughtTokens { open: tokens(tags.open), close: tokens(tags.close) })
    }

    /// Whether the answer to `prompt` begins within a thought, as some templates open one. `continued` is the text of an
    /// assistant's message that is to be continued.
    pub fn is_thinking(&self, prompt: &str, continued: Option<&str>) -> bool {
        let Some(tags) = self.thoughts else { return false };
        match continued {
            // What a template does with thoughts of the message, only its prompt tells.
            Some(text) => text.rfind(tags.open) > text.rfind(tags.close) || prompt.trim_end().ends_with(tags.open),
            None => prompt.trim_end().ends_with(tags.open),
        }
    }

    /// Reads an answer in which only `tools` can be called (none: all is text). `thinking`: it begins within a thought,
    /// see [`Self::is_thinking`].
    pub fn reader<'a>(&self, tools: impl IntoIterator<Item = &'a str>, thinking: bool) -> Reader {
        Reader::new(self.thoughts, self.calls, tools.into_iter().map(str::to_owned).collect(), thinking)
    }
}
