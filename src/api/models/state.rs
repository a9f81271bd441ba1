//! The words between the [`machine`](super::machine) and those who carry out what it decides.

use std::time::{Duration, Instant};

/// A model of the configuration; one that takes the place of another has an id of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u64);

/// What the machine must know of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Without them it can't be loaded.
    pub bytes_min: u64,
    /// It goes after so long without a request.
    pub idle_max: Option<Duration>,
    /// The model whose place it will take: that one's memory is free soon.
    pub replaces: Option<ModelId>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect<W> {
    /// Load it, into so many bytes at most where that is known; then say [`Machine::loaded`] or [`Machine::failed`].
    Load { model: ModelId, bytes: Option<u64> },
    /// End it: it has no requests, or was given time enough. Then say [`Machine::ended`].
    End(ModelId),
    /// `Ok`: the model is there and counts this caller as live until [`Machine::released`].
    Answer { waiter: W, model: ModelId, answer: Result<(), Refusal> },
    /// It was removed and is out of memory: its id means nothing any more.
    Forget(ModelId),
}

/// Why a caller gets no model.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// It has been removed.
    Removed,
    /// Too many wait for it.
    Full,
    /// It needs more than is left and than those hold that have no requests; `busy` have.
    NoRoom {
        needed: u64,
        left: u64,
        busy: Vec<ModelId>,
    },
    /// It could not be loaded; the next try is not before `retry_after`.
    Failed {
        retry_after: Duration,
    },
    /// It was not there in time.
    Timeout,
    ShuttingDown,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Unloaded,
    /// Asked for; loaded when those with lower numbers have been, and there is room.
    Wanted {
        number: u64,
    },
    Loading {
        began: Instant,
        percent: u8,
        bytes: u64,
    },
    Served {
        /// Its place is its own until then.
        turn_ends: Instant,
        bytes: u64,
    },
    /// Takes no new requests; those that come wait until it can be loaded again.
    Closing {
        cause: Cause,
        bytes: u64,
    },
    /// Its engine is being ended.
    Ending {
        bytes: u64,
    },
    Failed {
        why: String,
        until: Instant,
    },
}

/// Why a model goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Another wants its room.
    Room,
    /// It was told to, or was idle.
    Told,
    /// It was removed, and its requests have time until then.
    Removed { by: Option<Instant> },
}
