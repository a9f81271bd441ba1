//! Leaving HTTP: a connection becomes a pair of byte pipes (RFC 9110 §7.8).
//!
//! Knows no protocol: what the bytes mean from then on is the business of who takes them over.

use std::fmt;

use super::pipe::{Body, Stream};

/// A connection after its upgrade, as bytes both ways.
#[derive(Debug)]
pub struct Upgraded {
    /// What the client sends, from the first byte behind its request.
    pub input: Body,
    /// What the client gets. Closing it ends our side of the connection; dropping it cuts the connection.
    pub output: Stream,
}

/// What is to become of a connection after 101.
pub(crate) struct Upgrade {
    pub take_over: Box<dyn FnOnce(Upgraded) + Send>,
}

impl Upgrade {
    pub fn new(take_over: impl FnOnce(Upgraded) + Send + 'static) -> Upgrade {
        Upgrade { take_over: Box::new(take_over) }
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}
