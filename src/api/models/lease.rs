//! A model as one caller has it: it stays in memory as long as the caller or one of its generations does.

use std::{sync::Arc, time::Instant};

use super::{ModelId, Shared};
use crate::{
    api::{
        ask::Chat,
        backend::{Backend, Makes, ModelInfo, OnGrammar, RenderError, Snapshot},
    },
    engine::{
        dialect::{Dialect, ThoughtTokens},
        encoder::{Done, EncodeRequest, Left},
        error::RequestError,
        grammar::GrammarSource,
        request::{Event, Flow, GenerateRequest, Prompt, Sink},
        tokenizer::Tokenizer,
    },
};

/// A counted handle to a model.
pub struct Lease {
    backend: Arc<dyn Backend>,
    /// When the model was asked for. Requests have waited since then.
    asked: Instant,
    hold: Arc<Hold>,
}

/// One of a model's live callers, until it is dropped.
struct Hold {
    model: ModelId,
    shared: Arc<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.released(self.model);
    }
}

impl Lease {
    /// Of a model that counts the caller already.
    pub fn new(backend: Arc<dyn Backend>, asked: Instant, model: ModelId, shared: &Arc<Shared>) -> Self {
        Self { backend, asked, hold: Arc::new(Hold { model, shared: Arc::clone(shared) }) }
    }
}

impl Backend for Lease {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn info(&self) -> &ModelInfo {
        self.backend.info()
    }

    fn makes(&self) -> Makes {
        self.backend.makes()
    }

    /// As the model's own, but that what the request has waited for the model counts for its deadlines.
    fn submit(&self, mut request: GenerateRequest, sink: Box<dyn Sink>) {
        let waited = self.asked.elapsed();
        request.queue_timeout = request.queue_timeout.saturating_sub(waited);
        request.timeout = request.timeout.map(|timeout| timeout.saturating_sub(waited));
        self.backend.submit(request, Box::new(HeldSink { sink, hold: Some(Arc::clone(&self.hold)) }));
    }

    /// As [`submit`](Self::submit).
    fn embed(&self, mut request: EncodeRequest, left: Left, done: Done) {
        request.queue_timeout = request.queue_timeout.saturating_sub(self.asked.elapsed());
        let hold = Arc::clone(&self.hold);
        let done = move |result| {
            done(result);
            drop(hold);
        };
        self.backend.embed(request, left, Box::new(done));
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, RequestError> {
        self.backend.encode(text, add_special)
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, RequestError> {
        self.backend.tokenize(prompt)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, RequestError> {
        self.backend.decode(tokens)
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.backend.token_bytes(token)
    }

    fn render(&self, chat: &Chat) -> Result<String, RenderError> {
        self.backend.render(chat)
    }

    fn template(&self) -> Option<&str> {
        self.backend.template()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.backend.tokenizer()
    }

    fn dialect(&self) -> &Dialect {
        self.backend.dialect()
    }

    fn thought_tokens(&self) -> Option<&ThoughtTokens> {
        self.backend.thought_tokens()
    }

    fn compile(&self, source: GrammarSource, then: OnGrammar) {
        self.backend.compile(source, then);
    }

    fn snapshot(&self) -> Snapshot {
        self.backend.snapshot()
    }
}

/// A generation's sink, and what it holds until its end.
struct HeldSink {
    sink: Box<dyn Sink>,
    hold: Option<Arc<Hold>>,
}

impl Sink for HeldSink {
    fn flow(&self) -> Flow {
        self.sink.flow()
    }

    fn on_event(&mut self, event: Event) {
        // Given back first: a client that has read its answer may ask for a model that needs the room.
        if matches!(event, Event::Finished { .. } | Event::Failed(_)) {
            self.hold = None;
        }
        self.sink.on_event(event);
    }
}
