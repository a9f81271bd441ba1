//! `POST /decode`: token ids to text.

use std::sync::Arc;

use serde_json::json;

use crate::{
    api::{error::ApiError, fields::Fields, reply, state::Api},
    engine::error::RequestError,
    http::{Reply, Request},
};

/// `{tokens}` → `{text}`. Bytes that are not UTF-8 become U+FFFD.
pub fn decode(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let tokens = fields.tokens("tokens", usize::MAX)?;
    let model = fields.text("model")?;
    let Some(tokens) = tokens else { return fields.missing("tokens", "a list of token ids") };
    fields.finish()?;

    Ok(api.text_work(request, model.as_deref(), size_of_val(&*tokens), move |backend| match backend.decode(&tokens) {
        Ok(text) => Ok(reply::success(&json!({ "text": text }))),
        Err(RequestError::UnknownToken { id, vocabulary }) => {
            let at = tokens.iter().position(|token| *token == id).unwrap_or_default();
            let message = format!("token {id} is not in the model's vocabulary of {vocabulary}");
            Err(ApiError::field(format!("tokens[{at}]"), message))
        }
        Err(error) => Err(error.into()),
    }))
}
