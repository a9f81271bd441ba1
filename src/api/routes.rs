//! Every route there is, one line each.

use std::sync::Arc;

use crate::http::{Method, Reply, Request};

use super::{
    anthropic, error::ApiError, health, llama_server, metrics, native, ollama, openai, openapi, rerank, state::Api,
};

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
    post("/v1/embeddings", openai::embeddings),
    post("/v1/responses", openai::create_response),
    get("/v1/responses/{id}", openai::response),
    delete("/v1/responses/{id}", openai::delete_response),
    get("/v1/responses/{id}/input_items", openai::response_input),
    post("/v1/responses/{id}/cancel", openai::cancel_response),
    // Jina's and Cohere's
    post("/v1/rerank", rerank::rerank),
    post("/rerank", rerank::rerank),
    // Anthropic's
    post("/v1/messages", anthropic::messages),
    post("/v1/messages/count_tokens", anthropic::count_tokens),
    // Ollama's
    post("/api/chat", ollama::chat),
    post("/api/generate", ollama::generate),
    post("/api/embed", ollama::embed),
    post("/api/embeddings", ollama::embeddings),
    get("/api/tags", ollama::tags),
    post("/api/show", ollama::show),
    get("/api/ps", ollama::ps),
    get("/api/version", ollama::version),
    post("/api/pull", ollama::unsupported),
    post("/api/push", ollama::unsupported),
    post("/api/create", ollama::unsupported),
    post("/api/copy", ollama::unsupported),
    delete("/api/delete", ollama::unsupported),
    post("/api/blobs/{digest}", ollama::unsupported),
    // llama-server's
    post("/completion", llama_server::completion),
    post("/completions", llama_server::completion),
    post("/infill", llama_server::infill),
    post("/tokenize", llama_server::tokenize),
    post("/detokenize", llama_server::detokenize),
    post("/apply-template", llama_server::apply_template),
    get("/props", llama_server::props),
    get("/slots", llama_server::slots),
    get("/models", openai::models),
    get("/v1/health", health::health),
];

const fn get(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::Get, path, handler }
}

const fn post(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::Post, path, handler }
}

const fn delete(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::Delete, path, handler }
}

/// Where a path stands among those of the routes.
pub fn index_of(path: &str) -> Option<usize> {
    ROUTES.iter().position(|route| route.path == path)
}
