//! What can be set of an engine.

use std::time::Duration;

use super::speculation::DRAFT_MAX;

/// Bounds and budgets of one engine; [`Default`] gives the values named here.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Rows (tokens) of one step while no stream is generating: 256.
    pub step_tokens_max: usize,
    /// Prompt rows of one step while streams are generating: 128. How many of them are used follows from `gap_max`.
    pub step_prompt_tokens_max: usize,
    /// The longest that running streams should wait between two tokens because of others' prompts: 100 ms.
    pub gap_max: Duration,
    /// Sequences generated side by side: 64. Those whose reader is behind don't count.
    pub running_max: usize,
    /// Requests accepted and not yet admitted: 512. Over it: `QueueFull`.
    pub queue_max: usize,
    /// Tokens that prompt and answer may have together; `None`: what the model was trained for.
    pub context_max: Option<usize>,
    /// Tokens of a stream that are guessed and checked in one step where that pays: 7. 0 guesses nothing.
    pub draft_max: usize,
    /// Whether prompts that begin alike share their keys and values: yes.
    pub prefix_cache: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            step_tokens_max: 256,
            step_prompt_tokens_max: 128,
            gap_max: Duration::from_millis(100),
            running_max: 64,
            queue_max: 512,
            context_max: None,
            draft_max: DRAFT_MAX,
            prefix_cache: true,
        }
    }
}
