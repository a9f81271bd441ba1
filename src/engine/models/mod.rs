//! Model architectures: from a model's files to `forward`.
//!
//! One file each reads an architecture's keys into a [`Blueprint`]; `decoder` is built from that and from the tensors
//! that `layout` names.

pub mod blueprint;
mod compat;
mod decoder;
mod gemma;
mod granite;
mod head;
pub mod layout;
mod llama;
mod olmo2;
mod parts;
mod phi3;
mod plain;
mod quantize;
mod qwen2;
mod qwen3;
mod smollm3;
mod source;
mod weight_sizes;
pub(in crate::engine) mod weights;

use std::{fmt, num::NonZeroUsize};

use blueprint::Blueprint;
pub use compat::Unbatched;
pub use quantize::Quantize;
pub use source::Source;
pub use weight_sizes::WeightSizes;
use weights::Weights;

use super::{
    batch::Batch,
    chat_template::TemplateError,
    device::{self, DeviceChoice, DeviceError},
    gguf::{GgufError, TensorType},
    hf::DirectoryError,
    kv_cache::{KvCache, KvType},
    process,
    team::Team,
    tokenizer::TokenizerError,
};

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

/// What a forward pass gives for its sampled rows; its memory is used again from step to step.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Outcome {
    /// Of the rows with [`Want::Logits`](super::batch::Want), in their order: shape (rows, vocabulary), row-major.
    pub logits: Vec<f32>,
    /// Of the rows with [`Want::Best`](super::batch::Want), in their order.
    pub best: Vec<Best>,
    /// Of the rows with [`Want::Hidden`](super::batch::Want), in their order: shape (rows, hidden), row-major.
    pub hidden: Vec<f32>,
}

impl Outcome {
    pub fn clear(&mut self) {
        self.hidden.clear();
        self.logits.clear();
        self.best.clear();
    }
}

/// The token with the largest logit; of equal ones the lowest id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    pub token: u32,
    /// NaN if any of the row's logits is.
    pub logit: f32,
}

/// A causal decoder.
pub trait Model: Send {
    fn spec(&self) -> &Spec;

    /// What a step reads of the weights, and computes with them; zeros where it is not known.
    fn weights(&self) -> WeightSizes {
        WeightSizes::default()
    }

    /// Sequences that it is fast with side by side; any number if `None`.
    fn width_max(&self) -> Option<usize> {
        None
    }

    /// Values of a row's vector, if it gives them for [`Want::Hidden`](super::batch::Want).
    fn hidden(&self) -> Option<usize> {
        None
    }

    /// The threads that compute it, where others may use them between two steps.
    fn team(&self) -> Option<&Team> {
        None
    }

    /// A cache of `blocks` blocks, in the memory of the device that computes.
    ///
    /// # Errors
    /// The device has no room for it, or has no such type.
    fn new_cache(&self, blocks: usize, kind: KvType) -> Result<KvCache, ForwardError> {
        Ok(KvCache::new(self.spec(), blocks, kind))
    }

    /// Bytes that are free where the cache will be, if that is not the system's memory.
    fn cache_bytes_free(&self) -> Option<u64> {
        None
    }

    /// Runs every row of `batch`, writes its keys and values into `cache`, and leaves what is wanted of the sampled rows
    /// in `outcome`.
    fn forward(&mut self, batch: &Batch, cache: &mut KvCache, outcome: &mut Outcome) -> Result<(), ForwardError>;
}

/// The architectures, by their GGUF names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Phi3,
    Gemma,
    Gemma2,
    Gemma3,
    SmolLm3,
    Olmo2,
    Granite,
    /// One of those that run as candle-transformers has them.
    Unbatched(Unbatched),
}

impl Architecture {
    /// Those that can be batched.
    pub const BATCHED: [Self; 10] = [
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Phi3,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3,
        Self::SmolLm3,
        Self::Olmo2,
        Self::Granite,
    ];

    /// As `general.architecture` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Phi3 => "phi3",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::SmolLm3 => "smollm3",
            Self::Olmo2 => "olmo2",
            Self::Granite => "granite",
            Self::Unbatched(unbatched) => unbatched.name(),
        }
    }

    /// The architecture with this name.
    pub fn named(name: &str) -> Option<Self> {
        let unbatched = Unbatched::ALL.into_iter().map(Self::Unbatched);
        Self::BATCHED.into_iter().chain(unbatched).find(|architecture| architecture.name() == name)
    }

    /// What a model of this architecture computes, by its metadata, if it can be batched.
    pub(in crate::engine) fn blueprint(self, weights: &Weights) -> Result<Blueprint, LoadError> {
        match self {
            Self::Llama => llama::blueprint(weights),
            Self::Qwen2 => qwen2::blueprint(weights),
            Self::Qwen3 => qwen3::blueprint(weights),
            Self::Phi3 => phi3::blueprint(weights),
            Self::Gemma => gemma::first(weights),
            Self::Gemma2 => gemma::second(weights),
            Self::Gemma3 => gemma::third(weights),
            Self::SmolLm3 => smollm3::blueprint(weights),
            Self::Olmo2 => olmo2::blueprint(weights),
            Self::Granite => granite::blueprint(weights),
            Self::Unbatched(unbatched) => Err(LoadError::Architecture(unbatched.name().into())),
        }
    }
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// What computes; those that run unbatched do so on the CPU.
    pub device: DeviceChoice,
    /// Threads of the team that computes, where the CPU does.
    pub threads: NonZeroUsize,
    /// Float weights are turned into this.
    pub quantize: Option<Quantize>,
    /// Positions that will be served at most: models with two ropes take the one for short contexts if it suffices.
    pub context: Option<usize>,
    /// Others compute meanwhile: reading and packing take what CPU time they leave.
    pub aside: bool,
}

