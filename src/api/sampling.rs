//! The sampler's parameters as requests name them: OpenAI's, and for the rest llama.cpp's, which most clients know.

use serde_json::Value;

use crate::engine::request::{Dry, DynamicTemperature, Filter, Mirostat, MirostatVersion, SamplingParams, Xtc};

use super::{
    error::ApiError,
    fields::{Fields, kind},
};

/// Tokens with a bias in one request.
const BIASES_MAX: usize = 1024;
/// Tokens that penalties look back on; more than any context.
const LAST_TOKENS_MAX: i64 = 1 << 24;
const BREAKERS_MAX: usize = 32;
const BREAKER_BYTES_MAX: usize = 64;

/// Reads every parameter that a request may have into `params`, which holds what is meant without them.
pub fn read(fields: &mut Fields, params: &mut SamplingParams) -> Result<(), ApiError> {
    read_common(fields, params)?;
    read_filters(fields, params)?;
    read_mirostat(fields, params)?;
    read_dry(fields, params)
}

/// What OpenAI has.
fn read_common(fields: &mut Fields, params: &mut SamplingParams) -> Result<(), ApiError> {
    set(&mut params.temperature, fields.number("temperature", 0.0..=2.0)?);
    set(&mut params.top_p, fields.number("top_p", 0.0..=1.0)?);
    set(&mut params.presence_penalty, fields.number("presence_penalty", -2.0..=2.0)?);
    set(&mut params.frequency_penalty, fields.number("frequency_penalty", -2.0..=2.0)?);
    if let Some(seed) = fields.seed("seed")? {
        params.seed = Some(seed);
    }
    if let Some(bias) = fields.take("logit_bias") {
        params.logit_bias = read_bias(fields, bias)?;
    }
    Ok(())
}

/// What others have.
fn read_filters(fields: &mut Fields, params: &mut SamplingParams) -> Result<(), ApiError> {
    if let Some(k) = fields.integer("top_k", -1..=1_000_000)? {
        // −1 is "all" to some clients.
        params.top_k = k.max(0) as u32;
    }
    set(&mut params.min_p, fields.number("min_p", 0.0..=1.0)?);
    set(&mut params.typical_p, fields.number("typical_p", 0.0..=1.0)?);
    set(&mut params.top_n_sigma, fields.number("top_n_sigma", -1.0..=100.0)?.map(|n| n.max(0.0)));
    for name in ["repetition_penalty", "repeat_penalty"] {
        set(&mut params.repetition_penalty, fields.number(name, 0.1..=10.0)?);
    }
    if let Some(last) = fields.integer("repeat_last_n", -1..=LAST_TOKENS_MAX)? {
        params.penalty_tokens = usize::try_from(last).ok();
    }
    let range = fields.number("dynatemp_range", 0.0..=2.0)?;
    let exponent = fields.number("dynatemp_exponent", 0.0..=100.0)?.unwrap_or(1.0);
    params.dynamic_temperature = range.filter(|range| *range > 0.0).map(|range| DynamicTemperature { range, exponent });
    let probability = fields.number("xtc_probability", 0.0..=1.0)?;
    let threshold = fields.number("xtc_threshold", 0.0..=1.0)?.unwrap_or(0.1);
    params.xtc = probability.filter(|chance| *chance > 0.0).map(|probability| Xtc { probability, threshold });
    if let Some(names) = fields.take("samplers") {
        params.order = Some(read_order(fields, names)?);
    }
    Ok(())
}

fn read_mirostat(fields: &mut Fields, params: &mut SamplingParams) -> Result<(), ApiError> {
    let version = fields.integer("mirostat", 0..=2)?;
    let tau = fields.number("mirostat_tau", 0.0..=100.0)?.unwrap_or(5.0);
    let eta = fields.number("mirostat_eta", 0.0..=1.0)?.unwrap_or(0.1);
    params.mirostat = match version {
        Some(1) => Some(Mirostat { version: MirostatVersion::First, tau, eta }),
        Some(2) => Some(Mirostat { version: MirostatVersion::Second, tau, eta }),
        _ => None,
    };
    Ok(())
}

