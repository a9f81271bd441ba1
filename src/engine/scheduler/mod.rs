//! Chooses which tokens run next.
//!
//! Knows counts, block ids and the time it is told; never a tensor, a clock, a socket or text.
//! After every call: blocks free + blocks held = blocks total, and only running sequences hold blocks.
//!
//! ```text
//! submit ─▶ waiting ──admit──▶ running ──remove──▶ gone
//!              ▲                  │
//!              └─────preempt──────┘     blocks freed, all tokens to be computed again
//! ```
//!
//! One step, in this order:
//! 1. Requests past their deadline leave the queue.
//! 2. Every running stream gets its one row. When blocks run out, the newest of the lowest priority gives way; when that is
//!    the stream itself, it keeps its blocks and waits for those before it, which saves computing it again.
//! 3. The rest of the budget goes to prompt chunks, by priority, then first come first served, any number of sequences in
//!    one step; waiting ones are admitted as their turn comes.
//!
//! A sequence preempted three times is pinned: it is admitted again only when every block it can ever need is free, and
//! these stay promised to it. So everything finishes: the first in rank can take blocks from all but pinned sequences, and
//! pinned ones need nothing from anybody. A *parked* sequence (its reader is behind) gets no rows, and is the first to give
//! way, pinned or not.

mod pace;
#[cfg(test)]
mod simulation;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockPool, blocks_for},
    config::EngineConfig,
    error::RequestError,
    sequence::{SeqId, Sequence},
};
use pace::Pace;

/// Consecutive tokens of one sequence to be computed in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub id: SeqId,
    /// Position of the first.
    pub start: usize,
    /// How many, at least 1.
    pub rows: usize,
    /// It reaches the sequence's last token: the next one is to be sampled from its last row.
    pub sample: bool,
}

/// What one step does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Streams first, then prompts; one chunk per sequence at most.
    pub chunks: Vec<Chunk>,
    /// The first `decode_rows` chunks are running streams of one row each.
    pub decode_rows: usize,
    /// Left the queue for the first time, or again after a preemption.
    pub admitted: Vec<SeqId>,
    /// Lost their blocks and wait again.
    pub preempted: Vec<SeqId>,
    /// Left the queue at their deadline: gone from the scheduler, never computed.
    pub expired: Vec<SeqId>,
}

impl Step {
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }

    fn has(&self, id: SeqId) -> bool {
        self.chunks.iter().any(|chunk| chunk.id == id)
    }
}

#[derive(Debug)]
pub struct Scheduler {
    config: EngineConfig,
    pool: BlockPool,
    /// By rank. Holds no blocks. Bounded by whoever submits.
    waiting: VecDeque<Sequence>,
    /// By rank.
    running: Vec<Sequence>,
    pace: Pace,
}

