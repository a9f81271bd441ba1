//! What `/metrics` says of each model. Their number is bounded by the configuration.

use std::time::UNIX_EPOCH;

use super::text::Text;
use crate::{
    api::{
        backend::{ModelInfo, Snapshot},
        models::ModelStatus,
    },
    engine::blocks::BLOCK_TOKENS,
};

/// Gauges of every model that is configured, and what is known of those in memory.
pub fn render(text: &mut Text, models: &[ModelStatus]) {
    let mut family = |name: &str, help: &str, value: fn(&ModelStatus) -> f64| {
        text.family(name, "gauge", help);
        for model in models {
            text.sample(name, &[("model", &model.name)], value(model));
        }
    };
    family("sconce_model_loaded", "1 while the model is in memory.", |m| f64::from(m.snapshot.is_some()));
    family("sconce_model_memory_bytes", "Memory that it takes, keys and values included.", |m| m.memory_bytes as f64);
    family("sconce_model_live_requests", "Requests that have it.", |m| m.live as f64);
    family("sconce_model_waiting_requests", "Requests that wait for it to be loaded.", |m| m.waiting as f64);
    family("sconce_model_kv_usage_ratio", "Used share of its KV cache, 0 to 1.", |m| {
        m.snapshot.map_or(0.0, |snapshot| snapshot.kv_usage())
    });

    text.family("sconce_model_loads_total", "counter", "Times that it was loaded, or could not be.");
    for model in models {
        for (outcome, count) in [("loaded", model.loads), ("failed", model.load_failures)] {
            text.sample("sconce_model_loads_total", &[("model", &model.name), ("outcome", outcome)], count);
        }
    }

    let loaded = || models.iter().filter_map(|model| Some((model, model.info.as_ref()?)));
    text.family("sconce_model_info", "gauge", "1, with a model in memory as labels.");
    for (model, info) in loaded() {
        let labels = [
            ("model_name", model.name.as_str()),
            ("architecture", &info.architecture),
            ("weights_type", &info.weights_type),
            ("context", &info.context.to_string()),
        ];
        text.sample("sconce_model_info", &labels, 1);
    }
    let mut family = |name: &str, help: &str, value: fn(&ModelInfo) -> f64| {
        text.family(name, "gauge", help);
        for (model, info) in loaded() {
            text.sample(name, &[("model", &model.name)], value(info));
        }
    };
    family("sconce_model_loaded_timestamp_seconds", "When it had been loaded.", |info| {
        info.loaded.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    });
    family("sconce_model_load_seconds", "How long loading it took.", |info| info.load_seconds);
    family("sconce_model_weights_bytes", "Memory of its weights.", |info| info.packed_bytes as f64);
}

/// vLLM's names for what load balancers and autoscalers read (the model server protocol of the Kubernetes Gateway API
/// Inference Extension), so that they work unmodified. Where no model is in memory there is one sample, of zeros.
pub fn render_aliases(text: &mut Text, models: &[ModelStatus]) {
    let mut engines: Vec<(&str, Snapshot)> =
        models.iter().filter_map(|model| Some((model.name.as_str(), model.snapshot?))).collect();
    if engines.is_empty() {
        engines.push((models.iter().find(|model| model.default).map_or("", |model| &model.name), Snapshot::default()));
    }
    let mut family = |name: &str, help: &str, value: fn(&Snapshot) -> f64| {
        text.family(name, "gauge", help);
        for (model, engine) in &engines {
            text.sample(name, &[("model_name", model)], value(engine));
        }
    };
    family("vllm:num_requests_running", "As sconce_requests_running, by model.", |e| e.running as f64);
    family("vllm:num_requests_waiting", "As sconce_queue_size, by model.", |e| e.waiting as f64);
    family("vllm:kv_cache_usage_perc", "Alias of sconce_model_kv_usage_ratio.", Snapshot::kv_usage);
    let size = BLOCK_TOKENS.to_string();
    text.family("vllm:cache_config_info", "gauge", "1, with the shape of the KV cache as labels.");
    for (model, engine) in &engines {
        let blocks = engine.kv_blocks_total.to_string();
        let labels = [("block_size", size.as_str()), ("num_gpu_blocks", &blocks), ("model_name", model)];
        text.sample("vllm:cache_config_info", &labels, 1);
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::models::{Facts, Kind, ModelState};

    /// One model in memory, with an odd name, and one that could not be loaded.
    pub fn sample(snapshot: Snapshot) -> Vec<ModelStatus> {
        let facts = Facts {
            kind: Kind::Decoder,
            architecture: "llama".to_owned(),
            parameters: 1,
            file_bytes: 2,
            context: 4,
            memory_bytes_min: 5,
            created: UNIX_EPOCH,
        };
        let info = ModelInfo {
            architecture: "llama".to_owned(),
            weights_type: "q4_K".to_owned(),
            parameters: 1,
            file_bytes: 2,
            packed_bytes: 3,
            context: 4,
            load_seconds: 0.5,
            loaded: UNIX_EPOCH + Duration::from_secs(9),
        };
        let loaded = ModelStatus {
            name: "a\"b".to_owned(),
            aliases: Vec::new(),
            default: true,
            state: ModelState::Served,
            facts,
            info: Some(info),
            snapshot: Some(snapshot),
            memory_bytes: 7,
            live: 1,
            waiting: 0,
            expires: None,
            loads: 2,
            load_failures: 0,
            awaited: false,
        };
        let why = ModelState::Failed { why: "a reason".to_owned(), retry_after: Duration::ZERO };
        let failed = ModelStatus {
            name: "other".to_owned(),
            default: false,
            state: why,
            info: None,
            snapshot: None,
            memory_bytes: 0,
            live: 0,
            loads: 0,
            load_failures: 1,
            ..loaded.clone()
        };
        vec![loaded, failed]
    }
}
