//! `GET /health`, `/livez`, `/readyz`: answered from counters, whatever the engine is doing.

use std::{sync::Arc, time::Instant};

use serde_json::json;

use crate::http::{Reply, Request, Status};

use super::{error::ApiError, reply, state::Api};

/// The whole picture. 200 while healthy or degraded, 503 when unhealthy.
///
/// `unhealthy`: the engine's thread is gone or stuck; `degraded`: draining.
pub fn health(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let now = Instant::now();
    let gauges = api.gauges();
    let alive = api.backend.snapshot().alive;
    let (status, code) = match (alive, api.is_draining()) {
        (false, _) => ("unhealthy", Status::SERVICE_UNAVAILABLE),
        (true, true) => ("degraded", Status::OK),
        (true, false) => ("healthy", Status::OK),
    };
    let engine = if alive { "ok" } else { "the engine does not answer" };
    let data = json!({
        "status": status,
        "healthy": status == "healthy",
        "model": gauges.model,
        "model_loaded": true,
        "components": {
            "scheduler": alive,
            "model_executor": alive,
            "tokenizer": true,
            "request_queue": !api.is_draining(),
        },
        "metrics": {
            "queue_size": gauges.waiting,
            "active_requests": gauges.running,
            "average_wait_time": rounded(api.metrics.average_wait_seconds()),
            "requests_per_second": rounded(api.metrics.requests_per_second(now)),
            "average_response_time": rounded(api.metrics.average_response_seconds()),
            "tokens_per_second": rounded(api.metrics.tokens_per_second(now)),
            "kv_cache_usage": rounded(gauges.kv_usage()),
            "uptime_seconds": rounded(api.metrics.uptime(now).as_secs_f64()),
        },
        "dependencies": { "model": engine, "tokenizer": "ok" },
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
    let reason = match (api.is_draining(), api.backend.snapshot().alive) {
        (true, _) => "draining\n",
        (false, false) => "the engine does not answer\n",
        (false, true) => return Ok(Reply::text("ready\n")),
    };
    Ok(Reply::text(reason).with_status(Status::SERVICE_UNAVAILABLE).header("Retry-After", "5"))
}

/// To millionths: more digits say nothing.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
