//! `POST /v1/rerank` and `/rerank`: documents by how well they go with a query, as Jina and Cohere have it
//! (<https://docs.cohere.com/reference/rerank>). Documents that are too long are cut unless `truncate` is false, as
//! theirs are.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    engine::encoder::EncodeInput,
    http::{Reply, Request, Status},
};

use super::{
    encoding::{self, EncodeAsk, INPUTS_MAX, Wanted},
    error::ApiError,
    fields::{Fields, kind},
    reply,
    state::Api,
};

/// Answers with the documents' scores, best first.
pub fn rerank(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, telling) = parse(request.body())?;
    Ok(encoding::start(api, request, ask, move |model, encoded| {
        let scores: Vec<f32> =
            encoded.outputs.iter().map(|output| output.first().copied().unwrap_or(f32::NAN)).collect();
        let body = json!({
            "object": "list",
            "model": model.name(),
            "results": telling.results(&scores),
            "usage": { "prompt_tokens": encoded.prompt_tokens, "total_tokens": encoded.prompt_tokens },
        });
        Ok(reply::json(Status::OK, &body))
    }))
}

/// What is told of the scores.
struct Telling {
    /// Of the best, so many.
    top: usize,
    /// The documents, if they are to be said again.
    documents: Option<Vec<String>>,
}

impl Telling {
    /// Best first; equals in the order of the documents.
    fn results(&self, scores: &[f32]) -> Vec<Value> {
        let mut ranks: Vec<usize> = (0..scores.len()).collect();
        ranks.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let result = |index: usize| {
            let mut result = json!({ "index": index, "relevance_score": scores[index] });
            if let Some(text) = self.documents.as_ref().and_then(|documents| documents.get(index)) {
                result["document"] = json!({ "text": text });
            }
            result
        };
        ranks.into_iter().take(self.top).map(result).collect()
    }
}

fn parse(body: &[u8]) -> Result<(EncodeAsk, Telling), ApiError> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?;
    let query = fields.text("query")?;
    let documents = fields.take("documents");
    let top = fields.integer("top_n", 1..=i64::from(i32::MAX))?.map_or(usize::MAX, |n| n as usize);
    let returned = fields.flag("return_documents")?.unwrap_or(false);
    let truncate = fields.flag("truncate")?.unwrap_or(true);
    let Some(query) = query else { return fields.missing("query", "what the documents are to go with") };
    if query.is_empty() {
        return fields.refuse("query", "it is empty".to_owned());
    }
    let Some(documents) = documents else { return fields.missing("documents", "a list of texts") };
    fields.finish()?;
    let documents = read_documents(documents)?;
    let inputs = documents.iter().map(|document| EncodeInput::Pair(query.clone(), document.clone())).collect();
    let place = |i| format!("documents[{i}]");
    let ask = EncodeAsk { model, inputs, wanted: Wanted::Scores, truncate, place };
    Ok((ask, Telling { top, documents: returned.then_some(documents) }))
}

/// Texts, or objects with one.
fn read_documents(value: Value) -> Result<Vec<String>, ApiError> {
    let Value::Array(items) = value else {
        return Err(ApiError::field("documents", format!("expected a list, not {}", kind(&value))));
    };
    if !(1..=INPUTS_MAX).contains(&items.len()) {
        let message = format!("{} documents, 1 to {INPUTS_MAX} are allowed", items.len());
        return Err(ApiError::field("documents", message));
    }
    let document = |(i, item)| {
        let at = format!("documents[{i}]");
        match item {
            Value::String(text) => Ok(text),
            Value::Object(_) => {
                let mut fields = Fields::inside(item, &at)?;
                let Some(text) = fields.text("text")? else { return fields.missing("text", "the document's text") };
                fields.finish()?;
                Ok(text)
            }
            other => Err(ApiError::field(at, format!("expected a string or an object, not {}", kind(&other)))),
        }
    };
    items.into_iter().enumerate().map(document).collect()
}
