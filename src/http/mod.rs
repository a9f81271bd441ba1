//! HTTP/1.1 on the [reactor](crate::reactor): a router of plain functions, replies now or later, event streams.

mod adapter;
mod date;
mod files;
mod h1;
mod limits;
mod middleware;
mod reply;
mod request;
mod responder;
mod router;
mod server;
mod sse;
mod types;

pub use files::File;
pub use limits::{HalfClose, Limits};
pub use middleware::Next;
pub use reply::{IntoReply, Reply};
pub use request::Request;
pub use responder::{BACKLOG_BYTES_MAX, BACKLOG_HIGH_WATER_BYTES, Responder, Stream};
pub use router::{Refusal, Router};
pub use server::{LoopStats, Running, Server, ServerConfig, ServerHandle};
pub use sse::Sse;
pub use types::{Method, Status, Version};
