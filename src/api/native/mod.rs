//! The native API: one file an endpoint, what is asked and what is answered side by side.

mod ask;
mod decode;
mod encode;
mod generate;

pub use ask::parse;
pub use decode::decode;
pub use encode::encode;
pub use generate::{account, generate, generate_stream};
