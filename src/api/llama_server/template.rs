//! `POST /apply-template`: a conversation as the model's template writes it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    api::{
        ask::{Chat, Input, render},
        error::ApiError,
        fields::{Fields, kind},
        openai, reply,
        state::Api,
    },
    http::{Reply, Request, Status},
};

/// `{messages, tools, chat_template_kwargs}` → `{prompt}`
pub fn apply_template(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    let mut chat = Chat::default();
    let messages = fields.take("messages");
    openai::tools::read(&mut fields, &mut chat)?;
    match fields.take("chat_template_kwargs") {
        None => {}
        Some(Value::Object(variables)) => chat.variables.extend(variables),
        Some(other) => {
            return fields.refuse("chat_template_kwargs", format!("expected an object, not {}", kind(&other)));
        }
    }
    if fields.flag("add_generation_prompt")? == Some(false) {
        return Err(ApiError::unsupported("add_generation_prompt", "the prompt ends where the assistant begins"));
    }
    let model = fields.text("model")?;
    let Some(messages) = messages else { return fields.missing("messages", "the conversation") };
    (chat.messages, chat.continues) = openai::messages::read(messages)?;
    fields.finish()?;

    let input = Input::Chat(chat);
    let bytes = input.bytes();
    Ok(api.text_work(request, model.as_deref(), bytes, move |model| {
        let Input::Chat(chat) = &input else { return Err(ApiError::field("messages", "missing")) };
        Ok(reply::json(Status::OK, &json!({ "prompt": render(chat, model, "messages")? })))
    }))
}
