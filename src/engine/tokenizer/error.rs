//! Why no tokenizer can be made from a file.

use std::fmt;

use crate::engine::gguf::GgufError;

#[derive(Debug)]
pub enum TokenizerError {
    /// A key is missing or of the wrong type.
    Gguf(GgufError),
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
    UnknownModel(String),
    /// `tokenizer.ggml.pre` is missing from a byte-level BPE vocabulary.
    MissingSplit,
    /// `tokenizer.ggml.pre` names rules that are not implemented.
    UnknownSplit(String),
    /// The tables do not fit together.
    Invalid(String),
    /// `tokenizer.json` is no JSON of the expected form.
    Json(String),
    /// `tokenizer.json` asks for something that is not implemented, named here.
    Unsupported(String),
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf(e) => write!(f, "{e}"),
            Self::UnknownModel(name) => {
                write!(f, "tokenizer.ggml.model {name:?} is not supported (gpt2, llama, bert and gemma4 are)")
            }
            Self::MissingSplit => write!(
                f,
                "the file does not name its text splitting rules (tokenizer.ggml.pre), as files made before May 2024 \
                 don't; convert the model again: a guess would quietly change what the model reads"
            ),
            Self::UnknownSplit(name) => {
                write!(f, "tokenizer.ggml.pre {name:?} is not known; a guess would quietly change what the model reads")
            }
            Self::Json(why) => write!(f, "{why}"),
            Self::Unsupported(what) => {
                write!(f, "{what} is not supported; a guess would quietly change what the model reads")
            }
            Self::Invalid(why) => write!(f, "the vocabulary is broken: {why}"),
        }
    }
}

impl std::error::Error for TokenizerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gguf(e) => Some(e),
            _ => None,
        }
    }
}

impl From<GgufError> for TokenizerError {
    fn from(e: GgufError) -> Self {
        Self::Gguf(e)
    }
}
