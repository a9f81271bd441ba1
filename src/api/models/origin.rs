//! Where a model comes from: what is known of it before it is loaded, and the way into memory.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::api::backend::{Backend, Makes};

/// A model of the configuration.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Its place in lists.
    pub position: usize,
    /// Requests that name no model are for this one.
    pub default: bool,
    /// Loaded when the server starts, not when it is first asked for.
    pub at_start: bool,
    /// Unloaded after so long without a request; `None`: never.
    pub idle_max: Option<Duration>,
    pub facts: Facts,
    pub origin: Arc<dyn Origin>,
}

impl Entry {
    /// A model that is in memory already, as the default one, for as long as it is served.
    pub fn fixed(backend: Arc<dyn Backend>) -> Self {
        let info = backend.info();
        let facts = Facts {
            kind: if matches!(backend.makes(), Makes::Text { .. }) { Kind::Decoder } else { Kind::Encoder },
            architecture: info.architecture.clone(),
            parameters: info.parameters,
            file_bytes: info.file_bytes,
            context: info.context,
            memory_bytes_min: 0,
            created: info.loaded,
        };
        Self {
            name: backend.name().to_owned(),
            aliases: Vec::new(),
            position: 0,
            default: true,
            at_start: true,
            idle_max: None,
            facts,
            origin: Arc::new(Fixed(backend)),
        }
    }
}

/// Holds what it gives.
struct Fixed(Arc<dyn Backend>);

impl Origin for Fixed {
    fn load(&self, _: &Order<'_>) -> Result<Resident, String> {
        Ok(Resident { backend: Arc::clone(&self.0), bytes: 0, end: Arc::new(|_| ()) })
    }
}

/// What a model's files say without being loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub kind: Kind,
    /// As its file names it.
    pub architecture: String,
    pub parameters: u64,
    pub file_bytes: u64,
    /// Tokens that it was trained for, or less where less is served.
    pub context: usize,
    /// Memory without which it can't be loaded: weights, and keys and values of one sequence.
    pub memory_bytes_min: u64,
    /// When its file was written.
    pub created: SystemTime,
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Generates text.
    Decoder,
    /// Turns texts into vectors.
    Encoder,
}

/// Brings a model into memory.
pub trait Origin: Send + Sync {
    /// Loads it and starts what serves it. Takes as long as it takes; the error says why it can't be had.
    fn load(&self, order: &Order<'_>) -> Result<Resident, String>;
}

/// How a model is to be loaded.
pub struct Order<'a> {
    /// Memory that it may take in all, keys and values included; `None`: nobody knows.
    pub bytes: Option<u64>,
    /// Others are in memory: what loading does gives way to them.
    pub beside_others: bool,
    /// Told how far it is, 0 to 1.
    pub on_progress: &'a (dyn Fn(f32) + Sync),
}

/// A model in memory.
#[derive(Clone)]
pub struct Resident {
    pub backend: Arc<dyn Backend>,
    /// Memory that it holds, keys and values included.
    pub bytes: u64,
    /// Ends it: what it has is given so long to finish. Returns when it has ended.
    pub end: Arc<dyn Fn(Duration) + Send + Sync>,
}
