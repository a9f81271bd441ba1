//! Ready-made middleware: layers, which go around every handler ([`Router::layer`](super::Router::layer)), and guards,
//! which are asked before a body is read ([`Router::guard`](super::Router::guard)).
//!
//! Each is a function in a file of its own, and knows none of the others. The layer added first is the outermost; an
//! order that works:
//!
//! ```
//! use std::time::Duration;
//! use sconce::http::Router;
//! use sconce::http::layers::{Cors, InboundId, access_log, bearer_auth, cors, request_id, timeout};
//!
//! let router = Router::new()
//!     .layer(access_log())
//!     .layer(request_id(InboundId::Replaced))
//!     .layer(cors(Cors::origins(["https://app.example"]).headers(&["authorization"])))
//!     .layer(timeout(Duration::from_secs(30)))
//!     .guard(bearer_auth("api", |_token| Ok(())));
//! ```
//!
//! What others call middleware and is part of the router and the server here: a handler's panic is a 500, a body has a
//! limit per route ([`Router::limit_body`](super::Router::limit_body)), errors get their shape in one place
//! ([`Router::on_error`](super::Router::on_error)).

mod access_log;
mod auth;
mod base64;
#[cfg(feature = "compression")]
mod compression;
mod cors;
mod request_id;
mod timeout;

pub use access_log::{access_log, access_log_to};
pub use auth::{Credentials, TokenError, basic_auth, basic_credentials, bearer_auth, bearer_token, eq_constant_time};
#[cfg(feature = "compression")]
pub use compression::{Compression, compression};
pub use cors::{Cors, cors};
pub use request_id::{InboundId, RequestId, request_id};
pub use timeout::timeout;
