//! Chooses which tokens run next.
//!
//! Knows counts, tokens, block ids and the time it is told; never a tensor, a clock, a socket or text.
//! After every call: blocks free + cached + held = blocks total, and only running sequences hold blocks.
//!
//! ```text
//! submit ─▶ waiting ──admit──▶ running ──remove──▶ gone
//!              ▲                  │
//!              └─────preempt──────┘     blocks released, all tokens to be computed again, or found in the cache
//! ```
//!
//! One step, in this order:
//! 1. Requests past their deadline leave.
//! 2. Every running stream gets its one row. When blocks run out, the newest of the lowest priority gives way; when that is
//!    the stream itself, it keeps its blocks and waits for those before it, which saves computing it again.
//! 3. The rest of the budget goes to prompt chunks in order of their turns (`queue`), any number of sequences in one
//!    step; waiting ones are admitted as the queue has them. What the cache has is taken from there, and what another
//!    prompt is computing right now is waited for.
//! 4. If no prompt has a row, streams get drafts to check where these pay.
//!
//! A sequence preempted three times is pinned: it is admitted again only when every block it can ever need can be had, and
//! these stay promised to it. So everything finishes: the first in rank can take blocks from all but pinned sequences, and
//! pinned ones need nothing from anybody. A *parked* sequence (its reader is behind) gets no rows, and is the first to give
//! way, pinned or not.

mod clients;
mod pace;
mod plan;
mod queue;
mod room;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod width;

use std::time::{Duration, Instant};

use super::{
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockPool},
    config::EngineConfig,
    error::RequestError,
    prefix::Namer,
    sequence::{SeqId, Sequence},
};
use pace::{Load, Pace};
use queue::Queue;
use width::Widths;

/// Consecutive tokens of one sequence to be computed in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub id: SeqId,
    /// Position of the first.
    pub start: usize,
    /// How many of the sequence's tokens, at least 1.
    pub tokens: usize,
    /// Rows whose logits say how likely the prompt's next tokens are: the last ones before those that are sampled.
    pub scored: usize,
    /// It reaches the sequence's last token: the next one is to be sampled from its last row.
    pub sample: bool,
    /// What may follow the last token: a row each, all sampled too.
    pub draft: Vec<u32>,
}

impl Chunk {
    pub fn rows(&self) -> usize {
        self.tokens + self.draft.len()
    }

    /// Rows to sample, the last ones.
    pub fn sampled_rows(&self) -> usize {
        if self.sample { 1 + self.draft.len() } else { 0 }
    }

    /// Rows of which something is wanted, the last ones: scored, then sampled.
    pub fn wanted_rows(&self) -> usize {
        self.scored + self.sampled_rows()
    }

    /// Position of the first scored row.
    pub fn first_scored(&self) -> usize {
        self.start + self.rows() - self.wanted_rows()
    }

    fn load(&self) -> Load {
        Load::chunk(self.start, self.rows())
    }
}

/// What one step does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Streams first, then prompts; one chunk per sequence at most.
    pub chunks: Vec<Chunk>,
    /// The first `streams` chunks are running streams, of one row each and one for each token of their drafts.
    pub streams: usize,
    /// Left the queue for the first time, or again after a preemption.
    pub admitted: Vec<SeqId>,
    /// Lost their blocks and wait again.
    pub preempted: Vec<SeqId>,
    /// Left the queue at their deadline: gone from the scheduler, never computed.
    pub expired: Vec<SeqId>,
    /// Not finished in time: gone from the scheduler, whatever their state.
    pub overdue: Vec<SeqId>,
}

impl Step {
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(Chunk::rows).sum()
    }

    fn load(&self) -> Load {
        self.chunks.iter().fold(Load::default(), |load, chunk| load + chunk.load())
    }

    fn has(&self, id: SeqId) -> bool {
        self.chunks.iter().any(|chunk| chunk.id == id)
    }
}

/// The tokens that a sequence has got in a step: those of its draft that are right, and the one after them.
pub type Sampled = (SeqId, Vec<u32>);

#[derive(Debug)]
pub struct Scheduler {
    config: EngineConfig,
    pool: BlockPool,
    /// Unnamed blocks are nobody's but their sequence's.
    namer: Option<Namer>,
    queue: Queue,
    /// By rank.
    running: Vec<Sequence>,
    pace: Pace,
    widths: Widths,
}

impl Scheduler {
    /// A scheduler over a cache of `blocks` blocks.
    pub fn new(config: &EngineConfig, blocks: usize) -> Self {
        Self {
            config: config.clone(),
            pool: BlockPool::new(blocks),
            namer: config.prefix_cache.then(Namer::default),
            queue: Queue::default(),
            running: Vec::new(),
            pace: Pace::new(config.gap_max),
            widths: Widths::new(),
        }
    }

    /// Takes a sequence in.
    ///
    /// # Errors
    /// `CacheExceeded`: it could not run even if it were alone.
    pub fn submit(&mut self, mut sequence: Sequence) -> Result<(), RequestError> {
        let needed_blocks = sequence.blocks_max();
        if needed_blocks > self.pool.total() {
            return Err(RequestError::CacheExceeded { needed_blocks, total_blocks: self.pool.total() });
        }
        if let Some(namer) = &self.namer {
            sequence.name_blocks(namer);
        }
        self.queue.submit(sequence);
        Ok(())
    }

