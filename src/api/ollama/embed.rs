//! `POST /api/embed`, and `POST /api/embeddings` as it was before: <https://docs.ollama.com/api/embed>.

use std::{sync::Arc, time::Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::{
        backend::Backend,
        encoding::{self, EncodeAsk, INPUTS_MAX, Wanted},
        error::ApiError,
        fields::{Fields, kind},
        models::ModelStatus,
        reply,
        state::Api,
    },
    engine::{
        encoder::EncodeInput,
        request::{GenerateRequest, Prompt},
    },
    http::{Reply, Request, Status},
};

use super::request::Terms;

/// Dimensions of a vector; more than any model has.
const DIMENSIONS_MAX: i64 = 1 << 20;

#[derive(Serialize)]
struct Embeddings<'a> {
    model: &'a str,
    embeddings: &'a [Vec<f32>],
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: usize,
}

/// `{model, input}` → `{embeddings}`. Texts that are too long are cut, unless `truncate` is false; without any the model is
/// loaded.
pub fn embed(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let asked = Instant::now();
    let mut fields = Fields::parse(request.body())?;
    let terms = read_terms(&mut fields)?;
    let truncate = fields.flag("truncate")?.unwrap_or(true);
    let dimensions = fields.integer("dimensions", 0..=DIMENSIONS_MAX)?.filter(|n| *n > 0).map(|n| n as usize);
    let input = fields.take("input");
    fields.finish()?;
    let (inputs, place): (_, fn(usize) -> String) = match input {
        None => (Vec::new(), |_| "input".to_owned()),
        Some(Value::String(text)) if text.is_empty() => (Vec::new(), |_| "input".to_owned()),
        Some(Value::String(text)) => (vec![EncodeInput::Text(text)], |_| "input".to_owned()),
        Some(Value::Array(items)) => (read_list(items)?, |i| format!("input[{i}]")),
        Some(other) => {
            return Err(ApiError::field("input", format!("expected a text or a list, not {}", kind(&other))));
        }
    };
    let model = terms.find(api)?;
    if inputs.is_empty() {
        return load(api, request, &terms, &model, json!({ "model": terms.model, "embeddings": [] }));
    }
    let name = terms.model.clone();
    let ask =
        EncodeAsk { model: Some(model.name.clone()), inputs, wanted: Wanted::Vectors { dimensions }, truncate, place };
    terms.answer(api, &model, || {
        Ok(encoding::start(api, request, ask, move |_, encoded| {
            reply::written(&Embeddings {
                model: &name,
                embeddings: &encoded.outputs,
                total_duration: u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX),
                load_duration: 0,
                prompt_eval_count: encoded.prompt_tokens,
            })
        }))
    })
}

/// `{model, prompt}` → `{embedding}`; without a prompt the model is loaded.
pub fn embeddings(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let terms = read_terms(&mut fields)?;
    let prompt = fields.text("prompt")?.filter(|prompt| !prompt.is_empty());
    fields.finish()?;
    let model = terms.find(api)?;
    let Some(prompt) = prompt else { return load(api, request, &terms, &model, json!({ "embedding": [] })) };
    let ask = EncodeAsk {
        model: Some(model.name.clone()),
        inputs: vec![EncodeInput::Text(prompt)],
        wanted: Wanted::Vectors { dimensions: None },
        truncate: false,
        place: |_| "prompt".to_owned(),
    };
    terms.answer(api, &model, || {
        Ok(encoding::start(api, request, ask, |_, encoded| {
            Ok(reply::json(Status::OK, &json!({ "embedding": encoded.outputs.into_iter().next().unwrap_or_default() })))
        }))
    })
}

/// Of the options only the context means anything here; the others are checked.
fn read_terms(fields: &mut Fields) -> Result<Terms, ApiError> {
    Terms::read(fields, &mut GenerateRequest::new(Prompt::Tokens(Vec::new())))
}

fn load(
    api: &Arc<Api>,
    request: &Request<'_>,
    terms: &Terms,
    model: &ModelStatus,
    empty: Value,
) -> Result<Reply, ApiError> {
    let answer = move |_: &dyn Backend| Ok(reply::json(Status::OK, &empty));
    terms.answer(api, model, || Ok(api.text_work(request, Some(&model.name), 0, answer)))
}

fn read_list(items: Vec<Value>) -> Result<Vec<EncodeInput>, ApiError> {
    if items.len() > INPUTS_MAX {
        return Err(ApiError::field("input", format!("{} texts, {INPUTS_MAX} are allowed", items.len())));
    }
    let input = |(i, item)| match item {
        Value::String(text) => Ok(EncodeInput::Text(text)),
        other => Err(ApiError::field(format!("input[{i}]"), format!("expected a text, not {}", kind(&other)))),
    };
    items.into_iter().enumerate().map(input).collect()
}
