//! The compute team: a fixed set of threads that run one parallel region at a time.
//!
//! The thread that calls [`Team::run`] takes part as thread 0, so a team of one has no threads of its own. Workers
//! spin for a moment between regions, since the next one usually follows within microseconds, and park when none
//! comes: an idle team costs no CPU. Knows nothing of what it computes.
//!
//! Invariant: `run` returns only when every thread has left the region, so a region may borrow from its caller.

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
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

pub use disjoint::DisjointMut;

/// Polls of an idle worker before it parks: some tens of microseconds.
const SPINS_BEFORE_PARK: u32 = 4_000;
/// Polls of the caller before it offers its core to a worker that may have been preempted.
const SPINS_BEFORE_YIELD: u32 = 2_000;

/// As many threads as this process may really use: CPU affinity and cgroup quota count, not the machine's cores.
pub fn available_threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A region as the workers see it. The lifetime is erased; see the invariant above.
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Number of the current region; a change starts it.
    region: AtomicUsize,
    /// Workers still inside it.
    running: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the team's owner while `running` is 0, and read by workers only after they have
// seen the new `region` (release/acquire), before they lower `running`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is used only while the caller of `run` keeps it alive.
unsafe impl Send for Shared {}

/// See the module's text. `Send` but not `Sync`: one thread at a time opens regions, and a region can't open another.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    not_sync: PhantomData<Cell<()>>,
}

impl Team {
    /// A team of `threads`, the caller of [`run`](Self::run) included.
    pub fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            region: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let mut team = Self { shared, workers: Vec::new(), not_sync: PhantomData };
        for index in 1..threads.get() {
            let shared = Arc::clone(&team.shared);
            let worker =
                thread::Builder::new().name(format!("compute-{index}")).spawn(move || worker(&shared, index))?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(thread)` once on every thread, `thread` in `0..threads()`. A panic in any of them is raised here
    /// again, after all have left.
    pub fn run(&self, work: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            return work(0);
        }
        let job: &(dyn Fn(usize) + Sync) = &work;
        // SAFETY: only the lifetime is changed. Workers use the pointer only inside this region, and this function
        // leaves neither normally nor by a panic before `running` is 0 again.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(job) };
        // SAFETY: no region is open (`&self` of a `!Sync` type, and regions end before `run` returns).
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.running.store(self.workers.len(), Ordering::Relaxed);
        self.shared.region.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let own = panic::catch_unwind(AssertUnwindSafe(|| work(0)));
        self.wait_for_workers();
        let theirs = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = own.err().or(theirs) {
            panic::resume_unwind(payload);
        }
    }

    /// Splits `0..items` into chunks of `chunk` and runs `work` on each; threads take the next chunk when they are
    /// done with theirs, so that a preempted thread delays only one chunk. A single chunk runs on the caller.
    pub fn for_each_chunk(&self, items: usize, chunk: usize, work: impl Fn(Range<usize>) + Sync) {
        let chunk = chunk.max(1);
        if items <= chunk {
            if items > 0 {
                work(0..items);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(|_| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                work(start..items.min(start + chunk));
            }
        });
    }

    fn wait_for_workers(&self) {
        let mut spins = 0;
        while self.shared.running.load(Ordering::Acquire) != 0 {
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

fn worker(shared: &Shared, index: usize) {
    let mut seen = 0;
    while let Some(region) = next_region(shared, seen) {
        seen = region;
        // SAFETY: the region is open until this worker lowers `running`, so `job` is set and stays as it is, and the
        // closure behind it is alive.
        let result = panic::catch_unwind(AssertUnwindSafe(|| unsafe {
            if let Some(job) = *shared.job.get() {
                (*job)(index);
            }
        }));
        if let Err(payload) = result {
            *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for a region other than `seen`; `None` when the team is dropped.
fn next_region(shared: &Shared, seen: usize) -> Option<usize> {
    let mut spins = 0;
    loop {
        let region = shared.region.load(Ordering::Acquire);
        if region != seen {
            return Some(region);
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
    fn every_thread_runs_once() {
        for threads in 1..=4 {
            let team = team(threads);
            for _ in 0..200 {
                let runs: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
                team.run(|thread| {
                    runs[thread].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn chunks_cover_every_item_once() {
        let team = team(3);
        for (items, chunk) in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7), (1000, 0)] {
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

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_team_usable() {
        let team = team(2);
        for guilty in 0..2 {
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                team.run(|thread| assert_ne!(thread, guilty));
            }));
            assert!(result.is_err());
            let runs = AtomicUsize::new(0);
            team.run(|_| {
                runs.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(runs.into_inner(), 2);
        }
    }
}
