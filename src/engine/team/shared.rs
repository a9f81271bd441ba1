//! What the threads of a team share: the gate of regions, the tickets of stages, and how they sleep and wake.

use std::{
    any::Any,
    cell::UnsafeCell,
    ops::Deref,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
        },
    },
    thread::{self, Thread},
};

use crate::engine::process::give_way;

/// Polls before a thread that waits parks: some tens of microseconds.
const SPINS_BEFORE_PARK: u32 = 2_000;

/// A region's program, run by each thread. The lifetime is erased; see the invariant of the module above.
type Program = *const (dyn Fn() + Sync);

type Payload = Box<dyn Any + Send>;

/// Why a thread leaves a region in which another one panicked.
struct Abandoned;

#[derive(Default)]
pub(super) struct Shared {
    /// The current region's number in the upper half, [`OPEN`] while workers may come in, and below it how many are in.
    gate: Apart<AtomicU64>,
    /// The current stage's number in the upper half, below it the next chunk to be taken; [`POISON`] after a panic.
    ticket: Apart<AtomicU64>,
    /// Chunks of the current stage that are done, as far as their threads have said so.
    done: Apart<AtomicU32>,
    /// Threads that are parked in a region, or about to be.
    sleeping: Apart<AtomicUsize>,
    program: UnsafeCell<Option<Program>>,
    /// Workers from this index on don't take part.
    threads: AtomicUsize,
    workers: OnceLock<Vec<Thread>>,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Payload>>,
    stop: AtomicBool,
}

const REGION: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

const STAGE: u64 = 1 << 32;
/// A stage that is never reached, so that no chunk can be taken and nobody waits.
const POISON: u64 = u64::MAX;

/// A value with cache lines of its own: two, since lines are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

// SAFETY: `program` is written only by the team's owner while the gate is closed and nobody is inside, and read by
// workers only between coming in (acquire) and going out (release).
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `program` is used only while the caller keeps what is behind it alive.
unsafe impl Send for Shared {}

/// What a thread that asks for a chunk gets.
pub(super) enum Taken {
    Chunk(u32),
    /// All are taken, not all are done.
    None,
    /// The stage is over.
    Closed,
}

/// Regions.
impl Shared {
    pub fn introduce(&self, workers: Vec<Thread>) {
        self.workers.get_or_init(|| workers);
    }

    /// Runs `program` on the caller and on those of the first `threads` that come in, and returns when all have left.
    pub fn region(&self, threads: usize, program: &(dyn Fn() + Sync)) -> Result<(), Payload> {
        // SAFETY: only the lifetime is changed. Workers use the pointer only while they are inside this region, and
        // this function returns only when the gate is closed and nobody is inside.
        let program_ptr: Program =
            unsafe { std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(program) };
        // SAFETY: the gate is closed and nobody is inside: regions are opened by one thread at a time, and the last
        // one was left so.
        unsafe { *self.program.get() = Some(program_ptr) };
        *lock(&self.caller) = Some(thread::current());
        // Nobody is inside to see these; who comes in acquires them with the gate.
        self.threads.store(threads, Relaxed);
        self.ticket.store(0, Relaxed);
        self.done.store(0, Relaxed);
        let region = self.gate.load(Relaxed).wrapping_add(REGION);
        self.gate.store(region | OPEN, Release);
        self.workers.get().into_iter().flatten().take(threads - 1).for_each(Thread::unpark);
        self.take_part(program);
        // Lets nobody in any more, and waits for those who are. What they wrote is acquired with their going out.
        self.gate.fetch_and(!OPEN, Relaxed);
        self.wait_until(|| self.gate.load(SeqCst) & INSIDE == 0);
        lock(&self.panic).take().map_or(Ok(()), Err)
    }

    /// Runs the program; a panic poisons the region and is kept for the caller, if it is the first.
    fn take_part(&self, program: &dyn Fn()) {
        let Err(payload) = panic::catch_unwind(AssertUnwindSafe(program)) else { return };
        if !payload.is::<Abandoned>() {
            lock(&self.panic).get_or_insert(payload);
            self.ticket.store(POISON, SeqCst);
            self.wake();
        }
    }

    /// The life of worker `index`.
    pub fn work(&self, index: usize) {
        give_way();
        let mut seen = 0;
        while let Some(region) = self.come_in(index, seen) {
            seen = region;
            // SAFETY: this worker is inside, so `program` is set and stays as it is, and the closure is alive.
            let program = unsafe { (*self.program.get()).map(|program| &*program) };
            program.into_iter().for_each(|program| self.take_part(program));
            // From here on nothing of the caller's may be touched.
            self.gate.fetch_sub(1, SeqCst);
            self.wake();
        }
    }

