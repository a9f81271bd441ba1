//! Hugging Face model directories, read as the GGUF files that they would be converted to.
//!
//! `config` turns `config.json` into GGUF's keys, `names` gives every tensor its GGUF name, `safetensors` finds the bytes,
//! and `tokenizer` reads `tokenizer.json` and what belongs to it. One difference to a converted file stays: the query and
//! key weights of the llama family keep their order of rows (see [`Directory::PAIRS`]).
//!
//! A directory is not trusted, as a GGUF file is not; and what is not known in it, a tensor, a setting, a step of the
//! tokenizer, is refused by its name, since to leave it out would quietly change what the model says.

mod config;
mod encoder;
mod error;
mod json;
mod names;
mod rope;
mod safetensors;
mod sentence;
mod tokenizer;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

pub use error::DirectoryError;
use json::Object;
use safetensors::{Place, Shards};
use serde_json::{Map, Value};

use super::{
    chat_template::TemplateSources,
    gguf::{Gguf, GgufWriter, Metadata, Tensor, TensorType},
    layers::PairStyle,
    tokenizer::Tokenizer,
};

/// Larger configurations make no sense; the largest have some ten thousand bytes.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// An open model directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// What the converted file would have but for the weights: keys, and the tensors that are computed, which are small.
    head: Gguf,
    shards: Shards,
    /// GGUF's names, and where the tensors are.
    tensors: BTreeMap<String, Place>,
    config: Object,
}

impl Directory {
    /// How rotary pairs lie in the llama family's weights, which GGUF permutes.
    pub const PAIRS: PairStyle = PairStyle::Halves;

    /// Reads the configuration and the heads of all weight files.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let config = Object::read(path, "config.json", CONFIG_BYTES_MAX)?
            .ok_or_else(|| DirectoryError::missing("config.json", "is this a model's directory?"))?;
        let family = config::Family::of(&config)?;
        let shards = Shards::open(path)?;
        let tensors = family.tensors(&config, &shards)?;

        let mut computed = family.rope_factors(&config)?;
        for (name, place) in tensors.iter().filter(|(name, _)| family.adds_one_to_norms() && is_norm(name)) {
            computed.push((name.clone(), shards.floats(place)?.iter().map(|w| w + 1.0).collect()));
        }
        let computed: Vec<(String, usize, Vec<u8>)> = computed
            .into_iter()
            .map(|(name, values)| (name, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let mut head = GgufWriter::new();
        family.write_keys(&config, &mut head)?;
        sentence::write_keys(path, family.gguf(), family.is_encoder(), &mut head)?;
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            head.str("general.name", name);
        }
        for (name, len, bytes) in &computed {
            head.tensor(name, TensorType::F32, &[*len], bytes);
        }
        let head = Gguf::from_bytes(head.to_bytes()).map_err(|e| DirectoryError::invalid("config.json", e))?;
        Ok(Self { path: path.into(), head, shards, tensors, config })
    }

    /// What a converted file's keys would say of the model; those of the tokenizer are not among them.
    pub fn metadata(&self) -> &Metadata {
        self.head.metadata()
    }

    /// `config.json`.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config.map
    }

    /// The tensor that GGUF calls `name`.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.head.tensor(name).or_else(|| {
            let (name, place) = self.tensors.get_key_value(name)?;
            Some(self.shards.tensor(name, place))
        })
    }

    /// All tensors, by GGUF's names.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        let stored = self.tensors.iter().filter(|(name, _)| self.head.tensor(name).is_none());
        self.head.tensors().chain(stored.map(|(name, place)| self.shards.tensor(name, place)))
    }

    /// Of all weight files.
    pub fn file_bytes(&self) -> u64 {
        self.shards.bytes()
    }

    /// How far the loading of the tensors is, 0 to 1.
    pub fn read_share(&self) -> f32 {
        (self.shards.read_bytes() as f32 / self.shards.bytes().max(1) as f32).min(1.0)
    }

    /// The tokenizer of `tokenizer.json`, with the special tokens that the other files name.
    pub fn tokenizer(&self) -> Result<Tokenizer, DirectoryError> {
        tokenizer::read(&self.path, &self.config)
    }

    /// The sources of the chat templates, if there are some: `chat_template.jinja`, `chat_template.json`, or in
    /// `tokenizer_config.json`, as transformers looks for it.
    pub fn chat_template(&self) -> Result<Option<TemplateSources>, DirectoryError> {
        match fs::read_to_string(self.path.join("chat_template.jinja")) {
            Ok(source) => return Ok(Some(source.into())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(DirectoryError::invalid("chat_template.jinja", e)),
        }
        for file in ["chat_template.json", "tokenizer_config.json"] {
            let Some(object) = Object::read(&self.path, file, CONFIG_BYTES_MAX)? else { continue };
            if let Some(sources) = object.chat_template()? {
                return Ok(Some(sources));
            }
        }
        Ok(None)
    }
}

/// Whether a tensor, by its GGUF name, is the weight of an RMSNorm.
fn is_norm(name: &str) -> bool {
    name.ends_with("norm.weight")
}
