//! An encoder as plain numbers and enums, read from a model's keys. Knows no tensor and no thread.
//!
//! ```text
//! x = norm(token + position + type)
//! a = attention(x · qkv) · output         x = norm(x + a)          for each layer; every row of an input sees all of it
//! m = act(x · up) · down                  x = norm(x + m)          (gated: (act(x · gate) ⊙ (x · up)) · down)
//! ```

use std::ops::RangeInclusive;

use crate::engine::{
    gguf::Metadata,
    kernels::{HEAD_DIM_MAX, HEAD_DIM_MULTIPLE},
    layers::{PairStyle, Rope, Scaling},
    models::{LoadError, Source},
};

/// What an encoder computes, and what it is given.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSpec {
    /// As GGUF's `general.architecture` names it.
    pub architecture: String,
    pub layers: usize,
    /// Values of a row.
    pub hidden: usize,
    pub heads: usize,
    pub feed_forward: usize,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Tokens of an input, the model's own around it among them.
    pub input_tokens_max: usize,
    /// Kinds of tokens, as the two texts of a pair are told apart; 0 where they are not.
    pub token_types: usize,
    pub positions: Positions,
    pub eps: f32,
    pub activation: Activation,
    /// Whether the MLP has a gate.
    pub gated: bool,
    /// Whether texts are made lower case before they are tokenised.
    pub lowercase: bool,
    pub output: Output,
}

/// How a row knows where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// By a table, whose first `offset` rows stand for nothing.
    Learned { offset: usize },
    /// By turning queries and keys.
    Rotary { base: f32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Gelu,
    GeluTanh,
    Relu,
    /// `x · sigmoid(x)`, of gates only.
    Silu,
}

/// What an input becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A vector; of length 1 if `normalize`.
    Vector { pooling: Pooling, normalize: bool },
    /// One number: how well the texts of a pair go together.
    Score { pooler: Pooler, score: Score },
}

/// How an input's rows become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    /// The first row.
    Cls,
    Last,
}

impl Pooling {
    /// By GGUF's number of it.
    pub fn numbered(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Mean),
            2 => Some(Self::Cls),
            3 => Some(Self::Last),
            _ => None,
        }
    }
}

/// What the head's first layer goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    Tanh,
    Relu,
}

/// What the head's number goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// `1 / (1 + e^-x)`: scores are in 0..1.
    Sigmoid,
    Identity,
}

/// GGUF's number of the pooling that is a head with scores.
const RANK: u32 = 4;
const BERT: &str = "bert";
const NOMIC: &str = "nomic-bert";

/// Whether the model is an encoder of this module, by its name alone.
pub fn is_encoder(source: &Source) -> bool {
    source.metadata().str("general.architecture").is_ok_and(|name| [BERT, NOMIC].contains(&name))
}

/// The architecture's name as its keys begin.
pub(super) fn architecture(source: &Source) -> Result<&'static str, LoadError> {
    let name = source.metadata().str("general.architecture")?;
    [BERT, NOMIC].into_iter().find(|known| *known == name).ok_or_else(|| LoadError::Architecture(name.into()))
}

/// A model's keys, by its architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static str,
}

impl Keys<'_> {
    fn bad(&self, name: &str, why: impl Into<String>) -> LoadError {
        LoadError::Value { key: format!("{}.{name}", self.architecture), why: why.into() }
    }

    fn size(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize, LoadError> {
        let size = self.metadata.usize(&format!("{}.{name}", self.architecture))?;
        if range.contains(&size) { Ok(size) } else { Err(self.bad(name, format!("{size} is not in {range:?}"))) }
    }

    fn output(&self) -> Result<Output, LoadError> {
        let pooling: Option<u32> = self.metadata.find(&format!("{}.pooling_type", self.architecture))?;
        let labels: Option<u32> = self.metadata.find("encoder.labels")?;
        if labels.is_none() && pooling != Some(RANK) {
            let number = pooling.unwrap_or(1);
            let pooling = Pooling::numbered(number);
            let pooling = pooling.ok_or_else(|| self.bad("pooling_type", format!("{number} is not 1 to 4")))?;
            // GGUF does not say; all who serve such files normalise.
            return Ok(Output::Vector { pooling, normalize: self.metadata.find("encoder.normalize")?.unwrap_or(true) });
        }
        if labels.is_some_and(|labels| labels != 1) {
            let why = format!("{} scores for a text; models with one are served", labels.unwrap_or_default());
            return Err(LoadError::Value { key: "num_labels".into(), why });
        }
        let pooler = match self.metadata.find("encoder.pooler")?.unwrap_or("tanh") {
            "relu" => Pooler::Relu,
            _ => Pooler::Tanh,
        };
        let score = match self.metadata.find("encoder.score")?.unwrap_or("sigmoid") {
            "identity" => Score::Identity,
            _ => Score::Sigmoid,
        };
        Ok(Output::Score { pooler, score })
    }
}

