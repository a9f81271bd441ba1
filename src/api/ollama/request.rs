//! The fields that chat, generate and embed share.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::Mode,
        ask::{Ask, Format, ThoughtsWanted},
        backend::Backend,
        error::ApiError,
        fields::{Fields, kind},
        models::ModelStatus,
        reply,
        state::Api,
    },
    engine::{grammar::GrammarSource, request::GenerateRequest},
    http::{Reply, Request, Status},
};

use super::{keep_alive::KeepAlive, names, options, time};

/// Most likely tokens that are told with each.
const TOP_LOGPROBS_MAX: i64 = 20;

/// The model that is asked, and what becomes of it.
pub struct Terms {
    /// Its name as the client writes it.
    pub model: String,
    keep_alive: Option<KeepAlive>,
    /// The context that the client counts on, in tokens.
    context: Option<usize>,
    pub ignored: Vec<&'static str>,
}

/// Reads what chat and generate share into `ask` and the template's `variables`; gives how the answer is to be told, too.
/// `queue_timeout` is the server's.
pub fn read(
    fields: &mut Fields,
    ask: &mut Ask,
    variables: &mut Map<String, Value>,
    queue_timeout: Duration,
) -> Result<(Terms, Mode), ApiError> {
    let stream = fields.flag("stream")?.unwrap_or(true);
    ask.request.queue_timeout = queue_timeout;
    let mut terms = Terms::read(fields, &mut ask.request)?;
    // A prompt that is too long is refused, and nothing of it is forgotten while the answer grows.
    for name in ["truncate", "shift"] {
        if fields.flag(name)? == Some(true) {
            terms.ignored.push(name);
        }
    }
    ask.format = read_format(fields)?;
    ask.thoughts = read_think(fields, variables)?;
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?.unwrap_or(0);
    ask.request.logprobs = wanted.then_some(top as usize);
    Ok((terms, if stream { Mode::Stream } else { Mode::Whole }))
}

impl Terms {
    /// Reads `model`, `options`, which go into `request`, and `keep_alive`.
    pub fn read(fields: &mut Fields, request: &mut GenerateRequest) -> Result<Self, ApiError> {
        let options = options::read(fields, request)?;
        let keep_alive = KeepAlive::read(fields)?;
        let model = fields.text("model")?.unwrap_or_default();
        Ok(Self { model, keep_alive, context: options.context, ignored: options.ignored })
    }

    /// Finds the model, by the name that it has here.
    pub fn find(&self, api: &Api) -> Result<ModelStatus, ApiError> {
        if self.model.is_empty() {
            return Err(ApiError::field("model", "missing: the model's name"));
        }
        let status = names::resolve(api, &self.model)?;
        let served = status.info.as_ref().map_or(status.facts.context, |info| info.context);
        match self.context {
            Some(wanted) if wanted > served => Err(ApiError::field(
                "options.num_ctx",
                format!("this model is served with a context of {served} tokens, not {wanted}"),
            )),
            _ => Ok(status),
        }
    }

    /// Answers with what `start` starts, and has the model stay as long as was asked for.
    pub fn answer(
        &self,
        api: &Api,
        model: &ModelStatus,
        start: impl FnOnce() -> Result<Reply, ApiError>,
    ) -> Result<Reply, ApiError> {
        let reply = start()?;
        match self.keep_alive.map(|keep| keep.apply(api, &model.name)) {
            // One that is being loaded stays until it is idle.
            None | Some(Ok(()) | Err(ApiError::Loading)) => {}
            Some(Err(error)) => return Err(error),
        }
        Ok(match &self.ignored[..] {
            [] => reply,
            names => reply.header("x-ignored-params", names.join(", ")),
        })
    }

    /// Answers a request without a prompt: the model is loaded, or unloaded if it is to stay for no time.
    pub fn load(
        &self,
        api: &Arc<Api>,
        request: &Request<'_>,
        model: &ModelStatus,
        empty: (&str, Value),
    ) -> Result<Reply, ApiError> {
        let unload = self.keep_alive == Some(KeepAlive::Unload);
        let mut answer = json!({ "model": self.model, "created_at": time::rfc3339(SystemTime::now()) });
        answer[empty.0] = empty.1;
        answer["done"] = true.into();
        answer["done_reason"] = if unload { "unload" } else { "load" }.into();
        if unload {
            api.models().unload(&model.name)?;
            return Ok(reply::json(Status::OK, &answer));
        }
        let loaded = move |_: &dyn Backend| Ok(reply::json(Status::OK, &answer));
        self.answer(api, model, || Ok(api.text_work(request, Some(&model.name), 0, loaded)))
    }
}

/// `""`, `"json"`, or a JSON schema.
fn read_format(fields: &mut Fields) -> Result<Option<Format>, ApiError> {
    let source = match fields.take("format") {
        None => return Ok(None),
        Some(Value::String(word)) => match word.as_str() {
            "" => return Ok(None),
            "json" => GrammarSource::JsonObject,
            _ => return fields.refuse("format", "must be json or a JSON schema".to_owned()),
        },
        Some(schema @ Value::Object(_)) => GrammarSource::JsonSchema(schema),
        Some(other) => return fields.refuse("format", format!("expected json or a JSON schema, not {}", kind(&other))),
    };
    Ok(Some(Format { source, param: "format" }))
}

/// `think`: true, false, or how much.
fn read_think(fields: &mut Fields, variables: &mut Map<String, Value>) -> Result<ThoughtsWanted, ApiError> {
    let level = match fields.take("think") {
        None => return Ok(ThoughtsWanted::default()),
        Some(Value::Bool(think)) => think.then_some(None),
        Some(Value::String(level)) if ["low", "medium", "high", "max"].contains(&level.as_str()) => Some(Some(level)),
        Some(Value::String(_)) => return fields.refuse("think", "must be low, medium, high or max".to_owned()),
        Some(other) => {
            return fields.refuse("think", format!("expected true, false or a level, not {}", kind(&other)));
        }
    };
    variables.insert("enable_thinking".into(), level.is_some().into());
    let needed = level.is_some().then_some("think");
    if let Some(level) = level.flatten() {
        variables.insert("reasoning_effort".into(), level.into());
    }
    Ok(ThoughtsWanted { needed, ..ThoughtsWanted::default() })
}
