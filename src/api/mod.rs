//! The inference server's HTTP API: JSON in, JSON and event streams out, on [`http`](crate::http) and
//! [`engine`](crate::engine). The only layer that knows both sides.
//!
//! Handlers run on the event loops and never wait: long text work goes to the text worker, generations to the engine,
//! and both answer through a responder. Everything a client sends is checked here before it costs anything.

mod answer;
mod anthropic;
mod ask;
mod backend;
mod encoding;
mod error;
mod family;
mod fields;
mod generation;
mod health;
mod host;
mod llama_server;
mod metrics;
pub mod models;
mod native;
mod ollama;
mod openai;
mod openapi;
mod page;
mod reply;
mod request_id;
mod rerank;
mod routes;
mod sampling;
mod served;
mod served_encoder;
mod state;
mod text_worker;

use std::sync::Arc;

use crate::http::{Next, Refusal, Reply, Request, Router};

pub use ask::{Ask, Chat, Input};
pub use backend::{Backend, Makes, ModelInfo, OnGrammar, RenderError, Snapshot};
pub use error::ApiError;
pub use metrics::ReloadOutcome;
pub use native::{account, parse};
pub use served::Served;
pub use served_encoder::ServedEncoder;
pub use state::{Api, Settings};

use family::Family;
use metrics::Endpoint;
use request_id::RequestId;
use routes::ROUTES;

/// All routes, and what is around them.
pub fn router(api: &Arc<Api>) -> Router {
    let (around, refused) = (Arc::clone(api), Arc::clone(api));
    let router = Router::new()
        .layer(move |request, next| envelop(&around, request, next))
        .on_error(move |refusal| refuse(&refused, refusal))
        .files(&page::FILES);
    ROUTES.iter().fold(router, |router, route| {
        let api = Arc::clone(api);
        router.route(route.method, route.path, move |request: &Request<'_>| {
            (route.handler)(&api, request).unwrap_or_else(|error| Family::of(request.path()).refuse(&error))
        })
    })
}

/// What every answer gets: a known `Host`, an `x-request-id`, a place in the counters.
fn envelop(api: &Api, request: &Request<'_>, next: Next<'_>) -> Reply {
    let host = request.header("host").unwrap_or_default();
    let reply = match &api.settings.hosts {
        Some(hosts) if !host.is_empty() && !host::is_known(host, hosts) => {
            Family::of(request.path()).refuse(&ApiError::Misdirected { host: host.chars().take(64).collect() })
        }
        _ => next.run(request),
    };
    let endpoint = Endpoint::of(request);
    // An answer that comes later is counted when it does.
    if !reply.is_later() {
        api.metrics.on_answer(endpoint, reply.status().code());
    }
    let reply = if endpoint == Endpoint::PAGE { page::guarded(reply) } else { reply };
    let (reply, id) = match reply.header_value("x-request-id").map(str::to_owned) {
        Some(id) => (reply, id),
        None => {
            let id = RequestId::from_header(request.header("x-request-id")).to_string();
            (reply.header("x-request-id", &id), id)
        }
    };
    Family::of(request.path()).sign(reply, &id)
}

/// Errors that no handler made, in the shape of the others.
fn refuse(api: &Api, refusal: &Refusal<'_>) -> Reply {
    let error = ApiError::Refused { status: refusal.status.code(), message: refusal.reason.to_owned() };
    let reply = refusal.request.map_or(Family::Native, |request| Family::of(request.path())).refuse(&error);
    match refusal.request {
        Some(_) => reply,
        // Bytes that are not HTTP pass no layer.
        None => {
            api.metrics.on_answer(Endpoint::OTHER, refusal.status.code());
            reply.header("x-request-id", RequestId::fresh().as_str())
        }
    }
}

#[cfg(test)]
mod tests;
