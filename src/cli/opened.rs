//! A model's files, opened and understood but for the weights: what it is, and what it will take.

use std::{
    collections::HashMap,
    fmt, fs,
    time::{Instant, SystemTime},
};

use crate::{
    api::models::{Facts, Kind as ModelKind},
    config::{self, ModelConfig, ModelSource, available_bytes, show_bytes},
    demo,
    engine::{
        chat_template::ChatTemplate,
        encoder::{EncoderSpec, inspect as inspect_encoder, is_encoder},
        gguf::{Gguf, Tensor, TensorType},
        kernels::matmul::Kind,
        models::{self, LoadError, Source, Spec, layout},
        tokenizer::Tokenizer,
    },
};

use super::{
    Failure, encoder,
    fingerprint::Fingerprint,
    load::{Summary, count, refuse, running_max},
    room::Room,
};

/// A model file that has been opened and understood, but for its weights.
pub struct Opened {
    pub source: Source,
    pub design: Design,
    pub tokenizer: Tokenizer,
    pub template: Option<ChatTemplate>,
    pub fingerprint: Fingerprint,
    pub quantize: Option<models::Quantize>,
    pub started: Instant,
}

/// What a model computes.
pub enum Design {
    /// Text, token by token.
    Decoder(Spec),
    /// Vectors or scores.
    Encoder(EncoderSpec),
}

impl Design {
    pub fn architecture(&self) -> &str {
        match self {
            Self::Decoder(spec) => &spec.architecture,
            Self::Encoder(spec) => &spec.architecture,
        }
    }
}

impl Opened {
    /// About the memory that [`read`] takes: packed weights, and the most that is held while one more is packed.
    pub fn memory_needed(&self) -> u64 {
        let packed: u64 = self.kept().map(|(dtype, bytes)| Kind::packed_bytes(dtype, bytes)).sum();
        let in_work = self.source.tensors().map(|tensor| self.in_work(&tensor)).max();
        packed + in_work.unwrap_or(0)
    }

    /// What is held until a tensor is packed: its bytes as they were read, beside them what they are quantised to, and for
    /// an up its gate, which waits to be packed with it.
    fn in_work(&self, tensor: &Tensor) -> u64 {
        let (dtype, bytes) = self.kept_of(tensor);
        let quantised = if dtype == tensor.dtype { 0 } else { bytes };
        let gate = layout::gate_of(tensor.name).and_then(|gate| self.source.tensor(&gate));
        tensor.bytes as u64 + quantised + gate.map_or(0, |gate| self.kept_of(&gate).1)
    }