fn read_dry(fields: &mut Fields, params: &mut SamplingParams) -> Result<(), ApiError> {
    let multiplier = fields.number("dry_multiplier", 0.0..=100.0)?;
    let base = fields.number("dry_base", 1.0..=100.0)?.unwrap_or(1.75);
    let allowed_length = fields.integer("dry_allowed_length", 0..=LAST_TOKENS_MAX)?.unwrap_or(2) as usize;
    let last_tokens = fields.integer("dry_penalty_last_n", -1..=LAST_TOKENS_MAX)?;
    let breakers = fields.texts("dry_sequence_breakers", BREAKERS_MAX, BREAKER_BYTES_MAX)?;
    let breakers = match breakers.is_empty() {
        true => ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        false => breakers,
    };
    let last_tokens = last_tokens.and_then(|last| usize::try_from(last).ok());
    params.dry = multiplier.filter(|multiplier| *multiplier > 0.0).map(|multiplier| Dry {
        multiplier,
        base,
        allowed_length,
        breakers,
        last_tokens,
    });
    Ok(())
}

fn set(parameter: &mut f32, given: Option<f32>) {
    if let Some(given) = given {
        *parameter = given;
    }
}

/// `{"15043": -100}`, or `[[15043, -100], [2, false]]`, where false bans a token.
fn read_bias(fields: &Fields, value: Value) -> Result<Vec<(u32, f32)>, ApiError> {
    let pairs: Vec<(Value, Value)> = match value {
        Value::Object(map) => map.into_iter().map(|(token, bias)| (Value::String(token), bias)).collect(),
        Value::Array(items) => {
            let pair = |item| match item {
                Value::Array(pair) => <[Value; 2]>::try_from(pair).ok().map(|[token, bias]| (token, bias)),
                _ => None,
            };
            match items.into_iter().map(pair).collect() {
                Some(pairs) => pairs,
                None => return fields.refuse("logit_bias", "expected pairs of a token id and a bias".to_owned()),
            }
        }
        other => {
            let message = format!("expected an object of token ids and biases, not {}", kind(&other));
            return fields.refuse("logit_bias", message);
        }
    };
    if pairs.len() > BIASES_MAX {
        return fields.refuse("logit_bias", format!("{} tokens, {BIASES_MAX} are allowed", pairs.len()));
    }
    let mut biases = Vec::with_capacity(pairs.len());
    for (token, bias) in pairs {
        let id = match &token {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64().and_then(|id| u32::try_from(id).ok()),
        };
        let bias = match &bias {
            Value::Bool(false) => Some(-100.0),
            number => number.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)),
        };
        match (id, bias) {
            (Some(id), Some(bias)) => biases.push((id, bias as f32)),
            (None, _) => return fields.refuse("logit_bias", "a key is not a token id".to_owned()),
            (Some(id), None) => {
                return fields.refuse(&format!("logit_bias.{id}"), "must be from -100 to 100".to_owned());
            }
        }
    }
    Ok(biases)
}

/// The filters by llama.cpp's names.
pub const FILTERS: [(&str, Filter); 10] = [
    ("penalties", Filter::Penalties),
    ("dry", Filter::Dry),
    ("top_n_sigma", Filter::TopNSigma),
    ("top_k", Filter::TopK),
    ("typ_p", Filter::Typical),
    ("typical_p", Filter::Typical),
    ("top_p", Filter::TopP),
    ("min_p", Filter::MinP),
    ("xtc", Filter::Xtc),
    ("temperature", Filter::Temperature),
];

