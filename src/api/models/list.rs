//! What is told of the models: for lists, health, readiness and metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{Facts, Inner, ModelId, Models, Slot, machine::Model, state::State};
use crate::api::{
    backend::{Backend, ModelInfo, Snapshot},
    error::ApiError,
};

/// One model, at one moment.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    pub name: String,
    pub aliases: Vec<String>,
    /// Requests that name no model are for this one.
    pub default: bool,
    pub state: ModelState,
    /// By its files.
    pub facts: Facts,
    /// What was loaded, if it is.
    pub info: Option<ModelInfo>,
    /// Its counters, if it is in memory.
    pub snapshot: Option<Snapshot>,
    /// Memory that it takes now, keys and values included.
    pub memory_bytes: u64,
    /// Requests that have it.
    pub live: usize,
    /// Requests that wait for it to be loaded.
    pub waiting: usize,
    /// When it will be unloaded if nobody asks for it.
    pub expires: Option<SystemTime>,
    /// How often it was loaded, and how often that failed.
    pub loads: u64,
    pub load_failures: u64,
    /// Loaded when the server starts, and has not been yet.
    pub awaited: bool,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelState {
    Unloaded,
    Loading {
        percent: u8,
    },
    Served,
    /// Finishes what it has, and goes.
    Retiring,
    /// Could not be loaded; tried again no sooner than after so long. `why` may name paths: it is for whoever runs this
    /// server.
    Failed {
        why: String,
        retry_after: Duration,
    },
}

impl ModelState {
    /// A word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Loading { .. } => "loading",
            Self::Served => "loaded",
            Self::Retiring => "retiring",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Models {
    /// Every model that can be asked for, in the order of the configuration.
    pub fn list(&self) -> Vec<ModelStatus> {
        let inner = self.0.lock();
        let now = (Instant::now(), SystemTime::now());
        inner.served().filter_map(|(id, slot)| status(&inner, id, slot, now)).collect()
    }

    /// The model of this name or alias, or the default one.
    ///
    /// # Errors
    /// There is none of this name, or none at all yet.
    pub fn status(&self, name: Option<&str>) -> Result<ModelStatus, ApiError> {
        let inner = self.0.lock();
        let id = inner.resolve(name)?;
        let slot = inner.slots.get(&id).ok_or(ApiError::Loading)?;
        status(&inner, id, slot, (Instant::now(), SystemTime::now())).ok_or(ApiError::Loading)
    }

    /// The model of this name, if it is in memory, to be looked at: it may be ended any time.
    pub fn peek_at(&self, name: &str) -> Option<Arc<dyn Backend>> {
        let inner = self.0.lock();
        let id = inner.resolve(Some(name)).ok()?;
        let resident = inner.slots.get(&id)?.resident.as_ref()?;
        Some(Arc::clone(&resident.backend))
    }

    /// The default model, if it is in memory, to be looked at: it may be ended any time.
    pub fn peek(&self) -> Option<Arc<dyn Backend>> {
        let inner = self.0.lock();
        let resident = inner.slots.get(&inner.default?)?.resident.as_ref()?;
        Some(Arc::clone(&resident.backend))
    }
}

fn status(inner: &Inner, id: ModelId, slot: &Slot, (now, clock): (Instant, SystemTime)) -> Option<ModelStatus> {
    let model: &Model<_> = inner.machine.get(id)?;
    let state = match &model.state {
        State::Unloaded => ModelState::Unloaded,
        State::Wanted { .. } => ModelState::Loading { percent: 0 },
        State::Loading { percent, .. } => ModelState::Loading { percent: *percent },
        State::Served { .. } => ModelState::Served,
        State::Closing { .. } | State::Ending { .. } => ModelState::Retiring,
        State::Failed { why, until } => {
            ModelState::Failed { why: why.clone(), retry_after: until.saturating_duration_since(now) }
        }
    };
    let expires = model.idle_deadline().and_then(|due| clock.checked_add(due.saturating_duration_since(now)));
    let backend = slot.resident.as_ref().map(|resident| &resident.backend);
    Some(ModelStatus {
        name: slot.entry.name.clone(),
        aliases: slot.entry.aliases.clone(),
        default: inner.default == Some(id),
        state,
        facts: slot.entry.facts.clone(),
        info: backend.map(|backend| backend.info().clone()),
        snapshot: backend.map(|backend| backend.snapshot()),
        memory_bytes: model.bytes(),
        live: model.live,
        waiting: model.waiting(),
        expires,
        loads: slot.loads,
        load_failures: slot.failures,
        awaited: slot.awaited,
    })
}
