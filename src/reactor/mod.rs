mod mailbox;

use std::sync::Arc;

/// One connection of one loop. A slot that is used again has another generation, so an id never means two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

pub(crate) enum Letter<M> {
    Message(ConnId, M),
}

/// Sends messages to the connections of one loop, from any thread.
pub struct Handle<M> {
    mailbox: Arc<mailbox::Mailbox<Letter<M>>>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<M: Send> Handle<M> {
    /// Leaves a message for a connection. If it has gone, nobody gets it.
    pub fn send(&self, to: ConnId, message: M) {
        if let Err(e) = self.mailbox.push(Letter::Message(to, message)) {
            log::error!("cannot wake an event loop: {e}");
        }
    }
}
