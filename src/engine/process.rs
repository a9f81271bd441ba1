//! What must be set for the whole process before an engine starts.

/// Sets up the process for engines; call it first thing in `main`.
///
/// - Candle is held to one thread (`CANDLE_NUM_THREADS`, `RAYON_NUM_THREADS`): the engine's team of threads is the
///   parallelism, and each of them calls candle's kernels for its own share. Left alone, candle would start a
///   spinning thread for every core of the machine, whatever the process may use, and let one caller in at a time.
/// - glibc is told to keep freed memory up to 32 MiB at a time: candle allocates the result of every product, and to
///   have the larger ones returned to the system and zeroed again by it costs an eighth of a step.
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
    keep_freed_memory();
}

/// The results of a step's products fit; the largest are a chunk of rows of logits.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 32 << 20;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    // SAFETY: `mallopt` takes numbers and has no preconditions; glibc locks its arenas itself.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * KEPT_BYTES);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
