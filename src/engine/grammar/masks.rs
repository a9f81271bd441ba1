//! Computes masks while the model computes logits: threads of their own, and the asker's when it has nothing else to do.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    thread,
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Allowed, Constraint};
use crate::engine::sequence::SeqId;

/// A mask takes some ten microseconds, a step of a model milliseconds: a thread for so many CPUs.
const CPUS_PER_THREAD: usize = 8;
const THREADS_MAX: usize = 4;

/// Where a sequence is, and where it would be after each token of its draft, with what may come next.
pub type Ahead = Vec<(Constraint, Allowed)>;

struct Task {
    id: SeqId,
    constraint: Constraint,
    draft: Vec<u32>,
}

type Found = (SeqId, Result<Ahead, String>);

/// Masks of one engine. At most one task for each sequence of a step is under way, which bounds its channels.
pub struct Masks {
    tasks: (Sender<Task>, Receiver<Task>),
    found: (Sender<Found>, Receiver<Found>),
    asked: usize,
    /// Started with the first task.
    started: bool,
}

impl Masks {
    pub fn new() -> Self {
        Self { tasks: unbounded(), found: unbounded(), asked: 0, started: false }
    }

    /// Begins to look ahead for a sequence.
    pub fn ask(&mut self, id: SeqId, constraint: Constraint, draft: &[u32]) {
        if !std::mem::replace(&mut self.started, true) {
            self.start();
        }
        self.asked += 1;
        // Never fails: this end holds a receiver too.
        let _ = self.tasks.0.send(Task { id, constraint, draft: draft.to_vec() });
    }

    /// What was asked for since the last time. Helps with what nobody has begun.
    pub fn collect(&mut self) -> HashMap<SeqId, Result<Ahead, String>> {
        let mut all = HashMap::with_capacity(self.asked);
        while all.len() < self.asked {
            let found = match self.tasks.1.try_recv() {
                Ok(task) => Ok(task.done()),
                Err(_) => self.found.1.recv(),
            };
            let Ok((id, ahead)) = found else { break };
            all.insert(id, ahead);
        }
        self.asked = 0;
        all
    }

    fn start(&self) {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cpus.div_ceil(CPUS_PER_THREAD).min(THREADS_MAX) {
            let (tasks, found) = (self.tasks.1.clone(), self.found.0.clone());
            let work = move || {
                for task in tasks.iter() {
                    if found.send(task.done()).is_err() {
                        return;
                    }
                }
            };
            // Without it the asker does it all.
            if let Err(error) = thread::Builder::new().name("masks".into()).spawn(work) {
                log::warn!("can't start a thread for masks: {error}");
            }
        }
    }
}

impl Task {
    fn done(self) -> Found {
        let Self { id, constraint, draft } = self;
        let ahead = panic::catch_unwind(AssertUnwindSafe(|| constraint.look_ahead(&draft)));
        (id, ahead.unwrap_or_else(|_| Err("its matcher panicked".into())))
    }
}
