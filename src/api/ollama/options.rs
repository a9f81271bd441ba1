//! `options`: parameters of the sampler, and of Ollama's runner, most of which mean nothing here.

use crate::{
    api::{error::ApiError, fields::Fields, sampling},
    engine::request::GenerateRequest,
};

const STOP_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;
/// How a runner works, which here is the server's affair, and what Ollama itself has given up.
const IGNORED: [&str; 17] = [
    "draft_num_predict",
    "embedding_only",
    "f16_kv",
    "logits_all",
    "low_vram",
    "main_gpu",
    "num_batch",
    "num_gpu",
    "num_keep",
    "num_thread",
    "numa",
    "penalize_newline",
    "tfs_z",
    "use_imagegen_runner",
    "use_mlock",
    "use_mmap",
    "vocab_only",
];

/// What else options say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The context that the client counts on, in tokens.
    pub context: Option<usize>,
    /// Names of options that were given and change nothing.
    pub ignored: Vec<&'static str>,
}

/// Reads `options` into `request`, beside Ollama's defaults.
pub fn read(fields: &mut Fields, request: &mut GenerateRequest) -> Result<Options, ApiError> {
    let sampling = &mut request.sampling;
    (sampling.temperature, sampling.top_k, sampling.top_p) = (0.8, 40, 0.9);
    (sampling.repetition_penalty, sampling.penalty_tokens) = (1.1, Some(64));
    // The answer may be as long as the context allows.
    request.max_tokens = usize::MAX;
    let Some(options) = fields.take("options") else { return Ok(Options::default()) };
    let mut fields = Fields::inside(options, "options")?;
    sampling::read(&mut fields, sampling)?;
    // −1 is "any".
    sampling.seed = sampling.seed.filter(|seed| *seed != u64::MAX);
    if let Some(n) = fields.integer("num_predict", -2..=1_000_000_000)? {
        // −1 and −2 are "as many as there is room for".
        request.max_tokens = usize::try_from(n).unwrap_or(usize::MAX);
    }
    request.stop = fields.texts("stop", STOP_MAX, STOP_BYTES_MAX)?;
    let context = fields.integer("num_ctx", 0..=1_000_000_000)?.filter(|n| *n > 0).map(|n| n as usize);
    let mut ignored = Vec::new();
    for name in IGNORED {
        match fields.take(name) {
            None => {}
            Some(value) if value.is_number() || value.is_boolean() => ignored.push(name),
            Some(_) => return fields.refuse(name, "expected a number, true or false".to_owned()),
        }
    }
    fields.finish()?;
    Ok(Options { context, ignored })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::Prompt;

    fn parse(options: &str) -> Result<(GenerateRequest, Options), ApiError> {
        let mut fields = Fields::parse(format!("{{\"options\":{options}}}").as_bytes())?;
        let mut request = GenerateRequest::new(Prompt::Tokens(Vec::new()));
        let options = read(&mut fields, &mut request)?;
        Ok((request, options))
    }

    #[test]
    fn defaults_are_ollamas() {
        let sampling = parse("null").unwrap().0.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.8, 40, 0.9));
        assert_eq!((sampling.repetition_penalty, sampling.penalty_tokens, sampling.seed), (1.1, Some(64), None));
        assert_eq!(parse("{}").unwrap().0.max_tokens, usize::MAX);
    }

    #[test]
    fn options_arrive_or_are_named() {
        let (request, options) = parse(
            r#"{"num_predict":7,"temperature":0,"seed":-1,"stop":"x","num_ctx":64,"num_thread":8,"use_mmap":true,
                "mirostat":0,"typical_p":0.5,"repeat_last_n":-1}"#,
        )
        .unwrap();
        assert_eq!((request.max_tokens, &*request.stop[0], request.sampling.seed), (7, "x", None));
        assert_eq!((request.sampling.typical_p, request.sampling.penalty_tokens), (0.5, None));
        assert_eq!(options, Options { context: Some(64), ignored: vec!["num_thread", "use_mmap"] });
        assert_eq!(parse(r#"{"num_predict":-2}"#).unwrap().0.max_tokens, usize::MAX);
        for (json, param) in [
            ("1", "options"),
            (r#"{"num_predict":-3}"#, "options.num_predict"),
            (r#"{"num_gpu":"all"}"#, "options.num_gpu"),
            (r#"{"temprature":1}"#, "options.temprature"),
            (r#"{"num_ctx":-1}"#, "options.num_ctx"),
        ] {
            assert_eq!(parse(json).unwrap_err().param(), Some(param), "{json}");
        }
    }
}
