//! What a caller asks of an encoder, and what it is told.

use std::{fmt, time::Duration};

use super::input::EncodeInput;
use crate::engine::{error::RequestError, request::GenerateRequest};

/// Some inputs, which are encoded each by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodeRequest {
    /// At least one.
    pub inputs: Vec<EncodeInput>,
    /// Whether inputs that are too long are cut, or refused.
    pub truncate: bool,
    /// Give up when nothing of it has been computed by then.
    pub queue_timeout: Duration,
}

impl EncodeRequest {
    pub fn new(inputs: Vec<EncodeInput>) -> Self {
        Self { inputs, truncate: false, queue_timeout: GenerateRequest::QUEUE_TIMEOUT }
    }
}

/// What the inputs became.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One for each input, in their order: a vector, or one number where the model gives scores.
    pub outputs: Vec<Vec<f32>>,
    /// Of all inputs, with the model's own tokens and without those that were cut.
    pub prompt_tokens: usize,
}

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodeError {
    /// The input that is to blame, if one is.
    pub input: Option<usize>,
    pub error: RequestError,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.input {
            Some(input) => write!(f, "input {input}: {}", self.error),
            None => write!(f, "{}", self.error),
        }
    }
}

impl std::error::Error for EncodeError {}

impl From<RequestError> for EncodeError {
    fn from(error: RequestError) -> Self {
        Self { input: None, error }
    }
}

/// Cuts a vector to its first values and gives it the length 1 again, as models for that are trained (Kusupati et al.,
/// Matryoshka, 2022).
pub fn shorten(vector: &mut Vec<f32>, dimensions: usize) {
    vector.truncate(dimensions);
    super::normalize(vector);
}
