//! Answers that come later, from any thread: whole ones and streams.
//!
//! Two ends share a link. The producer has a [`Responder`], which answering turns into nothing or into a [`Stream`];
//! the connection has the [`Pending`] end. Dropping either end tells the other: a dropped `Pending` means that the
//! client has gone, a dropped producer that no more will come. Bytes wait in the link, within a bound, until the
//! connection takes them; it is told once, and not again until it has looked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use super::reply::Reply;
use super::sse::Sse;
use super::types::Status;
use crate::reactor::{ConnId, Handle};

/// Above this many unsent bytes [`Stream::is_behind`] asks the producer to pause.
pub const BACKLOG_HIGH_WATER_BYTES: usize = 256 << 10;

/// A producer that goes on regardless loses its stream at this many unsent bytes: memory stays bounded.
pub const BACKLOG_BYTES_MAX: usize = 4 * BACKLOG_HIGH_WATER_BYTES;

/// The message that wakes a connection: there is news in its link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News;

/// What both ends share.
struct Link {
    /// The client has gone.
    closed: AtomicBool,
    /// Bytes of this answer that wait here.
    queued_bytes: AtomicUsize,
    /// Bytes of this answer that the connection has, but the kernel has not taken.
    unsent_bytes: AtomicUsize,
    outbox: Mutex<Outbox>,
}

#[derive(Default)]
struct Outbox {
    start: Option<Start>,
    bytes: Vec<u8>,
    end: Option<End>,
    ear: Option<Ear>,
    rung: bool,
}

/// How an answer begins.
#[derive(Debug)]
pub(crate) enum Start {
    Whole(Reply),
    /// Status and headers now, the body in pieces; `ping` is sent when there was nothing else for a while.
    Stream {
        head: Reply,
        ping: Option<&'static [u8]>,
    },
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    /// The producer was dropped, or fell too far behind: the client must not take the answer for complete.
    Cut,
}

/// Who wants to know when something arrives.
enum Ear {
    Connection(Handle<News>, ConnId),
    Thread(Thread),
}

impl Ear {
    fn ring(&self) {
        match self {
            Ear::Connection(handle, id) => handle.send(*id, News),
            Ear::Thread(thread) => thread.unpark(),
        }
    }
}

impl Link {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the outbox and rings, unless nobody listens any more.
    fn post(&self, change: impl FnOnce(&mut Outbox)) {
        let mut outbox = self.outbox();
        if self.closed.load(Ordering::Relaxed) && outbox.ear.is_none() {
            return;
        }
        change(&mut outbox);
        self.queued_bytes.store(outbox.bytes.len(), Ordering::Relaxed);
        if !mem::replace(&mut outbox.rung, true)
            && let Some(ear) = &outbox.ear
        {
            ear.ring();
        }
    }

    fn backlog_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed) + self.unsent_bytes.load(Ordering::Relaxed)
    }
}

/// The right to answer one request, now or later, from any thread. Answering consumes it.
///
/// Dropped unanswered, it sends a 500.
pub struct Responder {
    link: Arc<Link>,
    answered: bool,
}

impl Responder {
    pub(crate) fn pair() -> (Pending, Responder) {
        let link = Arc::new(Link {
            closed: AtomicBool::new(false),
            queued_bytes: AtomicUsize::new(0),
            unsent_bytes: AtomicUsize::new(0),
            outbox: Mutex::default(),
        });
        (Pending { link: Arc::clone(&link) }, Responder { link, answered: false })
    }

    /// Answers. A reply that itself comes later is a mistake, answered with a 500.
    pub fn send(mut self, reply: Reply) {
        self.answered = true;
        let reply = reply.into_answer().unwrap_or_else(|_| Reply::empty(Status::INTERNAL_SERVER_ERROR));
        self.link.post(|outbox| {
            outbox.start = Some(Start::Whole(reply));
            outbox.end = Some(End::Complete);
        });
    }

    /// Begins a streamed answer with the status, content type and headers of `head`; a body in `head` is not sent.
    pub fn stream(self, head: Reply) -> Stream {
        self.start_stream(head, None)
    }

    /// Begins a stream of server-sent events with these header lines besides its own.
    pub fn sse(self, headers: &[(&str, &str)]) -> Sse {
        let (head, ping) = Sse::head(headers);
        Sse::new(self.start_stream(head, Some(ping)))
    }

    fn start_stream(mut self, head: Reply, ping: Option<&'static [u8]>) -> Stream {
        self.answered = true;
        self.link.post(|outbox| outbox.start = Some(Start::Stream { head, ping }));
        Stream { link: Arc::clone(&self.link) }
    }

    /// Whether the client has gone. One atomic read.
    pub fn is_closed(&self) -> bool {
        self.link.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.link.post(|outbox| outbox.end = Some(End::Cut));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("closed", &self.is_closed()).finish()
    }
}

/// A streamed body: pieces go out as they are written, from any thread.
///
/// [`close`](Stream::close) ends it well. Dropped without, the connection is cut, so that the client does not take what
/// it got for the whole.
pub struct Stream {
    link: Arc<Link>,
}

impl Stream {
    /// Sends a piece. Pieces written before the connection has looked leave together.
    pub fn write(&self, piece: &[u8]) {
        self.write_with(|bytes| bytes.extend_from_slice(piece));
    }

