//! What the black-box tests share: a tiny model, the real binary on a port of its own, and a client on a raw socket.
#![allow(dead_code, reason = "each test target uses its part")]

pub mod client;
pub mod model;
pub mod server;
