//! What a request's parameters may be. Whoever takes requests from outside checks more narrowly, by the rules of its API;
//! here it is made sure that the sampler can work with them.

use super::penalties::BAN;
use crate::engine::{
    error::RequestError,
    request::{GenerateRequest, SamplingParams},
};

/// Breakers of a request, and bytes of one.
const BREAKERS_MAX: usize = 64;
const BREAKER_BYTES_MAX: usize = 128;

/// Checks what a request asks of the sampler of a model of `vocabulary` tokens.
///
/// # Errors
/// [`RequestError::Parameter`] with the name of the first parameter that is out of its bounds, or
/// [`RequestError::UnknownToken`] of a bias.
pub fn check(request: &GenerateRequest, vocabulary: usize) -> Result<(), RequestError> {
    let params = &request.sampling;
    numbers(params)?;
    biases(&params.logit_bias, vocabulary)?;
    if let Some(dry) = &params.dry {
        let is_bad = |breaker: &String| breaker.is_empty() || breaker.len() > BREAKER_BYTES_MAX;
        if dry.breakers.len() > BREAKERS_MAX || dry.breakers.iter().any(is_bad) {
            let why = format!("must be at most {BREAKERS_MAX} texts of 1 to {BREAKER_BYTES_MAX} bytes");
            return Err(RequestError::Parameter { name: "dry_sequence_breakers", why });
        }
    }
    if let Some(order) = &params.order
        && let Some(again) = (1..order.len()).find(|&i| order[..i].contains(&order[i]))
    {
        let why = format!("must name each filter once at most, not {:?} twice", order[again].name());
        return Err(RequestError::Parameter { name: "samplers", why });
    }
    if request.logprobs.is_some_and(|count| count > GenerateRequest::LOGPROBS_MAX) {
        let why = format!("must be at most {}", GenerateRequest::LOGPROBS_MAX);
        return Err(RequestError::Parameter { name: "logprobs", why });
    }
    Ok(())
}

fn numbers(params: &SamplingParams) -> Result<(), RequestError> {
    const ANY: f32 = f32::MAX;
    const ABOVE_ZERO: f32 = f32::MIN_POSITIVE;
    let mut rules = vec![
        ("temperature", params.temperature, 0.0, ANY),
        ("top_p", params.top_p, 0.0, 1.0),
        ("min_p", params.min_p, 0.0, 1.0),
        ("typical_p", params.typical_p, 0.0, 1.0),
        ("top_n_sigma", params.top_n_sigma, 0.0, ANY),
        ("repetition_penalty", params.repetition_penalty, ABOVE_ZERO, ANY),
        ("presence_penalty", params.presence_penalty, -ANY, ANY),
        ("frequency_penalty", params.frequency_penalty, -ANY, ANY),
    ];
    if let Some(dynamic) = params.dynamic_temperature {
        rules.push(("dynatemp_range", dynamic.range, 0.0, ANY));
        rules.push(("dynatemp_exponent", dynamic.exponent, 0.0, ANY));
    }
    if let Some(dry) = &params.dry {
        rules.push(("dry_multiplier", dry.multiplier, 0.0, ANY));
        rules.push(("dry_base", dry.base, 1.0, ANY));
    }
    if let Some(xtc) = params.xtc {
        rules.push(("xtc_probability", xtc.probability, 0.0, 1.0));
        rules.push(("xtc_threshold", xtc.threshold, 0.0, 1.0));
    }
    if let Some(mirostat) = params.mirostat {
        rules.push(("mirostat_tau", mirostat.tau, 0.0, ANY));
        rules.push(("mirostat_eta", mirostat.eta, 0.0, ANY));
    }
    match rules.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
        None => Ok(()),
        Some((name, value, low, high)) => {
            let bounds = match (low, high) {
                (ABOVE_ZERO, _) => "above 0 and finite".to_owned(),
                (_, ANY) if low == -ANY => "finite".to_owned(),
                (_, ANY) => format!("at least {low} and finite"),
                _ => format!("from {low} to {high}"),
            };
            Err(RequestError::Parameter { name, why: format!("must be {bounds}, not {value}") })
        }
    }
}

