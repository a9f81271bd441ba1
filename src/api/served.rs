//! A model as the API serves it: an engine, and the chat template its messages go through.

use std::time::Duration;

use crate::engine::{
    Engine,
    chat_template::{ChatTemplate, Conversation, Ending},
    dialect::{Dialect, ThoughtTokens, ToolChoice},
    encoder::{Done, EncodeRequest, Left},
    error::RequestError,
    grammar::{Compiler, GrammarSource},
    request::{GenerateRequest, Prompt, Sink},
    tokenizer::{Markup, Special, Tokenizer},
};

use super::{
    ask::Chat,
    backend::{Backend, Makes, ModelInfo, OnGrammar, RenderError, Snapshot},
};

/// The engine's thread is taken for stuck when one step lasts longer.
pub(super) const STEP_TIME_MAX: Duration = Duration::from_secs(30);

/// An engine with its chat template, and what is told of its model.
pub struct Served {
    engine: Engine,
    template: Option<ChatTemplate>,
    dialect: Dialect,
    thought_tokens: Option<ThoughtTokens>,
    compiler: Compiler,
    info: ModelInfo,
}

impl Served {
    pub fn new(engine: Engine, template: Option<ChatTemplate>, info: ModelInfo) -> Self {
        let tokenizer = engine.tokenizer();
        let dialect = match &template {
            Some(template) => template.dialect(tokenizer),
            None => Dialect::detect(None, tokenizer),
        };
        let thought_tokens = dialect.thought_tokens(tokenizer);
        let compiler = Compiler::new(tokenizer);
        Self { engine, template, dialect, thought_tokens, compiler, info }
    }
}

impl Backend for Served {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn makes(&self) -> Makes {
        Makes::Text { width: self.engine.hidden() }
    }

    fn submit(&self, request: GenerateRequest, sink: Box<dyn Sink>) {
        self.engine.submit(request, sink);
    }

    fn embed(&self, request: EncodeRequest, left: Left, done: Done) {
        self.engine.embed(request, left, done);
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, RequestError> {
        Ok(encode(self.engine.tokenizer(), text, add_special))
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, RequestError> {
        Ok(prompt.encode(self.engine.tokenizer()).into_owned())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, RequestError> {
        decode(self.engine.tokenizer(), tokens)
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        token_bytes(self.engine.tokenizer(), token)
    }

    fn render(&self, chat: &Chat) -> Result<String, RenderError> {
        let template = self.template.as_ref().ok_or(RenderError::NoTemplate)?;
        let may_call = chat.tool_choice != Some(ToolChoice::None);
        let conversation = Conversation {
            messages: &chat.messages,
            tools: if may_call { &chat.tools } else { &[] },
            documents: None,
            ending: if chat.continues { Ending::Open } else { Ending::Reply },
            variables: &chat.variables,
        };
        template.render(&conversation).map_err(|error| RenderError::Refused(error.to_string()))
    }

    fn template(&self) -> Option<&str> {
        self.template.as_ref().map(|template| &*template.sources().default)
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.engine.tokenizer()
    }

    fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    fn thought_tokens(&self) -> Option<&ThoughtTokens> {
        self.thought_tokens.as_ref()
    }

    fn compile(&self, source: GrammarSource, then: OnGrammar) {
        self.compiler.compile_then(source, then);
    }

    fn snapshot(&self) -> Snapshot {
        let stats = self.engine.stats();
        Snapshot {
            running: stats.running.get() as usize,
            running_max: self.engine.running_max(),
            waiting: stats.waiting() as usize,
            kv_blocks_used: stats.kv_blocks_used.get() as usize,
            kv_blocks_cached: stats.kv_blocks_cached.get() as usize,
            kv_blocks_total: stats.kv_blocks_total.get() as usize,
            preemptions: stats.preemptions_total.get(),
            prefix_hits: stats.prefix_hits_total.get(),
            drafted_tokens: stats.drafted_tokens_total.get(),
            accepted_tokens: stats.accepted_tokens_total.get(),
            alive: stats.is_healthy() && stats.busy_for().is_none_or(|busy| busy < STEP_TIME_MAX),
        }
    }
}

/// Token ids of a text, with the model's own special tokens around it if `add_special`.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str, add_special: bool) -> Vec<u32> {
    let special = if add_special { Special::Add } else { Special::None };
    tokenizer.encode(text, special, Markup::Literal)
}

/// The text of token ids.
pub(super) fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String, RequestError> {
    let vocabulary = tokenizer.vocabulary();
    match tokens.iter().find(|id| **id as usize >= vocabulary) {
        Some(id) => Err(RequestError::UnknownToken { id: *id, vocabulary }),
        None => Ok(tokenizer.decode(tokens)),
    }
}

/// The bytes of a token; none for one that there is not.
pub(super) fn token_bytes(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    if (token as usize) < tokenizer.vocabulary() { tokenizer.token_bytes(token).to_vec() } else { Vec::new() }
}
