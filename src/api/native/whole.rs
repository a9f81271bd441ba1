//! Delivers a generation as one JSON answer.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};

use crate::{
    api::{
        error::ApiError,
        metrics::{Endpoint, Metrics},
        reply,
        request_id::RequestId,
    },
    engine::request::{Event, Flow, Sink},
    http::{Reply, Responder},
};

use super::{account, generate::Answer};

/// Collects the pieces and answers at the end.
pub struct WholeSink {
    /// Gone once answered.
    responder: Option<Responder>,
    id: RequestId,
    metrics: Arc<Metrics>,
    received: Instant,
    last_piece: Option<Instant>,
    text: String,
    token_ids: Vec<u32>,
}

impl WholeSink {
    pub fn new(responder: Responder, id: RequestId, metrics: Arc<Metrics>) -> Self {
        Self {
            responder: Some(responder),
            id,
            metrics,
            received: Instant::now(),
            last_piece: None,
            text: String::new(),
            token_ids: Vec::new(),
        }
    }

    fn send(&mut self, reply: Reply) {
        if let Some(responder) = self.responder.take() {
            self.metrics.on_answer(Endpoint::Generate, reply.status().code());
            responder.send(reply);
        }
    }
}

impl Answer for WholeSink {
    fn fail(&mut self, error: ApiError) {
        self.metrics.on_failed();
        self.send(error.into());
    }
}

impl Sink for WholeSink {
    fn flow(&self) -> Flow {
        match &self.responder {
            Some(responder) if !responder.is_closed() => Flow::Continue,
            _ => Flow::Cancel,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Piece { text, token_ids, .. } => {
                let now = Instant::now();
                self.metrics.on_piece(token_ids.len(), self.received, self.last_piece.replace(now), now);
                self.text.push_str(&text);
                self.token_ids.extend(token_ids);
            }
            Event::Finished { reason, usage, timeline } => {
                self.metrics.on_finished(reason, usage, &timeline);
                let mut data = json!({
                    "id": self.id.as_str(),
                    "text": std::mem::take(&mut self.text),
                    "token_ids": std::mem::take(&mut self.token_ids),
                });
                if let Value::Object(fields) = &mut data {
                    fields.extend(account(reason, usage, &timeline));
                }
                self.send(reply::success(&data));
            }
            Event::Failed(error) => self.fail(error.into()),
        }
    }
}