impl EncoderSpec {
    /// What the model's keys say.
    pub(super) fn read(source: &Source) -> Result<Self, LoadError> {
        let (metadata, architecture) = (source.metadata(), architecture(source)?);
        let keys = Keys { metadata, architecture };
        let (hidden, heads) =
            (keys.size("embedding_length", 1..=65_536)?, keys.size("attention.head_count", 1..=1024)?);
        let head_dim = hidden / heads;
        if !hidden.is_multiple_of(heads) || head_dim > HEAD_DIM_MAX || !head_dim.is_multiple_of(HEAD_DIM_MULTIPLE) {
            let why = format!(
                "{heads} heads for {hidden} values; heads have multiples of {HEAD_DIM_MULTIPLE} values up to {HEAD_DIM_MAX}"
            );
            return Err(keys.bad("attention.head_count", why));
        }
        let nomic = architecture == NOMIC;
        let context = keys.size("context_length", 1..=1 << 20)?;
        let eps: f32 = metadata.find(&format!("{architecture}.attention.layer_norm_epsilon"))?.unwrap_or(1e-12);
        if !(0.0..1.0).contains(&eps) {
            return Err(keys.bad("attention.layer_norm_epsilon", format!("{eps} is not in 0..1")));
        }
        let offset: u32 = metadata.find("encoder.position_offset")?.unwrap_or(0);
        let base: f32 = metadata.find(&format!("{architecture}.rope.freq_base"))?.unwrap_or(1e4);
        if !(base > 1.0 && base.is_finite()) {
            return Err(keys.bad("rope.freq_base", format!("{base} is not a number above 1")));
        }
        let asked: Option<u32> = metadata.find("encoder.input_length")?;
        let activation = match metadata.find("encoder.activation")?.unwrap_or("gelu") {
            _ if nomic => Activation::Silu,
            "gelu_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            _ => Activation::Gelu,
        };
        let rows = |name: &str| source.tensor(name).and_then(|tensor| tensor.shape.first().copied());
        let vocabulary =
            rows("token_embd.weight").ok_or_else(|| LoadError::MissingTensor("token_embd.weight".into()))?;
        let types = source.tensor("token_types.weight");
        Ok(Self {
            architecture: architecture.into(),
            layers: keys.size("block_count", 1..=1024)?,
            hidden,
            heads,
            feed_forward: keys.size("feed_forward_length", 1..=1 << 20)?,
            vocabulary,
            input_tokens_max: asked.map_or(context, |asked| context.min(asked as usize)).max(1),
            // GGUF keeps a table of one row as a vector.
            token_types: types.map_or(0, |types| types.shape.iter().product::<usize>() / hidden),
            positions: if nomic { Positions::Rotary { base } } else { Positions::Learned { offset: offset as usize } },
            eps,
            activation,
            gated: nomic,
            lowercase: metadata.find("encoder.lowercase")?.unwrap_or(false),
            output: keys.output()?,
        })
    }

    /// Values of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Values that an input becomes.
    pub fn output_width(&self) -> usize {
        match self.output {
            Output::Vector { .. } => self.hidden,
            Output::Score { .. } => 1,
        }
    }

    pub(super) fn rope(&self) -> Option<Rope> {
        match self.positions {
            Positions::Learned { .. } => None,
            Positions::Rotary { base } => {
                Some(Rope::new(PairStyle::Halves, self.head_dim(), f64::from(base), &Scaling::None))
            }
        }
    }
}
