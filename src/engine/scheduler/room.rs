//! Blocks for those who need them: who gets some, who gives way, who is admitted.

use std::time::Instant;

use super::{Scheduler, Step};
use crate::engine::{
    blocks::{BLOCK_TOKENS, BlockId, blocks_for},
    sequence::{SeqId, Sequence},
};

impl Scheduler {
    /// Makes sure that a running sequence can hold `blocks` blocks, preempting others. False if it can't have them now:
    /// then it keeps what it has and waits for those before it.
    pub(super) fn make_room(&mut self, id: SeqId, blocks: usize, step: &mut Step) -> bool {
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
    pub(super) fn available_to(&self, sequence: &Sequence) -> usize {
        if sequence.is_pinned() {
            return sequence.blocks_reserved();
        }
        self.pool.available() - self.running.iter().map(Sequence::blocks_reserved).sum::<usize>()
    }

    /// Who gives way to the running sequence at `index`: any parked one, else the last in rank that comes after it.
    fn victim(&self, index: usize, step: &Step) -> Option<usize> {
        let gains = |s: &Sequence| (!s.blocks.is_empty() || s.is_pinned()) && !step.has(s.id);
        let parked = self.running.iter().rposition(|s| s.parked && gains(s));
        parked.or_else(|| {
            let later = self.running[index + 1..].iter().rposition(|s| !s.is_pinned() && gains(s))?;
            Some(index + 1 + later)
        })
    }

    pub(super) fn preempt(&mut self, index: usize, step: &mut Step) {
        let mut sequence = self.running.remove(index);
        self.release(&mut sequence);
        sequence.preemptions += 1;
        step.preempted.push(sequence.id);
        self.queue.resume(sequence);
    }

    pub(super) fn release(&mut self, sequence: &mut Sequence) {
        sequence.computed = 0;
        for block in sequence.blocks.drain(..).rev() {
            self.pool.release(block);
        }
    }

    /// Moves a sequence from the queue to the running ones, with what the cache has of it, if width and blocks allow.
    pub(super) fn try_admit(&mut self, id: SeqId, now: Instant, step: &mut Step) -> bool {
        if !self.is_wider_worth_it() {
            return false;
        }
        let found = loop {
            let Some(sequence) = self.queue.iter().find(|s| s.id == id) else { return false };
            let found = self.find_all(sequence);
            if self.has_room_for(sequence, &found, |_| true) {
                break found;
            }
            // Parked sequences give theirs if that helps.
            let parked = self.running.iter().rposition(|s| s.parked && (!s.blocks.is_empty() || s.is_pinned()));
            let Some(parked) = parked.filter(|_| self.has_room_for(sequence, &found, |s| !s.parked)) else {
                return false;
            };
            self.preempt(parked, step);
        };
        let Some(mut sequence) = self.queue.admit(id, found.len() * BLOCK_TOKENS, now) else { return false };
        step.admitted.push(id);
        for block in found {
            self.pool.share(block);
            sequence.take_found(block);
        }
        let index = self.running.partition_point(|s| s.rank() < sequence.rank());
        self.running.insert(index, sequence);
        true
    }

    fn is_wider_worth_it(&self) -> bool {
        let active = || self.running.iter().filter(|s| !s.parked);
        let width = active().count() + 1;
        let contexts = active().fold(super::Load::default(), |load, s| load + super::Load::chunk(s.tokens.len(), 1));
        let attention = self.pace.attention_seconds(contexts);
        width <= self.config.running_max
            && self.widths.pays(width, self.pace.row_seconds(), attention, self.config.gap_max.as_secs_f64())
    }

    /// Whether a waiting sequence, with these blocks of it found, can join the running ones that are `counted`: there are
    /// blocks that none of these holds or is about to take, and one to spare for each, who will want it within 32 tokens.
    fn has_room_for(&self, sequence: &Sequence, found: &[BlockId], counted: impl Fn(&Sequence) -> bool) -> bool {
        let counted = || self.running.iter().filter(|s| counted(s));
        let mut held = vec![false; self.pool.total()];
        for block in counted().flat_map(|s| &s.blocks) {
            held[block.0 as usize] = true;
        }
        let held_count = held.iter().filter(|&&held| held).count();
        let wanted: usize = counted().map(Sequence::blocks_wanted).sum();
        let spare = counted().filter(|s| !s.parked).count();
        let shared = found.iter().filter(|block| held[block.0 as usize]).count();
        let needed = if sequence.is_pinned() { sequence.blocks_max() } else { blocks_for(sequence.tokens.len()) };
        held_count + wanted + spare + needed - shared <= self.pool.total()
    }

    /// The blocks that a waiting sequence would find, from its beginning on.
    fn find_all(&self, sequence: &Sequence) -> Vec<BlockId> {
        let mut found = Vec::new();
        while sequence.unscored.is_empty()
            && (found.len() + 1) * BLOCK_TOKENS < sequence.tokens.len()
            && let Some((name, tokens)) = sequence.full_block(found.len())
            && let Some(block) = self.pool.find(sequence.before(&found), name, tokens)
        {
            found.push(block);
        }
        found
    }

    /// Gives a running prompt what others have computed since it was admitted.
    pub(super) fn catch_up(&mut self, index: usize) {
        while let Some(next) = self.running[index].next_shareable() {
            let sequence = &self.running[index];
            let Some((name, tokens)) = sequence.full_block(next) else { return };
            let Some(block) = self.pool.find(sequence.before(&sequence.blocks), name, tokens) else { return };
            if self.pool.holders(block) == 0 && self.available_to(sequence) == 0 {
                return;
            }
            self.pool.share(block);
            self.running[index].take_found(block);
        }
    }
}
