//! JSON answers, and the envelope of the native API: `{"success":true,"data":…}`.

use serde_json::{Value, json};

use crate::http::{Reply, Status};

/// 200 with `data` in the envelope.
pub fn success(data: &Value) -> Reply {
    json(Status::OK, &json!({ "success": true, "data": data }))
}

/// A JSON answer. Answers are made for one request at one moment: nobody may keep them.
pub fn json(status: Status, body: &Value) -> Reply {
    Reply::bytes(status, "application/json", body.to_string().into_bytes()).header("Cache-Control", "no-store")
}
