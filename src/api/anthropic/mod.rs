//! Anthropic's Messages API: <https://docs.anthropic.com/en/api/messages>. Statuses, shapes and order of events are its.
//!
//! What differs: every prompt is cached, so `cache_control` is taken and changes nothing; thoughts have an empty
//! signature, and are taken back with any; `thinking.budget_tokens` may be below 1,024.

mod conversation;
mod request;
mod tools;
mod wire;

use std::sync::Arc;

use serde_json::json;

use crate::{
    api::{error::ApiError, generation, reply, request_id::RequestId, state::Api},
    http::{Reply, Request, Status},
};

use wire::MessageWire;

/// `POST /v1/messages`: answers a conversation.
pub fn messages(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, telling) = request::message(request.body(), api.settings.queue_timeout)?;
    // Named in errors too, so it must be the one that the reply's head has.
    let id = RequestId::from_header(request.header("x-request-id"));
    let wire = MessageWire::new(&id, telling);
    generation::start(api, request, &id, ask, telling.mode, wire)
}

/// `POST /v1/messages/count_tokens`: what the same conversation would cost.
pub fn count_tokens(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let ask = request::count(request.body())?;
    let (model, bytes) = (ask.model.clone(), ask.input.bytes());
    Ok(api.text_work(request, model.as_deref(), bytes, move |model| {
        let tokens = model.tokenize(&ask.into_request(model)?.prompt)?;
        Ok(reply::json(Status::OK, &json!({ "input_tokens": tokens.len() })))
    }))
}
