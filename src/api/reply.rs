//! JSON answers, and the envelope of the native API: `{"success":true,"data":…}`.

use serde::Serialize;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::{
    engine::error::RequestError,
    http::{Reply, Status},
};

/// 200 with `data` in the envelope.
pub fn success(data: &Value) -> Reply {
    json(Status::OK, &json!({ "success": true, "data": data }))
}

/// A JSON answer. Answers are made for one request at one moment: nobody may keep them.
pub fn json(status: Status, body: &Value) -> Reply {
    Reply::bytes(status, "application/json", body.to_string().into_bytes()).header("Cache-Control", "no-store")
}

/// 200 with what is too large to be put together as a [`Value`] first.
pub fn written(body: &impl Serialize) -> Result<Reply, ApiError> {
    let bytes = serde_json::to_vec(body).map_err(|error| RequestError::Internal(error.to_string()))?;
    Ok(Reply::bytes(Status::OK, "application/json", bytes).header("Cache-Control", "no-store"))
}
