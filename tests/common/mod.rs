//! What the black-box tests share.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod client;
pub mod model;
pub mod server;
pub mod tiny;
