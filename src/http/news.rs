//! What other threads and other connections send to a connection of this layer, or to its loop.

/// A message to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    /// The other end of a pipe or of an answer has changed: look.
    Changed,
}
