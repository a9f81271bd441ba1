//! `GET /health`, `/livez`, `/readyz`: answered from counters, whatever the engine is doing.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Instant, UNIX_EPOCH},
};

use serde_json::json;

use crate::http::{Reply, Request, Status};

use super::{
    backend::{ModelInfo, Snapshot},
    error::ApiError,
    models::ModelStatus,
    reply,
    state::{Api, Readiness},
};

impl Readiness {
    /// The word of `/health`, and its status.
    fn health(self) -> (&'static str, Status) {
        match self {
            Self::Ready => ("healthy", Status::OK),
            Self::Draining => ("degraded", Status::OK),
            Self::Loading { .. } | Self::NoModel | Self::Stuck => ("unhealthy", Status::SERVICE_UNAVAILABLE),
        }
    }

    fn reason(self) -> Cow<'static, str> {
        match self {
            Self::Ready => "ok".into(),
            Self::Loading { percent } => format!("loading {percent} %").into(),
            Self::NoModel => "the model could not be loaded".into(),
            Self::Draining => "draining".into(),
            Self::Stuck => "the engine does not answer".into(),
        }
    }
}

/// The whole picture. 200 while new or running requests are served, else 503.
pub fn health(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let now = Instant::now();
    let models = api.models().list();
    let engine = Snapshot::total(models.iter().filter_map(|model| model.snapshot));
    let default = models.iter().find(|model| model.default);
    let info = default.and_then(|model| model.info.as_ref());
    let readiness = api.readiness();
    let (status, code) = readiness.health();
    let loaded = info.is_some();
    // A model that comes when it is asked for is as good as there.
    let alive = code == Status::OK;
    let data = json!({
        "status": status,
        "healthy": readiness == Readiness::Ready,
        "model": default.filter(|_| alive || loaded).map_or("", |model| &model.name),
        "model_info": info.map(model_info),
        "model_loaded": loaded,
        "models": models.iter().map(model_state).collect::<Vec<_>>(),
        "components": {
            "scheduler": alive,
            "model_executor": alive,
            "tokenizer": loaded || alive,
            "request_queue": readiness == Readiness::Ready,
        },
        "metrics": {
            "queue_size": engine.waiting,
            "active_requests": engine.running,
            "average_wait_time": rounded(api.metrics.average_wait_seconds()),
            "requests_per_second": rounded(api.metrics.requests_per_second(now)),
            "average_response_time": rounded(api.metrics.average_response_seconds()),
            "tokens_per_second": rounded(api.metrics.tokens_per_second(now)),
            "kv_cache_usage": rounded(engine.kv_usage()),
            "uptime_seconds": rounded(api.metrics.uptime(now).as_secs_f64()),
        },
        "dependencies": {
            "model": if alive { "ok".into() } else { readiness.reason() },
            "tokenizer": if loaded || alive { "ok".into() } else { readiness.reason() },
        },
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(reply::json(code, &json!({ "success": code == Status::OK, "data": data })))
}

/// One of the models, in short.
fn model_state(model: &ModelStatus) -> serde_json::Value {
    json!({
        "name": model.name,
        "aliases": model.aliases,
        "default": model.default,
        "state": model.state.word(),
        "architecture": model.facts.architecture,
        "memory_bytes": model.memory_bytes,
        "live_requests": model.live,
        "waiting_requests": model.waiting,
    })
}

fn model_info(info: &ModelInfo) -> serde_json::Value {
    json!({
        "architecture": info.architecture,
        "weights_type": info.weights_type,
        "parameters": info.parameters,
        "file_bytes": info.file_bytes,
        "packed_bytes": info.packed_bytes,
        "context": info.context,
        "load_seconds": rounded(info.load_seconds),
        "loaded_at": info.loaded.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    })
}

/// The process answers: that is all a liveness probe should ask.
pub fn livez(_: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::text("ok\n"))
}

/// Whether new requests should be sent here: 200, or 503 with the reason.
pub fn readyz(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    match api.readiness() {
        Readiness::Ready => Ok(Reply::text("ready\n")),
        other => {
            let reply = Reply::text(format!("{}\n", other.reason()));
            Ok(reply.with_status(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1"))
        }
    }
}

/// To millionths: more digits say nothing.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
