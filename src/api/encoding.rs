//! The way of every encoding, whichever API asks for it: find the model, submit the inputs, write down what they became.
//!
//! Knows no wire format. When the client leaves, what has not been computed is dropped.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    engine::{
        encoder::{EncodeError, EncodeInput, EncodeRequest, Encoded, shorten},
        error::RequestError,
    },
    http::{Reply, Request, Responder},
};

use super::{
    backend::{Backend, Makes},
    error::ApiError,
    family::Family,
    metrics::{Endpoint, Metrics},
    state::Api,
    text_worker::TextWorker,
};

/// Inputs of one request.
pub const INPUTS_MAX: usize = 2048;

/// A checked request for vectors or scores.
pub struct EncodeAsk {
    /// The model's name; `None`: the one that is meant where none is named.
    pub model: Option<String>,
    /// 1 to [`INPUTS_MAX`].
    pub inputs: Vec<EncodeInput>,
    pub wanted: Wanted,
    /// Inputs that are too long are cut, not refused.
    pub truncate: bool,
    /// The field that an input came in.
    pub place: fn(usize) -> String,
}

/// What inputs are to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Vectors, of so many dimensions if not of the model's.
    Vectors { dimensions: Option<usize> },
    /// Scores of pairs.
    Scores,
}

impl Wanted {
    /// Refuses a model that does not make this.
    fn check(self, model: &dyn Backend) -> Result<(), ApiError> {
        let (makes, name) = (model.makes(), model.name());
        let refuse = |message: String| Err(ApiError::field("model", message));
        match (self, makes) {
            (Self::Vectors { dimensions: Some(n) }, Makes::Vectors { width } | Makes::Text { width: Some(width) })
                if n > width =>
            {
                let message = format!("must be 1 to {width}, the width of {name}'s vectors, not {n}");
                Err(ApiError::field("dimensions", message))
            }
            (Self::Vectors { .. }, Makes::Vectors { .. } | Makes::Text { width: Some(_) }) => Ok(()),
            (Self::Scores, Makes::Scores) => Ok(()),
            (Self::Vectors { .. }, Makes::Text { width: None }) => refuse(format!("{name} makes text, not embeddings")),
            (Self::Vectors { .. }, Makes::Scores) => refuse(format!("{name} scores pairs of texts; use /v1/rerank")),
            (Self::Scores, Makes::Text { .. }) => refuse(format!("{name} makes text; reranking takes a cross-encoder")),
            (Self::Scores, Makes::Vectors { .. }) => {
                refuse(format!("{name} makes embeddings; reranking takes a cross-encoder"))
            }
        }
    }

    /// What the model gave, as it was wanted.
    fn fit(self, mut encoded: Encoded) -> Encoded {
        if let Self::Vectors { dimensions: Some(dimensions) } = self {
            // A vector that is not cut keeps the length that the model gave it.
            encoded.outputs.iter_mut().filter(|v| v.len() > dimensions).for_each(|v| shorten(v, dimensions));
        }
        encoded
    }
}

/// Answers with what `write` makes of the model and the outputs: on the encoder's thread if they are few, else on the
/// text worker.
pub fn start(
    api: &Arc<Api>,
    request: &Request<'_>,
    ask: EncodeAsk,
    write: impl FnOnce(&dyn Backend, Encoded) -> Result<Reply, ApiError> + Send + 'static,
) -> Reply {
    let (reply, responder) = Reply::later();
    let call = Call {
        responder: Mutex::new(Some(responder)),
        family: Family::of(request.path()),
        endpoint: Endpoint::of(request),
        metrics: Arc::clone(&api.metrics),
    };
    let (worker, queue_timeout, model) = (Arc::clone(&api.text_worker), api.settings.queue_timeout, ask.model.clone());
    api.with_model(model.as_deref(), move |model| {
        let checked = model.and_then(|model| ask.wanted.check(&*model).map(|()| model));
        match checked {
            Ok(model) => submit(model, ask, queue_timeout, call, worker, write),
            Err(error) => call.answer(Err(error)),
        }
    });
    reply
}

fn submit(
    model: Arc<dyn Backend>,
    ask: EncodeAsk,
    queue_timeout: Duration,
    call: Call,
    worker: Arc<TextWorker>,
    write: impl FnOnce(&dyn Backend, Encoded) -> Result<Reply, ApiError> + Send + 'static,
) {
    let EncodeAsk { inputs, wanted, truncate, place, .. } = ask;
    let request = EncodeRequest { inputs, truncate, queue_timeout };
    let call = Arc::new(call);
    let waiting = Arc::clone(&call);
    let left = move || waiting.is_abandoned();
    let backend = Arc::clone(&model);
    let done = move |encoded: Result<Encoded, EncodeError>| match encoded {
        Err(EncodeError { input, error }) => {
            call.metrics.on_failed();
            let error = ApiError::from(error);
            call.answer(Err(match input {
                Some(input) => error.about(place(input)),
                None => error,
            }));
        }
        Ok(encoded) => {
            call.metrics.on_encoded(encoded.outputs.len(), encoded.prompt_tokens);
            let bytes = encoded.outputs.iter().map(|output| output.len() * mem::size_of::<f32>()).sum();
            worker.answer(bytes, move |answer| call.answer(answer), move || write(&*backend, wanted.fit(encoded)));
        }
    };
    model.embed(request, Box::new(left), Box::new(done));
}

/// Somebody who waits for an answer.
struct Call {
    /// `None` once it has been given.
    responder: Mutex<Option<Responder>>,
    family: Family,
    endpoint: Endpoint,
    metrics: Arc<Metrics>,
}

impl Call {
    fn responder(&self) -> MutexGuard<'_, Option<Responder>> {
        self.responder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_abandoned(&self) -> bool {
        self.responder().as_ref().is_none_or(Responder::is_closed)
    }

    fn answer(&self, answer: Result<Reply, ApiError>) {
        let Some(responder) = self.responder().take() else { return };
        let answer = answer.unwrap_or_else(|error| self.family.refuse(&error));
        // To a client that has gone nothing is answered.
        let status = if responder.is_closed() { 499 } else { answer.status().code() };
        self.metrics.on_answer(self.endpoint, status);
        responder.send(answer);
    }
}

impl Drop for Call {
    /// Nobody was told anything: the client has gone, or something is broken.
    fn drop(&mut self) {
        self.answer(Err(RequestError::Internal("an encoding was dropped".into()).into()));
    }
}
