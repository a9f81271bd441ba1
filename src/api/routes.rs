//! Every route there is, one line each.

use std::sync::Arc;

use crate::http::{Method, Reply, Request};

use super::{error::ApiError, health, metrics, native, openai, openapi, state::Api};

/// Answers a request, now or later. An error is written down as the API of its path does.
pub type Handler = fn(&Arc<Api>, &Request<'_>) -> Result<Reply, ApiError>;

/// A method and a path, and who answers there.
pub struct Route {
    pub method: Method,
    /// As the router takes it: `{name}` is one segment.
    pub path: &'static str,
    pub handler: Handler,
}

pub const ROUTES: &[Route] = &[
    get("/health", health::health),
    get("/livez", health::livez),
    get("/readyz", health::readyz),
    get("/metrics", metrics::scrape),
    get("/openapi.json", openapi::openapi),
    // Our own
    post("/generate", native::generate),
    post("/generate_stream", native::generate_stream),
    post("/encode", native::encode),
    post("/decode", native::decode),
    // OpenAI's
    get("/v1/models", openai::models),
    get("/v1/models/{*id}", openai::model),
    post("/v1/chat/completions", openai::chat),
    post("/v1/completions", openai::completions),
];

const fn get(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::Get, path, handler }
}

const fn post(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::Post, path, handler }
}

/// Where a path stands among those of the routes.
pub fn index_of(path: &str) -> Option<usize> {
    ROUTES.iter().position(|route| route.path == path)
}