impl Scheduler {
    /// A scheduler over a cache of `blocks` blocks.
    pub fn new(config: &EngineConfig, blocks: usize) -> Self {
        Self {
            config: config.clone(),
            pool: BlockPool::new(blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            pace: Pace::new(config.gap_max),
        }
    }

    /// Takes a sequence in.
    ///
    /// # Errors
    /// `CacheExceeded`: it could not run even if it were alone.
    pub fn submit(&mut self, sequence: Sequence) -> Result<(), RequestError> {
        let needed_blocks = blocks_for(sequence.tokens_max);
        if needed_blocks > self.pool.total() {
            return Err(RequestError::CacheExceeded { needed_blocks, total_blocks: self.pool.total() });
        }
        self.enqueue(sequence);
        Ok(())
    }

    /// Plans the next step. A step without chunks means that there is nothing to compute now.
    pub fn plan(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        self.expire(now, &mut step);
        self.plan_streams(&mut step);
        self.plan_prompts(&mut step);
        step
    }

    /// The planned step as the model takes it: one segment per chunk, in their order.
    pub fn batch(&self, step: &Step, choices: usize) -> Batch {
        let mut batch = Batch::new(choices);
        for chunk in &step.chunks {
            let sequence = self.sequence(chunk.id).expect("a planned sequence stays until its step is committed");
            let tokens = &sequence.tokens[chunk.start..chunk.start + chunk.rows];
            let wants: &[Want] = if chunk.sample { &[Want::Logits] } else { &[] };
            batch.push(tokens, chunk.start, &sequence.blocks, wants);
        }
        batch
    }

    /// The step was computed in `elapsed`; `sampled` has the next token of its chunks with `sample`.
    /// Sequences removed since the plan may be missing in it.
    pub fn commit(&mut self, step: &Step, sampled: &[(SeqId, u32)], elapsed: Duration) {
        for chunk in &step.chunks {
            if let Some(index) = self.running_index(chunk.id) {
                self.running[index].computed += chunk.rows;
            }
        }
        for &(id, token) in sampled {
            if let Some(index) = self.running_index(id) {
                self.running[index].tokens.push(token);
            }
        }
        if step.chunks.len() > step.decode_rows {
            self.pace.measured(step.rows(), elapsed);
        }
    }

    /// Ends a sequence, whatever its state: its blocks are free at once. `None` if it is not here.
    pub fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        if let Some(index) = self.running_index(id) {
            let mut sequence = self.running.remove(index);
            self.release(&mut sequence);
            return Some(sequence);
        }
        let index = self.waiting.iter().position(|s| s.id == id)?;
        self.waiting.remove(index)
    }

    /// A parked sequence gets no rows until it is unparked.
    pub fn set_parked(&mut self, id: SeqId, parked: bool) {
        if let Some(sequence) = self.running.iter_mut().chain(&mut self.waiting).find(|s| s.id == id) {
            sequence.parked = parked;
        }
    }

