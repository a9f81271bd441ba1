//! Answers on their way, without an engine: what is told when, and what happens when it goes wrong.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    api::{
        family::Family,
        metrics::{Endpoint, Metrics},
        tests::toy::Echo,
    },
    engine::{
        error::RequestError,
        request::{Event, Flow, Sink, StopCause},
    },
    http::Reply,
};

const SOON: Duration = Duration::from_secs(10);

/// Writes down what it is told.
struct Diary(Framing);

impl Wire for Diary {
    fn framing(&self) -> Framing {
        self.0
    }

    fn begin(&mut self, begun: &Begun, out: &mut Frames) {
        out.json(&json!(["begin", begun.prompt_tokens]));
    }

    fn piece(&mut self, choice: usize, piece: &Piece, out: &mut Frames) {
        out.json(&json!([choice, format!("{:?}", piece.deltas), piece.token_ids]));
    }

    fn end(&mut self, choice: usize, all: &Choice, out: &mut Frames) {
        out.named("end", &json!([choice, all.text, all.end.as_ref().unwrap().stop]));
    }

    fn finish(&mut self, total: &Total, out: &mut Frames) {
        out.json(&json!(["finish", total.usage.prompt_tokens, total.usage.completion_tokens]));
    }

    fn fail(&mut self, error: &ApiError, out: &mut Frames) {
        out.json(&json!(["fail", error.code()]));
    }

    fn whole(&mut self, _: &Begun, choices: &[Choice], total: &Total) -> Value {
        json!([choices.iter().map(|choice| &choice.text).collect::<Vec<_>>(), total.usage.prompt_tokens])
    }
}

struct Stage {
    reply: Reply,
    sinks: Vec<ChoiceSink>,
}

impl Stage {
    fn new(mode: Mode, choices: usize, framing: Framing, ping_interval: Duration) -> Self {
        let (reply, responder) = Reply::later();
        let metrics = Arc::new(Metrics::new(Instant::now()));
        let setting = Setting {
            mode,
            family: Family::Native,
            param: "prompt",
            endpoint: Endpoint::OTHER,
            metrics,
            ping_interval,
        };
        let delivery = Delivery::new(responder, Box::new(Diary(framing)), setting);
        delivery.expect(Echo::new(), choices, choices, vec!["stop".into()]);
        let sink = |choice| ChoiceSink::new(Arc::clone(&delivery), choice, Reading::Plain);
        Self { reply, sinks: (0..choices).map(sink).collect() }
    }

    fn stream(ping_interval: Duration) -> Self {
        Self::new(Mode::Stream, 1, Framing::Events, ping_interval)
    }

    fn tell(&mut self, choice: usize, event: Event) {
        self.sinks[choice].on_event(event);
    }

    fn said(self) -> (u16, String) {
        drop(self.sinks);
        let reply = self.reply.wait(SOON).unwrap();
        (reply.status().code(), String::from_utf8(reply.body().to_vec()).unwrap())
    }
}

fn started() -> Event {
    Event::Started { prompt_tokens: 3, cached_tokens: 1, scored: None }
}

fn piece(text: &str) -> Event {
    Event::Piece { text: text.to_owned(), token_ids: vec![1, 2], logprobs: vec![] }
}

fn finished() -> Event {
    let now = Instant::now();
    let timeline = Timeline { received: now, admitted: None, first_token: None, finished: Some(now), preemptions: 0 };
    let usage = Usage { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 1 };
    Event::Finished { reason: FinishReason::Stop(StopCause::Text(0)), usage, timeline }
}

#[test]
fn a_stream_of_two_choices() {
    let mut it = Stage::new(Mode::Stream, 2, Framing::Lines, SOON);
    for event in [(1, started()), (0, started()), (0, piece("a")), (1, piece("b")), (1, finished()), (0, finished())] {
        it.tell(event.0, event.1);
    }
    let expected = "[\"begin\",3]\n[0,\"[Text(\\\"a\\\")]\",[1,2]]\n[1,\"[Text(\\\"b\\\")]\",[1,2]]\n\
        [1,\"b\",\"stop\"]\n[0,\"a\",\"stop\"]\n[\"finish\",3,4]\n";
    assert_eq!(it.said(), (200, expected.to_owned()));
}

#[test]
fn a_whole_answer_waits_for_all_choices() {
    let mut it = Stage::new(Mode::Whole, 2, Framing::Events, Duration::ZERO);
    for event in [(0, started()), (0, piece("a")), (0, finished()), (1, started()), (1, piece("b"))] {
        it.tell(event.0, event.1);
        assert_eq!(it.sinks[1].flow(), Flow::Continue, "nothing is sent before");
    }
    assert_eq!(it.sinks[0].flow(), Flow::Cancel, "nothing more comes of it");
    it.tell(1, finished());
    assert_eq!(it.said(), (200, "[[\"a\",\"b\"],3]".to_owned()));
}

#[test]
fn an_error_before_the_first_piece_has_its_status() {
    let mut it = Stage::stream(SOON);
    assert_eq!(it.sinks[0].flow(), Flow::Continue);
    it.tell(0, Event::Failed(RequestError::QueueFull { length: 4 }));
    assert_eq!(it.sinks[0].flow(), Flow::Cancel);
    let reply = it.reply.wait(SOON).unwrap();
    assert_eq!((reply.status().code(), reply.header_value("retry-after")), (503, Some("2")));
}

#[test]
fn a_ping_that_is_due_begins_the_stream_and_a_later_error_is_a_piece() {
    let mut it = Stage::stream(Duration::ZERO);
    assert_eq!(it.sinks[0].flow(), Flow::Continue);
    it.tell(0, Event::Failed(RequestError::QueueTimeout));
    assert_eq!(it.said(), (200, ": ping\n\ndata: [\"fail\",\"queue_timeout\"]\n\n".to_owned()));
}

#[test]
fn a_failed_choice_fails_the_answer() {
    let mut it = Stage::new(Mode::Whole, 2, Framing::Events, SOON);
    it.tell(0, Event::Failed(RequestError::BadLogits));
    assert_eq!(it.sinks[1].flow(), Flow::Cancel);
    it.tell(1, finished());
    assert_eq!(it.said().0, 500);
}

#[test]
fn the_reader_decides_the_flow() {
    let mut it = Stage::stream(SOON);
    it.tell(0, piece(&"x".repeat(crate::http::BACKLOG_HIGH_WATER_BYTES + 1)));
    assert_eq!(it.sinks[0].flow(), Flow::Park);
    drop(it.reply);
    assert_eq!(it.sinks[0].flow(), Flow::Cancel);
    it.sinks[0].on_event(piece("into the void"));
}

#[test]
fn strings_are_json() {
    let odd = "a\"\\\n\r\t\u{1}\u{2028}é🕯";
    let mut line = String::new();
    push_json_string(&mut line, odd);
    assert_eq!(serde_json::from_str::<String>(&line).unwrap(), odd);
}
