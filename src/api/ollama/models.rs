//! `GET /api/tags`, `POST /api/show`, `GET /api/ps`, `GET /api/version`; and what is not done here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};

use crate::{
    api::{
        backend::Makes,
        error::ApiError,
        fields::Fields,
        models::{Kind, ModelState, ModelStatus},
        reply,
        state::Api,
    },
    http::{Reply, Request, Status},
};

use super::{
    names::{resolve, tagged},
    time::rfc3339,
};

/// The version of Ollama whose API this is: clients compare it with what they need.
const OLLAMA_VERSION: &str = "0.13.0";
/// As long as Ollama says for models that stay for ever.
const FOREVER: Duration = Duration::from_secs(292 * 365 * 86_400);

/// All models.
pub fn tags(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let models: Vec<Value> = api.models().list().iter().map(card).collect();
    Ok(reply::json(Status::OK, &json!({ "models": models })))
}

/// Those in memory.
pub fn ps(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let models = api.models().list();
    let here = models.iter().filter(|model| matches!(model.state, ModelState::Served | ModelState::Retiring));
    let told = |model: &ModelStatus| {
        let mut card = card(model);
        let expires = model.expires.unwrap_or_else(|| SystemTime::now() + FOREVER);
        card["size"] = model.memory_bytes.max(model.info.as_ref().map_or(0, |info| info.packed_bytes)).into();
        card["size_vram"] = 0.into();
        card["expires_at"] = rfc3339(expires).into();
        card["context_length"] = context(model).into();
        card
    };
    Ok(reply::json(Status::OK, &json!({ "models": here.map(told).collect::<Vec<_>>() })))
}

/// One model, by name.
pub fn show(api: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut fields = Fields::parse(request.body())?;
    // `name` is what the field was called before.
    let (model, name) = (fields.text("model")?, fields.text("name")?);
    fields.flag("verbose")?;
    for name in ["system", "template"] {
        fields.text(name)?;
    }
    fields.take("options");
    let Some(name) = model.or(name).filter(|name| !name.is_empty()) else {
        return fields.missing("model", "the model's name");
    };
    fields.finish()?;
    let model = resolve(api, &name)?;
    let arch = &model.facts.architecture;
    let backend = api.models().peek_at(&model.name);
    let mut info = Map::new();
    info.insert("general.architecture".into(), arch.as_str().into());
    info.insert("general.parameter_count".into(), model.facts.parameters.into());
    info.insert(format!("{arch}.context_length"), model.facts.context.into());
    let mut capabilities = match model.facts.kind {
        Kind::Decoder => vec!["completion"],
        Kind::Encoder => vec!["embedding"],
    };
    let template = backend.as_ref().and_then(|backend| backend.template()).unwrap_or_default();
    if backend.as_ref().is_some_and(|backend| matches!(backend.makes(), Makes::Text { width: Some(_) })) {
        capabilities.push("embedding");
    }
    if let Some(backend) = &backend {
        info.insert("tokenizer.ggml.tokens".into(), json!([]));
        info.insert(format!("{arch}.vocab_size"), backend.tokenizer().vocabulary().into());
        let can = [
            ("tools", backend.template().is_some()),
            ("thinking", backend.thought_tokens().is_some()),
            ("insert", backend.tokenizer().fill_in_middle().is_some()),
        ];
        capabilities.extend(can.iter().filter(|(_, can)| *can).map(|(name, _)| *name));
    }
    let answer = json!({
        "modelfile": format!("FROM {}\n", model.name),
        "parameters": "",
        "template": template,
        "details": details(&model),
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": rfc3339(model.facts.created),
    });
    Ok(reply::json(Status::OK, &answer))
}

pub fn version(_: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    Ok(reply::json(
        Status::OK,
        &json!({ "version": OLLAMA_VERSION, "server": concat!("sconce/", env!("CARGO_PKG_VERSION")) }),
    ))
}

/// Whatever changes models on disk.
pub fn unsupported(_: &Arc<Api>, request: &Request<'_>) -> Result<Reply, ApiError> {
    let message = format!(
        "{} is not done by this server: models are files that whoever runs it names in models.toml",
        request.route().unwrap_or("this")
    );
    Err(ApiError::Refused { status: 501, message })
}

fn card(model: &ModelStatus) -> Value {
    let name = tagged(&model.name);
    json!({
        "name": name,
        "model": name,
        "modified_at": rfc3339(model.facts.created),
        "size": model.facts.file_bytes,
        "digest": digest(&model.name, model.facts.file_bytes),
        "details": details(model),
    })
}

fn details(model: &ModelStatus) -> Value {
    let arch = &model.facts.architecture;
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": arch,
        "families": [arch],
        "parameter_size": amount(model.facts.parameters),
        "quantization_level": model.info.as_ref().map_or("unknown", |info| &*info.weights_type),
    })
}

fn context(model: &ModelStatus) -> usize {
    model.info.as_ref().map_or(model.facts.context, |info| info.context)
}

/// `596M`, `8.0B`
fn amount(parameters: u64) -> String {
    match parameters as f64 {
        n if n >= 1e12 => format!("{:.1}T", n / 1e12),
        n if n >= 1e9 => format!("{:.1}B", n / 1e9),
        n if n >= 1e6 => format!("{:.0}M", n / 1e6),
        n if n >= 1e3 => format!("{:.0}K", n / 1e3),
        n => format!("{n}"),
    }
}

/// 64 digits that tell models apart, of their names and sizes: reading whole files for them would take seconds each.
fn digest(name: &str, size: u64) -> String {
    let word = |seed: u64| {
        // FNV-1a, with another start for each word.
        let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = name.bytes().chain(size.to_le_bytes());
        bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    (0..4).map(|seed| format!("{:016x}", word(seed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_digests() {
        for (n, text) in
            [(17, "17"), (4_200, "4K"), (596_049_920, "596M"), (8_030_261_312, "8.0B"), (1_000_000_000_000, "1.0T")]
        {
            assert_eq!(amount(n), text);
        }
        let one = digest("a", 1);
        assert_eq!((one.len(), &one), (64, &digest("a", 1)));
        assert!(one != digest("a", 2) && one != digest("b", 1));
    }
}
