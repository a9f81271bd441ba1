//! The inference server's HTTP API: JSON in, JSON and event streams out, on [`http`](crate::http) and
//! [`engine`](crate::engine). The only layer that knows both sides.
//!
//! Handlers run on the event loops and never wait: long text work goes to the text worker, generations to the engine,
//! and both answer through a responder. Everything a client sends is checked here before it costs anything.

mod backend;
mod error;
mod fields;
mod health;
mod host;
mod metrics;
pub mod models;
mod native;
mod page;
mod reply;
mod request_id;
mod served;
mod state;
mod text_worker;

use std::{sync::Arc, time::Instant};

use crate::http::{Next, Refusal, Reply, Request, Router};

pub use backend::{Backend, ModelInfo, RenderError, Snapshot};
pub use error::ApiError;
pub use metrics::ReloadOutcome;
pub use native::{Ask, Message, account};
pub use served::Served;
pub use state::{Api, Settings};

use metrics::Endpoint;
use request_id::RequestId;

/// Every route there is.
pub fn router(api: &Arc<Api>) -> Router {
    let on = |handler| with(api, handler);
    let (around, refused) = (Arc::clone(api), Arc::clone(api));
    Router::new()
        .layer(move |request, next| envelop(&around, request, next))
        .on_error(move |refusal| refuse(&refused, refusal))
        .post("/generate", on(native::generate))
        .post("/generate_stream", on(native::generate_stream))
        .post("/encode", on(native::encode))
        .post("/decode", on(native::decode))
        .get("/health", on(health::health))
        .get("/livez", on(health::livez))
        .get("/readyz", on(health::readyz))
        .get("/metrics", on(scrape))
        .files(&page::FILES)
}

type Handler = fn(&Arc<Api>, &Request<'_>) -> Result<Reply, ApiError>;

/// A handler with the state it works on.
fn with(api: &Arc<Api>, handler: Handler) -> impl Fn(&Request<'_>) -> Result<Reply, ApiError> + Send + Sync + 'static {
    let api = Arc::clone(api);
    move |request| handler(&api, request)
}

/// What every answer gets: a known `Host`, an `x-request-id`, a place in the counters.
fn envelop(api: &Api, request: &Request<'_>, next: Next<'_>) -> Reply {
    let host = request.header("host").unwrap_or_default();
    let reply = match &api.settings.hosts {
        Some(hosts) if !host.is_empty() && !host::is_known(host, hosts) => {
            ApiError::Misdirected { host: host.chars().take(64).collect() }.into()
        }
        _ => next.run(request),
    };
    let endpoint = Endpoint::of(request.path());
    // An answer that comes later is counted when it does.
    if !reply.is_later() {
        api.metrics.on_answer(endpoint, reply.status().code());
    }
    let reply = if endpoint == Endpoint::Page { page::guarded(reply) } else { reply };
    match reply.header_value("x-request-id") {
        Some(_) => reply,
        None => reply.header("x-request-id", RequestId::from_header(request.header("x-request-id")).as_str()),
    }
}

/// Errors that no handler made, in the shape of the others.
fn refuse(api: &Api, refusal: &Refusal<'_>) -> Reply {
    let error = ApiError::Refused { status: refusal.status.code(), message: refusal.reason.to_owned() };
    let reply = Reply::from(error);
    match refusal.request {
        Some(_) => reply,
        // Bytes that are not HTTP pass no layer.
        None => {
            api.metrics.on_answer(Endpoint::Other, refusal.status.code());
            reply.header("x-request-id", RequestId::fresh().as_str())
        }
    }
}

/// `GET /metrics`: Prometheus text.
fn scrape(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let page = api.metrics.render(&api.gauges(), Instant::now());
    Ok(Reply::text(page).header("Content-Type", metrics::CONTENT_TYPE).header("Cache-Control", "no-store"))
}

#[cfg(test)]
mod tests;
