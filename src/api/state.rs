//! What all handlers share.

use std::{
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::http::{Reply, Request, ServerHandle};

use super::{
    backend::Backend,
    error::ApiError,
    family::Family,
    metrics::{Endpoint, Gauges, Metrics, ReloadOutcome},
    text_worker::TextWorker,
};

/// The served model, the counters, and what is set of the API.
pub struct Api {
    model: RwLock<ModelState>,
    /// How far it is, in percent.
    loading: AtomicU8,
    pub(super) metrics: Arc<Metrics>,
    pub(super) text_worker: Arc<TextWorker>,
    pub(super) settings: Settings,
    draining: AtomicBool,
    server: OnceLock<ServerHandle>,
}

/// The model, if there is one.
enum ModelState {
    Loading,
    /// Requests that came while it was here stay with it when another takes its place.
    Served(Arc<dyn Backend>),
    /// It could not be loaded.
    Missing,
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
    /// An API whose model is still being loaded: what needs one is answered with 503.
    pub fn new(settings: Settings) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            model: RwLock::new(ModelState::Loading),
            loading: AtomicU8::new(0),
            metrics: Arc::new(Metrics::new(Instant::now())),
            text_worker: Arc::new(TextWorker::start()?),
            settings,
            draining: AtomicBool::new(false),
            server: OnceLock::new(),
        }))
    }

    /// A model has been loaded: from now on requests go to it. Those that another one has stay there.
    pub fn set_backend(&self, backend: Arc<dyn Backend>) {
        self.set_model(ModelState::Served(backend));
    }

    /// A model is being loaded and none is served: what needs one is answered with 503.
    pub fn set_loading(&self) {
        self.loading.store(0, Relaxed);
        self.set_model(ModelState::Loading);
    }

    /// How far loading is, 0 to 1.
    pub fn set_loading_share(&self, share: f32) {
        self.loading.store((share * 100.0) as u8, Relaxed);
    }

    /// The model could not be loaded: until another one is, what needs one is answered with 503.
    pub fn set_missing(&self) {
        self.set_model(ModelState::Missing);
    }

    /// Counts an attempt to replace the model.
    pub fn count_reload(&self, outcome: ReloadOutcome) {
        self.metrics.on_reload(outcome);
    }

    fn set_model(&self, state: ModelState) {
        // What was there is dropped without the lock.
        let _before = std::mem::replace(&mut *self.model.write().unwrap_or_else(PoisonError::into_inner), state);
    }

    pub(super) fn backend(&self) -> Result<Arc<dyn Backend>, ApiError> {
        match &*self.model.read().unwrap_or_else(PoisonError::into_inner) {
            ModelState::Served(backend) => Ok(Arc::clone(backend)),
            ModelState::Loading => Err(ApiError::Loading),
            ModelState::Missing => Err(ApiError::NoModel),
        }
    }

    /// Calls `then` with the model of this name, or the one that is meant where none is named: at once if it is in memory.
    pub(super) fn with_model(
        &self,
        name: Option<&str>,
        then: impl FnOnce(Result<Arc<dyn Backend>, ApiError>) + Send + 'static,
    ) {
        let backend = self.backend().and_then(|backend| match name {
            Some(name) if name != backend.name() => {
                Err(ApiError::UnknownModel { name: name.to_owned(), known: vec![backend.name().to_owned()] })
            }
            _ => Ok(backend),
        });
        then(backend);
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

    /// Whether new requests can be served.
    pub(super) fn readiness(&self) -> Readiness {
        match self.backend().map(|backend| backend.snapshot().alive) {
            Err(ApiError::Loading) => Readiness::Loading { percent: self.loading.load(Relaxed) },
            Err(_) => Readiness::NoModel,
            Ok(false) => Readiness::Stuck,
            Ok(true) if self.draining.load(Relaxed) => Readiness::Draining,
            Ok(true) => Readiness::Ready,
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

    /// The state of engine and loops for one scrape.
    pub(super) fn gauges(&self) -> Gauges {
        let backend = self.backend().ok();
        Gauges {
            model: backend.as_ref().map(|backend| (backend.name().to_owned(), backend.info().clone())),
            engine: backend.map(|backend| backend.snapshot()).unwrap_or_default(),
            loops: self.server.get().map(ServerHandle::stats).unwrap_or_default(),
            ready: self.readiness() == Readiness::Ready,
        }
    }
}
