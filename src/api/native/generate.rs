//! `POST /generate` and `POST /generate_stream`: one path, two ways of delivery.
//!
//! ```text
//! parse ─▶ render messages (on the text worker if long) ─▶ submit ─▶ a sink answers: whole or stream
//! ```

use std::sync::Arc;

use crate::{
    api::{backend::Backend, error::ApiError, metrics::Endpoint, request_id::RequestId, state::Api},
    engine::request::Sink,
    http::{Reply, Request},
};

use super::{
    ask::{Ask, Input},
    stream::StreamSink,
    whole::WholeSink,
};

/// A sink that can also be told what went wrong before the engine was asked.
pub trait Answer: Sink {
    fn fail(&mut self, error: ApiError);
}

/// Answers once, when all is generated; with `"stream": true` as [`generate_stream`].
pub fn generate(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let ask = Ask::parse(request.body(), api.settings.queue_timeout)?;
    let endpoint = if ask.stream == Some(true) { Endpoint::GenerateStream } else { Endpoint::Generate };
    start(api, request, ask, endpoint)
}

/// Answers with server-sent events while the text is generated.
pub fn generate_stream(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let ask = Ask::parse(request.body(), api.settings.queue_timeout)?;
    if ask.stream == Some(false) {
        return Err(ApiError::field("stream", "this path always streams; /generate answers once"));
    }
    start(api, request, ask, Endpoint::GenerateStream)
}

fn start(api: &Arc<Api>, request: &Request<'_>, ask: Ask, endpoint: Endpoint) -> Result<Reply, ApiError> {
    let id = RequestId::fresh();
    let (reply, responder) = Reply::later();
    // The answer carries the client's own request id where it sent a sane one, else the id of the generation.
    let given = request.header("x-request-id").filter(|given| RequestId::is_sane(given));
    let reply = reply.header("x-request-id", given.unwrap_or(id.as_str()));
    let metrics = Arc::clone(&api.metrics);
    let answer: Box<dyn Answer> = match endpoint {
        Endpoint::GenerateStream => Box::new(StreamSink::new(responder, id, metrics, api.settings.ping_interval)),
        _ => Box::new(WholeSink::new(responder, id, metrics)),
    };
    let bytes = match &ask.input {
        // The engine tokenises on a thread of its own.
        Input::Prompt(_) => 0,
        messages @ Input::Messages(_) => messages.bytes(),
    };
    let model = ask.model.clone();
    let worker = Arc::clone(api);
    api.with_model(model.as_deref(), move |backend| {
        worker.text_worker.run(bytes, move |may| match may.and(backend) {
            Ok(backend) => submit(&*backend, ask, answer),
            Err(error) => refuse(answer, error),
        });
    });
    Ok(reply)
}

fn refuse(mut answer: Box<dyn Answer>, error: ApiError) {
    answer.fail(error);
}

/// Writes the prompt out and hands the request to the engine; what goes wrong is told to `answer`.
fn submit(backend: &dyn Backend, ask: Ask, mut answer: Box<dyn Answer>) {
    match ask.into_request(backend) {
        Ok(request) => backend.submit(request, answer),
        Err(error) => answer.fail(error),
    }
}
