//! An encoder as the API serves it, beside [`Served`](super::Served): it makes vectors or scores, and no text.

use std::time::Duration;

use crate::engine::{
    dialect::{Dialect, ThoughtTokens},
    encoder::{Done, EncodeRequest, Encoder, Left, Output},
    error::RequestError,
    grammar::{GrammarError, GrammarSource},
    request::{Event, GenerateRequest, Sink},
    tokenizer::{Markup, Special},
};

use super::{
    ask::Chat,
    backend::{Backend, Makes, ModelInfo, OnGrammar, RenderError, Snapshot},
    served,
};

/// The encoder's thread is taken for stuck when one step lasts longer.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);
/// Who asks for text has been told by `makes` that there is none.
const NO_TEXT: &str = "an encoder was to make text";

/// An encoder, and what is told of its model.
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

    fn submit(&self, _: GenerateRequest, mut sink: Box<dyn Sink>) {
        sink.on_event(Event::Failed(RequestError::Internal(NO_TEXT.into())));
    }

    fn embed(&self, request: EncodeRequest, left: Left, done: Done) {
        self.encoder.submit(request, left, done);
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, RequestError> {
        let special = if add_special { Special::Add } else { Special::None };
        let tokenizer = self.encoder.tokenizer();
        Ok(match self.encoder.spec().lowercase {
            true => tokenizer.encode(&text.to_lowercase(), special, Markup::Literal),
            false => tokenizer.encode(text, special, Markup::Literal),
        })
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

    fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    fn thought_tokens(&self) -> Option<&ThoughtTokens> {
        None
    }

    fn compile(&self, _: GrammarSource, then: OnGrammar) {
        then(Err(GrammarError::Internal(NO_TEXT.into())));
    }

    fn snapshot(&self) -> Snapshot {
        let stats = self.encoder.stats();
        Snapshot {
            running: stats.running.get() as usize,
            waiting: stats.queued.get() as usize,
            alive: stats.is_healthy() && stats.busy_for().is_none_or(|busy| busy < STEP_TIME_MAX),
            ..Snapshot::default()
        }
    }
}