    /// What is known of the model before it is loaded.
    pub fn facts(&self, model: &ModelConfig) -> Facts {
        let (kind, context, cache) = match &self.design {
            Design::Decoder(spec) => (ModelKind::Decoder, spec.context, Room::least(model, spec, running_max(model))),
            Design::Encoder(spec) => (ModelKind::Encoder, spec.input_tokens_max, 0),
        };
        Facts {
            kind,
            architecture: self.design.architecture().to_owned(),
            parameters: self.source.parameters(),
            file_bytes: self.source.file_bytes(),
            context: model.context.unwrap_or(context),
            memory_bytes_min: self.memory_needed() + cache,
            created: self.fingerprint.written().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// The type that most of the weights are kept as.
    pub fn weights_type(&self) -> String {
        let mut sums = HashMap::new();
        for (dtype, bytes) in self.kept() {
            *sums.entry(dtype).or_insert(0) += bytes;
        }
        let most = sums.into_iter().max_by_key(|(dtype, bytes)| (*bytes, dtype.id()));
        most.map_or(String::new(), |(dtype, _)| dtype.to_string())
    }

    /// What each tensor is kept as, and the bytes of that.
    fn kept(&self) -> impl Iterator<Item = (TensorType, u64)> {
        self.source.tensors().map(|tensor| self.kept_of(&tensor))
    }

    fn kept_of(&self, tensor: &Tensor) -> (TensorType, u64) {
        let (dtype, bytes) = self.quantize.map_or((tensor.dtype, tensor.bytes), |quantize| quantize.kept(tensor));
        (dtype, bytes as u64)
    }
}

/// What a model file is, without loading its weights.
pub fn inspect(model: &ModelConfig) -> Result<Summary, Failure> {
    let Opened { source, design, tokenizer, template, .. } = open(model)?;
    let mut summary = vec![
        ("architecture", design.architecture().to_owned()),
        ("weights", format!("{} parameters, {}", count(source.parameters()), show_bytes(source.file_bytes()))),
    ];
    match &design {
        Design::Decoder(spec) => {
            Room::plan(model, spec, running_max(model), available_bytes()).map_err(|error| refuse(model, error))?;
            summary.push(("context", format!("{} tokens", spec.context)));
            summary.push(("chat", if template.is_some() { "has a template" } else { "has no template" }.to_owned()));
        }
        Design::Encoder(spec) => {
            encoder::check(model, spec)?;
            summary.push(("makes", encoder::makes(spec)));
        }
    }
    summary.insert(3, ("vocabulary", format!("{} tokens", tokenizer.vocabulary())));
    Ok(summary)
}

/// Opens a model's file and understands all of it but the weights.
pub fn open(model: &ModelConfig) -> Result<Opened, Failure> {
    let (started, fingerprint) = (Instant::now(), Fingerprint::of(model));
    let source = match &model.source {
        ModelSource::Demo => Gguf::from_static(demo::MODEL).map(Source::from).map_err(LoadError::from),
        ModelSource::File(path) => Source::open(path),
    }
    .map_err(|error| refuse(model, error))?;
    // Asked first: what can't be served at all needs no look at its tokenizer.
    let design = match is_encoder(&source) {
        true => inspect_encoder(&source).map(Design::Encoder),
        false => models::inspect(&source).map(Design::Decoder),
    }
    .map_err(|error| refuse(model, error))?;
    let tokenizer = source.tokenizer().map_err(|error| refuse(model, error))?;
    let template = match &model.template {
        None => source.chat_template(&tokenizer).map_err(|error| refuse(model, error))?,
        Some(path) => {
            let refuse = |error: &dyn fmt::Display| Failure::Config(format!("{}: {error}", path.display()));
            let text = fs::read_to_string(path).map_err(|error| refuse(&error))?;
            Some(ChatTemplate::for_tokenizer(&text, &tokenizer).map_err(|error| refuse(&error))?)
        }
    };
    let quantize = model.quantize.map(|wanted| match wanted {
        config::Quantize::Q8_0 => models::Quantize::Q8_0,
        config::Quantize::Q4K => models::Quantize::Q4K,
    });
    Ok(Opened { source, design, tokenizer, template, fingerprint, quantize, started })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gguf::GgufWriter;

    /// Sixteen-bit matrices of 256 inputs, with a norm and a matrix that is quantised already.
    fn opened(vocabulary: usize, quantize: Option<models::Quantize>) -> Opened {
        let bytes = vec![0; 2 * 256 * vocabulary.max(96)];
        let mut file = GgufWriter::new();
        let mut matrix = |name, dtype, rows: usize, bytes_per_row| {
            file.tensor(name, dtype, &[rows, 256], &bytes[..rows * bytes_per_row]);
        };
        matrix("token_embd.weight", TensorType::F16, vocabulary, 512);
        matrix("blk.0.ffn_gate.weight", TensorType::F16, 96, 512);
        matrix("blk.0.ffn_up.weight", TensorType::F16, 96, 512);
        matrix("blk.0.attn_q.weight", TensorType::Q8_0, 32, 272);
        file.tensor("output_norm.weight", TensorType::F32, &[256], &bytes[..1024]);
        let source = Gguf::from_bytes(file.to_bytes()).unwrap().into();
        Opened { source, quantize, ..open(&ModelConfig::demo()).unwrap() }
    }

    #[test]
    fn memory_while_loading() {
        let check = |vocabulary, quantize, packed: [u64; 3], in_work: u64, weights_type| {
            let opened = opened(vocabulary, quantize);
            // The norm's floats and the 8 bits stay as they are.
            let others = 1024 + 8704;
            assert_eq!(opened.memory_needed(), packed.iter().sum::<u64>() + others + in_work, "{quantize:?}");
            assert_eq!(opened.weights_type(), weights_type, "{quantize:?}");
        };
        let (q8_0, q4_k) = (Some(models::Quantize::Q8_0), Some(models::Quantize::Q4K));
        // Gate and up are packed together: both are held, the up in both forms if it is quantised.
        check(64, None, [32_768, 49_152, 49_152], 2 * 49_152, "f16");
        check(64, q8_0, [17_408, 26_112, 26_112], 26_112 + 49_152 + 26_112, "q8_0");
        // Packed, blocks of four bits take 2,368 bytes where a file has 2,304, those of the table 3,392 and 3,360.
        check(64, q4_k, [13_568, 14_208, 14_208], 13_824 + 49_152 + 13_824, "q4_K");
        // A large table outweighs them.
        check(640, None, [327_680, 49_152, 49_152], 327_680, "f16");
        check(640, q8_0, [174_080, 26_112, 26_112], 327_680 + 174_080, "q8_0");
        check(640, q4_k, [135_680, 14_208, 14_208], 327_680 + 134_400, "q6_K");
    }
}
