//! HTTP/1.1 (RFC 9110, RFC 9112) as a machine that takes bytes and the time, and gives requests.
//!
//! Knows no handler, no thread and no clock. `head` and `decode` read, `encode` writes, `violation` says what a client
//! did wrong, and `connection` is the machine.

pub(crate) mod connection;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod violation;
