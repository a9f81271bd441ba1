//! What the engine tells of one choice, on its way to the answer that the choice is part of.

use std::{sync::Arc, time::Instant};

use crate::engine::{
    dialect::{Delta, Reader},
    request::{Event, Flow, Sink},
};

use super::{Delivery, delivery::News};

/// What a choice's text is taken for.
pub enum Reading {
    /// Text.
    Plain,
    /// A dialect's thoughts, text and calls.
    Dialect(Box<Reader>),
}

impl Reading {
    fn push(&mut self, text: String) -> Vec<Delta> {
        match self {
            Self::Plain if text.is_empty() => Vec::new(),
            Self::Plain => vec![Delta::Text(text)],
            Self::Dialect(reader) => reader.push(&text),
        }
    }

    fn finish(&mut self) -> Vec<Delta> {
        match self {
            Self::Plain => Vec::new(),
            Self::Dialect(reader) => reader.finish(),
        }
    }
}

/// A choice's end of a [`Delivery`].
pub struct ChoiceSink {
    delivery: Arc<Delivery>,
    choice: usize,
    reading: Reading,
    last_piece: Option<Instant>,
}

impl ChoiceSink {
    pub fn new(delivery: Arc<Delivery>, choice: usize, reading: Reading) -> Self {
        Self { delivery, choice, reading, last_piece: None }
    }
}

impl Sink for ChoiceSink {
    fn flow(&self) -> Flow {
        self.delivery.flow(self.choice)
    }

    fn on_event(&mut self, event: Event) {
        let news = match event {
            Event::Started { prompt_tokens, cached_tokens, scored } => {
                News::Started { prompt_tokens, cached_tokens, scored }
            }
            Event::Piece { text, token_ids, logprobs } => {
                let deltas = self.reading.push(text);
                let before = self.last_piece.replace(Instant::now());
                News::Piece { deltas, token_ids, logprobs, before }
            }
            Event::Finished { reason, usage, timeline } => {
                News::Finished { deltas: self.reading.finish(), reason, usage, timeline }
            }
            Event::Failed(error) => return self.delivery.fail(error.into()),
        };
        self.delivery.tell(self.choice, news);
    }
}
