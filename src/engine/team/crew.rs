//! A region as one of its threads sees it.

use std::{cell::Cell, ops::Range};

use super::shared::{Shared, Taken};

/// What a region's program is given: the way to share out a stage's work.
pub struct Crew<'a> {
    /// None: the thread is alone.
    shared: Option<&'a Shared>,
    threads: usize,
    /// The number of the next stage.
    next: Cell<u32>,
    in_stage: Cell<bool>,
}

impl<'a> Crew<'a> {
    pub(super) fn alone() -> Crew<'static> {
        Crew { shared: None, threads: 1, next: Cell::new(0), in_stage: Cell::new(false) }
    }

    pub(super) fn of(shared: &'a Shared, threads: usize) -> Self {
        Crew { shared: Some(shared), ..Crew { threads, ..Crew::alone() } }
    }

    /// How many threads may take part in this region.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Splits `0..items` into chunks of `chunk` and has each done once, by any thread; returns when all are done, and
    /// what they wrote can be read.
    ///
    /// # Panics
    /// If called from within a stage.
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
        let stage = self.next.get();
        let chunks = u32::try_from(chunks).expect("fewer chunks than 2^32");
        self.next.set(stage.checked_add(1).expect("fewer stages than 2^32"));
        let mut done = 0;
        loop {
            match shared.take(stage, chunks) {
                Taken::Chunk(index) => run(index as usize),
                Taken::None => break shared.finish(stage, chunks, done),
                Taken::Closed => break,
            }
            done += 1;
        }
    }
}
