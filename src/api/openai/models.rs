//! `GET /v1/models` and `/v1/models/{id}`.

use std::{sync::Arc, time::UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    api::{backend::Backend, error::ApiError, reply, state::Api},
    http::{Reply, Request, Status},
};

/// All models.
pub fn models(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let data: Vec<Value> = api.backend().iter().map(|model| card(&**model)).collect();
    Ok(reply::json(Status::OK, &json!({ "object": "list", "data": data })))
}

/// One model, by name.
pub fn model(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let id = request.param("id").unwrap_or_default();
    let model = api.backend()?;
    match model.name() == id {
        true => Ok(reply::json(Status::OK, &card(&*model))),
        false => Err(ApiError::UnknownModel { name: id.into_owned(), known: vec![model.name().to_owned()] }),
    }
}

/// What is told of a model; `meta` as llama-server has it, `max_model_len` as vLLM.
fn card(model: &dyn Backend) -> Value {
    let info = model.info();
    json!({
        "id": model.name(),
        "object": "model",
        "created": info.loaded.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        "owned_by": "sconce",
        "max_model_len": info.context,
        "meta": { "n_ctx": info.context, "n_params": info.parameters, "size": info.file_bytes },
    })
}