    /// Waits for an open region other than `seen` and comes in; its number, or `None` when the team is dropped.
    fn come_in(&self, index: usize, seen: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            let gate = self.gate.load(Acquire);
            let region = gate / REGION;
            if region != seen && gate & OPEN != 0 && index < self.threads.load(Relaxed) {
                // Acquires what the caller set up. If the gate is another region's by now, the exchange fails.
                if self.gate.compare_exchange_weak(gate, gate + 1, Acquire, Relaxed).is_ok() {
                    return Some(region);
                }
                continue;
            }
            if self.stop.load(Acquire) {
                return None;
            }
            // Once it has slept it sleeps again at once, if it was not for a region that it was woken.
            if spins < SPINS_BEFORE_PARK && index < self.threads.load(Relaxed) {
                spins += 1;
                std::hint::spin_loop();
            } else {
                // An `unpark` that came before is remembered, so no region is missed.
                thread::park();
            }
        }
    }

    /// Ends the workers.
    pub fn stop(&self) {
        self.stop.store(true, Release);
        self.workers.get().into_iter().flatten().for_each(Thread::unpark);
    }
}

/// Stages.
impl Shared {
    /// The next chunk of `stage`, which has `chunks` of them. Leaves the region if it is poisoned.
    pub fn take(&self, stage: u32, chunks: u32) -> Taken {
        let mut ticket = self.ticket.load(Acquire);
        loop {
            if self.is_over(ticket, stage) {
                return Taken::Closed;
            }
            let next = ticket as u32;
            if next >= chunks {
                return Taken::None;
            }
            // Not a plain addition, which would take a chunk of the stage after, were this one closed meanwhile. To
            // acquire is needed here: the ticket may have been read before the stage's opening was, and a success
            // reads from that opening, or from exchanges that continue its release sequence.
            match self.ticket.compare_exchange_weak(ticket, ticket + 1, Acquire, Acquire) {
                Ok(_) => return Taken::Chunk(next),
                Err(found) => ticket = found,
            }
        }
    }

    /// Says that `done` chunks of `stage` are done by this thread, none being left to take, and returns when all are.
    pub fn finish(&self, stage: u32, chunks: u32, done: u32) {
        // Each addition releases its thread's work and acquires that of those before it, so the last has all of it.
        if done > 0 && self.done.fetch_add(done, AcqRel) + done == chunks {
            // Seen by the next stage's threads: they acquire the ticket that is released below.
            self.done.store(0, Relaxed);
            let all_taken = u64::from(stage) * STAGE + u64::from(chunks);
            // Releases everybody's work to all who find this stage closed. It fails only if the region was poisoned,
            // and then it must: poison stays. Sequentially consistent for `wait_until`.
            let _ = self.ticket.compare_exchange(all_taken, u64::from(stage + 1) * STAGE, SeqCst, Relaxed);
            self.wake();
        }
        self.wait_until(|| self.is_over(self.ticket.load(SeqCst), stage));
    }

    /// Whether `stage` is closed, given the ticket.
    fn is_over(&self, ticket: u64, stage: u32) -> bool {
        if ticket == POISON {
            // Not a panic of its own: no message, and the one that caused it is raised by the caller.
            panic::resume_unwind(Box::new(Abandoned));
        }
        ticket / STAGE > u64::from(stage)
    }
}

/// Sleep.
impl Shared {
    /// Spins, then parks, until `ready`, whose loads must be sequentially consistent, as what makes it true must be.
    ///
    /// No wake is lost: here `sleeping` is written and then `ready` read, there what makes it ready is written and
    /// then `sleeping` read, so at least one of the two sees the other; and an `unpark` before a `park` is remembered.
    fn wait_until(&self, ready: impl Fn() -> bool) {
        for _ in 0..SPINS_BEFORE_PARK {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        let sleep = Sleep::begin(&self.sleeping);
        while !ready() {
            thread::park();
        }
        drop(sleep);
    }

    /// Wakes those who sleep in [`wait_until`](Self::wait_until). Seldom does anybody.
    fn wake(&self) {
        if self.sleeping.load(SeqCst) > 0 {
            // Some don't sleep, or wait for something else: all look again for what they wait for.
            self.workers.get().into_iter().flatten().for_each(Thread::unpark);
            lock(&self.caller).iter().for_each(Thread::unpark);
        }
    }
}

#[cfg(test)]
impl Shared {
    pub fn sleeping(&self) -> usize {
        self.sleeping.load(SeqCst)
    }
}

/// One count of the sleeping threads, taken back also when `ready` unwinds.
struct Sleep<'a>(&'a AtomicUsize);

impl<'a> Sleep<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What the mutexes hold is replaced whole, so a panic in between leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
