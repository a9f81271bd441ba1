//! The routes of llama.cpp's server that are its own:
//! <https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md>. Statuses, shapes and defaults are its. A slot
//! there is a place for a running sequence here.

mod completion;
mod infill;
mod props;
mod settings;
mod template;
mod timings;
mod tokens;
mod wire;

pub use completion::completion;
pub use infill::infill;
pub use props::{props, slots};
pub use template::apply_template;
pub use tokens::{detokenize, tokenize};
