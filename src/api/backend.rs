//! What the API needs of the model it serves. The engine implements it; tests put a toy in its place.

use std::time::SystemTime;

use crate::engine::{
    dialect::{Dialect, ThoughtTokens},
    encoder::{Done, EncodeRequest, Left},
    error::RequestError,
    grammar::{Grammar, GrammarError, GrammarSource},
    request::{GenerateRequest, Prompt, Sink},
    tokenizer::Tokenizer,
};

use super::ask::Chat;

/// Told what became of a grammar, on any thread.
pub type OnGrammar = Box<dyn FnOnce(Result<Grammar, GrammarError>) + Send>;

/// A model that can be asked, from any thread.
pub trait Backend: Send + Sync + 'static {
    /// The model's name for clients.
    fn name(&self) -> &str;

    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// What it makes of texts.
    fn makes(&self) -> Makes;

    /// Starts a generation. Whatever becomes of it, a refusal included, is told to `sink`.
    fn submit(&self, request: GenerateRequest, sink: Box<dyn Sink>);

    /// Has inputs encoded; never waits. `done` is told the end, a refusal included; it is dropped untold if `left` says that
    /// nobody waits any more.
    fn embed(&self, request: EncodeRequest, left: Left, done: Done);

    /// Token ids of a text, with the model's own special tokens around it if `add_special`.
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, RequestError>;

    /// Token ids of a prompt, as the engine takes it.
    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, RequestError>;

    /// The text of token ids; bytes that are not UTF-8 become U+FFFD.
    fn decode(&self, tokens: &[u32]) -> Result<String, RequestError>;

    /// The bytes of a token; none for one that there is not.
    fn token_bytes(&self, token: u32) -> Vec<u8>;

    /// A conversation as the model's chat template writes it, with the opening of the assistant's turn at the end.
    fn render(&self, chat: &Chat) -> Result<String, RenderError>;

    /// The text of its chat template; `None` for a model without.
    fn template(&self) -> Option<&str>;

    /// How its texts become tokens.
    fn tokenizer(&self) -> &Tokenizer;

    /// How the model writes thoughts and tool calls.
    fn dialect(&self) -> &Dialect;

    /// The tokens around thoughts; `None` for a model that writes none.
    fn thought_tokens(&self) -> Option<&ThoughtTokens>;

    /// Compiles a grammar for this model's tokens on threads of its own.
    fn compile(&self, source: GrammarSource, then: OnGrammar);

    /// Counters, read without waiting for anything.
    fn snapshot(&self) -> Snapshot;
}

/// What a model makes of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// More text; and vectors of this width, if it can.
    Text { width: Option<usize> },
    /// A vector of each.
    Vectors { width: usize },
    /// A number for each pair: how well they go together.
    Scores,
}

/// What is told of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// As its file names it.
    pub architecture: String,
    /// The type that most of its weights are stored as.
    pub weights_type: String,
    pub parameters: u64,
    pub file_bytes: u64,
    /// Of its weights in memory.
    pub packed_bytes: u64,
    /// Tokens that prompt and answer may have together.
    pub context: usize,
    /// How long it took to load.
    pub load_seconds: f64,
    /// When it had been loaded.
    pub loaded: SystemTime,
}

/// Why a conversation could not be written out.
#[derive(Debug, Clone, PartialEq)]
pub enum RenderError {
    /// The model has no chat template.
    NoTemplate,
    /// Its template has no place for tools.
    NoTools,
    /// The template refused these messages, in its own words.
    Refused(String),
}

/// The engine at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Snapshot {
    /// Sequences being generated.
    pub running: usize,
    /// Sequences that are generated side by side at most.
    pub running_max: usize,
    /// Requests that wait for admission.
    pub waiting: usize,
    /// Held by sequences.
    pub kv_blocks_used: usize,
    /// Kept for prompts that begin alike; given up when others need them.
    pub kv_blocks_cached: usize,
    pub kv_blocks_total: usize,
    /// Since the start.
    pub preemptions: u64,
    /// Requests that found a part of their prompt in the cache, since the start.
    pub prefix_hits: u64,
    /// Tokens that were guessed, and those of them that were right, since the start.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
    /// The engine's thread is alive, and not stuck in a step.
    pub alive: bool,
}

impl Snapshot {
    /// Of several engines together.
    pub fn total(engines: impl IntoIterator<Item = Snapshot>) -> Self {
        let add = |sum: Self, one: Self| Self {
            running: sum.running + one.running,
            running_max: sum.running_max + one.running_max,
            waiting: sum.waiting + one.waiting,
            kv_blocks_used: sum.kv_blocks_used + one.kv_blocks_used,
            kv_blocks_cached: sum.kv_blocks_cached + one.kv_blocks_cached,
            kv_blocks_total: sum.kv_blocks_total + one.kv_blocks_total,
            preemptions: sum.preemptions + one.preemptions,
            prefix_hits: sum.prefix_hits + one.prefix_hits,
            drafted_tokens: sum.drafted_tokens + one.drafted_tokens,
            accepted_tokens: sum.accepted_tokens + one.accepted_tokens,
            alive: sum.alive && one.alive,
        };
        engines.into_iter().fold(Self { alive: true, ..Self::default() }, add)
    }

    /// Used share of the KV cache, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        if self.kv_blocks_total == 0 { 0.0 } else { self.kv_blocks_used as f64 / self.kv_blocks_total as f64 }
    }
}
