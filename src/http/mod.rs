//! HTTP/1.1 on the [reactor](crate::reactor): a router of plain functions, replies now or later, event streams.
//!
//! Knows no JSON API and no model. A handler is a function from a [`Request`] to anything that is [`IntoReply`]. It runs
//! on the event loop, so it answers at once, or takes a [`Responder`] to another thread and answers from there:
//!
//! ```
//! use std::thread;
//! use std::time::Duration;
//! use sconce::http::{Method, Reply, Request, Router};
//!
//! fn hello(request: &Request<'_>) -> String {
//!     format!("Hello, {}!", request.param("name").unwrap_or_default())
//! }
//!
//! fn count(_: &Request<'_>) -> Reply {
//!     let (reply, responder) = Reply::later();
//!     thread::spawn(move || {
//!         let sse = responder.sse(&[]);
//!         (1..=3).for_each(|n| sse.event(&n.to_string()));
//!         sse.close();
//!     });
//!     reply
//! }
//!
//! let router = Router::new()
//!     .get("/hello/{name}", hello)
//!     .get("/count", count)
//!     .layer(|request, next| next.run(request).header("x-served-by", "sconce"));
//!
//! // A server would be `Server::bind("127.0.0.1:8080", ServerConfig::default())?.serve(router)`.
//! let reply = router.handle(Request::new(Method::Get, "/hello/you"));
//! assert_eq!(reply.body(), b"Hello, you!");
//! let answer = router.handle(Request::new(Method::Get, "/count")).wait(Duration::from_secs(10)).unwrap();
//! assert_eq!(answer.body(), b"data: 1\n\ndata: 2\n\ndata: 3\n\n");
//! ```
//!
//! What holds for every server:
//! - A request is handled when it is complete with its body, within the [`Limits`]; a malformed one is answered with its
//!   status, and the connection closes. Framing is strict: what another recipient might read differently is refused.
//! - Each request gets one answer, in order, or its connection closes. A handler that panics gives a 500.
//! - A client that leaves is noticed by [`Responder::is_closed`] and [`Sse::is_closed`]; a reader that lags by
//!   [`Sse::is_behind`]. Nothing queues up without a bound.
//! - A handler asks other servers with [`Request::client`], on the loop that runs it ([`client`]).
//! - SIGTERM and SIGINT drain: no new clients, idle connections close, running answers finish.

mod adapter;
mod broadcast;
mod budget;
pub mod client;
mod cookies;
mod date;
mod extract;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod h1;
mod http_loop;
#[cfg(feature = "json")]
mod json;
pub mod layers;
mod limits;
mod middleware;
mod news;
mod pipe;
mod reply;
mod request;
mod responder;
mod route_tree;
mod router;
#[cfg(test)]
mod seeded;
mod server;
mod sse;
mod types;
mod upgrade;

pub use crate::reactor::FileRange;
pub use broadcast::Broadcast;
pub use client::{Answer, Client, ClientConfig, ClientError, ClientRequest};
pub use cookies::{Cookie, InvalidCookie, SameSite};
pub use extract::BadParam;
pub use files::{File, Files};
#[cfg(feature = "json")]
pub use json::{BadJson, BadQuery};
pub use limits::{HalfClose, Limits};
pub use middleware::Next;
pub use pipe::{BACKLOG_BYTES_MAX, BACKLOG_HIGH_WATER_BYTES, Body, Stream, StreamError};
pub use reply::{Done, IntoReply, InvalidHeader, Reply};
pub use request::Request;
pub use responder::Responder;
pub use router::{Refusal, Router};
pub use server::{Accept, LoopStats, Running, Server, ServerConfig, ServerHandle};
pub use sse::{Event, Sse};
pub use types::{Method, Status, Version};
pub use upgrade::Upgraded;
