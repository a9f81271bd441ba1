//! Delivers a generation as server-sent events.
//!
//! The 200 is held back until the first event or the first ping: until then an error has its real status, and a proxy
//! may still retry elsewhere.
//!
//! ```text
//! waiting ──first piece, or ping due──▶ streaming ──finished: last event, [DONE]──▶ done
//!    └──failed: an error answer──▶ done      └──failed: an error event, no [DONE]──▶ done
//! ```

use std::{
    cell::RefCell,
    fmt::Write,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    api::{
        error::ApiError,
        metrics::{Endpoint, Metrics},
        request_id::RequestId,
    },
    engine::request::{Event, Flow, Sink},
    http::{Responder, Sse},
};

use super::{account, generate::Answer};

/// Sends each piece as it comes.
pub struct StreamSink {
    /// In a cell, since asking for the flow may begin the stream.
    state: RefCell<State>,
    id: RequestId,
    metrics: Arc<Metrics>,
    received: Instant,
    last_piece: Option<Instant>,
    ping_interval: Duration,
    /// Events sent so far, which number them.
    events: u64,
    /// The event being written; kept for its memory.
    line: String,
}

enum State {
    Waiting(Responder),
    Streaming(Sse),
    Done,
}

impl StreamSink {
    pub fn new(responder: Responder, id: RequestId, metrics: Arc<Metrics>, ping_interval: Duration) -> Self {
        Self {
            state: RefCell::new(State::Waiting(responder)),
            id,
            metrics,
            received: Instant::now(),
            last_piece: None,
            ping_interval,
            events: 0,
            line: String::new(),
        }
    }

    /// Sends the 200, unless it is out already.
    fn begin(&self) {
        let mut state = self.state.borrow_mut();
        *state = match mem::replace(&mut *state, State::Done) {
            State::Waiting(responder) => {
                self.metrics.on_answer(Endpoint::GenerateStream, 200);
                State::Streaming(responder.sse(&[]))
            }
            other => other,
        };
    }

    fn send(&mut self, text: &str, token_ids: &[u32], tail: &str) {
        self.line.clear();
        write_event(&mut self.line, &self.id, self.events, text, token_ids, tail);
        self.events += 1;
        self.begin();
        if let State::Streaming(sse) = self.state.get_mut() {
            sse.event(&self.line);
        }
    }
}

impl Answer for StreamSink {
    fn fail(&mut self, error: ApiError) {
        self.metrics.on_failed();
        match mem::replace(self.state.get_mut(), State::Done) {
            State::Waiting(responder) => {
                self.metrics.on_answer(Endpoint::GenerateStream, error.status());
                responder.send(error.into());
            }
            State::Streaming(sse) => {
                sse.event(&serde_json::json!({ "error": error.to_json() }).to_string());
                sse.close();
            }
            State::Done => {}
        }
    }
}

impl Sink for StreamSink {
    fn flow(&self) -> Flow {
        let ping_due = match &*self.state.borrow() {
            State::Waiting(responder) if responder.is_closed() => return Flow::Cancel,
            State::Waiting(_) => self.received.elapsed() >= self.ping_interval,
            State::Streaming(sse) if sse.is_closed() => return Flow::Cancel,
            State::Streaming(sse) if sse.is_behind() => return Flow::Park,
            State::Streaming(_) => false,
            State::Done => return Flow::Cancel,
        };
        if ping_due {
            self.begin();
            if let State::Streaming(sse) = &*self.state.borrow() {
                sse.comment("ping");
            }
        }
        Flow::Continue
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Piece { text, token_ids, .. } => {
                let now = Instant::now();
                self.metrics.on_piece(token_ids.len(), self.received, self.last_piece.replace(now), now);
                self.send(&text, &token_ids, "\"finish_reason\":null");
            }
            Event::Finished { reason, usage, timeline } => {
                self.metrics.on_finished(reason, usage, &timeline);
                let account = serde_json::Value::Object(account(reason, usage, &timeline)).to_string();
                self.send("", &[], account.trim_start_matches('{').trim_end_matches('}'));
                if let State::Streaming(sse) = mem::replace(self.state.get_mut(), State::Done) {
                    sse.event("[DONE]");
                    sse.close();
                }
            }
            Event::Failed(error) => self.fail(error.into()),
        }
    }
}

