//! What all handlers share.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    engine::blocks::BLOCK_TOKENS,
    http::{Reply, ServerHandle},
};

use super::{
    backend::Backend,
    error::ApiError,
    metrics::{Endpoint, Gauges, Metrics},
    text_worker::TextWorker,
};

/// The served model, the counters, and what is set of the API.
pub struct Api {
    pub backend: Arc<dyn Backend>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) text_worker: TextWorker,
    pub(super) settings: Settings,
    draining: AtomicBool,
    server: OnceLock<ServerHandle>,
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
    pub fn new(backend: Arc<dyn Backend>, settings: Settings) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            backend,
            metrics: Arc::new(Metrics::new(Instant::now())),
            text_worker: TextWorker::start()?,
            settings,
            draining: AtomicBool::new(false),
            server: OnceLock::new(),
        }))
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

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Answers with what `work` makes of `bytes` bytes of text: at once if they are few, else from the text worker.
    pub(super) fn text_work(
        &self,
        endpoint: Endpoint,
        bytes: usize,
        work: impl FnOnce(&dyn Backend) -> Result<Reply, ApiError> + Send + 'static,
    ) -> Result<Reply, ApiError> {
        let (reply, responder) = Reply::later();
        let (backend, metrics) = (Arc::clone(&self.backend), Arc::clone(&self.metrics));
        self.text_worker.run(bytes, move || {
            let answer = work(&*backend).unwrap_or_else(Reply::from);
            metrics.on_answer(endpoint, answer.status().code());
            responder.send(answer);
        })?;
        Ok(reply)
    }

    /// The state of engine and loops for one scrape.
    pub(super) fn gauges(&self) -> Gauges {
        let now = self.backend.snapshot();
        let loops = self.server.get().map(ServerHandle::stats).unwrap_or_default();
        Gauges {
            model: self.backend.name().to_owned(),
            running: now.running,
            waiting: now.waiting,
            kv_blocks_used: now.kv_blocks_used,
            kv_blocks_total: now.kv_blocks_total,
            block_tokens: BLOCK_TOKENS,
            preemptions: now.preemptions,
            connections: loops.iter().map(|one| one.open_connections).collect(),
            ready: now.alive && !self.is_draining(),
        }
    }
}
