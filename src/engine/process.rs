//! What is asked of the operating system: before an engine starts, and for the threads that compute.

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

/// Lets other threads run before the calling one where cores are short: an event loop that wakes should answer at once,
/// not when a compute thread has used up its turn.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn give_way() {
    /// Half-way to the lowest priority: about a tenth of an ordinary thread's weight.
    const NICE: libc::c_int = 10;
    // SAFETY: a plain system call. On Linux priority is a thread's, and 0 is the calling one; lowering it may fail
    // nowhere, and if it did nothing would be lost.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Elsewhere priority is the whole process's.
#[cfg(any(not(target_os = "linux"), miri))]
pub(super) fn give_way() {}

/// Has memory that is yet to be written come in huge pages, where the system has them to give.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn prefer_huge_pages(memory: &mut [u8]) {
    // SAFETY: the range is ours, and the advice changes nothing that can be read from it. A range that is not aligned to
    // pages is refused, and nothing is lost.
    unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE) };
}

#[cfg(any(not(target_os = "linux"), miri))]
pub(super) fn prefer_huge_pages(_: &mut [u8]) {}
