//! `GET /props` and `GET /slots`: what the server runs with, and what is running.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    api::{backend::Backend, error::ApiError, reply, state::Api},
    http::{Reply, Request, Status},
};

use super::settings;

/// The model's properties and defaults; `?model=` names another than the default one.
pub fn props(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let model = request.query("model");
    Ok(api.text_work(request, model.as_deref(), 0, |model| Ok(reply::json(Status::OK, &describe(model)))))
}

fn describe(model: &dyn Backend) -> Value {
    let (info, snapshot, tokenizer) = (model.info(), model.snapshot(), model.tokenizer());
    let spelt = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
    json!({
        "default_generation_settings": {
            "id": 0,
            "id_task": -1,
            "n_ctx": info.context,
            "speculative": false,
            "is_processing": false,
            "params": settings::describe(&settings::defaults(), false),
            "prompt": "",
            "next_token": {
                "has_next_token": true,
                "has_new_line": false,
                "n_remain": -1,
                "n_decoded": 0,
                "stopping_word": "",
            },
        },
        "total_slots": snapshot.running_max,
        "model_alias": model.name(),
        // Where files are is nobody's business.
        "model_path": model.name(),
        "modalities": { "vision": false, "audio": false },
        "chat_template": model.template().unwrap_or_default(),
        "bos_token": spelt(tokenizer.bos()),
        "eos_token": spelt(tokenizer.eos()),
        "build_info": concat!("sconce-", env!("CARGO_PKG_VERSION")),
        "endpoint_slots": true,
        "endpoint_props": false,
        "endpoint_metrics": true,
        "is_sleeping": false,
    })
}

/// The places for sequences, those that are taken first. With `?fail_on_no_slot=1` it is an error if all are.
pub fn slots(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let model = request.query("model");
    let status = api.models().status(model.as_deref())?;
    let (running, places) = status.snapshot.map_or((0, 0), |snapshot| (snapshot.running, snapshot.running_max));
    if running >= places && request.query("fail_on_no_slot").is_some_and(|fail| fail != "0" && !fail.is_empty()) {
        return Err(ApiError::Refused { status: 503, message: "no slot is free".to_owned() });
    }
    let context = status.info.as_ref().map_or(status.facts.context, |info| info.context);
    let slot = |id: usize| json!({ "id": id, "n_ctx": context, "speculative": false, "is_processing": id < running });
    Ok(reply::json(Status::OK, &(0..places).map(slot).collect()))
}
