//! `POST /v1/embeddings`: <https://platform.openai.com/docs/api-reference/embeddings>, and `truncate` beside.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{
        encoding::{self, EncodeAsk, INPUTS_MAX, Wanted},
        error::ApiError,
        fields::{Fields, kind, token_list},
        reply,
        state::Api,
    },
    engine::encoder::EncodeInput,
    http::{Reply, Request},
};

/// Dimensions of a vector; more than any model has.
const DIMENSIONS_MAX: i64 = 1 << 20;

/// Answers with a vector for each input.
pub fn embeddings(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let (ask, form) = parse(request.body())?;
    Ok(encoding::start(api, request, ask, move |model, encoded| {
        let embedding = |(index, vector): (usize, Vec<f32>)| Embedding {
            object: "embedding",
            index,
            embedding: match form {
                Form::Numbers => Written::Numbers(vector),
                Form::Base64 => Written::Base64(base64(vector.iter().flat_map(|value| value.to_le_bytes()))),
            },
        };
        reply::written(&Answer {
            object: "list",
            data: encoded.outputs.into_iter().enumerate().map(embedding).collect(),
            model: model.name(),
            usage: Usage { prompt_tokens: encoded.prompt_tokens, total_tokens: encoded.prompt_tokens },
        })
    }))
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Numbers,
    /// Little-endian f32 in base64, which the official clients ask for unless they are told otherwise.
    Base64,
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'a str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Written,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

fn parse(body: &[u8]) -> Result<(EncodeAsk, Form), ApiError> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?;
    let input = fields.take("input");
    let form = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => Form::Numbers,
        Some("base64") => Form::Base64,
        Some(_) => return fields.refuse("encoding_format", "must be float or base64".to_owned()),
    };
    let dimensions = fields.integer("dimensions", 1..=DIMENSIONS_MAX)?.map(|n| n as usize);
    let truncate = fields.flag("truncate")?.unwrap_or(false);
    fields.text("user")?;
    let Some(input) = input else {
        return fields.missing("input", "a text or a list of token ids, or a list of these");
    };
    fields.finish()?;
    let single = |inputs: EncodeInput| (vec![inputs], (|_| "input".to_owned()) as fn(usize) -> String);
    let (inputs, place) = match input {
        Value::String(text) => single(EncodeInput::Text(text)),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            single(EncodeInput::Tokens(token_list(items.into(), "input", usize::MAX)?))
        }
        Value::Array(items) => (read_list(items)?, (|i| format!("input[{i}]")) as fn(usize) -> String),
        other => {
            return Err(ApiError::field("input", format!("expected a string or a list, not {}", kind(&other))));
        }
    };
    Ok((EncodeAsk { model, inputs, wanted: Wanted::Vectors { dimensions }, truncate, place }, form))
}

fn read_list(items: Vec<Value>) -> Result<Vec<EncodeInput>, ApiError> {
    if !(1..=INPUTS_MAX).contains(&items.len()) {
        return Err(ApiError::field("input", format!("{} inputs, 1 to {INPUTS_MAX} are allowed", items.len())));
    }
    let input = |(i, item)| match item {
        Value::String(text) => Ok(EncodeInput::Text(text)),
        Value::Array(_) => token_list(item, &format!("input[{i}]"), usize::MAX).map(EncodeInput::Tokens),
        other => {
            let message = format!("expected a string or a list of token ids, not {}", kind(&other));
            Err(ApiError::field(format!("input[{i}]"), message))
        }
    };
    items.into_iter().enumerate().map(input).collect()
}

/// RFC 4648 §4.
fn base64(bytes: impl Iterator<Item = u8>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = bytes.collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| group.get(i).copied().unwrap_or(0));
        let bits = u32::from_be_bytes([0, a, b, c]);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4648 §10.
    #[test]
    fn base64_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.bytes()), text);
        }
        assert_eq!(base64([0xfb, 0xff, 0xbf].into_iter()), "+/+/");
    }
}
