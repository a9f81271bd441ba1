//! Answers that come later, from any thread.
//!
//! Two ends share a slot for one reply. The producer has a [`Responder`], which answering consumes; the connection has
//! the [`Pending`] end. Dropping either end tells the other: a dropped `Pending` means that the client has gone, a dropped
//! `Responder` that no answer will come. A streamed answer is a reply whose body is a [pipe](super::pipe).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::pipe::{Ear, Stream, pipe};
use super::reply::Reply;
use super::sse::Sse;
use super::types::Status;
use crate::http::news::News;
use crate::reactor::{ConnId, Handle};

/// What both ends share.
struct Slot {
    /// The client has gone.
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answer: Option<Answer>,
    ear: Option<Ear>,
    /// Who wants to know that the client has gone.
    watcher: Option<Ear>,
}

/// What came of the wait.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Reply),
    /// The responder was dropped unanswered.
    Never,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, answer: Answer) {
        let mut state = self.state();
        // Without anybody to take it the answer goes, and with it the body that it may have.
        if self.closed.load(Ordering::Relaxed) && state.ear.is_none() {
            drop(state);
            return drop(answer);
        }
        state.answer = Some(answer);
        state.watcher = None;
        if let Some(ear) = &state.ear {
            ear.ring();
        }
    }
}

/// The right to answer one request, now or later, from any thread. Answering consumes it:
///
/// ```compile_fail,E0382
/// let (_, responder) = sconce::http::Reply::later();
/// responder.send(sconce::http::Reply::text("once"));
/// responder.send(sconce::http::Reply::text("twice"));
/// ```
///
/// Dropped unanswered, it sends a 500.
#[must_use = "dropping a responder answers 500"]
pub struct Responder {
    slot: Arc<Slot>,
    answered: bool,
}

impl Responder {
    pub(crate) fn pair() -> (Pending, Responder) {
        let slot = Arc::new(Slot { closed: AtomicBool::new(false), state: Mutex::default() });
        (Pending { slot: Arc::clone(&slot) }, Responder { slot, answered: false })
    }

    /// Answers. A reply that itself comes later is a mistake, answered with a 500.
    pub fn send(mut self, reply: Reply) {
        self.answered = true;
        let reply = if reply.is_later() { Reply::empty(Status::INTERNAL_SERVER_ERROR) } else { reply };
        self.slot.post(Answer::Reply(reply));
    }

    /// Begins a streamed answer with the status, content type and headers of `head`; a body in `head` is not sent.
    pub fn stream(self, head: Reply) -> Stream {
        self.start_stream(head, None, None)
    }

    /// Begins a streamed answer whose length in bytes is known. Exactly as many must be written.
    pub fn stream_sized(self, head: Reply, length: u64) -> Stream {
        self.start_stream(head, Some(length), None)
    }

    /// Begins a stream of server-sent events with these header lines besides its own.
    pub fn sse(self, headers: &[(&str, &str)]) -> Sse {
        let (head, ping) = Sse::head(headers);
        Sse::new(self.start_stream(head, None, Some(ping)))
    }

    fn start_stream(self, head: Reply, length: Option<u64>, ping: Option<&'static [u8]>) -> Stream {
        let (stream, body) = pipe(length);
        if self.is_closed() {
            stream.set_closed();
        }
        self.send(head.with_stream(body, ping));
        stream
    }

    /// Rings `ear` when the client goes.
    pub(crate) fn watch_client(&self, ear: Ear) {
        self.slot.state().watcher = Some(ear);
    }

    /// Whether the client has gone. One atomic read.
    pub fn is_closed(&self) -> bool {
        self.slot.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.slot.post(Answer::Never);
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("closed", &self.is_closed()).finish()
    }
}

/// The connection's end of an answer to come. Dropping it tells the producer that the client has gone.
pub(crate) struct Pending {
    slot: Arc<Slot>,
}

impl Pending {
    /// Rings connection `id` of `handle` when the answer arrives from now on; one that has arrived is there to take.
    pub fn listen(&self, handle: Handle<News>, id: ConnId) {
        self.slot.state().ear = Some(Ear::Connection(handle, id));
    }

    /// The answer, once, when it has arrived.
    pub fn poll(&self) -> Option<Answer> {
        self.slot.state().answer.take()
    }

    /// Tells the producer that the client seems to have gone, while the answer could still be sent.
    pub fn set_closed(&self) {
        if !self.slot.closed.swap(true, Ordering::Relaxed)
            && let Some(watcher) = self.slot.state().watcher.take()
        {
            watcher.ring();
        }
    }

    /// Blocks until the answer has arrived; `None` when it has not by `deadline`.
    pub fn wait_until(self, deadline: Instant) -> Option<Answer> {
        self.slot.state().ear = Some(Ear::Thread(thread::current()));
        loop {
            if let Some(answer) = self.poll() {
                return Some(answer);
            }
            thread::park_timeout(deadline.checked_duration_since(Instant::now())?);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.set_closed();
        let mut state = self.slot.state();
        let forgotten = (state.ear.take(), state.answer.take());
        drop(state);
        drop(forgotten);
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pipe::StreamError;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn an_answer_sent_before_or_after_the_wait_arrives() {
        let (reply, responder) = Reply::later();
        responder.send(Reply::text("early").header("x-b", "2"));
        let answer = reply.header("x-a", "1").wait(SOON).unwrap();
        assert_eq!((answer.body(), answer.header_lines()), (&b"early"[..], "x-a: 1\r\nx-b: 2\r\n"));

        let (reply, responder) = Reply::later();
        let sender = thread::spawn(move || responder.send(Reply::text("late")));
        assert_eq!(reply.wait(SOON).unwrap().body(), b"late");
        sender.join().unwrap();
    }

    #[test]
    fn dropped_unanswered_is_a_500() {
        let (reply, responder) = Reply::later();
        drop(responder);
        assert_eq!(reply.wait(SOON).unwrap().status(), Status::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn a_stream_is_complete_only_when_closed() {
        for close in [true, false] {
            let (reply, responder) = Reply::later();
            let stream = responder.stream(Reply::bytes(Status::OK, "application/x-ndjson", &[][..]));
            stream.write(b"{}\n").unwrap();
            stream.write(b"{}\n").unwrap();
            if close {
                stream.close().unwrap()
            } else {
                drop(stream)
            }
            assert_eq!(reply.wait(SOON).map(|r| r.body().to_vec()), close.then(|| b"{}\n{}\n".to_vec()));
        }
    }

    #[test]
    fn the_producer_sees_the_client_go() {
        let (reply, responder) = Reply::later();
        assert!(!responder.is_closed());
        drop(reply);
        assert!(responder.is_closed());
        let stream = responder.stream(Reply::empty(Status::OK));
        assert!(stream.write(b"into the void").is_err());
        assert_eq!((stream.is_closed(), stream.backlog_bytes()), (true, 0));

        let (reply, responder) = Reply::later();
        let stream = responder.stream(Reply::empty(Status::OK));
        assert!(!stream.is_closed());
        stream.write(b"nobody will read this").unwrap();
        drop(reply);
        assert_eq!(stream.write(b"nor this"), Err(StreamError::Gone));
        assert!(stream.is_closed(), "the reply that held the body was never taken");
    }
}
