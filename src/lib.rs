//! Sconce: a small, fast HTTP server library on mio, and an LLM inference server on it.
//!
//! Layers are cargo features and point one way: `reactor ◀ http ◀ api ▶ engine`.
//!
//! - [`reactor`]: event loops, one thread each; sockets, buffers, timers, mailbox. Knows no HTTP.
//! - [`http`]: a sans-IO HTTP/1.1 state machine, router, guards and layers, replies now or later, streams, SSE, static files,
//!   a client on the same loops. Knows no JSON API and no model. Its page teaches it in ten minutes.
//! - `engine` (feature `engine`): GGUF models, paged KV cache, batching scheduler, sampler. Knows no HTTP.
//! - `api`, `config`, `cli` (feature `server`): the inference server; the only layer that knows both sides.

pub mod http;
pub mod reactor;

#[cfg(feature = "engine")]
pub mod demo;
#[cfg(feature = "engine")]
pub mod engine;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;

/// The README's Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
