//! What the black-box tests share.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod client;
#[cfg(feature = "engine")]
pub mod hugging_face;
pub mod model;
#[cfg(feature = "engine")]
pub mod naive;
pub mod server;
pub mod tiny;
