//! HTTP/1.1 (RFC 9110, RFC 9112) as a machine that takes bytes and the time, and gives requests.
//!
//! Knows no handler, no thread and no clock. `head` (with `lines`, `fields`, `target` and `bytes`) and `decode` read,
//! `encode` writes, `violation` says what a client did wrong, and `connection` is the machine.

mod bytes;
pub(crate) mod connection;
#[cfg(test)]
pub(crate) mod corpus;
pub(crate) mod decode;
pub(crate) mod encode;
mod fields;
pub(crate) mod head;
pub(crate) mod lines;
#[cfg(any(test, fuzzing))]
pub(crate) mod naive;
#[cfg(test)]
mod properties;
mod target;
pub(crate) mod violation;
