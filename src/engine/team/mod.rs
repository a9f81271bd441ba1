//! The compute team: a fixed set of threads that share the work of one parallel region at a time.
//!
//! A region ([`Team::run`]) is a program that every thread of the team runs from its start: a sequence of *stages*
//! ([`Crew::stage`]), whose chunks each thread takes one by one, from a share of its own and then from those of others that
//! are slower. The thread that calls does its part, so a team of one has no threads of its own. Nobody waits for a thread
//! that holds no chunk: one that comes in late, because something else runs on its core, finds old stages closed and goes
//! on to the current one, and a region in which a worker never comes is done without it.
//!
//! Who waits spins for some tens of microseconds, since the next stage usually follows at once, then parks: an idle
//! team costs no CPU, and a core whose thread sleeps is one to which the system may bring a thread that was preempted
//! in the middle of its chunk. Knows nothing of what it computes.
//!
//! Invariant: a region is left by every thread that came in before the call returns, so it may borrow from its caller.

mod crew;
mod disjoint;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    num::NonZeroUsize,
    ops::Range,
    panic,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use crew::Crew;
pub use disjoint::DisjointMut;
use shared::Shared;

/// How often a running team asks how many threads it may use.
const LIMIT_READ_EVERY: Duration = Duration::from_secs(1);

/// As many threads as this process may really use now: CPU affinity and cgroup quota (v1 and v2, rounded down) count,
/// not the machine's cores. Reads files, some tens of microseconds.
pub fn available_threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// See the module's text. `Send` but not `Sync`: one thread at a time opens regions, and a region can't open another.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    available: fn() -> NonZeroUsize,
    /// How many threads may take part, and when that was read. Not `Sync`, and so the team isn't.
    limit: Cell<(usize, Instant)>,
}

impl Team {
    /// A team of `threads`, the caller included, of which at most [`available_threads`] take part in a region. That
    /// is read again while the team runs, so it follows a quota or an affinity that changes.
    pub fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        Self::with_limit(threads, available_threads)
    }

    /// As [`new`](Self::new), with another way to learn how many threads may be used.
    pub fn with_limit(threads: NonZeroUsize, available: fn() -> NonZeroUsize) -> std::io::Result<Self> {
        let limit = Cell::new((available().get(), Instant::now()));
        let shared = Arc::new(Shared::new(threads.get()));
        let mut team = Self { shared, workers: Vec::new(), available, limit };
        for index in 1..threads.get() {
            let shared = Arc::clone(&team.shared);
            let worker = thread::Builder::new().name(format!("compute-{index}")).spawn(move || shared.work(index))?;
            team.workers.push(worker);
        }
        team.shared.introduce(team.workers.iter().map(|w| w.thread().clone()).collect());
        Ok(team)
    }

    /// Threads that were built, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `program` on the caller and on every worker that comes in before the caller is through with it.
    ///
    /// Every thread must go through the same stages with the same numbers of items and chunks; what the program does
    /// between them must follow from what earlier stages wrote. A panic of any thread ends the region, all leave, and
    /// it is raised here again; the team stays usable.
    pub fn run(&self, program: impl Fn(&Crew) + Sync) {
        let threads = self.threads_at(Instant::now());
        if threads == 1 {
            return program(&Crew::alone());
        }
        let shared = &*self.shared;
        let result = shared.region(threads, &|index| program(&Crew::of(shared, threads, index)));
        if let Err(payload) = result {
            panic::resume_unwind(payload);
        }
    }

    /// A region of one stage. A single chunk runs on the caller.
    pub fn for_each_chunk(&self, items: usize, chunk: usize, work: impl Fn(Range<usize>) + Sync) {
        if items > chunk.max(1) {
            self.run(|crew| crew.stage(items, chunk, &work));
        } else if items > 0 {
            work(0..items);
        }
    }

    /// How many threads take part in a region that begins at `now`.
    fn threads_at(&self, now: Instant) -> usize {
        let (mut limit, read) = self.limit.get();
        if now.saturating_duration_since(read) >= LIMIT_READ_EVERY {
            limit = (self.available)().get();
            self.limit.set((limit, now));
        }
        limit.min(self.threads())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its regions, so there is nothing left to report.
            let _ = worker.join();
        }
    }
}
