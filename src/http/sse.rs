//! Server-sent events: the stream format of the WHATWG HTML standard §9.2 on a [`Stream`].
//!
//! Knows the event format only; framing, pings and back-pressure are the connection's.

use std::time::Duration;

use super::pipe::Stream;
use super::reply::Reply;

use super::types::Status;

/// A comment, which clients ignore: it keeps proxies from closing a quiet stream, and finds peers that have gone.
const PING: &[u8] = b": ping\n\n";

/// A stream of server-sent events. [`close`](Sse::close) ends it well; dropped without, the connection is cut.
#[derive(Debug)]
#[must_use = "dropping an event stream cuts the connection"]
pub struct Sse {
    stream: Stream,
}

impl Sse {
    pub(crate) fn new(stream: Stream) -> Sse {
        Sse { stream }
    }

    /// The head of an event stream, and its ping. Neither a cache nor a buffering proxy may hold events back.
    pub(crate) fn head(headers: &[(&str, &str)]) -> (Reply, &'static [u8]) {
        let head = Reply::bytes(Status::OK, "text/event-stream", &[][..])
            .header("Cache-Control", "no-store")
            .header("X-Accel-Buffering", "no");
        (headers.iter().fold(head, |head, (name, value)| head.header(name, value)), PING)
    }

    /// Sends an event that is data only. Data of several lines becomes several `data:` lines, which the client joins again.
    pub fn event(&self, data: &str) {
        self.send(&Event::new(data));
    }

    /// Sends an event with a name.
    pub fn event_named(&self, name: &str, data: &str) {
        self.send(&Event::new(data).name(name));
    }

    /// Sends an event. To a client that has gone nothing is sent: see [`is_closed`](Sse::is_closed).
    pub fn send(&self, event: &Event<'_>) {
        self.write_with(|out| event.render(out));
    }

    /// Sends a comment, which clients ignore.
    pub fn comment(&self, text: &str) {
        self.write_with(|out| {
            push_field(out, ":", text);
            out.push(b'\n');
        });
    }

    fn write_with(&self, render: impl FnOnce(&mut Vec<u8>)) {
        // A stream of events has no length to keep to; that its client has gone is for `is_closed` to say.
        let _gone = self.stream.write_with(render).is_err();
    }

    /// Ends the stream well.
    pub fn close(self) {
        let _gone = self.stream.close().is_err();
    }

    /// Whether the client has gone, or was cut off because it read too slowly. One atomic read.
    pub fn is_closed(&self) -> bool {
        self.stream.is_closed()
    }

    /// Bytes sent but not yet taken by the kernel.
    pub fn backlog_bytes(&self) -> usize {
        self.stream.backlog_bytes()
    }

    /// Whether the reader lags so far that the producer should pause.
    pub fn is_behind(&self) -> bool {
        self.stream.is_behind()
    }
}

/// One event. A client that loses its stream comes back after `retry`, and says the last `id` that it has seen
/// ([`Request::last_event_id`](super::Request::last_event_id)).
#[derive(Clone, Copy, Debug)]
#[must_use = "an event does nothing until it is sent"]
pub struct Event<'a> {
    data: &'a str,
    name: Option<&'a str>,
    id: Option<&'a str>,
    retry: Option<Duration>,
}

impl<'a> Event<'a> {
    /// An event that is data only. Data of several lines reaches the client as one text with LF between them.
    pub fn new(data: &'a str) -> Event<'a> {
        Event { data, name: None, id: None, retry: None }
    }

    /// The type that listeners of the client subscribe to. Of several lines only the first counts.
    pub fn name(mut self, name: &'a str) -> Event<'a> {
        self.name = Some(name);
        self
    }

    /// What the client sends back as `Last-Event-ID`. Of several lines only the first counts; clients ignore one with a
    /// NUL in it.
    pub fn id(mut self, id: &'a str) -> Event<'a> {
        self.id = Some(id);
        self
    }

    /// How long the client waits before it connects again, to the millisecond.
    pub fn retry(mut self, retry: Duration) -> Event<'a> {
        self.retry = Some(retry);
        self
    }

    /// Appends the event as it is sent.
    pub(crate) fn render(&self, out: &mut Vec<u8>) {
        // The format has no way to write a name or an id of several lines.
        for (field, value) in [("event:", self.name), ("id:", self.id)] {
            if let Some(value) = value {
                push_field(out, field, lines(value).next().unwrap_or(""));
            }
        }
        if let Some(retry) = self.retry {
            push_field(out, "retry:", &retry.as_millis().to_string());
        }
        push_field(out, "data:", self.data);
        out.push(b'\n');
    }
}

/// One line `field value` for each line of the value, so that no value can start a field of its own.
fn push_field(out: &mut Vec<u8>, field: &str, value: &str) {
    for line in lines(value) {
        for part in [field, " ", line, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Lines as the format ends them: by LF, CR LF, or CR alone. Text always has at least one.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(send: impl FnOnce(&Sse), expected: &str) {
        let (reply, responder) = Reply::later();
        let sse = responder.sse(&[("x-request-id", "7")]);
        send(&sse);
        sse.close();
        let reply = reply.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(str::from_utf8(reply.body()).unwrap(), expected);
        assert_eq!(reply.content_type(), "text/event-stream");
        assert_eq!(reply.header_value("x-request-id"), Some("7"));
        assert_eq!(reply.header_value("cache-control"), Some("no-store"));
        assert_eq!(reply.header_value("x-accel-buffering"), Some("no"));
    }

    #[test]
    fn events_have_the_standard_form() {
        check(|sse| sse.event("{}"), "data: {}\n\n");
        check(|sse| sse.event(""), "data: \n\n");
        check(|sse| sse.event("a\nb\r\nc\rd\n"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n");
        check(|sse| sse.event_named("error", "x"), "event: error\ndata: x\n\n");
        check(|sse| sse.event_named("a\ndata: b", "x"), "event: a\ndata: x\n\n");
        check(
            |sse| sse.send(&Event::new("x").id("7\n8").name("tick").retry(Duration::from_millis(1500))),
            "event: tick\nid: 7\nretry: 1500\ndata: x\n\n",
        );
        check(|sse| sse.comment("hi\nho"), ": hi\n: ho\n\n");
    }
}
