//! What the threads of a team share: the gate of regions, the shares of stages, and how they sleep and wake.

use std::{
    any::Any,
    cell::UnsafeCell,
    ops::{Deref, Range},
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

/// A region's program, run by each thread with its index. The lifetime is erased; see the invariant of the module above.
type Program = *const (dyn Fn(usize) + Sync);

type Payload = Box<dyn Any + Send>;

/// Why a thread leaves a region in which another one panicked.
struct Abandoned;

pub(super) struct Shared {
    /// The current region's number in the upper half, [`OPEN`] while workers may come in, and below it how many are in.
    gate: Apart<AtomicU64>,
    /// The current stage's number; [`POISON`] after a panic.
    stage: Apart<AtomicU64>,
    /// What is taken of each thread's share of the current stage, as a [`Share`].
    shares: Box<[Apart<AtomicU64>]>,
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

/// No stage's number.
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

/// How many chunks of a thread's share have been taken: at its front by the thread itself, at its back by others that
/// have none left of their own. So each goes through its share's memory in order: a core that jumps from chunk to chunk
/// reads at half the speed, since its prefetcher starts anew each time, and has fetched what nobody wanted.
///
/// One that was left in an earlier stage is untouched in this one.
#[derive(Clone, Copy)]
struct Share {
    stage: u32,
    front: u32,
    back: u32,
}

impl Share {
    const STAGE_BITS: u32 = 24;
    const COUNT_BITS: u32 = 20;
    const COUNT_MASK: u64 = (1 << Self::COUNT_BITS) - 1;

    fn unpack(word: u64) -> Self {
        Self {
            stage: (word >> (2 * Self::COUNT_BITS)) as u32,
            front: (word >> Self::COUNT_BITS & Self::COUNT_MASK) as u32,
            back: (word & Self::COUNT_MASK) as u32,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.stage) << (2 * Self::COUNT_BITS)
            | u64::from(self.front) << Self::COUNT_BITS
            | u64::from(self.back)
    }
}

/// Stages of a region, and chunks of a stage, are fewer than these.
pub(super) const STAGES_MAX: u32 = 1 << Share::STAGE_BITS;
pub(super) const CHUNKS_MAX: u32 = 1 << Share::COUNT_BITS;

/// Regions.
impl Shared {
    /// For so many threads, the caller included.
    pub fn new(threads: usize) -> Self {
        Self {
            gate: Apart::default(),
            stage: Apart::default(),
            shares: (0..threads).map(|_| Apart::default()).collect(),
            done: Apart::default(),
            sleeping: Apart::default(),
            program: UnsafeCell::default(),
            threads: AtomicUsize::default(),
            workers: OnceLock::new(),
            caller: Mutex::default(),
            panic: Mutex::default(),
            stop: AtomicBool::default(),
        }
    }

    pub fn introduce(&self, workers: Vec<Thread>) {
        self.workers.get_or_init(|| workers);
    }

    /// Runs `program` on the caller and on those of the first `threads` that come in, and returns when all have left.
    pub fn region(&self, threads: usize, program: &(dyn Fn(usize) + Sync)) -> Result<(), Payload> {
        // SAFETY: only the lifetime is changed. Workers use the pointer only while they are inside this region, and
        // this function returns only when the gate is closed and nobody is inside.
        let program_ptr: Program =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(program) };
        // SAFETY: the gate is closed and nobody is inside: regions are opened by one thread at a time, and the last
        // one was left so.
        unsafe { *self.program.get() = Some(program_ptr) };
        *lock(&self.caller) = Some(thread::current());
        // Nobody is inside to see these; who comes in acquires them with the gate.
        self.threads.store(threads, Relaxed);
        self.stage.store(0, Relaxed);
        self.shares.iter().for_each(|share| share.store(0, Relaxed));
        self.done.store(0, Relaxed);
        let region = self.gate.load(Relaxed).wrapping_add(REGION);
        self.gate.store(region | OPEN, Release);
        self.workers.get().into_iter().flatten().take(threads - 1).for_each(Thread::unpark);
        self.take_part(program, 0);
        // Lets nobody in any more, and waits for those who are. What they wrote is acquired with their going out.
        self.gate.fetch_and(!OPEN, Relaxed);
        self.wait_until(|| self.gate.load(SeqCst) & INSIDE == 0);
        lock(&self.panic).take().map_or(Ok(()), Err)
    }

    /// Runs the program; a panic poisons the region and is kept for the caller, if it is the first.
    fn take_part(&self, program: &dyn Fn(usize), index: usize) {
        let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| program(index))) else { return };
        if !payload.is::<Abandoned>() {
            lock(&self.panic).get_or_insert(payload);
            self.stage.store(POISON, SeqCst);
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
            program.into_iter().for_each(|program| self.take_part(program, index));
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
    /// The next of the `chunks` that are `owner`'s share of `stage`, for thread `taker`; `None` when all are taken, or the
    /// stage is over.
    ///
    /// Nothing is published by this: who is at a stage has acquired what was done before it with the stage's number, and
    /// an exchange fails unless it continues the latest word, so that no chunk is taken twice, or after its stage.
    pub fn take(&self, taker: usize, owner: usize, stage: u32, chunks: Range<u32>) -> Option<u32> {
        let word = &self.shares[owner];
        let mut found = word.load(Relaxed);
        loop {
            let mut share = Share::unpack(found);
            if share.stage < stage {
                share = Share { stage, front: 0, back: 0 };
            }
            if share.stage > stage || share.front + share.back >= chunks.end - chunks.start {
                return None;
            }
            let index = if taker == owner {
                share.front += 1;
                chunks.start + share.front - 1
            } else {
                share.back += 1;
                chunks.end - share.back
            };
            match word.compare_exchange_weak(found, share.pack(), Relaxed, Relaxed) {
                Ok(_) => return Some(index),
                Err(now) => found = now,
            }
        }
    }

    /// Says that `done` chunks of `stage` are done by this thread, none being left to take, and returns when all are.
    /// Leaves the region if it is poisoned.
    pub fn finish(&self, stage: u32, chunks: u32, done: u32) {
        // Each addition releases its thread's work and acquires that of those before it, so the last has all of it.
        if done > 0 && self.done.fetch_add(done, AcqRel) + done == chunks {
            // Seen by the next stage's threads: they acquire the number that is released below.
            self.done.store(0, Relaxed);
            // Releases everybody's work to all who find this stage closed. It fails only if the region was poisoned,
            // and then it must: poison stays. Sequentially consistent for `wait_until`.
            let _ = self.stage.compare_exchange(stage.into(), u64::from(stage) + 1, SeqCst, Relaxed);
            self.wake();
        }
        self.wait_until(|| self.is_over(stage));
    }

    fn is_over(&self, stage: u32) -> bool {
        let now = self.stage.load(SeqCst);
        if now == POISON {
            // Not a panic of its own: no message, and the one that caused it is raised by the caller.
            panic::resume_unwind(Box::new(Abandoned));
        }
        now > u64::from(stage)
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