/// Writes an event as JSON without building it first: there is one for each token. `tail` is the members after
/// `token_ids`.
fn write_event(out: &mut String, id: &RequestId, index: u64, text: &str, token_ids: &[u32], tail: &str) {
    // Writing to a String can't fail.
    let _ = write!(out, "{{\"id\":\"{id}\",\"index\":{index},\"text\":");
    push_json_string(out, text);
    out.push_str(",\"token_ids\":[");
    for (i, token) in token_ids.iter().enumerate() {
        let _ = write!(out, "{}{token}", if i == 0 { "" } else { "," });
    }
    let _ = write!(out, "],{tail}}}");
}

/// A JSON string literal (RFC 8259 §7).
fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{
            error::RequestError,
            request::{FinishReason, Timeline, Usage},
        },
        http::Reply,
    };

    const SOON: Duration = Duration::from_secs(10);

    fn sink(ping_interval: Duration) -> (Reply, StreamSink) {
        let (reply, responder) = Reply::later();
        let metrics = Arc::new(Metrics::new(Instant::now()));
        (reply, StreamSink::new(responder, RequestId::fresh(), metrics, ping_interval))
    }

    fn piece(text: &str) -> Event {
        Event::Piece { text: text.to_owned(), token_ids: vec![1, 2], logprobs: vec![] }
    }

    fn finished() -> Event {
        let now = Instant::now();
        let timeline = Timeline {
            received: now,
            admitted: Some(now),
            first_token: Some(now),
            finished: Some(now + SOON),
            preemptions: 0,
        };
        let usage = Usage { prompt_tokens: 3, completion_tokens: 20, cached_tokens: 1 };
        Event::Finished { reason: FinishReason::Length, usage, timeline }
    }

    fn data(reply: &Reply) -> Vec<String> {
        let body = String::from_utf8(reply.body().to_vec()).unwrap();
        body.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    #[test]
    fn a_stream_of_events() {
        let (reply, mut sink) = sink(SOON);
        let odd = "a\"\\\n\r\t\u{1}\u{2028}é🕯";
        sink.on_event(piece(odd));
        assert_eq!(sink.flow(), Flow::Continue);
        sink.on_event(finished());
        let reply = reply.wait(SOON).unwrap();
        assert_eq!((reply.status().code(), reply.content_type()), (200, "text/event-stream"));
        let data = data(&reply);
        let [first, last, done] = &data[..] else { panic!("{data:?}") };
        let first: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!((&first["text"], &first["index"]), (&odd.into(), &0.into()));
        assert_eq!(
            (&first["token_ids"], &first["finish_reason"]),
            (&serde_json::json!([1, 2]), &serde_json::Value::Null)
        );
        assert_eq!(first["id"].as_str().unwrap().len(), 32);
        let last: serde_json::Value = serde_json::from_str(last).unwrap();
        assert_eq!((&last["text"], &last["index"], &last["finish_reason"]), (&"".into(), &1.into(), &"length".into()));
        assert_eq!(last["usage"]["total_tokens"], 23);
        assert_eq!((&last["response_time"], &last["tokens_per_second"]), (&10.0.into(), &2.0.into()));
        assert_eq!(done, "[DONE]");
    }

    #[test]
    fn an_error_before_the_first_event_has_its_status() {
        let (reply, mut sink) = sink(SOON);
        assert_eq!(sink.flow(), Flow::Continue);
        sink.on_event(Event::Failed(RequestError::QueueFull { length: 4 }));
        assert_eq!(sink.flow(), Flow::Cancel);
        let reply = reply.wait(SOON).unwrap();
        assert_eq!((reply.status().code(), reply.header_value("retry-after")), (503, Some("2")));
    }

    #[test]
    fn a_ping_that_is_due_begins_the_stream_and_a_later_error_is_an_event() {
        let (reply, mut sink) = sink(Duration::ZERO);
        assert_eq!(sink.flow(), Flow::Continue);
        sink.on_event(Event::Failed(RequestError::QueueTimeout));
        let reply = reply.wait(SOON).unwrap();
        assert_eq!(reply.status().code(), 200);
        assert!(reply.body().starts_with(b": ping\n\n"));
        let data = data(&reply);
        let [only] = &data[..] else { panic!("{data:?}") };
        assert!(only.starts_with("{\"error\":{\"code\":\"queue_timeout\""), "{only}");
    }

    #[test]
    fn the_reader_decides_the_flow() {
        let (reply, mut sink) = sink(SOON);
        sink.on_event(piece(&"x".repeat(crate::http::BACKLOG_HIGH_WATER_BYTES + 1)));
        assert_eq!(sink.flow(), Flow::Park);
        drop(reply);
        assert_eq!(sink.flow(), Flow::Cancel);
        sink.on_event(piece("into the void"));
    }
}
