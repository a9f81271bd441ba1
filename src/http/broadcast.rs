//! One stream of events for any number of clients.
//!
//! Each event is rendered once, and each loop gets one message for all of its clients; what is left for each of them is a
//! copy of some bytes and the write. Knows no connection: the [adapter](super::adapter) keeps, for each loop, who listens.
//!
//! Bounds: a loop that has not come to distribute [`BACKLOG_BYTES_MAX`] bytes of events misses those that follow, and a
//! client whose unsent output passes [`BACKLOG_HIGH_WATER_BYTES`](super::BACKLOG_HIGH_WATER_BYTES) is cut off; it comes
//! back, as event streams do, and says what it saw last.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::h1::encode::Framing;
use super::news::News;
use super::pipe::BACKLOG_BYTES_MAX;
use super::reply::Reply;
use super::sse::{Event, Sse};
use crate::reactor::Handle;

/// Sends events to everyone who listens, from any thread. Clones send to the same clients; when the last one is dropped,
/// the streams end well.
///
/// ```
/// use sconce::http::{Broadcast, Event, Request, Router};
///
/// let news = Broadcast::new();
/// let listeners = news.clone();
/// let router = Router::new().get("/news", move |_: &Request<'_>| listeners.subscribe(&[]));
/// news.send(&Event::new("extra, extra").id("1"));
/// # drop(router);
/// ```
#[derive(Clone)]
pub struct Broadcast {
    publisher: Arc<Publisher>,
}

struct Publisher {
    hub: Arc<Hub>,
}

/// What the senders and the loops share.
pub(crate) struct Hub {
    audience: Mutex<Audience>,
    listeners: AtomicUsize,
    missed: AtomicUsize,
}

#[derive(Default)]
struct Audience {
    loops: Vec<LoopShare>,
    /// The last sender has gone.
    ended: bool,
}

/// The clients of one loop.
struct LoopShare {
    handle: Handle<News>,
    listeners: usize,
    /// Bytes of events that the loop has not distributed yet.
    waiting_bytes: Arc<AtomicUsize>,
}

/// News for all clients of one loop that listen to one hub.
pub(crate) struct Issue {
    pub hub: Arc<Hub>,
    /// An event; without, it is the end.
    pub event: Option<Arc<Rendered>>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// An event as it is sent.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// The event as a chunk.
    chunk: Box<[u8]>,
    /// Where the event is in it.
    event: Range<usize>,
}

impl Broadcast {
    /// A broadcast that nobody listens to yet.
    pub fn new() -> Broadcast {
        let hub = Hub { audience: Mutex::default(), listeners: AtomicUsize::new(0), missed: AtomicUsize::new(0) };
        Broadcast { publisher: Arc::new(Publisher { hub: Arc::new(hub) }) }
    }

    /// The answer to a client that wants to listen, with these header lines besides those of an event stream. It gets what
    /// is sent from now on.
    pub fn subscribe(&self, headers: &[(&str, &str)]) -> Reply {
        let (head, ping) = Sse::head(headers);
        head.with_events(Arc::clone(&self.publisher.hub), ping)
    }

    /// Sends an event to every client that listens now.
    pub fn send(&self, event: &Event<'_>) {
        let rendered = Arc::new(Rendered::new(event));
        self.publisher.hub.post(Some(&rendered));
    }

    /// How many clients listen.
    pub fn listeners(&self) -> usize {
        self.publisher.hub.listeners.load(Ordering::Relaxed)
    }

    /// How many events did not reach the clients of a loop, because the loop was too far behind.
    pub fn missed(&self) -> usize {
        self.publisher.hub.missed.load(Ordering::Relaxed)
    }
}

impl Default for Broadcast {
    fn default() -> Broadcast {
        Broadcast::new()
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("listeners", &self.listeners()).finish_non_exhaustive()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.hub.audience().ended = true;
        self.hub.post(None);
    }
}

impl Hub {
    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(self: &Arc<Hub>, event: Option<&Arc<Rendered>>) {
        let bytes = event.map_or(0, |event| event.chunk.len());
        for share in self.audience().loops.iter() {
            // The end is told even to a loop that is behind.
            if event.is_some() && share.waiting_bytes.load(Ordering::Relaxed) > BACKLOG_BYTES_MAX {
                self.missed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            share.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            let (hub, waiting_bytes) = (Arc::clone(self), Arc::clone(&share.waiting_bytes));
            share.handle.send_to_loop(News::Issue(Issue { hub, event: event.cloned(), waiting_bytes }));
        }
    }

    /// Counts a client of the loop behind `handle`; `false` when there is nobody left who could send it anything.
    pub fn enter(&self, handle: &Handle<News>) -> bool {
        let mut audience = self.audience();
        if audience.ended {
            return false;
        }
        self.listeners.fetch_add(1, Ordering::Relaxed);
        match audience.loops.iter_mut().find(|share| share.handle.is(handle)) {
            Some(share) => share.listeners += 1,
            None => {
                let share = LoopShare { handle: handle.clone(), listeners: 1, waiting_bytes: Arc::default() };
                audience.loops.push(share);
            }
        }
        true
    }

    /// A client of the loop behind `handle` listens no more.
    pub fn leave(&self, handle: &Handle<News>) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
        let mut audience = self.audience();
        if let Some(share) = audience.loops.iter_mut().find(|share| share.handle.is(handle)) {
            share.listeners -= 1;
        }
        audience.loops.retain(|share| share.listeners > 0);
    }

    /// One hub among all that there are.
    pub fn id(self: &Arc<Hub>) -> usize {
        Arc::as_ptr(self).addr()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

impl Issue {
    /// The loop has distributed it.
    pub fn on_distributed(&self) {
        let bytes = self.event.as_ref().map_or(0, |event| event.chunk.len());
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issue").field("event", &self.event).finish_non_exhaustive()
    }
}

impl Rendered {
    fn new(event: &Event<'_>) -> Rendered {
        let mut text = Vec::new();
        event.render(&mut text);
        let mut chunk = format!("{:x}\r\n", text.len()).into_bytes();
        let from = chunk.len();
        chunk.extend_from_slice(&text);
        chunk.extend_from_slice(b"\r\n");
        Rendered { event: from..from + text.len(), chunk: chunk.into() }
    }

    /// What a connection sends: HTTP/1.0 knows no chunks.
    pub fn framed(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Chunked => &self.chunk,
            Framing::UntilClose | Framing::Length(_) => &self.chunk[self.event.clone()],
            Framing::NoBody => &[],
        }
    }

    /// Bytes of the event itself.
    pub fn len(&self) -> usize {
        self.event.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_framed_as_its_connection_needs_it() {
        let rendered = Rendered::new(&Event::new("0123456789").name("n"));
        let text = "event: n\ndata: 0123456789\n\n";
        assert_eq!(rendered.framed(Framing::UntilClose), text.as_bytes());
        assert_eq!(rendered.framed(Framing::Chunked), format!("1b\r\n{text}\r\n").as_bytes());
        assert_eq!((rendered.len(), rendered.framed(Framing::NoBody)), (27, &b""[..]));
    }
}
