//! What the server counts, and its `/metrics` page.
//!
//! Every cell is an atomic: counting costs nanoseconds on the loop or engine thread it happens on, and a scrape stops
//! nobody. Label values come from closed sets, so that clients can't grow the page.

mod cells;
mod models;
mod text;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    engine::request::{FinishReason, Timeline, Usage},
    http::{LoopStats, Reply, Request},
};

use super::{
    backend::Snapshot,
    error::ApiError,
    models::ModelStatus,
    page,
    routes::{self, ROUTES},
    state::Api,
};

use cells::{Histogram, Rate};
use text::{CONTENT_TYPE, Text};

/// Bounds for times to an answer, in seconds.
const LATENCY: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0];
/// Bounds for times between tokens, in seconds.
const GAP: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What a request was for: one of the routes, the page, or something unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint(usize);

impl Endpoint {
    /// A file of the page.
    pub const PAGE: Self = Self(ROUTES.len());
    /// Unknown paths, wrong methods, broken requests.
    pub const OTHER: Self = Self(ROUTES.len() + 1);
    const COUNT: usize = ROUTES.len() + 2;

    /// The endpoint that a request has led to.
    pub fn of(request: &Request<'_>) -> Self {
        if page::FILES.iter().any(|file| file.path == request.path()) {
            return Self::PAGE;
        }
        request.route().and_then(routes::index_of).map_or(Self::OTHER, Self)
    }

    fn name(self) -> &'static str {
        match self {
            Self::PAGE => "/",
            Self::OTHER => "other",
            Self(route) => ROUTES[route].path,
        }
    }
}

/// Statuses counted by number; any other counts as the last.
const STATUSES: [(u16, &str); 17] = [
    (200, "200"),
    (304, "304"),
    (400, "400"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (413, "413"),
    (414, "414"),
    (417, "417"),
    (421, "421"),
    (431, "431"),
    (499, "499"),
    (500, "500"),
    (501, "501"),
    (503, "503"),
    (504, "504"),
    (0, "other"),
];

/// How generations end: the engine's reasons, and failure.
const OUTCOMES: [&str; 4] = ["stop", "length", "cancelled", "failed"];

/// What became of an attempt to replace the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Another one is served.
    Replaced,
    /// Neither its settings nor its files had changed.
    Unchanged,
    /// The configuration or the model file is wrong: the old one is served on.
    Refused,
    /// The old one had been dropped for want of memory, and the new one could not be loaded.
    Failed,
}

const RELOADS: [(ReloadOutcome, &str); 4] = [
    (ReloadOutcome::Replaced, "replaced"),
    (ReloadOutcome::Unchanged, "unchanged"),
    (ReloadOutcome::Refused, "refused"),
    (ReloadOutcome::Failed, "failed"),
];

/// All counters of one server.
pub struct Metrics {
    started: Instant,
    requests: [[AtomicU64; STATUSES.len()]; Endpoint::COUNT],
    outcomes: [AtomicU64; OUTCOMES.len()],
    reloads: [AtomicU64; RELOADS.len()],
    duration: Histogram,
    time_to_first_token: Histogram,
    between_tokens: Histogram,
    queue_wait: Histogram,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    encoded_inputs: AtomicU64,
    request_rate: Rate,
    token_rate: Rate,
}

/// `GET /metrics`: Prometheus text.
pub fn scrape(api: &Arc<Api>, _: &Request<'_>) -> Result<Reply, ApiError> {
    let page = api.metrics.render(&api.gauges(), Instant::now());
    Ok(Reply::text(page).header("Content-Type", CONTENT_TYPE).header("Cache-Control", "no-store"))
}

/// The state of everything at one moment, for one scrape.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    pub models: Vec<ModelStatus>,
    pub loops: Vec<LoopStats>,
    pub ready: bool,
}

