//! `POST /encode`: text to token ids.

use std::sync::Arc;

use serde_json::json;

use crate::{
    api::{error::ApiError, fields::Fields, reply, state::Api},
    http::{Reply, Request},
};

/// `{text, add_special}` → `{length, tokens}`. `add_special` (true unless given) adds the model's own special tokens,
/// so that `length` is what the text costs as a prompt.
pub fn encode(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let text = fields.text("text")?;
    let add_special = fields.flag("add_special")?.unwrap_or(true);
    let model = fields.text("model")?;
    let Some(text) = text else { return fields.missing("text", "the text to encode") };
    fields.finish()?;

    Ok(api.text_work(request, model.as_deref(), text.len(), move |backend| {
        let tokens = backend.encode(&text, add_special)?;
        Ok(reply::success(&json!({ "length": tokens.len(), "tokens": tokens })))
    }))
}
