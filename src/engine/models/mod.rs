//! Model architectures: one file each, from config to `forward`.

use super::{batch::Batch, kv_cache::KvCache};

/// What the engine must know of a model to plan for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// As GGUF's `general.architecture` names it.
    pub architecture: String,
    pub layers: usize,
    pub kv_heads: usize,
    /// Of one head, in values.
    pub head_dim: usize,
    /// Rows of the output head; ids from `vocabulary` of the tokenizer up are padding.
    pub vocabulary: usize,
    /// Positions the model was trained for.
    pub context: usize,
}

/// The model failed on a batch; the batch's requests fail, the engine goes on.
#[derive(Debug)]
pub struct ForwardError(pub String);

/// A causal decoder.
pub trait Model: Send {
    fn spec(&self) -> &Spec;

    /// Runs every row of `batch`, writes its keys and values into `cache`, and leaves the logits of
    /// `batch.logit_rows` in `logits`: shape (logit_rows, vocabulary), row-major.
    fn forward(&mut self, batch: &Batch, cache: &mut KvCache, logits: &mut Vec<f32>) -> Result<(), ForwardError>;
}