impl Metrics {
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            requests: [const { [const { AtomicU64::new(0) }; STATUSES.len()] }; Endpoint::COUNT],
            outcomes: Default::default(),
            reloads: Default::default(),
            duration: Histogram::new(LATENCY),
            time_to_first_token: Histogram::new(LATENCY),
            between_tokens: Histogram::new(GAP),
            queue_wait: Histogram::new(LATENCY),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            encoded_inputs: AtomicU64::new(0),
            request_rate: Rate::default(),
            token_rate: Rate::default(),
        }
    }

    /// A request was answered; a stream counts when its head goes out.
    pub fn on_answer(&self, endpoint: Endpoint, status: u16) {
        let column = STATUSES.iter().position(|(code, _)| *code == status).unwrap_or(STATUSES.len() - 1);
        self.requests[endpoint.0][column].fetch_add(1, Relaxed);
        self.request_rate.add(self.second(Instant::now()), 1);
    }

    /// A piece of `tokens` tokens came; `before` is when the piece before it did, `None` for the first.
    pub fn on_piece(&self, tokens: usize, received: Instant, before: Option<Instant>, now: Instant) {
        match before {
            None => self.time_to_first_token.observe(now - received),
            Some(before) => self.between_tokens.observe(now - before),
        }
        self.generated_tokens.fetch_add(tokens as u64, Relaxed);
        self.token_rate.add(self.second(now), tokens as u32);
    }

    pub fn on_finished(&self, reason: FinishReason, usage: Usage, timeline: &Timeline) {
        let outcome = match reason {
            FinishReason::Stop(_) => 0,
            FinishReason::Length => 1,
            FinishReason::Cancelled => 2,
        };
        self.outcomes[outcome].fetch_add(1, Relaxed);
        self.prompt_tokens.fetch_add(usage.prompt_tokens as u64, Relaxed);
        self.cached_tokens.fetch_add(usage.cached_tokens as u64, Relaxed);
        if let Some(admitted) = timeline.admitted {
            self.queue_wait.observe(admitted - timeline.received);
        }
        if let Some(finished) = timeline.finished {
            self.duration.observe(finished - timeline.received);
        }
    }

    /// Inputs of `tokens` tokens in all became vectors or scores.
    pub fn on_encoded(&self, inputs: usize, tokens: usize) {
        self.encoded_inputs.fetch_add(inputs as u64, Relaxed);
        self.prompt_tokens.fetch_add(tokens as u64, Relaxed);
    }

    pub fn on_failed(&self) {
        self.outcomes[OUTCOMES.len() - 1].fetch_add(1, Relaxed);
    }

    pub fn on_reload(&self, outcome: ReloadOutcome) {
        if let Some(at) = RELOADS.iter().position(|(known, _)| *known == outcome) {
            self.reloads[at].fetch_add(1, Relaxed);
        }
    }

    pub fn uptime(&self, now: Instant) -> Duration {
        now - self.started
    }

    pub fn requests_per_second(&self, now: Instant) -> f64 {
        self.request_rate.per_second(self.second(now))
    }

    pub fn tokens_per_second(&self, now: Instant) -> f64 {
        self.token_rate.per_second(self.second(now))
    }

    /// Mean seconds of a finished generation since the start; 0 before the first.
    pub fn average_response_seconds(&self) -> f64 {
        mean_seconds(&self.duration)
    }

    /// Mean seconds that a request waited for admission since the start; 0 before the first.
    pub fn average_wait_seconds(&self) -> f64 {
        mean_seconds(&self.queue_wait)
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs()
    }

    /// The page.
    pub fn render(&self, gauges: &Gauges, now: Instant) -> String {
        let mut text = Text::default();
        self.render_requests(&mut text);
        self.render_tokens(&mut text);
        render_gauges(&mut text, gauges);
        self.render_reloads(&mut text);
        models::render(&mut text, &gauges.models);
        render_loops(&mut text, &gauges.loops);
        text.gauge("sconce_uptime_seconds", "Time since the server started.", self.uptime(now).as_secs_f64());
        models::render_aliases(&mut text, &gauges.models);
        text.into_string()
    }

    fn render_requests(&self, text: &mut Text) {
        text.family("sconce_requests_total", "counter", "Requests answered, by endpoint and status.");
        for (endpoint, row) in self.requests.iter().enumerate() {
            let endpoint = Endpoint(endpoint).name();
            for ((_, status), count) in STATUSES.iter().zip(row) {
                let count = count.load(Relaxed);
                if count > 0 {
                    text.sample("sconce_requests_total", &[("endpoint", endpoint), ("status", status)], count);
                }
            }
        }
        text.family("sconce_generations_total", "counter", "Generations ended, by reason.");
        for (reason, count) in OUTCOMES.iter().zip(&self.outcomes) {
            text.sample("sconce_generations_total", &[("reason", reason)], count.load(Relaxed));
        }
        text.histogram(
            "sconce_request_duration_seconds",
            "From the arrival of a generation request to its last token.",
            &self.duration,
        );
        text.histogram(
            "sconce_time_to_first_token_seconds",
            "From the arrival of a generation request to its first text.",
            &self.time_to_first_token,
        );
        text.histogram(
            "sconce_inter_token_seconds",
            "Between two pieces of text of one generation.",
            &self.between_tokens,
        );
        text.histogram(
            "sconce_queue_wait_seconds",
            "From the arrival of a generation request to its admission.",
            &self.queue_wait,
        );
    }

    fn render_reloads(&self, text: &mut Text) {
        text.family("sconce_reloads_total", "counter", "Attempts to replace models, by outcome.");
        for ((_, outcome), count) in RELOADS.iter().zip(&self.reloads) {
            text.sample("sconce_reloads_total", &[("outcome", outcome)], count.load(Relaxed));
        }
    }

    fn render_tokens(&self, text: &mut Text) {
        let prompt = self.prompt_tokens.load(Relaxed);
        text.counter("sconce_prompt_tokens_total", "Prompt tokens of what was generated and encoded.", prompt);
        let cached = self.cached_tokens.load(Relaxed);
        text.counter("sconce_cached_tokens_total", "Prompt tokens whose keys and values were cached.", cached);
        let generated = self.generated_tokens.load(Relaxed);
        text.counter("sconce_generated_tokens_total", "Tokens generated.", generated);
        let encoded = self.encoded_inputs.load(Relaxed);
        text.counter("sconce_encoded_inputs_total", "Texts that became vectors or scores.", encoded);
    }
}

