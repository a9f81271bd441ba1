//! What all handlers share.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::http::{Reply, Request, ServerHandle};

use super::{
    backend::Backend,
    error::ApiError,
    family::Family,
    metrics::{Endpoint, Gauges, Metrics, ReloadOutcome},
    models::{Bounds, Entry, ModelState, ModelStatus, Models},
    openai::Responses,
    text_worker::TextWorker,
};

/// The models, the counters, and what is set of the API.
pub struct Api {
    models: Models,
    pub(super) metrics: Arc<Metrics>,
    pub(super) text_worker: Arc<TextWorker>,
    /// What `/v1/responses` has answered.
    pub(super) responses: Arc<Responses>,
    pub(super) settings: Settings,
    draining: AtomicBool,
    server: OnceLock<ServerHandle>,
}

/// Whether new requests can be served, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The model is being loaded.
    Loading {
        percent: u8,
    },
    /// There is none, and none is being loaded.
    NoModel,
    Ready,
    /// Running streams may finish; new requests should go elsewhere.
    Draining,
    /// The engine's thread is gone, or has been in one step for too long.
    Stuck,
}

/// What can be set of the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a request may wait for admission unless it asks for less.
    pub queue_timeout: Duration,
    /// A stream without a first token begins after this, with a comment.
    pub ping_interval: Duration,
    /// `Some`: only these names beside the loopback ones are answered to.
    pub hosts: Option<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { queue_timeout: Duration::from_secs(300), ping_interval: Duration::from_secs(10), hosts: None }
    }
}

impl Api {
    /// An API whose models are not known yet: what needs one is answered with 503.
    pub fn new(settings: Settings) -> io::Result<Arc<Self>> {
        Self::with_bounds(settings, Bounds::default())
    }

    /// As [`new`](Self::new), with bounds for the models.
    pub fn with_bounds(settings: Settings, bounds: Bounds) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            models: Models::start(bounds)?,
            metrics: Arc::new(Metrics::new(Instant::now())),
            text_worker: Arc::new(TextWorker::start()?),
            responses: Arc::default(),
            settings,
            draining: AtomicBool::new(false),
            server: OnceLock::new(),
        }))
    }

    /// The models by name.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Serves one model that is in memory already, and no other.
    pub fn set_backend(&self, backend: Arc<dyn Backend>) {
        self.models.replace(vec![Entry::fixed(backend)], Duration::ZERO);
    }

    /// Counts an attempt to replace models.
    pub fn count_reload(&self, outcome: ReloadOutcome) {
        self.metrics.on_reload(outcome);
    }

    /// Calls `then` with the model of this name or alias, or with the default one where none is named: at once if it is in
    /// memory or can't be had, else from another thread when it has been loaded, or not within the time that requests may
    /// wait. The caller may have left by then: `then` looks.
    ///
    /// The model stays in memory as long as `then`'s handle or a request that was submitted to it lives.
    pub(super) fn with_model(
        &self,
        name: Option<&str>,
        then: impl FnOnce(Result<Arc<dyn Backend>, ApiError>) + Send + 'static,
    ) {
        self.models.with(name, self.settings.queue_timeout, then);
    }

    /// Lets `/metrics` show the server's connections.
    pub fn watch(&self, server: ServerHandle) {
        // A second server on the same state would be a mistake, but not one that matters: the first is shown.
        let _ = self.server.set(server);
    }

    /// From now on `/readyz` says no.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether new requests can be served: all models that are loaded at the start have been, and the default one can be
    /// had. One that was unloaded since, or waits for its first request, can.
    pub(super) fn readiness(&self) -> Readiness {
        let models = self.models.list();
        let stuck = |model: &ModelStatus| model.snapshot.is_some_and(|snapshot| !snapshot.alive);
        let missing =
            |model: &ModelStatus| (model.awaited || model.default) && matches!(model.state, ModelState::Failed { .. });
        let awaited = models.iter().find(|model| model.awaited);
        match awaited.map(|model| &model.state) {
            _ if models.is_empty() => Readiness::Loading { percent: 0 },
            _ if models.iter().any(missing) => Readiness::NoModel,
            Some(ModelState::Loading { percent }) => Readiness::Loading { percent: *percent },
            Some(_) => Readiness::Loading { percent: 0 },
            None if models.iter().any(stuck) => Readiness::Stuck,
            None if self.draining.load(Relaxed) => Readiness::Draining,
            None => Readiness::Ready,
        }
    }

    /// Answers with what `work` makes of `bytes` bytes of text and a model: at once if they are few, else from the text
    /// worker.
    pub(super) fn text_work(
        &self,
        request: &Request<'_>,
        model: Option<&str>,
        bytes: usize,
        work: impl FnOnce(&dyn Backend) -> Result<Reply, ApiError> + Send + 'static,
    ) -> Reply {
        let (reply, responder) = Reply::later();
        let (endpoint, family) = (Endpoint::of(request), Family::of(request.path()));
        let (metrics, worker) = (Arc::clone(&self.metrics), Arc::clone(&self.text_worker));
        let answer = move |answer: Result<Reply, ApiError>| {
            let answer = answer.unwrap_or_else(|error| family.refuse(&error));
            metrics.on_answer(endpoint, answer.status().code());
            responder.send(answer);
        };
        self.with_model(model, move |model| match model {
            Ok(model) => worker.answer(bytes, answer, move || work(&*model)),
            Err(error) => answer(Err(error)),
        });
        reply
    }

    /// The state of models and loops for one scrape.
    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            models: self.models.list(),
            loops: self.server.get().map(ServerHandle::stats).unwrap_or_default(),
            ready: self.readiness() == Readiness::Ready,
        }
    }
}
