//! The chunks of a step: streams, prompts, drafts.

use std::{collections::VecDeque, time::Instant};

use super::{Chunk, Load, Scheduler, Step, pace::PROMPT_ROWS_MIN, queue::turn};
use crate::engine::{
    blocks::{BLOCK_TOKENS, blocks_for},
    sequence::{SeqId, Sequence},
    speculation::Draft,
};

/// Of tokens that are known to follow, so many are computed in one step: a stream must not hold up the others.
const FORETOLD_MAX: usize = 15;

/// Prompt rows of one step whose logits are wanted: each is as long as the vocabulary.
const SCORED_ROWS_MAX: usize = 64;

impl Scheduler {
    /// One row for every running stream.
    pub(super) fn plan_streams(&mut self, step: &mut Step) {
        let streams: Vec<SeqId> = self.running.iter().filter(|s| !s.parked && s.is_stream()).map(|s| s.id).collect();
        for id in streams {
            // A stream before it in rank may have preempted it.
            let Some(index) = self.running_index(id) else { continue };
            let start = self.running[index].computed;
            if self.make_room(id, blocks_for(start + 1), step) {
                self.push_chunk(id, 1, step);
            }
        }
        step.streams = step.chunks.len();
    }

    /// Prompt chunks with what the streams leave of the step, admitting whoever's turn it is.
    pub(super) fn plan_prompts(&mut self, now: Instant, step: &mut Step) {
        let mut prompts: Vec<&Sequence> = self.running.iter().filter(|s| !s.parked && !s.is_stream()).collect();
        prompts.sort_by_key(|s| turn(s));
        let mut prompts: VecDeque<SeqId> = prompts.iter().map(|s| s.id).collect();
        let mut admitting = true;
        while self.prompt_rows_left(step, 0) > 0 {
            let next_running = prompts.front().and_then(|&id| self.sequence(id)).map(turn);
            let next_waiting = if admitting { self.queue.first(now).map(turn) } else { None };
            match (next_running, next_waiting) {
                (running, Some(waiting)) if running.is_none_or(|running| waiting < running) => {
                    // Nobody overtakes the first in the queue, however small.
                    admitting = self.try_admit(waiting.1, now, step);
                    if admitting {
                        self.plan_chunk(waiting.1, step);
                    }
                }
                (Some((_, id)), _) => {
                    prompts.pop_front();
                    self.plan_chunk(id, step);
                }
                (None, _) => break,
            }
        }
    }
    /// Prompt rows that the step still has for a prompt that goes on at `start`.
    fn prompt_rows_left(&self, step: &Step, start: usize) -> usize {
        let planned: usize = step.chunks[step.streams..].iter().map(Chunk::rows).sum();
        if step.streams == 0 {
            return self.config.step_tokens_max.saturating_sub(planned);
        }
        let rows_max = self.config.step_prompt_tokens_max.max(PROMPT_ROWS_MIN);
        self.pace.prompt_rows(step.load(), planned, start).min(rows_max.saturating_sub(planned))
    }

