//! The inference engine: one thread per model owns model, KV cache and scheduler, and drives a team of compute
//! threads. Knows no HTTP: requests come in through [`Engine::submit`], events go out through a [`request::Sink`].
//!
//! ```text
//! submit ─▶ intake (tokenise, check) ─▶ scheduler.plan ─▶ model.forward ─▶ sample ─▶ scheduler.commit ─▶ sinks
//! ```

pub mod batch;
pub mod blocks;
pub mod chat_template;
mod choose;
pub mod config;
pub mod detokenizer;
pub mod device;
pub mod dialect;
mod embedding;
pub mod encoder;
pub mod error;
mod executor;
#[cfg(test)]
pub(crate) mod fake;
pub mod gguf;
pub mod grammar;
mod handle;
pub mod hf;
mod intake;
mod job;
pub mod kernels;
pub mod kv_cache;
pub mod layers;
#[cfg(test)]
mod lifecycle;
pub mod memory;
pub mod models;
pub mod prefix;
mod process;
mod prompt;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod speculation;
pub mod stats;
pub mod stop;
pub mod team;
pub mod tokenizer;

pub use config::EngineConfig;
pub use handle::{Engine, Generation, StartError};
pub use process::{aside, give_back_memory, prepare_process};
pub use stats::EngineStats;
