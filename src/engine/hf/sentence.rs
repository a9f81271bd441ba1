//! What sentence-transformers writes beside a model: how texts are cut, pooled and normalised
//! (<https://sbert.net/docs/sentence_transformer/usage/custom_models.html>).

use std::path::Path;

use serde_json::Value;

use super::{
    CONFIG_BYTES_MAX,
    error::DirectoryError,
    json::{self, Object},
};
use crate::engine::gguf::GgufWriter;

const MODULES: &str = "modules.json";

/// Writes GGUF's `pooling_type` and what it has no keys for. Without `modules.json` a plain encoder is `pooled` by the
/// mean and left as it is, as the library does; a decoder is no model of sentences.
pub(super) fn write_keys(
    directory: &Path,
    architecture: &str,
    pooled: bool,
    file: &mut GgufWriter,
) -> Result<(), DirectoryError> {
    let key = format!("{architecture}.pooling_type");
    let Some(modules) = json::read(directory, MODULES, CONFIG_BYTES_MAX)? else {
        if pooled {
            file.u32(&key, MEAN).bool("encoder.normalize", false);
        }
        return Ok(());
    };
    let modules: Vec<Value> = serde_json::from_slice(&modules).map_err(|e| DirectoryError::invalid(MODULES, e))?;
    let (mut pooling, mut normalize) = (MEAN, false);
    for module in &modules {
        let text = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("type").rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => pooling = self::pooling(directory, text("path"))?,
            "Normalize" => normalize = true,
            other => return Err(DirectoryError::unsupported(MODULES, format!("module {other:?}"))),
        }
    }
    file.u32(&key, pooling).bool("encoder.normalize", normalize);
    if let Some(settings) = Object::read(directory, "sentence_bert_config.json", CONFIG_BYTES_MAX)? {
        if let Some(length) = settings.u32("max_seq_length")? {
            file.u32("encoder.input_length", length);
        }
        file.bool("encoder.lowercase", settings.bool("do_lower_case")?.unwrap_or(false));
    }
    Ok(())
}

/// GGUF's numbers of the ways to pool.
const MEAN: u32 = 1;
const CLS: u32 = 2;
const LAST: u32 = 3;

fn pooling(directory: &Path, path: &str) -> Result<u32, DirectoryError> {
    let plain = !path.is_empty() && path.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !plain {
        return Err(DirectoryError::invalid(MODULES, format!("the module's path {path:?} is not a folder's name")));
    }
    let config = Object::read(&directory.join(path), "config.json", CONFIG_BYTES_MAX)?
        .ok_or_else(|| DirectoryError::missing(format!("{path}/config.json"), "modules.json asks for it"))?;
    let mut modes = Vec::new();
    if config.map.contains_key("pooling_mode") {
        modes.push(config.str("pooling_mode")?.unwrap_or_default().to_owned());
    } else {
        for (name, value) in &config.map {
            let mode = name.strip_prefix("pooling_mode_").filter(|_| value == &Value::Bool(true));
            modes.extend(mode.map(|mode| mode.trim_end_matches("_tokens").trim_end_matches("_token").to_owned()));
        }
    }
    match &modes.iter().map(|mode| &**mode).collect::<Vec<_>>()[..] {
        [] | ["mean"] => Ok(MEAN),
        ["cls"] => Ok(CLS),
        ["lasttoken"] => Ok(LAST),
        other => Err(config.unsupported("pooling_mode", format!("{other:?}"))),
    }
}
