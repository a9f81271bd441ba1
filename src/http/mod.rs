//! HTTP/1.1 on the [reactor](crate::reactor): a router of plain functions, replies now or later, streams of events.
//!
//! No async runtime, no macros, no traits to implement. Knows no JSON API and no model. This page teaches it in ten
//! minutes; the programs are in `examples/`.
//!
//! # Hello
//!
//! A handler is a function from a [`Request`] to anything that is [`IntoReply`]: text, a [`Status`], a [`Reply`], or a
//! `Result` of these whose error becomes a reply. A [`Router`] finds it by path and method.
//!
//! ```no_run
//! use sconce::http::{Request, Router, Server, ServerConfig};
//!
//! fn hello(_: &Request<'_>) -> &'static str {
//!     "Hello, World!"
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let server = Server::bind("127.0.0.1:8080", ServerConfig::default())?;
//!     server.serve(Router::new().get("/", hello)) // until SIGTERM or SIGINT
//! }
//! ```
//!
//! Handlers run on the event loop, so they do not block: what takes long is [answered later](#answers-that-come-later).
//! They may be called by several loops at once. What they share is theirs to protect; closures carry it:
//!
//! ```
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use sconce::http::{Method, Request, Router};
//!
//! let visits = AtomicU64::new(0);
//! let router = Router::new().get("/", move |_: &Request<'_>| {
//!     format!("visit {}", visits.fetch_add(1, Ordering::Relaxed) + 1)
//! });
//!
//! // Tests need no socket.
//! assert_eq!(router.handle(Request::new(Method::Get, "/")).body(), b"visit 1");
//! ```
//!
//! # Parameters and queries
//!
//! `{name}` in a pattern takes one segment, `{*name}` at its end all that is left. The most specific pattern wins,
//! whatever the order. Values are decoded and parsed where they are used, and what does not parse is a 400 that names it:
//!
//! ```
//! use sconce::http::{BadParam, Method, Request, Router};
//!
//! fn page(request: &Request<'_>) -> Result<String, BadParam> {
//!     let book: u32 = request.path_param("book")?;
//!     let page = request.query_param("page")?.unwrap_or(1_u32);
//!     Ok(format!("book {book}, page {page}"))
//! }
//!
//! let router = Router::new().get("/books/{book}", page);
//! let get = |target| router.handle(Request::new(Method::Get, target));
//! assert_eq!(get("/books/7?page=3").body(), b"book 7, page 3");
//! assert_eq!(get("/books/seven").status().code(), 400);
//! ```
//!
//! [`Request::header`], [`Request::cookie`], [`Request::body`] and [`Request::peer`] give the rest. A router can be
//! [nested](Router::nest) in another, and [one hook](Router::on_error) gives all errors their shape.
//!
//! # JSON
//!
//! With feature `json`: in by `Request::json`, out by `Reply::json`, for any type of serde's. `?` answers a body of
//! another type with 415, and one of another shape with a 400 that says where.
//!
//! ```
//! # #[cfg(feature = "json")] {
//! use serde::{Deserialize, Serialize};
//! use sconce::http::{BadJson, Method, Reply, Request, Router};
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     item: String,
//!     count: u32,
//! }
//!
//! #[derive(Serialize)]
//! struct Receipt {
//!     text: String,
//! }
//!
//! fn order(request: &Request<'_>) -> Result<Reply, BadJson> {
//!     let Order { item, count } = request.json()?;
//!     Ok(Reply::json(&Receipt { text: format!("{count} × {item}") }))
//! }
//!
//! let router = Router::new().post("/orders", order);
//! let reply = router.handle(Request::new(Method::Post, "/orders").with_body(br#"{"item":"candle","count":2}"#));
//! assert_eq!(reply.body(), r#"{"text":"2 × candle"}"#.as_bytes());
//! # }
//! ```
//!
//! `Request::query_as` reads a whole query into a struct.
//!
//! # Answers that come later
//!
//! [`Reply::later`] gives a reply that stands for the answer, and a [`Responder`], the right to give it from any thread.
//! Answering consumes it; dropped without an answer, it sends a 500. When the client leaves,
//! [`Responder::is_closed`] says so.
//!
//! ```
//! use std::thread;
//! use std::time::Duration;
//! use sconce::http::{Method, Reply, Request, Router};
//!
//! fn factor(request: &Request<'_>) -> Result<Reply, sconce::http::BadParam> {
//!     let n: u64 = request.path_param("n")?;
//!     let (reply, responder) = Reply::later();
//!     thread::spawn(move || {
//!         let factor = (2..n).find(|d| n % d == 0 || responder.is_closed()).unwrap_or(n);
//!         responder.send(Reply::text(factor.to_string()));
//!     });
//!     Ok(reply.answer_within(Duration::from_secs(10))) // else 504
//! }
//!
//! let router = Router::new().get("/factor/{n}", factor);
//! let reply = router.handle(Request::new(Method::Get, "/factor/91"));
//! assert_eq!(reply.wait(Duration::from_secs(10)).unwrap().body(), b"7");
//! ```
//!
//! A server has a few threads of its own or a bounded queue to some, where this starts one for each request.
//!
//! # Streams of events
//!
//! [`Responder::sse`] begins a stream of server-sent events for one client; [`Broadcast`] sends each event to all who
//! listen, rendered once. A quiet stream gets a ping every 10 s, which also finds clients that have gone.
//!
//! ```
//! use std::thread;
//! use std::time::Duration;
//! use sconce::http::{Broadcast, Event, Method, Reply, Request, Router};
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
//! let news = Broadcast::new();
//! let listeners = news.clone();
//! let router = Router::new()
//!     .get("/count", count)
//!     .get("/news", move |_: &Request<'_>| listeners.subscribe(&[]));
//! news.send(&Event::new("extra, extra").name("headline").id("1"));
//!
//! let answer = router.handle(Request::new(Method::Get, "/count")).wait(Duration::from_secs(10)).unwrap();
//! assert_eq!(answer.body(), b"data: 1\n\ndata: 2\n\ndata: 3\n\n");
//! ```
//!
//! A client that lost its stream comes back with [`Request::last_event_id`].
//!
//! # Bodies in pieces
//!
//! A route that is [streamed](Router::route_streamed) is called when the head has arrived, and gets a [`Body`], which
//! another thread reads while it comes. An answer in pieces is a [`Stream`]. Both wait for each other: a reader that lags
//! slows the sender down to its pace, by TCP, and at most about 1 MiB waits in between ([`BACKLOG_BYTES_MAX`]). So who
//! writes asks first: [`Stream::wait_until_ready`] on threads, [`Stream::is_behind`] elsewhere.
//!
//! ```
//! use std::io::{self, Read};
//! use std::thread;
//! use std::time::Duration;
//! use sconce::http::{Body, Method, Reply, Request, Router, Stream};
//!
//! fn copy(mut body: Body, stream: Stream) -> io::Result<()> {
//!     let mut block = [0; 16 << 10];
//!     loop {
//!         match body.read(&mut block)? {
//!             0 => return stream.close().map_err(io::Error::other),
//!             _ if !stream.wait_until_ready(Duration::from_secs(30)) => return Ok(()), // gone, or far too slow
//!             count => stream.write(&block[..count].to_ascii_uppercase()).map_err(io::Error::other)?,
//!         }
//!     }
//! }
//!
//! fn shout(_: &Request<'_>, body: Body) -> Reply {
//!     let (reply, responder) = Reply::later();
//!     thread::spawn(move || copy(body, responder.stream(Reply::text(""))));
//!     reply
//! }
//!
//! let router = Router::new().route_streamed(Method::Post, "/shout", shout).limit_body("/shout", 1 << 30);
//! let reply = router.handle(Request::new(Method::Post, "/shout").with_body(b"hello"));
//! assert_eq!(reply.wait(Duration::from_secs(10)).unwrap().body(), b"HELLO");
//! ```
//!
//! What breaks off never looks complete: a body that was cut reads as an error, and a stream that is dropped before
//! [`Stream::close`] ends so that the client sees it.
//!
//! # Guards and layers
//!
//! A **guard** sees the head and says yes or no, before a byte of the body is read: who is this, may they? A **layer**
//! goes around the handler: it may answer itself, or change the reply. [`layers`] has ready ones: access log, request ids,
//! CORS, timeouts, Basic and Bearer authorisation, gzip (feature `compression`).
//!
//! ```
//! use std::time::Duration;
//! use sconce::http::layers::{access_log, eq_constant_time, bearer_auth, timeout, TokenError};
//! use sconce::http::{Method, Request, Router};
//!
//! let check = |token: &str| if eq_constant_time(token, "7f3a") { Ok(()) } else { Err(TokenError::Invalid) };
//! let router = Router::new()
//!     .layer(access_log())
//!     .layer(|request, next| next.run(request).header("x-served-by", "sconce"))
//!     .layer(timeout(Duration::from_secs(30)))
//!     .guard(bearer_auth("api", check))
//!     .get("/", |_: &Request<'_>| "secret");
//!
//! let reply = router.handle(Request::new(Method::Get, "/"));
//! assert_eq!((reply.status().code(), reply.header_value("x-served-by")), (401, Some("sconce")));
//! ```
//!
//! The layer added first is the outermost. A layer that wants a later answer uses [`Reply::map`], and one that wants its
//! end [`Reply::on_done`].
//!
//! # Files
//!
//! [`Router::static_dir`] serves a directory, [`Router::files`] files that are part of the program: with entity tags,
//! conditions, ranges and compressed twins. Nothing outside the directory is served, whatever a path or a link says.
//!
//! ```no_run
//! use sconce::http::{Files, Router};
//!
//! let router = Router::new().static_dir("/", Files::new("public")?.precompressed(true));
//! # std::io::Result::Ok(())
//! ```
//!
//! # Asking other servers
//!
//! [`Request::client`] asks other servers on the loop that runs the handler, without a thread. Connections are kept and
//! shared. If the client leaves, what was asked for it is given up.
//!
//! ```no_run
//! use sconce::http::{ClientError, ClientRequest, Method, Reply, Request};
//!
//! fn weather(request: &Request<'_>) -> Result<Reply, ClientError> {
//!     let ask = ClientRequest::new(Method::Get, "http://127.0.0.1:9000/weather")?;
//!     Ok(request.client().reply(ask, |outcome| match outcome {
//!         Ok(answer) => answer.into_reply(), // its body is passed on as it comes
//!         Err(error) => error.into(),        // 502, 503 or 504
//!     }))
//! }
//! ```
//!
//! Outside of handlers, [`Client::start`] and [`Client::fetch`]; see [`client`].
//!
//! # Leaving HTTP
//!
//! [`Reply::upgrade`] answers 101 and gives the connection's bytes both ways to another protocol, as a [`Body`] and a
//! [`Stream`]:
//!
//! ```
//! use std::io::Read;
//! use std::thread;
//! use sconce::http::{Method, Reply, Request, Router, Upgraded};
//!
//! fn echo(request: &Request<'_>) -> Reply {
//!     Reply::upgrade(request, "echo", |Upgraded { mut input, output }| {
//!         thread::spawn(move || {
//!             let mut block = [0; 4 << 10];
//!             while let Ok(count @ 1..) = input.read(&mut block) {
//!                 if output.write(&block[..count]).is_err() {
//!                     return;
//!                 }
//!             }
//!             let _gone = output.close().is_err();
//!         });
//!     })
//! }
//!
//! let router = Router::new().get("/echo", echo);
//! assert_eq!(router.handle(Request::new(Method::Get, "/echo")).status().code(), 426);
//! let asked = Request::new(Method::Get, "/echo").with_header("Connection", "upgrade").with_header("Upgrade", "echo");
//! assert_eq!(router.handle(asked).status().code(), 101);
//! ```
//!
//! # Limits
//!
//! Everything a client can make the server hold or wait for has a bound, in [`Limits`] or [`ServerConfig`]:
//!
//! | Bound | Default | Beyond it the client sees |
//! |---|---|---|
//! | [`head_bytes_max`](Limits::head_bytes_max), [`headers_max`](Limits::headers_max) | 32 KiB, 100 | 431 |
//! | [`target_bytes_max`](Limits::target_bytes_max) | 8 KiB | 414 |
//! | [`body_bytes_max`](Limits::body_bytes_max), or its route's [`limit_body`](Router::limit_body) | 8 MiB | 413 |
//! | [`chunk_overhead_bytes_max`](Limits::chunk_overhead_bytes_max) | 16 KiB | 400 |
//! | [`head_timeout`](Limits::head_timeout) | 10 s | 408 |
//! | [`body_bytes_per_second_min`](Limits::body_bytes_per_second_min) after [`body_grace`](Limits::body_grace) | 256 B/s, 10 s | 408 |
//! | [`idle_timeout`](Limits::idle_timeout) | 60 s | the connection closes |
//! | [`write_stall_timeout`](Limits::write_stall_timeout) | 30 s | the connection is cut |
//! | [`requests_per_connection_max`](Limits::requests_per_connection_max) | none | `Connection: close` with the last answer |
//! | [`output_high_water_bytes`](Limits::output_high_water_bytes) | 256 KiB | its next request waits |
//! | unsent bytes of a stream ([`BACKLOG_BYTES_MAX`]) | 1 MiB | the stream is cut |
//! | [`connections_max`](ServerConfig::connections_max) | 10,000 | 503, `Retry-After: 1` |
//! | [`connections_per_address_max`](ServerConfig::connections_per_address_max) | none | 503, `Retry-After: 1` |
//! | [`body_bytes_in_all_max`](ServerConfig::body_bytes_in_all_max) | 256 MiB | 503, `Retry-After: 1` |
//! | [`Reply::answer_within`], [`layers::timeout`] | none | 504 |
//!
//! The connection closes with such an answer, but for the 504, and but for a body that is refused by its head and has at
//! most 64 KiB: that is read and forgotten, and the next request is served.
//!
//! # Inside a program
//!
//! [`Server::start`] returns at once. A [`ServerHandle`] watches and ends the server from any thread:
//!
//! ```
//! use std::time::Duration;
//! use sconce::http::{Request, Router, Server, ServerConfig};
//!
//! let server = Server::bind("127.0.0.1:0", ServerConfig::default())?;
//! let running = server.start(Router::new().get("/", |_: &Request<'_>| "hello"))?;
//! println!("http://{}/", running.local_addr());
//!
//! let handle = running.handle();
//! let requests: u64 = handle.stats().iter().map(|of_loop| of_loop.requests).sum();
//! assert_eq!(requests, 0);
//! handle.drain(Duration::from_secs(10)); // no new clients; running answers finish; the rest is cut after 10 s
//! running.join()?;
//! # std::io::Result::Ok(())
//! ```
//!
//! [`LoopStats`] has connections, requests, bytes, busy time and lag of each loop. [`Server::serve`] and
//! [`Running::run_until_signal`] drain on SIGTERM and SIGINT; nothing else here touches signals.
//!
//! # Features
//!
//! Neither is there unless asked for: `json` (serde, serde_json) and `compression` (flate2, without C).
//!
//! # What holds
//!
//! - Framing is strict (RFC 9112): what another recipient might read differently is refused with its status, the
//!   connection closes, and nothing behind it is taken for a request.
//! - Each request gets one answer, in order, or its connection closes. A handler that panics costs a 500, and nothing else.
//! - A handler sees its request complete with its body, within the bounds, or is a streamed one and sees its body break off.
//! - No reply can break the framing: the connection writes `Content-Length`, `Transfer-Encoding`, `Connection` and `Date`,
//!   and a header line with a control character is refused at the call ([`InvalidHeader`]).
//! - A client that leaves is noticed: [`Responder::is_closed`], [`Stream::is_closed`], [`Reply::on_done`]. A reader that
//!   lags is, too: [`Stream::is_behind`]. Nothing queues up without a bound.
//! - No connection starves its loop: what is read, handled and written for each in a turn is bounded.
//! - A drain accepts no one, closes idle connections, and lets running answers finish.

#![warn(missing_docs, missing_debug_implementations)]

mod adapter;
mod broadcast;
mod budget;
pub mod client;
mod content_coding;
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
#[cfg(feature = "server")]
pub(crate) use date::civil_from_days;
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
