//! How a response is told, and kept.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    api::{
        answer::{Begun, Choice, Frames, Framing, Piece, Total, Wire},
        ask::Ask,
        error::ApiError,
    },
    engine::dialect::Delta,
};

use super::{
    events::{self, Events},
    kept::Responses,
    output::{Item, Standing, items_of},
    shell::{Shell, State},
};

/// The place where a response is kept.
pub struct Keeper {
    responses: Arc<Responses>,
    id: String,
    /// What it is made from, until it is kept for the first time.
    input: Option<Vec<Arc<str>>>,
}

impl Keeper {
    pub fn new(responses: &Arc<Responses>, id: &str, input: Vec<Arc<str>>) -> Self {
        Self { responses: Arc::clone(responses), id: id.to_owned(), input: Some(input) }
    }

    /// Keeps it as it is now; one that was forgotten meanwhile stays so.
    fn keep(&mut self, response: &Value, ended: bool, background: bool) {
        match self.input.take() {
            Some(input) => self.responses.insert(&self.id, response, input, ended, background),
            None => self.responses.update(&self.id, response, ended),
        }
    }
}

/// One response.
pub struct ResponseWire {
    shell: Shell,
    /// `None`: it is not to be kept.
    keeper: Option<Keeper>,
    background: bool,
    has_logprobs: bool,
    events: Events,
    begun: bool,
    /// How it ended.
    end: State,
}

impl ResponseWire {
    pub fn new(shell: Shell, keeper: Option<Keeper>, ask: &Ask) -> Self {
        Self {
            shell,
            keeper,
            background: false,
            has_logprobs: ask.request.logprobs.is_some(),
            events: Events::default(),
            begun: false,
            end: State::InProgress,
        }
    }

    /// Nobody is told but who asks later.
    pub fn in_background(self) -> Self {
        Self { background: true, ..self }
    }

    /// Keeps the response as it stands, and gives it.
    pub fn keep(&mut self, state: &State, output: &[Value], total: Option<&Total>) -> Value {
        let response = self.shell.written(state, output, total);
        if let Some(keeper) = &mut self.keeper {
            keeper.keep(&response, state.has_ended(), self.background);
        }
        response
    }

    /// Tells the response as it stands by an event of this type, and keeps it.
    fn tell(&mut self, kind: &str, state: &State, total: Option<&Total>, out: &mut Frames) {
        let output = self.events.written(last_item(state));
        let response = self.keep(state, &output, total);
        self.events.tell(kind, &json!({ "response": response }), out);
    }
}

/// How the last item of an output stands when the response does so.
fn last_item(state: &State) -> Standing {
    match state {
        State::Completed => Standing::Completed,
        _ => Standing::Incomplete,
    }
}

impl Wire for ResponseWire {
    fn framing(&self) -> Framing {
        Framing::Events
    }

    fn under_way(&mut self) {
        if self.background {
            self.keep(&State::InProgress, &[], None);
        }
    }

    fn begin(&mut self, begun: &Begun, out: &mut Frames) {
        self.shell.set_model(begun.model.name());
        self.begun = true;
        self.tell("response.created", &State::InProgress, None, out);
        self.tell("response.in_progress", &State::InProgress, None, out);
    }

    fn piece(&mut self, _: usize, piece: &Piece, out: &mut Frames) {
        // All tokens of the piece go with its first text.
        let mut scored = if self.has_logprobs { piece.scored } else { &[] };
        for delta in piece.deltas {
            self.events.push(delta, scored, out);
            if matches!(delta, Delta::Text(text) if !text.is_empty()) {
                scored = &[];
            }
        }
    }

    fn end(&mut self, _: usize, all: &Choice, out: &mut Frames) {
        let Some(end) = &all.end else { return };
        self.end = State::ended_by(end.reason);
        if self.events.items().is_empty() {
            self.events.begin_message(out);
        }
        self.events.close(last_item(&self.end), out);
    }

    fn finish(&mut self, total: &Total, out: &mut Frames) {
        let end = self.end.clone();
        let kind = if end == State::Completed { "response.completed" } else { "response.incomplete" };
        self.tell(kind, &end, Some(total), out);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        if self.begun {
            self.events.close(Standing::Incomplete, out);
            return self.tell("response.failed", &State::Failed(error.clone()), None, out);
        }
        let error = json!({ "code": error.code(), "message": error.to_string(), "param": error.param() });
        self.events.tell("error", &error, out);
    }

    fn refused(&mut self, error: &ApiError) {
        if self.background {
            self.keep(&State::Failed(error.clone()), &[], None);
        }
    }

    fn whole(&mut self, begun: &Begun, choices: &[Choice], total: &Total) -> Value {
        self.shell.set_model(begun.model.name());
        let Some((choice, end)) = choices.first().and_then(|choice| Some((choice, choice.end.as_ref()?))) else {
            return Value::Null;
        };
        let state = State::ended_by(end.reason);
        let items: Vec<Item> = items_of(choice);
        let output = events::written(&items, last_item(&state));
        if state == State::Cancelled && !self.background {
            // Who has left before he knew its id will not ask for it.
            return Value::Null;
        }
        let response = self.keep(&state, &output, Some(total));
        // What works in the background tells nobody.
        if self.background { Value::Null } else { response }
    }
}
