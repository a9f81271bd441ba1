//! The inference engine: one thread per model owns model, KV cache and scheduler, and drives a team of compute
//! threads. Knows no HTTP: requests come in through [`Engine::submit`], events go out through a [`Sink`].
//!
//! ```text
//! submit ─▶ intake (tokenise, check) ─▶ scheduler.plan ─▶ model.forward ─▶ sample ─▶ scheduler.commit ─▶ sinks
//! ```

pub mod batch;
pub mod blocks;
pub mod chat_template;
pub mod detokenizer;
mod engine;
pub mod error;
pub mod gguf;
pub mod kernels;
pub mod kv_cache;
pub mod layers;
pub mod models;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod stop;
pub mod team;
pub mod tokenizer;
