//! Where a stream's pieces go: server-sent events, or lines of JSON.

use std::fmt::Write;

use serde_json::Value;

use crate::http::{Reply, Responder, Sse, Status, Stream};

/// How pieces are told apart on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events (WHATWG HTML §9.2).
    Events,
    /// A JSON text a line (NDJSON).
    Lines,
}

/// An open stream.
pub struct Frames {
    to: To,
    /// The piece being written; kept for its memory.
    line: String,
}

enum To {
    Events(Sse),
    Lines(Stream),
}

impl Frames {
    /// Sends the head.
    pub fn begin(responder: Responder, framing: Framing) -> Self {
        let to = match framing {
            Framing::Events => To::Events(responder.sse(&[])),
            Framing::Lines => {
                let head = Reply::bytes(Status::OK, "application/x-ndjson", &[][..])
                    .header("Cache-Control", "no-store")
                    .header("X-Accel-Buffering", "no");
                To::Lines(responder.stream(head))
            }
        };
        Self { to, line: String::new() }
    }

    /// Sends a piece that `write` writes on one line.
    pub fn piece(&mut self, write: impl FnOnce(&mut String)) {
        self.line.clear();
        write(&mut self.line);
        match &self.to {
            To::Events(sse) => sse.event(&self.line),
            To::Lines(stream) => {
                self.line.push('\n');
                // That the client has gone is for `is_closed` to say.
                let _gone = stream.write(self.line.as_bytes()).is_err();
            }
        }
    }

    pub fn json(&mut self, value: &Value) {
        self.piece(|line| {
            // Writing to a String can't fail.
            let _ = write!(line, "{value}");
        });
    }

    /// An event of this name; where lines have none, only what is in it.
    pub fn named(&mut self, name: &str, value: &Value) {
        self.named_piece(name, |line| {
            // Writing to a String can't fail.
            let _ = write!(line, "{value}");
        });
    }

    /// The same, where `write` writes what is in it on one line.
    pub fn named_piece(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        let To::Events(sse) = &self.to else { return self.piece(write) };
        self.line.clear();
        write(&mut self.line);
        sse.event_named(name, &self.line);
    }

    /// A sign of life that clients pass over; lines have none.
    pub fn ping(&self) {
        if let To::Events(sse) = &self.to {
            sse.comment("ping");
        }
    }

    /// Ends the stream well.
    pub fn close(self) {
        match self.to {
            To::Events(sse) => sse.close(),
            To::Lines(stream) => {
                let _gone = stream.close().is_err();
            }
        }
    }

    /// Whether the client has gone.
    pub fn is_closed(&self) -> bool {
        match &self.to {
            To::Events(sse) => sse.is_closed(),
            To::Lines(stream) => stream.is_closed(),
        }
    }

    /// Whether the reader lags so far that nothing more should be made for it.
    pub fn is_behind(&self) -> bool {
        match &self.to {
            To::Events(sse) => sse.is_behind(),
            To::Lines(stream) => stream.is_behind(),
        }
    }
}
