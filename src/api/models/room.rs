//! The memory that models may take: a bound that was set, or what the machine has.

/// What bounds the models of a server.
pub struct Bounds {
    /// Bytes that all of them may take together; `None`: what is `free`.
    pub bytes_max: Option<u64>,
    /// Bytes that could be allocated now, where the system says so.
    pub free: Box<dyn Fn() -> Option<u64> + Send>,
    /// Requests that may wait for one model to be loaded.
    pub waiters_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes_max: None, free: Box::new(|| None), waiters_max: 1024 }
    }
}

/// What models may take. Pure but for `free`.
pub struct Memory {
    bound: Bound,
    /// What could be allocated now, where the system says so.
    free: Box<dyn Fn() -> Option<u64> + Send>,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    /// Set: never more than that.
    Set(u64),
    /// What the machine had before the first model. A model that would be alone is tried whatever it needs: what the
    /// system says is left is an estimate, and too low a one where a container's page cache counts as used.
    Machine(Option<u64>),
}

/// Left free beside models, for all else.
const RESERVE_BYTES: u64 = 256 << 20;

impl Memory {
    /// `bytes_max`: what all models may take together, if that was set.
    pub fn new(bytes_max: Option<u64>, free: impl Fn() -> Option<u64> + Send + 'static) -> Self {
        let bound = match bytes_max {
            Some(max) => Bound::Set(max),
            None => Bound::Machine(free()),
        };
        Self { bound, free: Box::new(free) }
    }

    /// What may be taken yet when models hold `held`. `None`: nobody knows.
    pub fn left(&self, held: u64) -> Option<u64> {
        let bound = match self.bound {
            Bound::Set(max) => Some(max),
            Bound::Machine(bytes) => bytes.map(|bytes| bytes.saturating_sub(RESERVE_BYTES)),
        };
        // What models hold may be untouched yet, and what others have taken is in no bound of ours: both count.
        let bound = bound.map(|bound| bound.saturating_sub(held));
        let free = (self.free)().map(|bytes| bytes.saturating_sub(RESERVE_BYTES));
        bound.into_iter().chain(free).min()
    }

    /// Whether a model that needs so much is tried when no other is in memory.
    pub fn takes_alone(&self, needed: u64) -> bool {
        match self.bound {
            Bound::Set(max) => needed <= max,
            Bound::Machine(_) => true,
        }
    }

    /// What a model may take that replaces another, which will give back `given_back` when its last request has ended. Of a
    /// bound that was set it never takes that before.
    pub fn granted(&self, left: u64, given_back: u64) -> u64 {
        match self.bound {
            Bound::Set(_) => left,
            Bound::Machine(_) => left + given_back,
        }
    }
}
