//! The clients of one loop that listen to broadcasts.
//!
//! Events wait for a client in a list of its own, and one errand is under way to it however many they are: a loop that has
//! fallen behind writes several events at once instead of falling behind further.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::{Client, Http1, LoopIo, Source, Stage};
use crate::http::broadcast::{Hub, Issue, Rendered};
use crate::http::http_loop::HttpLoop;
use crate::http::news::News;
use crate::http::pipe::{BACKLOG_HIGH_WATER_BYTES, End};
use crate::reactor::{ConnId, Handle, LoopControl};

/// Who listens to what, by hub.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_hub: HashMap<usize, HashMap<ConnId, Waiting>>,
}

/// What waits for one client.
#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Arc<Rendered>>,
    bytes: usize,
    /// An event was left out, since too much waited: the client is cut when it looks.
    missed: bool,
    ended: bool,
    /// The client has been sent word to look.
    told: bool,
}

impl Listeners {
    /// `false`: the broadcast is over.
    pub fn enter(&mut self, hub: &Arc<Hub>, id: ConnId, handle: &Handle<News>) -> bool {
        let open = hub.enter(handle);
        if open {
            self.by_hub.entry(hub.id()).or_default().insert(id, Waiting::default());
        }
        open
    }

    pub fn leave(&mut self, hub: &Arc<Hub>, id: ConnId, handle: &Handle<News>) {
        if let Some(listeners) = self.by_hub.get_mut(&hub.id())
            && listeners.remove(&id).is_some()
        {
            hub.leave(handle);
            if listeners.is_empty() {
                self.by_hub.remove(&hub.id());
            }
        }
    }

    fn waiting(&mut self, hub: &Arc<Hub>, id: ConnId) -> Option<&mut Waiting> {
        self.by_hub.get_mut(&hub.id())?.get_mut(&id)
    }
}

impl Http1 {
    /// Hands an event to all clients of this loop that listen for it.
    pub fn distribute(&mut self, issue: &Issue, control: &mut LoopControl<'_, HttpLoop>) {
        issue.on_distributed();
        for (id, waiting) in self.listeners.by_hub.get_mut(&issue.hub.id()).into_iter().flatten() {
            match &issue.event {
                Some(_) if waiting.bytes > BACKLOG_HIGH_WATER_BYTES => waiting.missed = true,
                Some(event) => {
                    waiting.bytes += event.len();
                    waiting.events.push(Arc::clone(event));
                }
                None => waiting.ended = true,
            }
            if !mem::replace(&mut waiting.told, true) {
                control.send(*id, News::Events);
            }
        }
    }

    /// Sends a client what waits for it.
    pub fn pass_on(&mut self, client: &mut Client, io: &mut LoopIo<'_>) {
        let Stage::Streaming(streaming) = &mut client.stage else { return };
        let Source::Events(hub) = &streaming.source else { return };
        let Some(waiting) = self.listeners.waiting(hub, io.id()) else { return };
        waiting.told = false;
        // One that reads too slowly is cut, in a way that it cannot take for the end.
        if waiting.missed || io.output.len() > BACKLOG_HIGH_WATER_BYTES {
            return io.abort();
        }
        for event in waiting.events.drain(..) {
            io.output.push(event.framed(streaming.framing));
            streaming.sent_bytes += event.len() as u64;
        }
        waiting.bytes = 0;
        if waiting.ended {
            self.end_stream(client, End::Complete, io);
        }
    }
}
