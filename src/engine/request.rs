//! What a caller asks of the engine, and what the engine tells it.
//!
//! Knows no wire format: `api` turns JSON into a [`GenerateRequest`] and [`Event`]s into replies.

use std::time::{Duration, Instant};

use super::{error::RequestError, grammar::Grammar};
pub use super::{prefix::Tenant, prompt::Prompt};

/// How the next token is chosen: bias, then the filters in the order of [`SamplingParams::filters`], then a draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 picks the most likely token (greedy); the rest is then ignored but bias, penalties and DRY.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probabilities add up to this; 1 keeps all.
    pub top_p: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divide the logits of tokens seen before by this (multiply where negative); 1 does nothing.
    pub repetition_penalty: f32,
    /// The repetition penalty looks at so many of the last tokens; `None`: at all of them.
    pub penalty_tokens: Option<usize>,
    /// Taken from the logits of tokens that were generated before; 0 does nothing.
    pub presence_penalty: f32,
    /// Taken from the logits of generated tokens, for each time they were; 0 does nothing.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens; −100 or less bans one.
    pub logit_bias: Vec<(u32, f32)>,
    /// The temperature follows the distribution's entropy.
    pub dynamic_temperature: Option<DynamicTemperature>,
    /// Keep the tokens whose information is closest to the distribution's entropy, up to this probability; 1 keeps all.
    pub typical_p: f32,
    /// Keep tokens within so many standard deviations of the best logit; 0 keeps all.
    pub top_n_sigma: f32,
    pub dry: Option<Dry>,
    pub xtc: Option<Xtc>,
    /// Takes the place of the filters that leave tokens out: penalties, DRY and temperature are all that comes before it.
    pub mirostat: Option<Mirostat>,
    /// The filters that are applied, in this order, each once at most; `None`: [`Filter::USUAL`], or [`Filter::WIDE`] if
    /// any of typical-p, top-n-sigma, XTC and dynamic temperature is set.
    pub order: Option<Vec<Filter>>,
    /// The same request with the same seed gives the same tokens. `None`: the engine draws one.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_p: 0.95,
            top_k: 40,
            min_p: 0.0,
            repetition_penalty: 1.0,
            penalty_tokens: None,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            dynamic_temperature: None,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            dry: None,
            xtc: None,
            mirostat: None,
            order: None,
            seed: None,
        }
    }
}

impl SamplingParams {
    /// The filters that do something, in their order.
    pub fn filters(&self) -> impl Iterator<Item = Filter> + Clone {
        let wide =
            self.typical_p < 1.0 || self.top_n_sigma > 0.0 || self.xtc.is_some() || self.dynamic_temperature.is_some();
        let order = self.order.as_deref().unwrap_or(if wide { &Filter::WIDE } else { &Filter::USUAL });
        order.iter().copied().filter(|filter| self.sets(*filter))
    }

    fn sets(&self, filter: Filter) -> bool {
        match filter {
            Filter::Penalties => {
                self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
            }
            Filter::Dry => self.dry.as_ref().is_some_and(|dry| dry.multiplier > 0.0),
            Filter::TopNSigma => self.top_n_sigma > 0.0,
            Filter::TopK => self.top_k > 0,
            Filter::Typical => self.typical_p < 1.0,
            Filter::TopP => self.top_p < 1.0,
            Filter::MinP => self.min_p > 0.0,
            // More than one token can't have more than a half each.
            Filter::Xtc => self.xtc.is_some_and(|xtc| xtc.probability > 0.0 && xtc.threshold <= 0.5),
            Filter::Temperature => self.temperature != 1.0 || self.dynamic_temperature.is_some(),
        }
    }
}

/// Temperatures from `temperature − range` where the distribution is certain to `temperature + range` where it is flat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicTemperature {
    pub range: f32,
    /// Of the entropy as a share of the largest there could be.
    pub exponent: f32,
}

/// "Don't repeat yourself": the token that would go on a sequence that was there before loses
/// `multiplier × base ^ (length − allowed_length)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    pub multiplier: f32,
    pub base: f32,
    /// Repeated sequences up to this many tokens cost nothing.
    pub allowed_length: usize,
    /// Repetitions don't reach over these.
    pub breakers: Vec<String>,
    /// Look at so many of the last tokens; `None`: at all of them.
    pub last_tokens: Option<usize>,
}

/// "Exclude top choices": with this probability all tokens above the threshold go but the least likely of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Xtc {
    pub probability: f32,
    pub threshold: f32,
}

/// Keeps the surprise of the text at `tau` bits a token, learning at the rate `eta` (Basu et al. 2021).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    pub version: MirostatVersion,
    pub tau: f32,
    pub eta: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirostatVersion {
    First,
    Second,
}

/// The filters that a request may put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    Penalties,
    Dry,
    TopNSigma,
    TopK,
    Typical,
    TopP,
    MinP,
    Xtc,
    Temperature,
}

impl Filter {
    /// Of requests that set none but these: what is likely is judged at the temperature.
    pub const USUAL: [Self; 6] = [Self::Penalties, Self::Dry, Self::Temperature, Self::TopK, Self::MinP, Self::TopP];

    /// llama.cpp's: what is likely is judged at temperature 1, which comes last.
    pub const WIDE: [Self; 9] = [
        Self::Penalties,
        Self::Dry,
        Self::TopNSigma,
        Self::TopK,
        Self::Typical,
        Self::TopP,
        Self::MinP,
        Self::Xtc,
        Self::Temperature,
    ];