    /// Plans the next step. A step without chunks means that there is nothing to compute now.
    pub fn plan(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        self.expire(now, &mut step);
        self.plan_streams(&mut step);
        self.plan_prompts(now, &mut step);
        if step.chunks.len() == step.streams {
            self.plan_drafts(&mut step);
        }
        step
    }

    /// The planned step as the model takes it: one segment per chunk, in their order.
    pub fn batch(&self, step: &Step, choices: usize) -> Batch {
        let mut batch = Batch::new(choices);
        for chunk in &step.chunks {
            let sequence = self.sequence(chunk.id).expect("a planned sequence stays until its step is committed");
            let tokens = [&sequence.tokens[chunk.start..chunk.start + chunk.tokens], &chunk.draft].concat();
            let mut wants = vec![Want::Logits; chunk.scored];
            wants.resize(chunk.wanted_rows(), sequence.want);
            batch.push(&tokens, chunk.start, &sequence.blocks, &wants);
        }
        batch
    }

    /// The step was computed in `elapsed`; `sampled` has the next tokens of its chunks with `sample`, at least one each.
    /// Sequences removed since the plan may be missing in it.
    pub fn commit(&mut self, step: &Step, sampled: &[Sampled], elapsed: Duration) {
        for chunk in &step.chunks {
            let Some(index) = self.running_index(chunk.id) else { continue };
            let sequence = &mut self.running[index];
            sequence.computed += chunk.tokens;
            sequence.unscored.start += chunk.scored;
            if let Some((_, tokens)) = sampled.iter().find(|(id, _)| *id == chunk.id) {
                // The last of the new tokens is not computed; those before it were the draft's.
                sequence.computed += tokens.len() - 1;
                sequence.extend(tokens);
                self.queue.charge_answer(sequence, tokens.len());
            }
            self.publish(index, chunk.start);
        }
        self.measure(step, elapsed);
    }

    /// Ends a sequence, whatever its state: its blocks are released at once. `None` if it is not here.
    pub fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        let Some(index) = self.running_index(id) else { return self.queue.remove(id) };
        let mut sequence = self.running.remove(index);
        self.release(&mut sequence);
        self.queue.leave(&sequence);
        Some(sequence)
    }

    /// As [`remove`](Self::remove), for a sequence whose keys and values are not to be trusted: nobody will find them.
    pub fn discard(&mut self, id: SeqId) -> Option<Sequence> {
        if let Some(index) = self.running_index(id) {
            self.running[index].blocks.iter().for_each(|&block| self.pool.forget(block));
        }
        self.remove(id)
    }

    /// A parked sequence gets no rows until it is unparked.
    pub fn set_parked(&mut self, id: SeqId, parked: bool) {
        if let Some(sequence) = self.running.iter_mut().chain(self.queue.iter_mut()).find(|s| s.id == id) {
            sequence.parked = parked;
        }
    }

    /// A sequence that is given drafts will go on with what `tokens` gives.
    pub fn foretell(&mut self, id: SeqId, tokens: impl FnOnce() -> Vec<u32>) {
        let drafted = |s: &&mut Sequence| s.id == id && s.speculation.is_some();
        if let Some(sequence) = self.running.iter_mut().find(drafted) {
            sequence.foretold = tokens();
        }
    }

    /// A sequence that is running or waiting.
    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        self.running.iter().chain(self.queue.iter()).find(|s| s.id == id)
    }

    pub fn running_count(&self) -> usize {
        self.running.len()
    }

    /// Sequences that lost their blocks and wait to go on.
    pub fn preempted_count(&self) -> usize {
        self.queue.iter().filter(|s| s.admission.is_some()).count()
    }

    pub fn blocks_held(&self) -> usize {
        self.pool.held_count()
    }

    /// Blocks that nobody holds and that somebody may find.
    pub fn blocks_cached(&self) -> usize {
        self.pool.cached_count()
    }

    fn expire(&mut self, now: Instant, step: &mut Step) {
        let passed = |moment: Option<Instant>| moment.is_some_and(|moment| now >= moment);
        for sequence in self.running.iter().chain(self.queue.iter()) {
            if passed(sequence.expires) {
                step.overdue.push(sequence.id);
            } else if sequence.admission.is_none() && passed(sequence.deadline) {
                step.expired.push(sequence.id);
            }
        }
        for id in step.overdue.iter().chain(&step.expired) {
            self.remove(*id);
        }
    }

    /// What has been computed from position `start` on is for others to find, as far as it fills blocks.
    fn publish(&mut self, index: usize, start: usize) {
        let sequence = &mut self.running[index];
        if let Some(namer) = &self.namer {
            sequence.name_blocks(namer);
        }
        for full in start / BLOCK_TOKENS..sequence.computed / BLOCK_TOKENS {
            let Some((name, tokens)) = sequence.full_block(full) else { break };
            let before = sequence.before(&sequence.blocks[..full]);
            sequence.blocks[full] = self.pool.publish(sequence.blocks[full], before, name, tokens);
        }
    }

    /// Learns what steps cost from one that took `elapsed`.
    fn measure(&mut self, step: &Step, elapsed: Duration) {
        let load = step.load();
        if step.chunks.len() > step.streams {
            self.pace.measured(load, elapsed);
        } else if step.streams > 0 {
            let attention = self.pace.attention_seconds(load);
            self.widths.measured(step.rows(), (elapsed.as_secs_f64() - attention).max(0.0));
        }
    }

    fn running_index(&self, id: SeqId) -> Option<usize> {
        self.running.iter().position(|s| s.id == id)
    }
}
