//! A thread for text work that would hold up an event loop: tokenising and templating of large inputs.
//!
//! Small work runs at once where it is asked for. The queue is bounded; a full one is an answer ("try again"), not a
//! wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crossbeam_channel::{Sender, bounded};

use super::error::ApiError;

/// Work on at most this many bytes takes well under a millisecond and runs on the loop.
const INLINE_BYTES_MAX: usize = 4 << 10;
/// Jobs that may wait.
const QUEUE_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread, which ends when this is dropped.
pub struct TextWorker {
    jobs: Sender<Job>,
}

impl TextWorker {
    pub fn start() -> std::io::Result<Self> {
        let (jobs, queue) = bounded::<Job>(QUEUE_MAX);
        thread::Builder::new().name("sconce-text".to_owned()).spawn(move || {
            for job in queue {
                // A job that panics costs its own request a 500, when its responder is dropped.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("a text job panicked");
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs a job on `bytes` bytes of text: now if they are few, else on the thread.
    pub fn run(&self, bytes: usize, job: impl FnOnce() + Send + 'static) -> Result<(), ApiError> {
        if bytes <= INLINE_BYTES_MAX {
            job();
            return Ok(());
        }
        self.jobs.try_send(Box::new(job)).map_err(|_| ApiError::Busy)
    }

    /// As [`run`](Self::run), for a job that makes an answer: if there is no room for it, the answer is that.
    pub fn answer<T: 'static>(
        &self,
        bytes: usize,
        answer: impl FnOnce(Result<T, ApiError>) + Send + 'static,
        job: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) {
        // Whoever comes first takes it.
        let answer = Arc::new(Mutex::new(Some(answer)));
        let take = |answer: &Mutex<Option<_>>| answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mine = Arc::clone(&answer);
        let run = self.run(bytes, move || {
            if let Some(answer) = take(&mine) {
                answer(job());
            }
        });
        if let Err(error) = run
            && let Some(answer) = take(&answer)
        {
            answer(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_work_runs_here_and_large_work_elsewhere() {
        let worker = TextWorker::start().unwrap();
        let here = thread::current().id();
        for (bytes, same) in [(0, true), (INLINE_BYTES_MAX, true), (INLINE_BYTES_MAX + 1, false)] {
            let (tell, told) = bounded(1);
            worker.run(bytes, move || tell.send(thread::current().id()).unwrap()).unwrap();
            assert_eq!(told.recv().unwrap() == here, same, "{bytes}");
        }
    }

    #[test]
    fn a_full_queue_is_busy_and_a_panic_costs_one_job() {
        let worker = TextWorker::start().unwrap();
        let large = INLINE_BYTES_MAX + 1;
        worker.run(large, || panic!("on purpose")).unwrap();
        let (hold, held) = bounded::<()>(0);
        let (begun, begins) = bounded(0);
        worker.run(large, move || (begun.send(()).unwrap(), held.recv().unwrap()).1).unwrap();
        begins.recv().unwrap();
        for _ in 0..QUEUE_MAX {
            worker.run(large, || {}).unwrap();
        }
        assert_eq!(worker.run(large, || {}), Err(ApiError::Busy));
        hold.send(()).unwrap();
    }
}
