//! `POST /api/chat`: <https://docs.ollama.com/api/chat>.

use std::sync::Arc;

use serde_json::json;

use crate::{
    api::{
        answer::Mode,
        ask::{Ask, Chat, Input},
        error::ApiError,
        fields::Fields,
        generation,
        request_id::RequestId,
        state::Api,
    },
    http::{Reply, Request},
};

use super::{
    messages,
    request::{self, Terms},
    wire::{OllamaWire, Shape},
};

/// Answers a conversation; without one the model is loaded or unloaded.
pub fn chat(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, terms, mode) = parse(request.body(), api)?;
    let model = terms.find(api)?;
    let Input::Chat(Chat { messages, .. }) = &ask.input else { return Err(ApiError::field("messages", "missing")) };
    if messages.is_empty() {
        return terms.load(api, request, &model, ("message", json!({ "role": "assistant", "content": "" })));
    }
    let ask = Ask { model: Some(model.name.clone()), ..ask };
    let id = RequestId::fresh();
    let wire = OllamaWire::new(Shape::Chat, &terms.model, &ask, &id);
    terms.answer(api, &model, || generation::start(api, request, &id, ask, mode, wire))
}

fn parse(body: &[u8], api: &Api) -> Result<(Ask, Terms, Mode), ApiError> {
    let mut fields = Fields::parse(body)?;
    let mut chat = Chat { parallel: true, plain: true, ..Chat::default() };
    if let Some(messages) = fields.take("messages") {
        chat.messages = messages::read(messages)?;
    }
    if let Some(tools) = fields.take("tools") {
        chat.tools = messages::read_tools(tools)?;
    }
    // A last message of the assistant is gone on with.
    let goes_on = |last: &serde_json::Value| last["role"] == "assistant" && last.get("tool_calls").is_none();
    chat.continues = chat.messages.last().is_some_and(goes_on);
    let mut ask = Ask::new(Input::Prompts(Vec::new()));
    let (terms, mode) = request::read(&mut fields, &mut ask, &mut chat.variables, api.settings.queue_timeout)?;
    fields.finish()?;
    ask.input = Input::Chat(chat);
    Ok((ask, terms, mode))
}
