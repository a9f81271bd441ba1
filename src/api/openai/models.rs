//! `GET /v1/models` and `/v1/models/{id}`.

use std::{sync::Arc, time::UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    api::{error::ApiError, models::ModelStatus, reply, state::Api},
    http::{Reply, Request, Status},
};

/// All models, loaded or not.
pub fn models(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let data: Vec<Value> = api.models().list().iter().map(card).collect();
    Ok(reply::json(Status::OK, &json!({ "object": "list", "data": data })))
}

/// One model, by name or alias.
pub fn model(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let id = request.param("id").unwrap_or_default();
    let model = api.models().status(Some(&id))?;
    Ok(reply::json(Status::OK, &card(&model)))
}

/// What is told of a model; `meta` as llama-server has it, `max_model_len` as vLLM.
fn card(model: &ModelStatus) -> Value {
    let context = model.info.as_ref().map_or(model.facts.context, |info| info.context);
    json!({
        "id": model.name,
        "object": "model",
        "created": model.facts.created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "owned_by": "sconce",
        "aliases": model.aliases,
        "status": { "value": model.state.word() },
        "max_model_len": context,
        "meta": { "n_ctx": context, "n_params": model.facts.parameters, "size": model.facts.file_bytes },
    })
}
