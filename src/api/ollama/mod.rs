//! Ollama's API: <https://docs.ollama.com/api>. Statuses, shapes and defaults are its; what it does with models on disk
//! (pull, create, copy, …) is not done here, and says so.

mod chat;
mod embed;
mod generate;
mod keep_alive;
mod messages;
mod models;
mod names;
mod options;
mod request;
mod time;
mod wire;

pub use chat::chat;
pub use embed::{embed, embeddings};
pub use generate::generate;
pub use models::{ps, show, tags, unsupported, version};
