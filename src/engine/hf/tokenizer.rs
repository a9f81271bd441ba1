//! The tokenizer of a directory: `tokenizer.json`, and the special tokens that three other files name.

use std::path::Path;

use super::{
    CONFIG_BYTES_MAX,
    error::DirectoryError,
    json::{self, Object},
};
use crate::engine::tokenizer::{NamedTokens, Tokenizer};

/// The largest have some thirty million bytes.
const TOKENIZER_BYTES_MAX: u64 = 512 << 20;
const FILE: &str = "tokenizer.json";

pub(super) fn read(directory: &Path, config: &Object) -> Result<Tokenizer, DirectoryError> {
    let hint = "other forms (tokenizer.model) are not read; transformers converts them";
    let tokenizer = json::read(directory, FILE, TOKENIZER_BYTES_MAX)?;
    let tokenizer = tokenizer.ok_or_else(|| DirectoryError::missing(FILE, hint))?;
    let settings = Object::read(directory, "tokenizer_config.json", CONFIG_BYTES_MAX)?;
    let generation = Object::read(directory, "generation_config.json", CONFIG_BYTES_MAX)?;

    let mut named = NamedTokens::default();
    if let Some(settings) = &settings {
        named.bos = settings.token("bos_token")?;
        named.eos = settings.token("eos_token")?;
        named.adds_bos = settings.bool("add_bos_token")?;
        named.adds_eos = settings.bool("add_eos_token")?;
    }
    for object in [Some(config), generation.as_ref()].into_iter().flatten() {
        named.ends.extend(object.u32s("eos_token_id")?);
    }
    Tokenizer::from_json(&tokenizer, &named).map_err(|e| DirectoryError::invalid(FILE, e))
}