fn biases(biases: &[(u32, f32)], vocabulary: usize) -> Result<(), RequestError> {
    let refused = |why: String| Err(RequestError::Parameter { name: "logit_bias", why });
    if let Some((token, _)) = biases.iter().find(|(token, _)| *token as usize >= vocabulary) {
        return refused(format!("names token {token}, which is not in the model's vocabulary of {vocabulary}"));
    }
    if let Some((token, bias)) = biases.iter().find(|(_, bias)| !bias.is_finite()) {
        return refused(format!("of token {token} must be a finite number, not {bias}"));
    }
    let mut banned: Vec<u32> = biases.iter().filter(|(_, bias)| *bias <= BAN).map(|(token, _)| *token).collect();
    banned.sort_unstable();
    banned.dedup();
    if banned.len() >= vocabulary {
        return refused("bans every token".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::{Dry, DynamicTemperature, Filter, Mirostat, MirostatVersion, Prompt, Xtc};

    #[track_caller]
    fn refuses(name: &str, change: impl Fn(&mut GenerateRequest)) {
        let mut request = GenerateRequest::new(Prompt::Tokens(vec![1]));
        assert_eq!(check(&request, 10), Ok(()));
        change(&mut request);
        match check(&request, 10) {
            Err(RequestError::Parameter { name: found, .. }) => assert_eq!(found, name),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn every_number_has_its_bounds() {
        let dry = |multiplier, base| Dry { multiplier, base, allowed_length: 2, breakers: vec![], last_tokens: None };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            refuses("temperature", |r| r.sampling.temperature = bad);
            refuses("top_p", |r| r.sampling.top_p = bad);
            refuses("min_p", |r| r.sampling.min_p = bad);
            refuses("typical_p", |r| r.sampling.typical_p = bad);
            refuses("top_n_sigma", |r| r.sampling.top_n_sigma = bad);
            refuses("repetition_penalty", |r| r.sampling.repetition_penalty = bad);
            refuses("presence_penalty", |r| r.sampling.presence_penalty = bad);
            refuses("frequency_penalty", |r| r.sampling.frequency_penalty = bad);
            refuses("logit_bias", |r| r.sampling.logit_bias = vec![(1, bad)]);
            let dynamic = |range, exponent| Some(DynamicTemperature { range, exponent });
            refuses("dynatemp_range", |r| r.sampling.dynamic_temperature = dynamic(bad, 1.0));
            refuses("dynatemp_exponent", |r| r.sampling.dynamic_temperature = dynamic(1.0, bad));
            refuses("dry_multiplier", |r| r.sampling.dry = Some(dry(bad, 2.0)));
            refuses("dry_base", |r| r.sampling.dry = Some(dry(1.0, bad)));
            refuses("xtc_probability", |r| r.sampling.xtc = Some(Xtc { probability: bad, threshold: 0.1 }));
            refuses("xtc_threshold", |r| r.sampling.xtc = Some(Xtc { probability: 0.1, threshold: bad }));
            let mirostat = |tau, eta| Some(Mirostat { version: MirostatVersion::Second, tau, eta });
            refuses("mirostat_tau", |r| r.sampling.mirostat = mirostat(bad, 0.1));
            refuses("mirostat_eta", |r| r.sampling.mirostat = mirostat(5.0, bad));
        }
        refuses("temperature", |r| r.sampling.temperature = -0.1);
        refuses("top_p", |r| r.sampling.top_p = 1.1);
        refuses("repetition_penalty", |r| r.sampling.repetition_penalty = 0.0);
        refuses("dry_base", |r| r.sampling.dry = Some(dry(1.0, 0.9)));
    }

    #[test]
    fn lists_have_theirs() {
        refuses("logit_bias", |r| r.sampling.logit_bias = vec![(9, 1.0), (10, 1.0)]);
        refuses("logit_bias", |r| r.sampling.logit_bias = (0..10).map(|token| (token, -100.0)).collect());
        refuses("samplers", |r| r.sampling.order = Some(vec![Filter::TopK, Filter::MinP, Filter::TopK]));
        refuses("logprobs", |r| r.logprobs = Some(21));
        for breakers in [vec![String::new()], vec!["x".repeat(129)], vec!["x".into(); 65]] {
            let dry = Dry { multiplier: 1.0, base: 2.0, allowed_length: 2, breakers, last_tokens: None };
            refuses("dry_sequence_breakers", |r| r.sampling.dry = Some(dry.clone()));
        }
    }
}
