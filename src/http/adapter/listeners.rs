//! The clients of one loop that listen to broadcasts.

use std::collections::{HashMap, HashSet};
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
    by_hub: HashMap<usize, HashSet<ConnId>>,
}

impl Listeners {
    /// `false`: the broadcast is over.
    pub fn enter(&mut self, hub: &Arc<Hub>, id: ConnId, handle: &Handle<News>) -> bool {
        hub.enter(handle) && self.by_hub.entry(hub.id()).or_default().insert(id)
    }

    pub fn leave(&mut self, hub: &Arc<Hub>, id: ConnId, handle: &Handle<News>) {
        if let Some(ids) = self.by_hub.get_mut(&hub.id())
            && ids.remove(&id)
        {
            hub.leave(handle);
            if ids.is_empty() {
                self.by_hub.remove(&hub.id());
            }
        }
    }
}

impl Http1 {
    /// Hands an event to all clients of this loop that listen for it.
    pub fn distribute(&mut self, issue: &Issue, control: &mut LoopControl<'_, HttpLoop>) {
        issue.on_distributed();
        for id in self.listeners.by_hub.get(&issue.hub.id()).into_iter().flatten() {
            control.send(*id, News::Event(issue.event.clone()));
        }
    }

    /// Sends an event of a broadcast to one client, or its end.
    pub fn pass_on(&mut self, client: &mut Client, event: Option<&Rendered>, io: &mut LoopIo<'_>) {
        let Stage::Streaming(streaming) = &mut client.stage else { return };
        if !matches!(streaming.source, Source::Events(_)) {
            return;
        }
        match event {
            // One that reads too slowly is cut, in a way that it cannot take for the end.
            Some(_) if io.output.len() > BACKLOG_HIGH_WATER_BYTES => io.abort(),
            Some(event) => {
                io.output.push(event.framed(streaming.framing));
                streaming.sent_bytes += event.len() as u64;
            }
            None => self.end_stream(client, End::Complete, io),
        }
    }
}
