//! A region as one of its threads sees it.

use std::{cell::Cell, ops::Range};

use super::shared::{CHUNKS_MAX, STAGES_MAX, Shared};

/// What a region's program is given: the way to share out a stage's work.
pub struct Crew<'a> {
    /// None: the thread is alone.
    shared: Option<&'a Shared>,
    threads: usize,
    /// This thread's, among them.
    index: usize,
    /// The number of the next stage.
    next: Cell<u32>,
    in_stage: Cell<bool>,
}

impl<'a> Crew<'a> {
    pub(super) fn alone() -> Crew<'static> {
        Crew { shared: None, threads: 1, index: 0, next: Cell::new(0), in_stage: Cell::new(false) }
    }

    pub(super) fn of(shared: &'a Shared, threads: usize, index: usize) -> Self {
        Crew { shared: Some(shared), ..Crew { threads, index, ..Crew::alone() } }
    }

    /// How many threads may take part in this region.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Splits `0..items` into chunks of `chunk` and has each done once, by any thread; returns when all are done, and
    /// what they wrote can be read. Each thread begins with a share of chunks that follow each other, in order.
    ///
    /// # Panics
    /// If called from within a stage, and beyond a million chunks of a stage or sixteen million stages of a region.
    pub fn stage(&self, items: usize, chunk: usize, work: impl Fn(Range<usize>)) {
        assert!(!self.in_stage.replace(true), "a stage within a stage");
        let chunk = chunk.max(1);
        let chunks = items.div_ceil(chunk);
        let run = |index: usize| work(index * chunk..items.min((index + 1) * chunk));
        match self.shared {
            None => (0..chunks).for_each(run),
            Some(_) if chunks == 0 => {}
            Some(shared) => self.share(shared, chunks, run),
        }
        self.in_stage.set(false);
    }

    fn share(&self, shared: &Shared, chunks: usize, run: impl Fn(usize)) {
        let (stage, count) = (self.next.get(), chunks as u32);
        assert!(chunks < CHUNKS_MAX as usize, "{chunks} chunks are too many for a stage");
        assert!(stage < STAGES_MAX, "{stage} stages are too many for a region");
        self.next.set(stage + 1);
        let start = |index: usize| (chunks * index / self.threads) as u32;
        let mut done = 0;
        // Its own share first, then what is left of the others'.
        for owner in (self.index..self.threads).chain(0..self.index) {
            let range = start(owner)..start(owner + 1);
            while let Some(index) = shared.take(self.index, owner, stage, range.clone()) {
                run(index as usize);
                done += 1;
            }
        }
        shared.finish(stage, count, done);
    }
}