impl LoadOptions {
    /// As the files are, for a team of `threads` on the CPU.
    pub fn new(threads: NonZeroUsize) -> Self {
        Self { device: DeviceChoice::Cpu, threads, quantize: None, context: None, aside: false }
    }
}

/// Loads a model: weights are read, packed by all threads of its team or taken to its device, and tried once, so that the
/// first request is as fast as the next. The source is not needed afterwards.
pub fn load(source: &Source, options: LoadOptions) -> Result<Box<dyn Model>, LoadError> {
    let architecture = source.architecture()?;
    if let Architecture::Unbatched(unbatched) = architecture {
        return compat::load(unbatched, source, options);
    }
    if let Some(device) = options.device.open()? {
        return Ok(Box::new(device::load(source, options, device)?));
    }
    let team = Team::new(options.threads).map_err(LoadError::Threads)?;
    let read = |team: &Team| {
        let weights = Weights::new(source, architecture.name(), team, options);
        parts::Parts::load(&weights, architecture.blueprint(&weights)?)
    };
    let parts = match options.aside {
        false => read(&team)?,
        // By a team of its own, as threads that have stepped aside can't come back.
        true => process::aside(|| read(&Team::new(options.threads).map_err(LoadError::Threads)?))
            .map_err(LoadError::Threads)??,
    };
    let mut model = decoder::Decoder::new(parts, team, WeightSizes::of(source, options.quantize));
    model.warm_up().map_err(|e| LoadError::Weights { tensor: "warm-up".into(), why: e.0 })?;
    Ok(Box::new(model))
}

/// What the engine must know of a model, by its metadata alone.
pub fn inspect(source: &Source) -> Result<Spec, LoadError> {
    let architecture = source.architecture()?;
    if let Architecture::Unbatched(unbatched) = architecture {
        return compat::spec(unbatched, source);
    }
    // Nothing is packed, so nobody is needed for it.
    let team = Team::new(NonZeroUsize::MIN).map_err(LoadError::Threads)?;
    let weights = Weights::new(source, architecture.name(), &team, LoadOptions::new(NonZeroUsize::MIN));
    Ok(architecture.blueprint(&weights)?.spec)
}

/// Why a model can't be served. The text says what; the caller adds the path.
#[derive(Debug)]
pub enum LoadError {
    Gguf(GgufError),
    Directory(DirectoryError),
    Tokenizer(TokenizerError),
    Template(TemplateError),
    /// Another architecture than those of [`Architecture`].
    Architecture(String),
    /// One that this build leaves out.
    NeedsCompat(&'static str),
    MissingTensor(String),
    /// A tensor of another shape than the metadata asks for.
    Shape {
        tensor: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },
    /// A tensor in a format that there are no kernels for.
    Type {
        tensor: String,
        dtype: TensorType,
    },
    Weights {
        tensor: String,
        why: String,
    },
    /// A key whose value makes no sense.
    Value {
        key: String,
        why: String,
    },
    Device(DeviceError),
    Threads(std::io::Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf(e) => write!(f, "{e}"),
            Self::Directory(e) => write!(f, "{e}"),
            Self::Tokenizer(e) => write!(f, "{e}"),
            Self::Template(e) => write!(f, "{e}"),
            Self::Device(e) => write!(f, "{e}"),
            Self::Architecture(name) => {
                let known: Vec<_> = Architecture::BATCHED.iter().map(|a| a.name()).collect();
                write!(f, "architecture {name:?} is not supported; supported are {}", known.join(", "))
            }
            Self::NeedsCompat(name) => {
                write!(
                    f,
                    "architecture {name:?} runs unbatched, in a build with the feature compat (cargo build --features compat)"
                )
            }
            Self::MissingTensor(name) => write!(f, "the file has no tensor {name:?}"),
            Self::Shape { tensor, expected, found } => {
                write!(f, "tensor {tensor:?} has the shape {found:?}, the metadata asks for {expected:?}")
            }
            Self::Type { tensor, dtype } => {
                write!(
                    f,
                    "tensor {tensor:?} is stored as {dtype}, which is not supported; quantise the model otherwise"
                )
            }
            Self::Weights { tensor, why } => write!(f, "tensor {tensor:?}: {why}"),
            Self::Value { key, why } => write!(f, "key {key:?}: {why}"),
            Self::Threads(e) => write!(f, "compute threads could not be started: {e}"),
        }
    }
}

impl std::error::Error for LoadError {}

macro_rules! from {
    ($($variant:ident($error:ty);)*) => {$(
        impl From<$error> for LoadError {
            fn from(e: $error) -> Self {
                Self::$variant(e)
            }
        }
    )*};
}

from! {
    Gguf(GgufError);
    Directory(DirectoryError);
    Tokenizer(TokenizerError);
    Template(TemplateError);
    Device(DeviceError);
}
