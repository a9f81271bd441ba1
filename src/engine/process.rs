//! What is asked of the operating system: before an engine starts, and for the threads that compute.

use std::{io, panic, thread};

/// Sets up the process for engines; call it first thing in `main`.
///
/// Candle is held to one thread (`CANDLE_NUM_THREADS`, `RAYON_NUM_THREADS`): the engine's team of threads is the
/// parallelism. Left alone, candle would start a spinning thread for every core of the machine, whatever the process may use.
///
/// Without it everything works, only slower.
///
/// # Safety
/// No other thread may exist yet: environment variables are not safe to change beside readers in C code.
pub unsafe fn prepare_process() {
    for name in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        // SAFETY: the caller's promise.
        unsafe { std::env::set_var(name, "1") };
    }
}

/// Returns freed memory to the system, of which glibc keeps some: for moments when a lot has been
/// freed for good, such as a model.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back_memory() {
    // SAFETY: takes a number and has no preconditions; glibc locks its arenas itself.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back_memory() {}

/// Half-way to the lowest priority: about a tenth of an ordinary thread's weight.
const NICE_COMPUTE: i32 = 10;
/// The lowest: an eighth of the weight of a thread that computes.
const NICE_ASIDE: i32 = 19;

/// Lets other threads run before the calling one where cores are short: an event loop that wakes should answer at once,
/// not when a compute thread has used up its turn.
pub(super) fn give_way() {
    lower_priority(NICE_COMPUTE);
}

/// Runs `work` on a thread that takes what CPU time others leave, as do all threads that it starts.
///
/// # Errors
/// There is no thread to be had. A panic of `work` is raised here again.
pub fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("aside".to_owned()).spawn_scoped(scope, || {
            lower_priority(NICE_ASIDE);
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)))
    })
}

/// Lowers the calling thread's priority to `nice`, unless it is lower already. Threads that it starts have it as well.
#[cfg(all(target_os = "linux", not(miri)))]
fn lower_priority(nice: i32) {
    // SAFETY: plain system calls. On Linux priority is a thread's, and 0 is the calling one; lowering it may fail
    // nowhere, and if it did nothing would be lost.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) < nice {
            libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        }
    }
}

/// Elsewhere priority is the whole process's.
#[cfg(any(not(target_os = "linux"), miri))]
fn lower_priority(_: i32) {}

/// Has memory that is yet to be written come in huge pages, where the system has them to give.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn prefer_huge_pages(memory: &mut [u8]) {
    // SAFETY: the range is ours, and the advice changes nothing that can be read from it. A range that is not aligned to
    // pages is refused, and nothing is lost.
    unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE) };
}

#[cfg(any(not(target_os = "linux"), miri))]
pub(super) fn prefer_huge_pages(_: &mut [u8]) {}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    fn nice() -> i32 {
        // SAFETY: a plain system call; 0 is the calling thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn who_steps_aside_takes_those_it_starts_along() {
        let before = nice();
        let (own, started) = aside(|| {
            // A thread that computes would take more.
            let started = thread::spawn(|| (give_way(), nice()).1).join().unwrap();
            (nice(), started)
        })
        .unwrap();
        assert_eq!((own, started, nice()), (NICE_ASIDE, NICE_ASIDE, before));
    }
}