fn read_order(fields: &Fields, names: Value) -> Result<Vec<Filter>, ApiError> {
    let Value::Array(names) = names else {
        return fields.refuse("samplers", format!("expected a list of names, not {}", kind(&names)));
    };
    let mut order = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let found = FILTERS.iter().find(|(known, _)| name.as_str() == Some(known));
        match found {
            Some((_, filter)) if !order.contains(filter) => order.push(*filter),
            Some(_) => return fields.refuse(&format!("samplers[{i}]"), "named twice".to_owned()),
            None => {
                let known = FILTERS.map(|(name, _)| name).join(", ");
                return fields.refuse(&format!("samplers[{i}]"), format!("expected one of {known}"));
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<SamplingParams, ApiError> {
        let mut fields = Fields::parse(body.as_bytes())?;
        let mut params = SamplingParams::default();
        read(&mut fields, &mut params)?;
        fields.finish()?;
        Ok(params)
    }

    #[test]
    fn without_fields_nothing_changes() {
        assert_eq!(parse("{}").unwrap(), SamplingParams::default());
        // Companions of what is off.
        assert_eq!(
            parse(r#"{"mirostat":0,"mirostat_tau":3,"xtc_threshold":0.2,"dry_base":2}"#).unwrap(),
            SamplingParams::default()
        );
    }

    #[test]
    fn every_field_arrives() {
        let params = parse(
            r#"{"temperature":0.5,"top_p":0.9,"top_k":-1,"min_p":0.1,"typical_p":0.8,"top_n_sigma":1.5,"seed":-1,
                "presence_penalty":1,"frequency_penalty":-1,"repeat_penalty":1.1,"repeat_last_n":64,
                "logit_bias":{"5":-100,"7":1.5},"dynatemp_range":0.3,"dynatemp_exponent":2,"mirostat":2,"mirostat_eta":0.2,
                "dry_multiplier":0.8,"dry_penalty_last_n":-1,"xtc_probability":0.5,"samplers":["top_k","temperature"]}"#,
        )
        .unwrap();
        assert_eq!((params.top_k, params.seed, params.penalty_tokens), (0, Some(u64::MAX), Some(64)));
        assert_eq!(params.logit_bias, [(5, -100.0), (7, 1.5)]);
        assert_eq!(params.mirostat, Some(Mirostat { version: MirostatVersion::Second, tau: 5.0, eta: 0.2 }));
        let dry = params.dry.unwrap();
        assert_eq!((dry.base, dry.allowed_length, dry.last_tokens, dry.breakers.len()), (1.75, 2, None, 4));
        assert_eq!(params.xtc, Some(Xtc { probability: 0.5, threshold: 0.1 }));
        assert_eq!(params.order, Some(vec![Filter::TopK, Filter::Temperature]));
        let pairs = parse(r#"{"logit_bias":[[5,false],[6,2]]}"#).unwrap();
        assert_eq!(pairs.logit_bias, [(5, -100.0), (6, 2.0)]);
    }

    #[test]
    fn errors_name_the_field() {
        for (body, param) in [
            (r#"{"logit_bias":1}"#, "logit_bias"),
            (r#"{"logit_bias":{"x":1}}"#, "logit_bias"),
            (r#"{"logit_bias":{"5":101}}"#, "logit_bias.5"),
            (r#"{"logit_bias":{"5":true}}"#, "logit_bias.5"),
            (r#"{"logit_bias":[[1]]}"#, "logit_bias"),
            (r#"{"samplers":["top_k","top_k"]}"#, "samplers[1]"),
            (r#"{"samplers":["magic"]}"#, "samplers[0]"),
            (r#"{"samplers":"top_k"}"#, "samplers"),
            (r#"{"mirostat":3}"#, "mirostat"),
            (r#"{"dry_sequence_breakers":[""]}"#, "dry_sequence_breakers[0]"),
            (r#"{"presence_penalty":2.1}"#, "presence_penalty"),
        ] {
            assert_eq!(parse(body).unwrap_err().param(), Some(param), "{body}");
        }
    }
}
