//! A thread for text work that would hold up an event loop: tokenising and templating of large inputs.
//!
//! Small work runs at once where it is asked for. The queue is bounded; a full one is an answer ("try again"), not a
//! wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use crossbeam_channel::{Sender, bounded};

use super::error::ApiError;

/// Work on at most this many bytes takes well under a millisecond and runs on the loop.
const INLINE_BYTES_MAX: usize = 4 << 10;
/// Jobs that may wait.
const QUEUE_MAX: usize = 256;

/// Told whether it may work.
type Job = Box<dyn FnOnce(Result<(), ApiError>) + Send>;

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
                if catch_unwind(AssertUnwindSafe(|| job(Ok(())))).is_err() {
                    log::error!("a text job panicked");
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs a job on `bytes` bytes of text: now if they are few, else on the thread. If too many wait there, the job is
    /// told so, now.
    pub fn run(&self, bytes: usize, job: impl FnOnce(Result<(), ApiError>) + Send + 'static) {
        if bytes <= INLINE_BYTES_MAX {
            return job(Ok(()));
        }
        if let Err(full) = self.jobs.try_send(Box::new(job)) {
            full.into_inner()(Err(ApiError::Busy));
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
            worker.run(bytes, move |_| tell.send(thread::current().id()).unwrap());
            assert_eq!(told.recv().unwrap() == here, same, "{bytes}");
        }
    }

    #[test]
    fn a_full_queue_is_busy_and_a_panic_costs_one_job() {
        let worker = TextWorker::start().unwrap();
        let large = INLINE_BYTES_MAX + 1;
        worker.run(large, |_| panic!("on purpose"));
        let (hold, held) = bounded::<()>(0);
        let (begun, begins) = bounded(0);
        worker.run(large, move |_| (begun.send(()).unwrap(), held.recv().unwrap()).1);
        begins.recv().unwrap();
        for _ in 0..QUEUE_MAX {
            worker.run(large, |may| may.unwrap());
        }
        let (tell, told) = bounded(1);
        worker.run(large, move |may| tell.send(may).unwrap());
        assert_eq!(told.recv(), Ok(Err(ApiError::Busy)));
        hold.send(()).unwrap();
    }
}
