//! What a client asks for, whichever API it came through: checked, but not yet written out for a model.
//!
//! Knows no JSON field and no wire format; those are the APIs'. Knows of models what a [`Backend`] tells.

use serde_json::{Map, Value};

use crate::engine::{
    dialect::{Tool, ToolChoice},
    grammar::GrammarSource,
    request::{GenerateRequest, Prompt},
};

use super::{
    backend::{Backend, RenderError},
    error::ApiError,
};

/// A checked request for text.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The model's name; `None`: the one that is meant where none is named.
    pub model: Option<String>,
    pub input: Input,
    /// The field that the input came in, where it has not its usual name.
    pub param: Option<&'static str>,
    /// How to generate; its prompt is empty until `input` has been written out.
    pub request: GenerateRequest,
    /// Answers to each prompt.
    pub choices: usize,
    /// What answers must look like.
    pub format: Option<Format>,
    /// What comes after what is generated, for models that can fill in a middle; with prompts only.
    pub suffix: Option<Suffix>,
    /// Tokens that come before the prompt: what was said before.
    pub context: Vec<u32>,
    /// The wire is told the prompts' tokens ([`Begun::prompts`](super::answer::Begun)).
    pub tells_prompts: bool,
    pub thoughts: ThoughtsWanted,
}

/// What answers must look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    pub source: GrammarSource,
    /// The field that says so.
    pub param: &'static str,
}

/// What comes after what is generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix {
    pub text: String,
    /// The field that says so.
    pub param: &'static str,
}

/// What to continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Prompts as they are; what is generated is text and nothing else.
    Prompts(Vec<Prompt>),
    /// A conversation, to be written out by the model's chat template; its dialect tells thoughts, text and calls apart.
    Chat(Chat),
}

/// A conversation and what goes with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chat {
    /// As OpenAI writes them: `{"role", "content", …}`.
    pub messages: Vec<Value>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    /// An answer may have several calls.
    pub parallel: bool,
    /// The last message is the assistant's and is to be gone on with.
    pub continues: bool,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// A model without a template gets the texts as they are.
    pub plain: bool,
}

/// What becomes of a model's thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThoughtsWanted {
    /// They are told apart from the text.
    pub split: bool,
    /// They end after so many tokens.
    pub tokens_max: Option<usize>,
    /// This field asks for them: a model without is an error.
    pub needed: Option<&'static str>,
}

impl Default for ThoughtsWanted {
    fn default() -> Self {
        Self { split: true, tokens_max: None, needed: None }
    }
}

impl Ask {
    /// One answer, by a request's defaults.
    pub fn new(input: Input) -> Self {
        Self {
            model: None,
            input,
            param: None,
            request: GenerateRequest::new(Prompt::Tokens(Vec::new())),
            choices: 1,
            format: None,
            suffix: None,
            context: Vec::new(),
            tells_prompts: false,
            thoughts: ThoughtsWanted::default(),
        }
    }

    /// Bytes of text to be worked on before it is submitted. Prompts as they are cost nothing: the engine tokenises on a
    /// thread of its own.
    pub fn work_bytes(&self) -> usize {
        let suffix = self.suffix.as_ref().map(|suffix| suffix.text.len());
        match &self.input {
            Input::Prompts(_) if suffix.is_none() && !self.tells_prompts => 0,
            input => input.bytes() + suffix.unwrap_or(0),
        }
    }

    /// The field that the input came in.
    pub fn param(&self) -> &'static str {
        self.param.unwrap_or(self.input.param())
    }

    /// The one request that it comes to, where it asks for one answer without tools or a format.
    pub fn into_request(self, model: &dyn Backend) -> Result<GenerateRequest, ApiError> {
        let param = self.param();
        let prompt = match self.input {
            Input::Prompts(prompts) => prompts.into_iter().next().unwrap_or(Prompt::Tokens(Vec::new())),
            Input::Chat(chat) => prompt(&chat, model, param)?,
        };
        Ok(GenerateRequest { prompt, ..self.request })
    }
}

impl Chat {
    /// The answer must call a tool.
    pub fn must_call(&self) -> bool {
        matches!(self.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_)))
    }
}

impl Input {
    /// The field that it comes in, by most APIs' names.
    pub fn param(&self) -> &'static str {
        match self {
            Self::Prompts(_) => "prompt",
            Self::Chat(_) => "messages",
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        fn size(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(size).sum::<usize>() + items.len(),
                Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
                _ => 8,
            }
        }
        match self {
            Self::Prompts(prompts) => prompts.iter().map(Prompt::bytes).sum(),
            Self::Chat(chat) => {
                let tools = chat.tools.iter().filter_map(|tool| tool.parameters.as_ref()).map(size);
                chat.messages.iter().map(size).chain(tools).sum()
            }
        }
    }
}

/// The prompt for a conversation: what the model's template makes of it, or its texts where that will do.
pub fn prompt(chat: &Chat, model: &dyn Backend, param: &'static str) -> Result<Prompt, ApiError> {
    if chat.plain && model.template().is_none() {
        let texts: Vec<&str> = chat.messages.iter().filter_map(|message| message["content"].as_str()).collect();
        return Ok(Prompt::Text(texts.join("\n\n")));
    }
    render(chat, model, param).map(Prompt::Rendered)
}

/// A conversation, which came in the field `param`, as the model's template writes it.
pub fn render(chat: &Chat, model: &dyn Backend, param: &'static str) -> Result<String, ApiError> {
    model.render(chat).map_err(|error| match error {
        RenderError::Refused(why) => ApiError::field(param, why),
        RenderError::NoTools => ApiError::field("tools", "this model's chat template knows no tools"),
        RenderError::NoTemplate => {
            ApiError::field(param, "the model has no chat template; send a prompt, or set `template` for the model")
        }
    })
}