    /// As llama.cpp names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Penalties => "penalties",
            Self::Dry => "dry",
            Self::TopNSigma => "top_n_sigma",
            Self::TopK => "top_k",
            Self::Typical => "typ_p",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::Xtc => "xtc",
            Self::Temperature => "temperature",
        }
    }

    /// By llama.cpp's name.
    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "typical_p" { "typ_p" } else { name };
        Self::WIDE.into_iter().find(|filter| filter.name() == name)
    }
}

/// One generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// At most this many tokens are generated; cut to what the context leaves.
    pub max_tokens: usize,
    pub sampling: SamplingParams,
    /// Generation ends before any of these would appear in the text.
    pub stop: Vec<String>,
    /// Generation ends at any of these tokens, beside the model's own end tokens.
    pub stop_tokens: Vec<u32>,
    /// Go on past the model's own end tokens.
    pub ignore_eos: bool,
    /// Tell each token's log-probability, and those of so many of the most likely ones.
    /// At most [`Self::LOGPROBS_MAX`].
    pub logprobs: Option<usize>,
    /// Tell how likely the prompt's tokens are as well, with [`Event::Started`]; with as many of the most likely ones as
    /// `logprobs` says. Then `max_tokens` may be 0 and the prompt is computed all the same, nothing of it taken from the
    /// cache.
    pub prompt_logprobs: bool,
    /// The answer follows this grammar; thoughts before it do not.
    pub grammar: Option<Grammar>,
    /// Thoughts before the answer, if there are any: where they end and how long they may be.
    pub thinking: Option<Thinking>,
    /// Special tokens whose spelling is part of the text, as where a model marks its tool calls with them.
    pub visible: Vec<u32>,
    /// Higher runs first; preempted last.
    pub priority: i32,
    /// Give up when the request has not been admitted by then.
    pub queue_timeout: Duration,
    /// Give up when the request has not been finished by then, counted from its arrival.
    pub timeout: Option<Duration>,
    /// Whose request it is: clients get equal shares. Those who don't say are one client together.
    pub client: Option<ClientKey>,
    /// Whose cache it may use and adds to; `None`: the one of all who don't say.
    pub tenant: Option<Tenant>,
}

/// How a model marks its thoughts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thinking {
    /// The tokens that begin thoughts.
    pub open: Vec<u32>,
    /// The tokens that end them; where there are none, thoughts are not known.
    pub close: Vec<u32>,
    /// The prompt has begun them. Else the model may, with its first tokens.
    pub begun: bool,
    /// After so many tokens of thought they are ended.
    pub tokens_max: Option<usize>,
}

/// Tells clients from one another. Two with the same key share one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(pub u64);

impl GenerateRequest {
    pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(300);
    /// So many of the most likely tokens can be had beside each token.
    pub const LOGPROBS_MAX: usize = 20;

    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            max_tokens: 256,
            sampling: SamplingParams::default(),
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: false,
            grammar: None,
            thinking: None,
            visible: Vec::new(),
            priority: 0,
            queue_timeout: Self::QUEUE_TIMEOUT,
            timeout: None,
            client: None,
            tenant: None,
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    Stop(StopCause),
    /// `max_tokens` reached, or the context is full.
    Length,
    /// The sink said [`Flow::Cancel`].
    Cancelled,
}

/// What stopped a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// An end token or a stop token.
    Token(u32),
    /// The stop string of this index in the request.
    Text(usize),
    /// The grammar allows nothing more.
    Complete,
}

/// A token and how likely it was, by the model's own distribution: before bias, penalties and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    pub token: u32,
    /// Natural logarithm of its probability; never below [`Self::NEVER`].
    pub logprob: f32,
    /// The most likely tokens, best first.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Stands for a probability of zero, whose logarithm JSON can't say.
    pub const NEVER: f32 = -9999.0;
}

/// A prompt and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredPrompt {
    pub token_ids: Vec<u32>,
    /// Of each token but the first, which nothing comes before.
    pub logprobs: Vec<TokenLogprobs>,
}

/// What a request has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// Prompt tokens whose keys and values were found in the cache.
    pub cached_tokens: usize,
}

/// When the stages of a request were reached.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    pub received: Instant,
    pub admitted: Option<Instant>,
    pub first_token: Option<Instant>,
    pub finished: Option<Instant>,
    pub preemptions: u32,
}

/// What the engine tells a caller, in this order: `Started` and any number of `Piece`, then exactly one of `Finished` or
/// `Failed`; those may come without the others.
#[derive(Debug, Clone)]
pub enum Event {
    /// The prompt has been computed: the first token is there.
    Started {
        prompt_tokens: usize,
        cached_tokens: usize,
        /// If the request asks for it.
        scored: Option<ScoredPrompt>,
    },
    /// New text and the tokens it came from. Text is whole UTF-8; tokens whose bytes are held back (an unfinished
    /// character, a possible stop string) come with the piece that releases them.
    Piece {
        text: String,
        token_ids: Vec<u32>,
        /// One for each token if the request asks for them, else none.
        logprobs: Vec<TokenLogprobs>,
    },
    Finished {
        reason: FinishReason,
        usage: Usage,
        timeline: Timeline,
    },
    Failed(RequestError),
}

/// What a sink wants next; asked before every step, so it must answer at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// The reader is behind: generate nothing for it now.
    Park,
    /// The reader is gone: drop the sequence.
    Cancel,
}

/// Where a request's events go. Called on the engine's threads: must not block.
pub trait Sink: Send {
    fn flow(&self) -> Flow;
    fn on_event(&mut self, event: Event);
    /// The vector of a prompt that is embedded, told before the end.
    fn on_vector(&mut self, _vector: Vec<f32>) {}
}