    /// A sequence that is running or waiting.
    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        self.running.iter().chain(&self.waiting).find(|s| s.id == id)
    }

    pub fn running_count(&self) -> usize {
        self.running.len()
    }

    /// Sequences that lost their blocks and wait to go on.
    pub fn preempted_count(&self) -> usize {
        self.waiting.iter().filter(|s| s.deadline.is_none()).count()
    }

    pub fn blocks_held(&self) -> usize {
        self.pool.held_count()
    }

    fn expire(&mut self, now: Instant, step: &mut Step) {
        self.waiting.retain(|sequence| {
            let expired = sequence.deadline.is_some_and(|deadline| now >= deadline);
            if expired {
                step.expired.push(sequence.id);
            }
            !expired
        });
    }

    /// One row for every running stream.
    fn plan_streams(&mut self, step: &mut Step) {
        let streams: Vec<SeqId> =
            self.running.iter().filter(|s| !s.parked && s.remaining() == 1).map(|s| s.id).collect();
        for id in streams {
            // A stream before it in rank may have preempted it.
            let Some(index) = self.running_index(id) else { continue };
            let start = self.running[index].computed;
            if self.make_room(id, blocks_for(start + 1), step) {
                self.push_chunk(id, 1, step);
            }
        }
        step.decode_rows = step.chunks.len();
    }

    /// Prompt chunks with what the streams leave of the step, admitting whoever's turn it is.
    fn plan_prompts(&mut self, step: &mut Step) {
        let mut rows_left = match step.decode_rows {
            0 => self.config.step_tokens_max,
            streams => self.pace.prompt_rows(streams, self.config.step_prompt_tokens_max),
        };
        let mut prompts: VecDeque<SeqId> =
            self.running.iter().filter(|s| !s.parked && s.remaining() > 1).map(|s| s.id).collect();
        let mut admitting = true;
        while rows_left > 0 {
            let next_running = prompts.front().and_then(|&id| self.sequence(id)).map(Sequence::rank);
            let next_waiting = self.waiting.iter().find(|s| admitting && !s.parked).map(Sequence::rank);
            match (next_running, next_waiting) {
                (running, Some(waiting)) if running.is_none_or(|running| waiting < running) => {
                    // Nobody overtakes the first in the queue, however small.
                    admitting = self.try_admit(waiting.1, step);
                    if admitting {
                        rows_left -= self.plan_chunk(waiting.1, rows_left, step);
                    }
                }
                (Some((_, id)), _) => {
                    prompts.pop_front();
                    rows_left -= self.plan_chunk(id, rows_left, step);
                }
                (None, _) => break,
            }
        }
    }

    /// Plans up to `rows_max` rows of a sequence, as blocks allow; how many.
    fn plan_chunk(&mut self, id: SeqId, rows_max: usize, step: &mut Step) -> usize {
        let Some(index) = self.running_index(id) else { return 0 };
        let (start, remaining) = (self.running[index].computed, self.running[index].remaining());
        if !self.make_room(id, blocks_for(start + 1), step) {
            return 0;
        }
        let sequence = &self.running[self.running_index(id).expect("there is room for it")];
        let fitting = (sequence.blocks.len() + self.available_to(sequence)) * BLOCK_TOKENS - start;
        let mut rows = remaining.min(rows_max).min(fitting);
        if rows < remaining {
            // A chunk that ends inside the prompt ends with a block, unless that wastes more than a quarter of it.
            let aligned = ((start + rows) / BLOCK_TOKENS * BLOCK_TOKENS).saturating_sub(start);
            if 4 * aligned >= 3 * rows {
                rows = aligned;
            }
        }
        self.push_chunk(id, rows, step);
        rows
    }

    /// Allocates the blocks of the next `rows` tokens, which must be available, and adds them to the step.
    fn push_chunk(&mut self, id: SeqId, rows: usize, step: &mut Step) {
        let index = self.running_index(id).expect("only running sequences are planned");
        let sequence = &mut self.running[index];
        let start = sequence.computed;
        while sequence.blocks.len() < blocks_for(start + rows) {
            sequence.blocks.push(self.pool.allocate().expect("room was made"));
        }
        step.chunks.push(Chunk { id, start, rows, sample: start + rows == sequence.tokens.len() });
    }

    /// Makes sure that a running sequence can hold `blocks` blocks, preempting others. False if it can't have them now:
    /// then it keeps what it has and waits for those before it.
    fn make_room(&mut self, id: SeqId, blocks: usize, step: &mut Step) -> bool {
        loop {
            let index = self.running_index(id).expect("no sequence preempts itself");
            let sequence = &self.running[index];
            if sequence.blocks.len() + self.available_to(sequence) >= blocks {
                return true;
            }
            let Some(victim) = self.victim(index, step) else { return false };
            self.preempt(victim, step);
        }
    }

    /// Blocks that a running sequence may take now.
    fn available_to(&self, sequence: &Sequence) -> usize {
        if sequence.is_pinned() {
            return blocks_for(sequence.tokens_max) - sequence.blocks.len();
        }
        self.pool.total() - self.running.iter().map(Sequence::blocks_promised).sum::<usize>()
    }

    /// Who gives way to the running sequence at `index`: any parked one, else the last in rank that comes after it.
    fn victim(&self, index: usize, step: &Step) -> Option<usize> {
        let gains = |s: &Sequence| s.blocks_promised() > 0 && !step.has(s.id);
        let parked = self.running.iter().rposition(|s| s.parked && gains(s));
        parked.or_else(|| {
            let later = self.running[index + 1..].iter().rposition(|s| !s.is_pinned() && gains(s))?;
            Some(index + 1 + later)
        })
    }

    /// Moves a sequence from the queue to the running ones, if width and blocks allow.
    fn try_admit(&mut self, id: SeqId, step: &mut Step) -> bool {
        let active = self.running.iter().filter(|s| !s.parked).count();
        let claimed = self.sequence(id).map_or(0, Sequence::blocks_claimed);
        // One block to spare for each running sequence: each will want its next within 32 tokens.
        if active >= self.config.running_max || !self.evict_parked_for(claimed + active, step) {
            return false;
        }
        // Looked for only now: an evicted sequence has come into the queue.
        let Some(at) = self.waiting.iter().position(|s| s.id == id) else { return false };
        let Some(mut sequence) = self.waiting.remove(at) else { return false };
        sequence.deadline = None;
        step.admitted.push(id);
        let index = self.running.partition_point(|s| s.rank() < sequence.rank());
        self.running.insert(index, sequence);
        true
    }

    /// Whether `needed` blocks are neither held nor about to be taken; parked sequences give theirs if that helps.
    fn evict_parked_for(&mut self, needed: usize, step: &mut Step) -> bool {
        let claimed = |parked: bool| -> usize {
            self.running.iter().filter(|s| s.parked == parked).map(Sequence::blocks_claimed).sum()
        };
        if claimed(false) + needed > self.pool.total() {
            return false;
        }
        while self.running.iter().map(Sequence::blocks_claimed).sum::<usize>() + needed > self.pool.total() {
            let parked = self.running.iter().rposition(|s| s.parked && s.blocks_claimed() > 0);
            self.preempt(parked.expect("parked sequences claim the rest"), step);
        }
        true
    }

    fn preempt(&mut self, index: usize, step: &mut Step) {
        let mut sequence = self.running.remove(index);
        self.release(&mut sequence);
        sequence.preemptions += 1;
        step.preempted.push(sequence.id);
        self.enqueue(sequence);
    }

    fn release(&mut self, sequence: &mut Sequence) {
        sequence.computed = 0;
        for block in sequence.blocks.drain(..).rev() {
            self.pool.free(block);
        }
    }

    /// A preempted sequence arrived before those of its priority that still wait: its rank puts it in front of them.
    fn enqueue(&mut self, sequence: Sequence) {
        let index = self.waiting.partition_point(|s| s.rank() < sequence.rank());
        self.waiting.insert(index, sequence);
    }

    fn running_index(&self, id: SeqId) -> Option<usize> {
        self.running.iter().position(|s| s.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(blocks: usize, config: EngineConfig) -> Scheduler {
        Scheduler::new(&config, blocks)
    }

    fn sequence(id: u64, prompt: usize, answer: usize) -> Sequence {
        let deadline = Instant::now() + Duration::from_secs(3600);
        Sequence::new(SeqId(id), vec![7; prompt], prompt + answer, 0, deadline)
    }

    /// Plans, computes and commits a step; its chunks as (id, start, rows, sample).
    fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize, bool)> {
        let step = scheduler.plan(Instant::now());
        let sampled: Vec<_> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, 7)).collect();
        scheduler.commit(&step, &sampled, Duration::from_millis(10));
        step.chunks.iter().map(|c| (c.id.0, c.start, c.rows, c.sample)).collect()
    }

    #[test]
    fn prompts_fill_the_step_and_chunks_end_with_blocks() {
        let mut scheduler = scheduler(100, EngineConfig { step_tokens_max: 110, ..Default::default() });
        for (id, prompt) in [(1, 40), (2, 200), (3, 1)] {
            scheduler.submit(sequence(id, prompt, 10)).unwrap();
        }
        // 70 rows are left for the second prompt: cut to blocks; the third takes what that leaves.
        assert_eq!(step(&mut scheduler), [(1, 0, 40, true), (2, 0, 64, false), (3, 0, 1, true)]);
        // Streams first. At 10 ms for 105 rows the gap allows far more than the bound of the step's prompt rows.
        assert_eq!(step(&mut scheduler), [(1, 40, 1, true), (3, 1, 1, true), (2, 64, 128, false)]);
        assert_eq!(step(&mut scheduler), [(1, 41, 1, true), (3, 2, 1, true), (2, 192, 8, true)]);
        assert_eq!(step(&mut scheduler), [(1, 42, 1, true), (2, 200, 1, true), (3, 3, 1, true)]);
    }

    #[test]
    fn slow_steps_shrink_prompt_chunks_beside_streams() {
        let mut scheduler = scheduler(100, EngineConfig::default());
        scheduler.submit(sequence(1, 1, 100)).unwrap();
        assert_eq!(step(&mut scheduler), [(1, 0, 1, true)]);
        scheduler.submit(sequence(2, 2000, 10)).unwrap();
        let mut prompt_rows = Vec::new();
        for _ in 0..20 {
            let step = scheduler.plan(Instant::now());
            let sampled: Vec<_> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, 7)).collect();
            prompt_rows.push(step.rows() - step.decode_rows);
            scheduler.commit(&step, &sampled, Duration::from_millis(2 * step.rows() as u64));
        }
        // 2 ms a row: 50 rows make the gap of 100 ms.
        assert!(prompt_rows[15..].iter().all(|&rows| (36..=49).contains(&rows)), "{prompt_rows:?}");
    }

    #[test]
    fn priority_goes_first_and_nobody_overtakes_the_first_in_the_queue() {
        let mut scheduler = scheduler(8, EngineConfig { running_max: 2, ..Default::default() });
        scheduler.submit(sequence(1, 100, 100)).unwrap();
        assert_eq!(step(&mut scheduler).len(), 1);
        scheduler.submit(sequence(2, 200, 50)).unwrap(); // 7 blocks: does not fit beside the first
        scheduler.submit(sequence(3, 10, 10)).unwrap();
        assert_eq!(step(&mut scheduler), [(1, 100, 1, true)]);
        scheduler.submit(Sequence { priority: 1, ..sequence(4, 10, 10) }).unwrap();
        assert_eq!(step(&mut scheduler), [(1, 101, 1, true), (4, 0, 10, true)]);
        assert_eq!(scheduler.waiting.len(), 2);
    }

    #[test]
    fn a_request_larger_than_the_cache_is_refused() {
        let mut scheduler = scheduler(4, EngineConfig::default());
        let refused = scheduler.submit(sequence(1, 100, 29));
        assert_eq!(refused, Err(RequestError::CacheExceeded { needed_blocks: 5, total_blocks: 4 }));
        scheduler.submit(sequence(2, 100, 28)).unwrap();
    }

    #[test]
    fn a_deadline_counts_until_admission_only() {
        let mut scheduler = scheduler(8, EngineConfig { running_max: 1, ..Default::default() });
        scheduler.submit(sequence(1, 10, 10)).unwrap();
        scheduler.submit(sequence(2, 10, 10)).unwrap();
        assert_eq!(step(&mut scheduler).len(), 1);
        let step = scheduler.plan(Instant::now() + Duration::from_secs(7200));
        assert_eq!(step.expired, [SeqId(2)]);
        assert_eq!(step.chunks.len(), 1);
        assert!(scheduler.remove(SeqId(2)).is_none());
    }

    #[test]
    fn the_newest_gives_way_and_readers_that_are_behind_before_it() {
        let mut scheduler = scheduler(4, EngineConfig::default());
        for id in 1..=3 {
            scheduler.submit(sequence(id, 10, 100)).unwrap();
            step(&mut scheduler);
        }
        scheduler.set_parked(SeqId(2), true);
        let mut preempted = Vec::new();
        for _ in 0..60 {
            let step = scheduler.plan(Instant::now());
            preempted.extend(step.preempted.iter().map(|id| id.0));
            let sampled: Vec<_> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, 7)).collect();
            scheduler.commit(&step, &sampled, Duration::from_millis(1));
        }
        assert_eq!(preempted, [2, 3]);
        assert_eq!(scheduler.sequence(SeqId(1)).unwrap().preemptions, 0);
    }
}
