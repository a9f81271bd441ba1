//! Where a model comes from: a GGUF file or a Hugging Face directory, seen alike.

use std::path::Path;

use super::{Architecture, LoadError};
use crate::engine::{
    chat_template::{ChatTemplate, TemplateSources},
    gguf::{Gguf, Metadata, Tensor},
    hf::Directory,
    layers::PairStyle,
    tokenizer::Tokenizer,
};

/// An opened model: its keys and tensors by GGUF's names. Weights are read when they are asked for.
#[derive(Debug)]
pub enum Source {
    Gguf(Gguf),
    Directory(Box<Directory>),
}

impl Source {
    /// Opens the GGUF file, or the directory, at `path`.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        if path.is_dir() {
            return Ok(Self::Directory(Box::new(Directory::open(path)?)));
        }
        Ok(Self::Gguf(Gguf::open(path)?))
    }

    /// The model's keys. A directory has none for the tokenizer; see [`Self::tokenizer`].
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Gguf(gguf) => gguf.metadata(),
            Self::Directory(directory) => directory.metadata(),
        }
    }

    pub fn architecture(&self) -> Result<Architecture, LoadError> {
        let name = self.metadata().str("general.architecture")?;
        Architecture::named(name).ok_or_else(|| LoadError::Architecture(name.into()))
    }

    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        match self {
            Self::Gguf(gguf) => gguf.tensor(name),
            Self::Directory(directory) => directory.tensor(name),
        }
    }

    pub fn tensors(&self) -> Box<dyn Iterator<Item = Tensor<'_>> + '_> {
        match self {
            Self::Gguf(gguf) => Box::new(gguf.tensors()),
            Self::Directory(directory) => Box::new(directory.tensors()),
        }
    }

    /// Values in all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors().map(|tensor| tensor.shape.iter().map(|n| *n as u64).product::<u64>()).sum()
    }

    /// Size of the file, or of all weight files.
    pub fn file_bytes(&self) -> u64 {
        match self {
            Self::Gguf(gguf) => gguf.file_bytes(),
            Self::Directory(directory) => directory.file_bytes(),
        }
    }

    /// How far the loading of the tensors is, 0 to 1; another thread may ask while one loads.
    pub fn read_share(&self) -> f32 {
        match self {
            Self::Gguf(gguf) => gguf.read_share(),
            Self::Directory(directory) => directory.read_share(),
        }
    }

    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        match self {
            Self::Gguf(gguf) => Ok(Tokenizer::from_gguf(gguf.metadata())?),
            Self::Directory(directory) => Ok(directory.tokenizer()?),
        }
    }

    /// The chat template that comes with the model, if there is one; `tokenizer` spells its special tokens.
    pub fn chat_template(&self, tokenizer: &Tokenizer) -> Result<Option<ChatTemplate>, LoadError> {
        let sources = match self {
            Self::Gguf(gguf) => {
                let named = |key: &str| Ok::<_, LoadError>(gguf.metadata().find::<&str>(key)?.map(str::to_owned));
                let tool_use = named("tokenizer.chat_template.tool_use")?;
                let default = named("tokenizer.chat_template")?.or_else(|| tool_use.clone());
                default.map(|default| TemplateSources { default, tool_use })
            }
            Self::Directory(directory) => directory.chat_template()?,
        };
        Ok(sources.map(|sources| ChatTemplate::for_tokenizer(sources, tokenizer)).transpose()?)
    }

    /// How rotary pairs lie in the weights of the llama family: GGUF permutes them so that neighbours are turned
    /// together.
    pub(super) fn llama_pairs(&self) -> PairStyle {
        match self {
            Self::Gguf(_) => PairStyle::Neighbours,
            Self::Directory(_) => Directory::PAIRS,
        }
    }
}

impl From<Gguf> for Source {
    fn from(gguf: Gguf) -> Self {
        Self::Gguf(gguf)
    }
}
