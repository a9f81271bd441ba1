//! What all handlers share.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::http::{Reply, ServerHandle};

use super::{
    backend::{Backend, Snapshot},
    error::ApiError,
    metrics::{Endpoint, Gauges, Metrics},
    text_worker::TextWorker,
};

/// The served model, the counters, and what is set of the API.
pub struct Api {
    /// Set once, when the model has been loaded.
    backend: OnceLock<Arc<dyn Backend>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) text_worker: TextWorker,
    pub(super) settings: Settings,
    draining: AtomicBool,
    server: OnceLock<ServerHandle>,
}

/// Whether new requests can be served, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The model is being loaded.
    Loading,
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
            backend: OnceLock::new(),
            metrics: Arc::new(Metrics::new(Instant::now())),
            text_worker: TextWorker::start()?,
            settings,
            draining: AtomicBool::new(false),
            server: OnceLock::new(),
        }))
    }

    /// The model has been loaded: from now on requests are taken.
    pub fn set_backend(&self, backend: Arc<dyn Backend>) {
        // A second model for the same state would be a mistake of the program; the first stays.
        let _ = self.backend.set(backend);
    }

    pub(super) fn backend(&self) -> Result<&Arc<dyn Backend>, ApiError> {
        self.backend.get().ok_or(ApiError::Loading)
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
        match self.backend.get().map(|backend| backend.snapshot().alive) {
            None => Readiness::Loading,
            Some(false) => Readiness::Stuck,
            Some(true) if self.draining.load(Relaxed) => Readiness::Draining,
            Some(true) => Readiness::Ready,
        }
    }

    /// Answers with what `work` makes of `bytes` bytes of text: at once if they are few, else from the text worker.
    pub(super) fn text_work(
        &self,
        endpoint: Endpoint,
        bytes: usize,
        work: impl FnOnce(&dyn Backend) -> Result<Reply, ApiError> + Send + 'static,
    ) -> Result<Reply, ApiError> {
        let (reply, responder) = Reply::later();
        let (backend, metrics) = (Arc::clone(self.backend()?), Arc::clone(&self.metrics));
        self.text_worker.run(bytes, move || {
            let answer = work(&*backend).unwrap_or_else(Reply::from);
            metrics.on_answer(endpoint, answer.status().code());
            responder.send(answer);
        })?;
        Ok(reply)
    }

    /// The model's name; empty while it is being loaded.
    pub(super) fn model_name(&self) -> &str {
        self.backend.get().map_or("", |backend| backend.name())
    }

    /// The engine's counters; zeros while the model is being loaded.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.backend.get().map(|backend| backend.snapshot()).unwrap_or_default()
    }

    /// The state of engine and loops for one scrape.
    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            model: self.model_name().to_owned(),
            engine: self.snapshot(),
            loops: self.server.get().map(ServerHandle::stats).unwrap_or_default(),
            ready: self.readiness() == Readiness::Ready,
        }
    }
}
