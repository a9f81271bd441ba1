//! An encoder as the API serves it. What only models that generate have, it has not.

use std::time::Duration;

use crate::engine::{
    dialect::{Dialect, ThoughtTokens},
    encoder::{Done, EncodeRequest, Encoder, Left, Output},
    error::RequestError,
    grammar::{GrammarError, GrammarSource},
    request::{Event, GenerateRequest, Prompt, Sink},
    tokenizer::Tokenizer,
};

use super::{
    ask::Chat,
    backend::{Backend, Makes, ModelInfo, OnGrammar, RenderError, Snapshot},
    served::{self, STEP_TIME_MAX},
};

/// An encoder, and what is told of it.
pub struct ServedEncoder {
    encoder: Encoder,
    dialect: Dialect,
    info: ModelInfo,
}

impl ServedEncoder {
    pub fn new(encoder: Encoder, info: ModelInfo) -> Self {
        let dialect = Dialect::detect(None, encoder.tokenizer());
        Self { encoder, dialect, info }
    }
}

impl Backend for ServedEncoder {
    fn name(&self) -> &str {
        self.encoder.name()
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn makes(&self) -> Makes {
        let spec = self.encoder.spec();
        match spec.output {
            Output::Vector { .. } => Makes::Vectors { width: spec.output_width() },
            Output::Score { .. } => Makes::Scores,
        }
    }

    fn embed(&self, request: EncodeRequest, left: Left, done: Done) {
        self.encoder.submit(request, left, done);
    }

    /// Refuses. Who asks in a client's name has been told by [`makes`](Backend::makes).
    fn submit(&self, _: GenerateRequest, mut sink: Box<dyn Sink>) {
        sink.on_event(Event::Failed(RequestError::Internal("an encoder generates nothing".into())));
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, RequestError> {
        Ok(served::encode(self.encoder.tokenizer(), text, add_special))
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, RequestError> {
        Ok(prompt.encode(self.encoder.tokenizer()).into_owned())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, RequestError> {
        served::decode(self.encoder.tokenizer(), tokens)
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        served::token_bytes(self.encoder.tokenizer(), token)
    }

    fn render(&self, _: &Chat) -> Result<String, RenderError> {
        Err(RenderError::NoTemplate)
    }

    fn template(&self) -> Option<&str> {
        None
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.encoder.tokenizer()
    }

    fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    fn thought_tokens(&self) -> Option<&ThoughtTokens> {
        None
    }

    fn compile(&self, _: GrammarSource, then: OnGrammar) {
        then(Err(GrammarError::Internal("an encoder has no use for a grammar".into())));
    }

    fn snapshot(&self) -> Snapshot {
        let stats = self.encoder.stats();
        let stuck = |busy: Duration| busy >= STEP_TIME_MAX;
        Snapshot {
            running: stats.running.get() as usize,
            waiting: stats.queued.get() as usize,
            alive: stats.is_healthy() && !stats.busy_for().is_some_and(stuck),
            ..Snapshot::default()
        }
    }
}
