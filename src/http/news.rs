//! What other threads and other connections send to a connection of this layer, or to its loop.

use super::broadcast::Issue;

/// A message to a connection, or to its loop.
#[derive(Debug)]
pub(crate) enum News {
    /// The other end of a pipe or of an answer has changed, or the client's inbox: look.
    Changed,
    /// To a loop: something for all of its clients that listen to one broadcast.
    Issue(Issue),
    /// To one of these clients: events wait for it, or the end.
    Events,
}
