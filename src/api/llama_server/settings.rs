//! `generation_settings`: how an answer is generated, by llama.cpp's names.

use serde_json::{Value, json};

use crate::{
    api::sampling::FILTERS,
    engine::request::{Filter, GenerateRequest, MirostatVersion, Prompt, SamplingParams},
};

/// A request with llama-server's defaults.
pub fn defaults() -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::Tokens(Vec::new()));
    // The answer may be as long as the context allows.
    request.max_tokens = usize::MAX;
    let sampling = SamplingParams { min_p: 0.05, penalty_tokens: Some(64), ..SamplingParams::default() };
    GenerateRequest { sampling, ..request }
}

/// A request as llama-server describes it.
pub fn describe(request: &GenerateRequest, stream: bool) -> Value {
    let params = &request.sampling;
    let dry = params.dry.as_ref();
    let last = |tokens: Option<usize>| tokens.map_or(-1, |n| n as i64);
    let tokens_max = i64::try_from(request.max_tokens).unwrap_or(-1);
    let bias = |&(token, bias): &(u32, f32)| json!({ "token": token, "bias": bias });
    json!({
        "seed": params.seed.unwrap_or(u64::from(u32::MAX)),
        "temperature": params.temperature,
        "dynatemp_range": params.dynamic_temperature.map_or(0.0, |dynamic| dynamic.range),
        "dynatemp_exponent": params.dynamic_temperature.map_or(1.0, |dynamic| dynamic.exponent),
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "top_n_sigma": if params.top_n_sigma > 0.0 { params.top_n_sigma } else { -1.0 },
        "xtc_probability": params.xtc.map_or(0.0, |xtc| xtc.probability),
        "xtc_threshold": params.xtc.map_or(0.1, |xtc| xtc.threshold),
        "typical_p": params.typical_p,
        "repeat_last_n": last(params.penalty_tokens),
        "repeat_penalty": params.repetition_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "dry_multiplier": dry.map_or(0.0, |dry| dry.multiplier),
        "dry_base": dry.map_or(1.75, |dry| dry.base),
        "dry_allowed_length": dry.map_or(2, |dry| dry.allowed_length),
        "dry_penalty_last_n": last(dry.and_then(|dry| dry.last_tokens)),
        "dry_sequence_breakers": dry.map_or(&[][..], |dry| &dry.breakers),
        "mirostat": params.mirostat.map_or(0, |mirostat| match mirostat.version {
            MirostatVersion::First => 1,
            MirostatVersion::Second => 2,
        }),
        "mirostat_tau": params.mirostat.map_or(5.0, |mirostat| mirostat.tau),
        "mirostat_eta": params.mirostat.map_or(0.1, |mirostat| mirostat.eta),
        "stop": request.stop,
        "max_tokens": tokens_max,
        "n_predict": tokens_max,
        "n_keep": 0,
        "n_discard": 0,
        "ignore_eos": request.ignore_eos,
        "stream": stream,
        "logit_bias": params.logit_bias.iter().map(bias).collect::<Vec<_>>(),
        "n_probs": request.logprobs.unwrap_or(0),
        "min_keep": 0,
        "grammar": "",
        "samplers": params.order.as_deref().map_or_else(usual_order, names),
        "timings_per_token": false,
        "post_sampling_probs": false,
        "lora": [],
    })
}

fn names(order: &[Filter]) -> Vec<&'static str> {
    let name = |filter: &Filter| FILTERS.iter().find(|(_, known)| known == filter).map(|(name, _)| *name);
    order.iter().filter_map(name).collect()
}

fn usual_order() -> Vec<&'static str> {
    vec!["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
}
