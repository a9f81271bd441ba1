//! Why a model directory can't be used.

use std::fmt;

/// The text says which file, what is wrong and what to do; the caller adds the directory's path.
#[derive(Debug)]
pub enum DirectoryError {
    /// A file that a model can't do without.
    Missing { file: String, hint: &'static str },
    /// A file that can't be read, is broken, or says something that makes no sense.
    Invalid { file: String, why: String },
    /// What `config.json` calls an architecture that is not known.
    Architecture { name: String, known: Vec<&'static str> },
    /// Something that is made well, but that this engine does not do: `what` names it.
    Unsupported { file: String, what: String },
}

impl DirectoryError {
    pub(super) fn missing(file: impl Into<String>, hint: &'static str) -> Self {
        Self::Missing { file: file.into(), hint }
    }

    pub(super) fn invalid(file: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Invalid { file: file.into(), why: why.to_string() }
    }

    pub(super) fn unsupported(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported { file: file.into(), what: what.into() }
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { file, hint } => write!(f, "the directory has no {file}: {hint}"),
            Self::Invalid { file, why } => write!(f, "{file}: {why}"),
            Self::Architecture { name, known } => {
                write!(f, "config.json: architecture {name:?} is not supported; supported are {}", known.join(", "))
            }
            Self::Unsupported { file, what } => write!(f, "{file}: {what} is not supported"),
        }
    }
}

impl std::error::Error for DirectoryError {}
