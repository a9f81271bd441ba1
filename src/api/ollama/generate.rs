//! `POST /api/generate`: <https://docs.ollama.com/api/generate>.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    api::{
        answer::Mode,
        ask::{Ask, Chat, Input, Suffix},
        error::ApiError,
        fields::Fields,
        generation,
        request_id::RequestId,
        state::Api,
    },
    engine::request::Prompt,
    http::{Reply, Request},
};

use super::{
    messages,
    request::{self, Terms},
    wire::{OllamaWire, Shape},
};

/// Continues a prompt, or answers it as a user's message; without one the model is loaded or unloaded.
pub fn generate(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, terms, mode) = parse(request.body(), api)?;
    let model = terms.find(api)?;
    let Some(ask) = ask else { return terms.load(api, request, &model, ("response", "".into())) };
    let ask = Ask { model: Some(model.name.clone()), ..ask };
    let id = RequestId::fresh();
    let wire = OllamaWire::new(Shape::Generate, &terms.model, &ask, &id);
    terms.answer(api, &model, || generation::start(api, request, &id, ask, mode, wire))
}

/// `None`: there is no prompt.
fn parse(body: &[u8], api: &Api) -> Result<(Option<Ask>, Terms, Mode), ApiError> {
    let mut fields = Fields::parse(body)?;
    let mut ask = Ask::new(Input::Prompts(Vec::new()));
    let mut variables = Map::new();
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let (terms, mode) = request::read(&mut fields, &mut ask, &mut variables, api.settings.queue_timeout)?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (suffix, system) = (given(fields.text("suffix")?), given(fields.text("system")?));
    let raw = fields.flag("raw")?.unwrap_or(false);
    let context = fields.tokens("context", usize::MAX)?.unwrap_or_default();
    messages::refuse_images(&mut fields, "")?;
    if given(fields.text("template")?).is_some() {
        let message =
            "templates of clients are not run; write the prompt out with raw, or set `template` for the model";
        return Err(ApiError::unsupported("template", message));
    }
    for name in ["width", "height", "steps"] {
        if fields.take(name).is_some_and(|value| value != json!(0)) {
            return Err(ApiError::unsupported(name, "images are not generated"));
        }
    }
    let plain = raw || suffix.is_some();
    if raw && (system.is_some() || !context.is_empty()) {
        return fields.refuse("raw", "can't be combined with system or context".to_owned());
    }
    if plain && let Some(param) = ask.thoughts.needed {
        return fields.refuse(param, "can't be combined with raw or suffix".to_owned());
    }
    if raw && suffix.is_some() {
        return fields.refuse("suffix", "can't be combined with raw".to_owned());
    }
    fields.finish()?;
    if prompt.is_empty() && suffix.is_none() {
        return Ok((None, terms, mode));
    }
    ask.input = match (raw, suffix) {
        (true, _) => Input::Prompts(vec![Prompt::Marked(prompt)]),
        (false, Some(text)) => {
            ask.suffix = Some(Suffix { text, param: "suffix" });
            Input::Prompts(vec![Prompt::Text(prompt)])
        }
        (false, None) => Input::Chat(turn(system, prompt, variables)),
    };
    (ask.context, ask.tells_prompts) = (context, !raw);
    Ok((Some(ask), terms, mode))
}

/// The prompt as a user's message.
fn turn(system: Option<String>, prompt: String, variables: Map<String, Value>) -> Chat {
    let system = system.map(|content| json!({ "role": "system", "content": content }));
    let user = json!({ "role": "user", "content": prompt });
    Chat { messages: system.into_iter().chain([user]).collect(), variables, plain: true, ..Chat::default() }
}
