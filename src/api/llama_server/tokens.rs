//! `POST /tokenize` and `POST /detokenize`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    api::{
        error::ApiError,
        fields::{Fields, kind},
        reply,
        state::Api,
    },
    engine::{
        request::Prompt,
        tokenizer::{Markup, Special, Tokenizer},
    },
    http::{Reply, Request, Status},
};

use super::completion::read_parts;

/// `{content, add_special, parse_special, with_pieces}` → `{tokens}`
pub fn tokenize(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let content = match fields.take("content") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![Prompt::Marked(text)],
        Some(Value::Array(items)) => read_parts(items, "content")?,
        Some(other) => {
            return fields
                .refuse("content", format!("expected a text or a list of texts and ids, not {}", kind(&other)));
        }
    };
    let special = if fields.flag("add_special")?.unwrap_or(false) { Special::Add } else { Special::None };
    let markup = if fields.flag("parse_special")?.unwrap_or(true) { Markup::Parse } else { Markup::Literal };
    let with_pieces = fields.flag("with_pieces")?.unwrap_or(false);
    let model = fields.text("model")?;
    fields.finish()?;

    let bytes = content.iter().map(Prompt::bytes).sum();
    Ok(api.text_work(request, model.as_deref(), bytes, move |model| {
        let tokenizer = model.tokenizer();
        let tokens = encode(&content, special, markup, tokenizer);
        let tokens: Vec<Value> = match with_pieces {
            false => tokens.into_iter().map(Value::from).collect(),
            true => {
                tokens.into_iter().map(|id| json!({ "id": id, "piece": piece(tokenizer.token_bytes(id)) })).collect()
            }
        };
        Ok(reply::json(Status::OK, &json!({ "tokens": tokens })))
    }))
}

/// Only a first text gets the model's own special tokens.
fn encode(content: &[Prompt], special: Special, markup: Markup, tokenizer: &Tokenizer) -> Vec<u32> {
    let part = |(i, part): (usize, &Prompt)| match part {
        Prompt::Marked(text) | Prompt::Rendered(text) => {
            tokenizer.encode(text, if i == 0 { special } else { Special::None }, markup)
        }
        other => other.encode_bare(tokenizer),
    };
    content.iter().enumerate().flat_map(part).collect()
}

/// A token's text, or its bytes where they are not whole characters.
fn piece(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.into(),
    }
}

/// `{tokens}` → `{content}`, special tokens by their spelling.
pub fn detokenize(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let tokens = fields.tokens("tokens", usize::MAX)?.unwrap_or_default();
    let model = fields.text("model")?;
    fields.finish()?;

    Ok(api.text_work(request, model.as_deref(), size_of_val(&*tokens), move |model| {
        let tokenizer = model.tokenizer();
        let vocabulary = tokenizer.vocabulary();
        if let Some(at) = tokens.iter().position(|id| *id as usize >= vocabulary) {
            let message = format!("token {} is not in the model's vocabulary of {vocabulary}", tokens[at]);
            return Err(ApiError::field(format!("tokens[{at}]"), message));
        }
        Ok(reply::json(Status::OK, &json!({ "content": spell(&tokens, tokenizer) })))
    }))
}

/// The text of tokens, special ones by their spelling; what is not UTF-8 becomes U+FFFD.
pub fn spell(tokens: &[u32], tokenizer: &Tokenizer) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
