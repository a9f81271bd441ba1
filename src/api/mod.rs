//! The inference server's HTTP API.

mod error;
mod fields;
mod metrics;
mod native;
