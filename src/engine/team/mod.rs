//! The compute team: a fixed set of threads that share the work of one parallel region at a time.
//!
//! The thread that calls [`Team::for_each_chunk`] does its part, so a team of one has no threads of its own. A region's
//! work is cut into chunks that threads take one by one, and a region ends when its chunks are done: a worker that has
//! not come in by then, because something else runs on its core, is not waited for. Workers spin for a moment between
//! regions, since the next one usually follows within microseconds, and park when none comes: an idle team costs no
//! CPU. Knows nothing of what it computes.
//!
//! Invariant: a region is left by every thread that came in before the call returns, so it may borrow from its caller.

mod disjoint;

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    marker::PhantomData,
    num::NonZeroUsize,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

pub use disjoint::DisjointMut;

use super::process::give_way;

/// Polls of an idle worker before it parks: some tens of microseconds.
const SPINS_BEFORE_PARK: u32 = 4_000;
/// Polls of the caller before it offers its core to a worker that may have been preempted.
const SPINS_BEFORE_YIELD: u32 = 2_000;

/// As many threads as this process may really use: CPU affinity and cgroup quota count, not the machine's cores.
pub fn available_threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A region as the workers see it. The lifetime is erased; see the invariant above.
type Job = *const (dyn Fn() + Sync);

struct Shared {
    /// The current region's number in the upper half, [`OPEN`] while workers may come in, and below it how many are in.
    gate: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

const REGION: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

// SAFETY: `job` is written only by the team's owner while the gate is closed and nobody is inside, and read by workers
// only between coming in (acquire) and going out (release).
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is used only while the caller keeps what is behind it alive.
unsafe impl Send for Shared {}

/// See the module's text. `Send` but not `Sync`: one thread at a time opens regions, and a region can't open another.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    not_sync: PhantomData<Cell<()>>,
}

impl Team {
    /// A team of `threads`, the caller included.
    pub fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let mut team = Self { shared, workers: Vec::new(), not_sync: PhantomData };
        for index in 1..threads.get() {
            let shared = Arc::clone(&team.shared);
            let worker = thread::Builder::new().name(format!("compute-{index}")).spawn(move || worker(&shared))?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Splits `0..items` into chunks of `chunk` and runs `work` on each, once; threads take the next chunk when they
    /// are done with theirs. A single chunk runs on the caller. A panic in any of them is raised here again, after all
    /// have left.
    pub fn for_each_chunk(&self, items: usize, chunk: usize, work: impl Fn(Range<usize>) + Sync) {
        let chunk = chunk.max(1);
        if items <= chunk {
            if items > 0 {
                work(0..items);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.region(&|| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                work(start..items.min(start + chunk));
            }
        });
    }

    /// Runs `work` on the caller and on every worker that comes in before the caller is done.
    fn region(&self, work: &(dyn Fn() + Sync)) {
        if self.workers.is_empty() {
            return work();
        }
        // SAFETY: only the lifetime is changed. Workers use the pointer only while they are inside this region, and
        // this function leaves, normally or by a panic, only when the gate is closed and nobody is inside.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(work) };
        // SAFETY: the gate is closed and nobody is inside: `&self` of a `!Sync` type, and the last region was left so.
        unsafe { *self.shared.job.get() = Some(job) };
        let region = self.shared.gate.load(Ordering::Relaxed).wrapping_add(REGION);
        self.shared.gate.store(region | OPEN, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let own = panic::catch_unwind(AssertUnwindSafe(work));
        self.close();
        let theirs = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = own.err().or(theirs) {
            panic::resume_unwind(payload);
        }
    }

    /// Lets nobody in any more, and waits for those who are.
    fn close(&self) {
        self.shared.gate.fetch_and(!OPEN, Ordering::Acquire);
        let mut spins = 0;
        while self.shared.gate.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its regions, so there is nothing left to report.
            let _ = worker.join();
        }
    }
}

fn worker(shared: &Shared) {
    give_way();
    let mut seen = 0;
    while let Some(region) = come_in(shared, seen) {
        seen = region;
        // SAFETY: this worker is inside, so `job` is set and stays as it is, and the closure behind it is alive.
        let result = panic::catch_unwind(AssertUnwindSafe(|| unsafe {
            if let Some(job) = *shared.job.get() {
                (*job)();
            }
        }));
        if let Err(payload) = result {
            *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
        shared.gate.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for an open region other than `seen` and comes in; its number, or `None` when the team is dropped.
fn come_in(shared: &Shared, seen: u64) -> Option<u64> {
    let mut spins = 0;
    loop {
        let gate = shared.gate.load(Ordering::Relaxed);
        let region = gate / REGION;
        if region != seen && gate & OPEN != 0 {
            if shared.gate.compare_exchange_weak(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(region);
            }
            continue;
        }
        if shared.stop.load(Ordering::Acquire) {
            return None;
        }
        spins += 1;
        if spins < SPINS_BEFORE_PARK {
            std::hint::spin_loop();
        } else {
            // An `unpark` that came before is remembered, so no region is missed.
            thread::park();
            spins = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team(threads: usize) -> Team {
        Team::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn chunks_cover_every_item_once() {
        for threads in 1..=4 {
            let team = team(threads);
            for (items, chunk) in [(0, 4), (1, 4), (4, 4), (5, 4), (2, 1), (1000, 7), (1000, 0)].repeat(50) {
                let seen: Vec<_> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                team.for_each_chunk(items, chunk, |range| {
                    assert!(range.len() <= chunk.max(1));
                    for i in range {
                        seen[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1), "{items} items by {chunk}");
            }
        }
    }

    /// Two chunks that wait for each other are done only if a worker comes in.
    #[test]
    fn workers_take_part() {
        let team = team(2);
        for _ in 0..100 {
            let both = std::sync::Barrier::new(2);
            team.for_each_chunk(2, 1, |_| {
                both.wait();
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_team_usable() {
        let team = team(2);
        let caller = thread::current().id();
        for guilty_is_caller in [true, false] {
            // Both threads take a chunk each, since they wait for each other.
            let both = std::sync::Barrier::new(2);
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                team.for_each_chunk(2, 1, |_| {
                    both.wait();
                    assert_ne!(thread::current().id() == caller, guilty_is_caller);
                });
            }));
            assert!(result.is_err());
            let runs = AtomicUsize::new(0);
            team.for_each_chunk(8, 1, |_| {
                runs.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(runs.into_inner(), 8);
        }
    }
}
