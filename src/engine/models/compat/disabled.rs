//! A build without candle-transformers.

use super::Unbatched;
use crate::engine::models::{LoadError, LoadOptions, Model, Source};

pub(in crate::engine::models) fn load(
    architecture: Unbatched,
    _source: &Source,
    _options: LoadOptions,
) -> Result<Box<dyn Model>, LoadError> {
    Err(LoadError::NeedsCompat(architecture.name()))
}
