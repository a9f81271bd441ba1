//! `GET /health`, `/livez`, `/readyz`: answered from counters, whatever the engine is doing.

use std::{sync::Arc, time::Instant};

use serde_json::json;

use crate::http::{Reply, Request, Status};

use super::{
    error::ApiError,
    reply,
    state::{Api, Readiness},
};

impl Readiness {
    /// The word of `/health`, and its status.
    fn health(self) -> (&'static str, Status) {
        match self {
            Self::Ready => ("healthy", Status::OK),
            Self::Draining => ("degraded", Status::OK),
            Self::Loading | Self::Stuck => ("unhealthy", Status::SERVICE_UNAVAILABLE),
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Ready => "ok",
            Self::Loading => "loading",
            Self::Draining => "draining",
            Self::Stuck => "the engine does not answer",
        }
    }
}

/// The whole picture. 200 while new or running requests are served, else 503.
pub fn health(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let now = Instant::now();
    let engine = api.snapshot();
    let readiness = api.readiness();
    let (status, code) = readiness.health();
    let loaded = readiness != Readiness::Loading;
    let alive = loaded && readiness != Readiness::Stuck;
    let data = json!({
        "status": status,
        "healthy": readiness == Readiness::Ready,
        "model": api.model_name(),
        "model_loaded": loaded,
        "components": {
            "scheduler": alive,
            "model_executor": alive,
            "tokenizer": loaded,
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
            "model": if alive { "ok" } else { readiness.reason() },
            "tokenizer": if loaded { "ok" } else { readiness.reason() },
        },
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(reply::envelope(code, &json!({ "success": code == Status::OK, "data": data })))
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
            Ok(reply.with_status(Status::SERVICE_UNAVAILABLE).header("Retry-After", "5"))
        }
    }
}

/// To millionths: more digits say nothing.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
