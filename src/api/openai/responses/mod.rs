//! `/v1/responses`: <https://platform.openai.com/docs/api-reference/responses>.
//!
//! ```text
//! body ─▶ request ─┬─ items (with those of the response before) ─▶ messages ─▶ generation ─▶ wire ─▶ output ─▶ client
//!                  └─ shell: what every answer says of the request                             └──▶ kept
//! ```
//!
//! What is kept is kept in memory: until the server ends, for 30 days, or until others take its room.

mod events;
mod items;
mod kept;
mod output;
mod request;
mod shell;
mod store;
mod wire;

pub use kept::Responses;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    api::{answer::Mode, error::ApiError, generation, reply, request_id::RequestId, state::Api},
    http::{Reply, Request, Status},
};

use kept::Cancelled;
use request::{Create, Delivered};
use shell::State;
use wire::{Keeper, ResponseWire};

/// `POST /v1/responses`: answers at once, as a stream, or later.
pub fn create_response(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let id = RequestId::fresh();
    let create = request::parse(request.body(), &id, &api.responses, api.settings.queue_timeout)?;
    let Create { ask, mut shell, items, store, delivered } = create;
    // Refused now if there is none: nobody waits for what comes later.
    shell.set_model(&api.models().status(ask.model.as_deref())?.name);
    let keeper = store.then(|| Keeper::new(&api.responses, shell.id(), items));
    match delivered {
        Delivered::Now(mode) => {
            let wire = ResponseWire::new(shell, keeper, &ask);
            generation::start(api, request, &id, ask, mode, wire)
        }
        Delivered::Later => {
            let name = shell.id().to_owned();
            let mut wire = ResponseWire::new(shell, keeper, &ask).in_background();
            let queued = wire.keep(&State::Queued, &[], None);
            let work = generation::start(api, request, &id, ask, Mode::Whole, wire)?;
            // Whoever drops this end of the answer ends the work.
            api.responses.hold(&name, work);
            // It is counted when the work ends, and this answer not once more: one that comes later is not counted here.
            let (reply, responder) = Reply::later();
            responder.send(reply::json(Status::OK, &queued));
            Ok(reply)
        }
    }
}

/// `GET /v1/responses/{id}`.
pub fn response(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    check_query(request, &["include", "include[]", "stream"])?;
    if request.query("stream").is_some_and(|value| value != "false") {
        return Err(ApiError::unsupported("stream", "a response that is kept is told at once"));
    }
    let id = id(request);
    api.responses.response(&id).map(raw).ok_or(ApiError::UnknownResponse { id })
}

/// `DELETE /v1/responses/{id}`: forgets it, and ends it if it goes on.
pub fn delete_response(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let id = id(request);
    match api.responses.remove(&id) {
        true => Ok(reply::json(Status::OK, &json!({ "id": id, "object": "response", "deleted": true }))),
        false => Err(ApiError::UnknownResponse { id }),
    }
}

/// `POST /v1/responses/{id}/cancel`: ends one in the background.
pub fn cancel_response(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let id = id(request);
    match api.responses.cancel(&id) {
        Cancelled::Now(response) => Ok(raw(response)),
        Cancelled::NotInBackground => {
            Err(ApiError::field("response_id", "only responses that were created with background: true are cancelled"))
        }
        Cancelled::Unknown => Err(ApiError::UnknownResponse { id }),
    }
}

/// `GET /v1/responses/{id}/input_items`: what it was made from, the latest first unless `order=asc`.
pub fn response_input(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    check_query(request, &["after", "include", "include[]", "limit", "order"])?;
    let limit = match request.query("limit") {
        None => 20,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=100) => limit,
            _ => return Err(ApiError::field("limit", "must be a whole number from 1 to 100")),
        },
    };
    let ascending = match request.query("order").as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(ApiError::field("order", "must be asc or desc")),
    };
    let id = id(request);
    let Some(items) = api.responses.input(&id) else { return Err(ApiError::UnknownResponse { id }) };
    let mut items: Vec<Value> = items.iter().filter_map(|item| serde_json::from_str(item).ok()).collect();
    if !ascending {
        items.reverse();
    }
    if let Some(after) = request.query("after") {
        let Some(at) = items.iter().position(|item| item["id"] == *after) else {
            return Err(ApiError::field("after", "no item has this id"));
        };
        items.drain(..=at);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let end = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let list = json!({
        "object": "list",
        "first_id": end(items.first()),
        "last_id": end(items.last()),
        "has_more": has_more,
        "data": items,
    });
    Ok(reply::json(Status::OK, &list))
}

fn id(request: &Request<'_>) -> String {
    request.param("id").unwrap_or_default().into_owned()
}

/// Refuses parameters that nobody knows.
fn check_query(request: &Request<'_>, known: &[&str]) -> Result<(), ApiError> {
    let pairs = request.query_string().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut names = pairs.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    match names.find(|name| !known.contains(&name.replace("%5B", "[").replace("%5D", "]").as_str())) {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(64).collect();
            Err(ApiError::field(name, format!("unknown parameter; known are {}", known.join(", "))))
        }
    }
}

/// JSON that is written already.
fn raw(json: String) -> Reply {
    Reply::bytes(Status::OK, "application/json", json.into_bytes()).header("Cache-Control", "no-store")
}
