//! The inference server's HTTP API.

mod error;
mod fields;
mod host;
mod metrics;
mod native;
mod request_id;