fn mean_seconds(histogram: &Histogram) -> f64 {
    let count = histogram.count();
    if count == 0 { 0.0 } else { histogram.sum_seconds() / count as f64 }
}

fn render_gauges(text: &mut Text, gauges: &Gauges) {
    let engine = Snapshot::total(gauges.models.iter().filter_map(|model| model.snapshot));
    text.gauge("sconce_ready", "1 while new requests are taken.", u8::from(gauges.ready));
    text.gauge("sconce_requests_running", "Sequences being generated.", engine.running);
    text.gauge("sconce_queue_size", "Requests waiting for admission.", engine.waiting);
    text.gauge("sconce_kv_usage_ratio", "Used share of the KV cache, 0 to 1.", engine.kv_usage());
    text.gauge("sconce_kv_blocks_used", "KV blocks held by sequences.", engine.kv_blocks_used);
    text.gauge("sconce_kv_blocks_cached", "KV blocks kept for prompts that begin alike.", engine.kv_blocks_cached);
    text.gauge("sconce_kv_blocks", "KV blocks there are.", engine.kv_blocks_total);
    text.counter("sconce_preemptions_total", "Sequences preempted for want of KV blocks.", engine.preemptions);
    text.counter("sconce_prefix_hits_total", "Requests that found a part of their prompt cached.", engine.prefix_hits);
    text.counter("sconce_drafted_tokens_total", "Tokens guessed and checked.", engine.drafted_tokens);
    text.counter("sconce_accepted_tokens_total", "Guessed tokens that were right.", engine.accepted_tokens);
    text.family("sconce_build_info", "gauge", "1, with the version as label.");
    text.sample("sconce_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn render_loops(text: &mut Text, loops: &[LoopStats]) {
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&LoopStats) -> f64| {
        text.family(name, kind, help);
        for (i, one) in loops.iter().enumerate() {
            text.sample(name, &[("loop", &i.to_string())], value(one));
        }
    };
    family("sconce_connections", "gauge", "Open connections.", |l| l.open_connections as f64);
    family("sconce_connections_accepted_total", "counter", "Connections accepted.", |l| l.accepted as f64);
    family("sconce_connections_refused_total", "counter", "Connections turned away.", |l| l.refused as f64);
    family("sconce_loop_requests_total", "counter", "Requests handled.", |l| l.requests as f64);
    family("sconce_loop_received_bytes_total", "counter", "Bytes read from all connections.", |l| l.bytes_in as f64);
    family("sconce_loop_sent_bytes_total", "counter", "Bytes written to all connections.", |l| l.bytes_out as f64);
    family("sconce_loop_busy_seconds_total", "counter", "Time in which the loop was not waiting.", |l| {
        l.busy.as_secs_f64()
    });
    family("sconce_loop_longest_turn_seconds", "gauge", "The longest turn of the loop since the last scrape.", |l| {
        l.longest_turn_micros as f64 / 1e6
    });
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn sample_page() -> String {
        let start = Instant::now();
        let metrics = Metrics::new(start);
        metrics.on_answer(Endpoint::PAGE, 200);
        metrics.on_answer(Endpoint::PAGE, 299);
        metrics.on_piece(1, start, None, start + Duration::from_millis(20));
        metrics.on_piece(2, start, Some(start + Duration::from_millis(20)), start + Duration::from_millis(30));
        let usage = Usage { prompt_tokens: 5, completion_tokens: 3, cached_tokens: 0 };
        let timeline = Timeline {
            received: start,
            admitted: Some(start + Duration::from_millis(2)),
            first_token: None,
            finished: Some(start + Duration::from_millis(40)),
            preemptions: 0,
        };
        metrics.on_finished(FinishReason::Length, usage, &timeline);
        metrics.on_failed();
        metrics.on_reload(ReloadOutcome::Refused);
        let snapshot = Snapshot {
            kv_blocks_used: 1,
            kv_blocks_cached: 2,
            kv_blocks_total: 4,
            prefix_hits: 3,
            drafted_tokens: 9,
            accepted_tokens: 5,
            ..Snapshot::default()
        };
        let gauges = Gauges {
            models: models::tests::sample(snapshot),
            loops: vec![LoopStats { open_connections: 3, ..LoopStats::default() }],
            ready: true,
        };
        metrics.render(&gauges, start + Duration::from_secs(5))
    }

    /// The rules that strict parsers of the format hold pages to.
    #[test]
    fn the_page_is_well_formed() {
        let page = sample_page();
        let (mut typed, mut seen, mut family) = (HashSet::new(), HashSet::new(), String::new());
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(typed.insert(name.to_owned()), "a second TYPE: {line}");
                family = name.to_owned();
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.starts_with(&family), "{line} outside its family {family}");
                assert!(seen.insert(series.to_owned()), "twice: {line}");
            }
        }
        assert!(page.ends_with('\n') && page.len() < 64 << 10);
    }

    #[test]
    fn the_page_says_what_happened() {
        let page = sample_page();
        for line in [
            "sconce_requests_total{endpoint=\"/\",status=\"200\"} 1",
            "sconce_requests_total{endpoint=\"/\",status=\"other\"} 1",
            "sconce_generations_total{reason=\"length\"} 1",
            "sconce_generations_total{reason=\"failed\"} 1",
            "sconce_generated_tokens_total 3",
            "sconce_prompt_tokens_total 5",
            "sconce_time_to_first_token_seconds_bucket{le=\"0.025\"} 1",
            "sconce_inter_token_seconds_bucket{le=\"+Inf\"} 1",
            "sconce_queue_wait_seconds_count 1",
            "sconce_kv_usage_ratio 0.25",
            "sconce_kv_blocks_cached 2",
            "sconce_prefix_hits_total 3",
            "sconce_drafted_tokens_total 9",
            "sconce_accepted_tokens_total 5",
            "sconce_connections{loop=\"0\"} 3",
            "sconce_uptime_seconds 5",
            "sconce_reloads_total{outcome=\"refused\"} 1",
            "sconce_model_info{model_name=\"a\\\"b\",architecture=\"llama\",weights_type=\"q4_K\",context=\"4\"} 1",
            "sconce_model_loaded_timestamp_seconds{model=\"a\\\"b\"} 9",
            "sconce_model_load_seconds{model=\"a\\\"b\"} 0.5",
            "sconce_model_weights_bytes{model=\"a\\\"b\"} 3",
            "sconce_model_loaded{model=\"a\\\"b\"} 1",
            "sconce_model_loaded{model=\"other\"} 0",
            "sconce_model_memory_bytes{model=\"a\\\"b\"} 7",
            "sconce_model_live_requests{model=\"other\"} 0",
            "sconce_model_loads_total{model=\"a\\\"b\",outcome=\"loaded\"} 2",
            "sconce_model_loads_total{model=\"other\",outcome=\"failed\"} 1",
            "vllm:kv_cache_usage_perc{model_name=\"a\\\"b\"} 0.25",
            "vllm:cache_config_info{block_size=\"32\",num_gpu_blocks=\"4\",model_name=\"a\\\"b\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "no {line:?} in\n{page}");
        }
    }
}