    /// Plans the next rows of a prompt, as budget and blocks allow.
    fn plan_chunk(&mut self, id: SeqId, step: &mut Step) {
        let Some(index) = self.running_index(id) else { return };
        self.catch_up(index);
        let (start, remaining) = (self.running[index].computed, self.running[index].remaining());
        let mut rows_max = self.prompt_rows_left(step, start);
        if !self.running[index].unscored.is_empty() {
            let scored: usize = step.chunks.iter().map(|chunk| chunk.scored).sum();
            rows_max = rows_max.min(SCORED_ROWS_MAX.saturating_sub(scored));
        }
        if rows_max == 0 || self.is_being_computed(index) || !self.make_room(id, blocks_for(start + 1), step) {
            return;
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
    }

    /// Whether a prompt that comes before the one at `index` has the same beginning and is about to compute the block that
    /// this one would compute next: then this one waits and takes it from the cache. Of many prompts that come together
    /// and begin alike, one is computed.
    fn is_being_computed(&self, index: usize) -> bool {
        let sequence = &self.running[index];
        let Some(next) = sequence.next_shareable() else { return false };
        let Some((name, _)) = sequence.full_block(next) else { return false };
        self.running.iter().any(|other| {
            turn(other) < turn(sequence)
                && !other.parked
                && !other.is_stream()
                && other.computed < (next + 1) * BLOCK_TOKENS
                && other.full_block(next).is_some_and(|(theirs, _)| theirs == name)
        })
    }

    /// Allocates the blocks of the next tokens, which must be available, and adds them to the step.
    fn push_chunk(&mut self, id: SeqId, tokens: usize, step: &mut Step) {
        let index = self.running_index(id).expect("only running sequences are planned");
        let sequence = &mut self.running[index];
        let start = sequence.computed;
        while sequence.blocks.len() < blocks_for(start + tokens) {
            sequence.blocks.push(self.pool.allocate().expect("room was made"));
        }
        let end = start + tokens;
        let sample = end == sequence.tokens.len();
        let scored = end.min(sequence.unscored.end).saturating_sub(start.max(sequence.unscored.start));
        step.chunks.push(Chunk { id, start, tokens, scored, sample, draft: Vec::new() });
    }

    /// Gives streams drafts, each as long as brings the most tokens a second.
    pub(super) fn plan_drafts(&mut self, step: &mut Step) {
        let mut load = step.load();
        // What the step is expected to bring: a token for each stream, and the drafts' share.
        let mut expected = step.streams as f64;
        for chunk in &mut step.chunks {
            let Some(draft) = self.draft(chunk) else { continue };
            let (best, gain) = self.best_length(&draft, chunk, load, expected);
            load = load + Load::chunk(chunk.start + 1, best);
            expected += gain;
            chunk.draft = draft.tokens;
            chunk.draft.truncate(best);
        }
    }

    /// What may follow a stream, as far as it has places for it: a guess takes no block from anybody.
    fn draft(&self, chunk: &Chunk) -> Option<Draft> {
        let sequence = self.sequence(chunk.id)?;
        let places = sequence.blocks.len() * BLOCK_TOKENS - sequence.tokens.len();
        // The token after the draft comes free.
        let wanted = sequence.tokens_max.saturating_sub(sequence.tokens.len() + 1);
        let count = places.min(wanted);
        if !sequence.foretold.is_empty() {
            let tokens = sequence.foretold.iter().take(count.min(FORETOLD_MAX)).copied().collect();
            return Some(Draft { tokens, accuracy: 1.0 });
        }
        let count = self.config.draft_max.min(count);
        sequence.speculation.as_ref()?.draft(&sequence.tokens, count)
    }

    /// How much of a draft to check in a step that so far has `load` and should bring `expected` tokens, and how many tokens
    /// that should bring more.
    fn best_length(&self, draft: &Draft, chunk: &Chunk, load: Load, expected: f64) -> (usize, f64) {
        let mut best = (0, 0.0);
        // Before anything has been measured there is no telling.
        let Some(seconds) = self.step_seconds(load) else { return best };
        let mut rate_max = expected / seconds;
        let (mut gain, mut chance) = (0.0, 1.0);
        for length in 1..=draft.tokens.len() {
            chance *= draft.accuracy;
            gain += chance;
            let longer = self.step_seconds(load + Load::chunk(chunk.start + 1, length));
            let rate = longer.map_or(0.0, |seconds| (expected + gain) / seconds);
            if rate > rate_max {
                (best, rate_max) = ((length, gain), rate);
            }
        }
        best
    }

    /// What a step without prompts takes.
    fn step_seconds(&self, load: Load) -> Option<f64> {
        let seconds = self.widths.seconds(load.rows as usize, self.pace.row_seconds())?;
        Some((seconds + self.pace.attention_seconds(load)).max(1e-9))
    }
}
