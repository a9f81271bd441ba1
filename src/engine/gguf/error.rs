//! What can be wrong with a model file, in one line each.

use std::{fmt, io};

/// Why a GGUF file can't be used. The text says what and where; the caller adds the path.
#[derive(Debug)]
pub enum GgufError {
    /// Opening or reading failed.
    Io(io::Error),
    /// A directory, a pipe, a device.
    NotAFile,
    /// Another format, or none: what the first bytes look like.
    NotGguf(&'static str),
    /// A version this reader does not know.
    Version(u32),
    /// The file ends inside `what`, which begins at byte `at` and needs `needed` bytes where `left` are left.
    Truncated { what: String, at: usize, needed: u64, left: usize },
    /// `what` is there, but makes no sense.
    Invalid { what: String, why: String },
    /// A key the model needs is not in the file.
    MissingKey(String),
    /// A key has a value of another type, or out of range.
    WrongType { key: String, wanted: &'static str, found: String },
}

impl GgufError {
    pub(super) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "{e}"),
            Self::NotAFile => write!(f, "not a regular file"),
            Self::NotGguf(found) => write!(f, "not a GGUF file: {found}"),
            Self::Version(v) => write!(f, "GGUF version {v} is not supported (2 and 3 are); convert the file again"),
            Self::Truncated { what, at, needed, left } => {
                write!(f, "the file is cut short: {what} at byte {at} needs {needed} bytes, {left} are left")
            }
            Self::Invalid { what, why } => write!(f, "{what}: {why}"),
            Self::MissingKey(key) => write!(f, "the file has no key {key:?}"),
            Self::WrongType { key, wanted, found } => write!(f, "key {key:?} must be {wanted}, but is {found}"),
        }
    }
}

impl std::error::Error for GgufError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl From<io::Error> for GgufError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}