    /// Sends what `render` appends, without a copy of its own.
    pub(crate) fn write_with(&self, render: impl FnOnce(&mut Vec<u8>)) {
        let overrun = self.backlog_bytes() > BACKLOG_BYTES_MAX;
        self.link.post(|outbox| match outbox.end {
            None if overrun => {
                outbox.end = Some(End::Cut);
                self.link.closed.store(true, Ordering::Relaxed);
            }
            None => render(&mut outbox.bytes),
            Some(_) => {}
        });
    }

    /// Ends the stream well.
    pub fn close(self) {
        self.link.post(|outbox| outbox.end = outbox.end.or(Some(End::Complete)));
    }

    /// Whether the client has gone, or the stream was cut because its reader fell too far behind. One atomic read.
    pub fn is_closed(&self) -> bool {
        self.link.closed.load(Ordering::Relaxed)
    }

    /// Bytes written but not yet taken by the kernel.
    pub fn backlog_bytes(&self) -> usize {
        self.link.backlog_bytes()
    }

    /// Whether the reader lags so far that the producer should pause ([`BACKLOG_HIGH_WATER_BYTES`]).
    pub fn is_behind(&self) -> bool {
        self.backlog_bytes() > BACKLOG_HIGH_WATER_BYTES
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.post(|outbox| outbox.end = outbox.end.or(Some(End::Cut)));
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("closed", &self.is_closed())
            .field("backlog_bytes", &self.backlog_bytes())
            .finish()
    }
}

/// The connection's end of an answer to come. Dropping it tells the producer that the client has gone.
pub(crate) struct Pending {
    link: Arc<Link>,
}

/// What has arrived in the link since the last look.
pub(crate) struct Arrived {
    pub start: Option<Start>,
    pub end: Option<End>,
}

impl Pending {
    /// Rings `handle` for connection `id` when something arrives from now on; what has arrived is there to take.
    pub fn listen(&self, handle: Handle<News>, id: ConnId) {
        self.attach(Ear::Connection(handle, id));
    }

    fn attach(&self, ear: Ear) {
        self.link.outbox().ear = Some(ear);
    }

    /// Takes what has arrived; the bytes are swapped into `bytes`, which must be empty.
    pub fn take(&self, bytes: &mut Vec<u8>) -> Arrived {
        let mut outbox = self.link.outbox();
        outbox.rung = false;
        mem::swap(&mut outbox.bytes, bytes);
        // Counted as unsent before it is no longer counted as queued: the sum never dips.
        self.link.unsent_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.link.queued_bytes.store(0, Ordering::Relaxed);
        Arrived { start: outbox.start.take(), end: outbox.end }
    }

    /// How many bytes the connection still holds.
    pub fn set_unsent_bytes(&self, unsent_bytes: usize) {
        self.link.unsent_bytes.store(unsent_bytes, Ordering::Relaxed);
    }

    /// Tells the producer that the client seems to have gone, while the answer could still be sent.
    pub fn set_closed(&self) {
        self.link.closed.store(true, Ordering::Relaxed);
    }

    /// Blocks until the answer is complete. A responder dropped unanswered gives a 500.
    pub fn wait(self, timeout: Duration) -> Option<Reply> {
        self.attach(Ear::Thread(thread::current()));
        let deadline = Instant::now() + timeout;
        let (mut head, mut body, mut bytes) = (None, Vec::new(), Vec::new());
        loop {
            let arrived = self.take(&mut bytes);
            self.set_unsent_bytes(0);
            body.append(&mut bytes);
            match arrived.start {
                Some(Start::Whole(reply)) => return Some(reply),
                Some(Start::Stream { head: reply, .. }) => head = Some(reply),
                None => {}
            }
            match (arrived.end, head.take()) {
                (Some(End::Complete), Some(reply)) => return Some(reply.with_body(body)),
                (Some(End::Cut), Some(_)) => return None,
                (Some(_), None) => return Some(Reply::empty(Status::INTERNAL_SERVER_ERROR)),
                (None, started) => head = started,
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            thread::park_timeout(left);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.link.closed.store(true, Ordering::Relaxed);
        let mut outbox = self.link.outbox();
        outbox.ear = None;
        outbox.bytes = Vec::new();
        self.link.queued_bytes.store(0, Ordering::Relaxed);
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
            stream.write(b"{}\n");
            stream.write(b"{}\n");
            if close {
                stream.close()
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
        stream.write(b"into the void");
        assert_eq!((stream.is_closed(), stream.backlog_bytes()), (true, 0));
    }

    #[test]
    fn the_backlog_is_bounded() {
        let (reply, responder) = Reply::later();
        let stream = responder.stream(Reply::empty(Status::OK));
        let piece = [b'x'; 64 << 10];
        let mut written = 0;
        while !stream.is_closed() {
            assert_eq!(stream.is_behind(), written > BACKLOG_HIGH_WATER_BYTES);
            stream.write(&piece);
            written += piece.len();
            assert!(written <= BACKLOG_BYTES_MAX + 2 * piece.len());
        }
        assert!(reply.wait(SOON).is_none(), "a stream that was cut is not complete");
    }
}
