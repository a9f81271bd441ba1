//! Drives the scheduler through thousands of seeded lives: tiny caches, storms of preemption, clients that come, fall
//! behind and leave at any moment, steps of any duration.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic,
    time::{Duration, Instant},
};

use super::*;
use crate::engine::fake::{HashModel, Rng, alone};

const VOCABULARY: usize = 1000;

/// What the simulation knows of a sequence that it has submitted.
struct Client {
    prompt: Vec<u32>,
    tokens_max: usize,
    generated: Vec<u32>,
    admitted: bool,
    parked: bool,
    was_parked: bool,
    preemptions: u32,
}

struct Simulation {
    rng: Rng,
    /// Short prompts with long answers, all at once: admitted easily, then fighting for blocks.
    storm: bool,
    config: EngineConfig,
    scheduler: Scheduler,
    model: HashModel,
    now: Instant,
    clients: BTreeMap<SeqId, Client>,
    ended: BTreeSet<SeqId>,
    preemptions: usize,
    /// Sequences that were preempted so often that they became pinned.
    pinned: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = EngineConfig {
            step_tokens_max: rng.within(1, 200),
            step_prompt_tokens_max: rng.within(1, 100),
            running_max: rng.within(1, 10),
            ..EngineConfig::default()
        };
        let storm = rng.one_in(2);
        let blocks = if storm { rng.within(8, 16) } else { rng.within(1, 20) };
        let (scheduler, model) =
            (Scheduler::new(&config, blocks), HashModel::new(blocks, VOCABULARY, VOCABULARY, usize::MAX));
        let (clients, ended) = (BTreeMap::new(), BTreeSet::new());
        Self { rng, storm, config, scheduler, model, now: Instant::now(), clients, ended, preemptions: 0, pinned: 0 }
    }

    fn run(&mut self) {
        let mut arrivals = self.rng.within(1, 20);
        let mut arrived = 0;
        let mut steps = 0;
        while arrivals > 0 || !self.clients.is_empty() {
            if arrivals > 0 && (self.storm || self.rng.one_in(5)) {
                arrivals -= 1;
                arrived += 1;
                self.submit(SeqId(arrived));
            }
            // When nobody else comes, readers catch up, so that all can end.
            self.disturb(arrivals > 0);
            self.step();
            steps += 1;
            assert!(steps < 20_000, "somebody starves");
        }
        assert_eq!(self.ended.len() as u64, arrived);
        assert_eq!(self.scheduler.blocks_held(), 0);
        assert_eq!((self.scheduler.running_count(), self.scheduler.waiting.len()), (0, 0));
    }

    fn submit(&mut self, id: SeqId) {
        let prompt_tokens = if self.storm { self.rng.within(1, 20) } else { self.rng.within(1, 150) };
        let prompt: Vec<u32> = (0..prompt_tokens).map(|_| self.rng.within(0, VOCABULARY) as u32).collect();
        let tokens_max = if self.storm { 256 } else { prompt.len() + self.rng.within(1, 100) };
        let priority = self.rng.within(0, 3) as i32 - 1;
        let wait = if self.rng.one_in(10) { Duration::from_millis(500) } else { Duration::from_secs(1 << 30) };
        let sequence = Sequence::new(id, prompt.clone(), tokens_max, priority, self.now + wait);
        let submitted = self.scheduler.submit(sequence);
        if blocks_for(tokens_max) > self.scheduler.pool.total() {
            assert!(matches!(submitted, Err(RequestError::CacheExceeded { .. })));
            self.ended.insert(id);
            return;
        }
        submitted.unwrap();
        let generated = Vec::new();
        let client =
            Client { prompt, tokens_max, generated, admitted: false, parked: false, was_parked: false, preemptions: 0 };
        self.clients.insert(id, client);
    }

    /// Clients leave, fall behind and catch up.
    fn disturb(&mut self, may_park: bool) {
        let ids: Vec<SeqId> = self.clients.keys().copied().collect();
        for id in ids {
            if self.rng.one_in(if self.storm { 5_000 } else { 300 }) {
                self.end(id);
                assert!(self.scheduler.remove(id).is_none(), "removed twice");
                continue;
            }
            let client = self.clients.get_mut(&id).unwrap();
            if client.parked && (!may_park || self.rng.one_in(10)) {
                client.parked = false;
                self.scheduler.set_parked(id, false);
            } else if may_park && self.rng.one_in(if self.storm { 500 } else { 40 }) {
                (client.parked, client.was_parked) = (true, true);
                self.scheduler.set_parked(id, true);
            }
        }
    }

    fn step(&mut self) {
        let before: BTreeSet<SeqId> = self.scheduler.running.iter().map(|s| s.id).collect();
        let streams: Vec<SeqId> = self.streams().collect();
        let step = self.scheduler.plan(self.now);
        self.check_step(&step, &before, &streams);

        for &id in &step.expired {
            let client = self.clients.remove(&id).unwrap();
            assert!(!client.admitted && client.generated.is_empty());
            assert!(self.ended.insert(id));
        }
        for id in &step.admitted {
            self.clients.get_mut(id).unwrap().admitted = true;
        }
        for id in &step.preempted {
            self.preemptions += 1;
            let client = self.clients.get_mut(id).unwrap();
            client.preemptions += 1;
            self.pinned += usize::from(client.preemptions == Sequence::PREEMPTIONS_MAX);
            assert!(client.was_parked || client.preemptions <= Sequence::PREEMPTIONS_MAX);
        }

        let batch = self.scheduler.batch(&step, VOCABULARY);
        self.model.write(&batch);
        let mut sampled = Vec::new();
        for (chunk, segment) in step.chunks.iter().zip(&batch.segments) {
            if chunk.sample {
                sampled.push((chunk.id, self.model.next_token(segment)));
            }
        }
        let elapsed = Duration::from_micros(self.rng.within(1_000, 150_000) as u64);
        self.now += elapsed;
        // A client that leaves while its step is computed.
        if !step.chunks.is_empty() && self.rng.one_in(100) {
            let id = step.chunks[self.rng.within(0, step.chunks.len())].id;
            self.end(id);
            sampled.retain(|&(sampled, _)| sampled != id);
        }
        self.scheduler.commit(&step, &sampled, elapsed);
        for (id, token) in sampled {
            let client = self.clients.get_mut(&id).unwrap();
            client.generated.push(token);
            if client.prompt.len() + client.generated.len() == client.tokens_max {
                self.end(id);
            }
        }
        self.check_blocks();
    }

    fn streams(&self) -> impl Iterator<Item = SeqId> {
        self.scheduler.running.iter().filter(|s| !s.parked && s.remaining() == 1).map(|s| s.id)
    }

    fn check_step(&self, step: &Step, before: &BTreeSet<SeqId>, streams: &[SeqId]) {
        let scheduler = &self.scheduler;
        // Every stream has its row, first, unless it was preempted or no block is left for it.
        let (rows, prompts) = step.chunks.split_at(step.decode_rows);
        for id in streams {
            let has_row = rows.iter().any(|chunk| chunk.id == *id && chunk.rows == 1 && chunk.sample);
            let preempted = step.preempted.contains(id);
            let without_block = scheduler.running_index(*id).is_some_and(|index| {
                let later = &scheduler.running[index + 1..];
                scheduler.running[index].computed.is_multiple_of(BLOCK_TOKENS)
                    && later.iter().all(|s| s.is_pinned() || s.blocks.is_empty())
            });
            assert!(has_row || preempted || without_block, "{id:?} waits for others");
        }
        assert_eq!(rows.len(), step.decode_rows);
        // The budgets hold.
        let prompt_rows: usize = prompts.iter().map(|chunk| chunk.rows).sum();
        let rows_max = if rows.is_empty() { self.config.step_tokens_max } else { self.config.step_prompt_tokens_max };
        assert!(prompt_rows <= rows_max.max(16));
        // One chunk each, only of sequences that run, are not parked, and start where they have got to.
        let ids: BTreeSet<SeqId> = step.chunks.iter().map(|chunk| chunk.id).collect();
        assert_eq!(ids.len(), step.chunks.len());
        for chunk in &step.chunks {
            let sequence = scheduler.sequence(chunk.id).unwrap();
            assert!(!sequence.parked && chunk.rows > 0 && chunk.start == sequence.computed);
            assert!(before.contains(&chunk.id) || step.admitted.contains(&chunk.id));
        }
        // Somebody gets on, if anybody wants to.
        let wanting = scheduler.running.iter().chain(&scheduler.waiting).any(|s| !s.parked);
        assert_eq!(!step.chunks.is_empty(), wanting, "standstill");
    }

    fn check_blocks(&self) {
        let scheduler = &self.scheduler;
        let mut held = BTreeSet::new();
        for sequence in &scheduler.running {
            assert!(sequence.blocks.len() <= blocks_for(sequence.tokens_max));
            assert_eq!(sequence.blocks.len(), blocks_for(sequence.computed), "blocks come as tokens are computed");
            for block in &sequence.blocks {
                assert!(held.insert(*block), "{block:?} is held twice");
            }
        }
        assert!(scheduler.waiting.iter().all(|s| s.blocks.is_empty() && s.computed == 0));
        assert_eq!(scheduler.blocks_held(), held.len());
        assert!(scheduler.running.is_sorted_by_key(Sequence::rank));
        assert!(scheduler.waiting.iter().is_sorted_by_key(|s| s.rank()));
    }

    fn end(&mut self, id: SeqId) {
        let client = self.clients.remove(&id).unwrap();
        let sequence = self.scheduler.remove(id).expect("it is there until it is removed");
        assert!(self.ended.insert(id), "{id:?} ended twice");
        assert_eq!(client.generated, alone(&client.prompt, client.generated.len(), VOCABULARY), "{id:?}");
        assert!(sequence.tokens.starts_with(&client.prompt));
    }
}

#[test]
fn sequences_get_the_tokens_they_would_get_alone() {
    let (mut preemptions, mut pinned) = (0, 0);
    for seed in 0..2_500 {
        let mut simulation = Simulation::new(seed);
        if let Err(panic) = panic::catch_unwind(panic::AssertUnwindSafe(|| simulation.run())) {
            eprintln!("seed {seed}");
            panic::resume_unwind(panic);
        }
        preemptions += simulation.preemptions;
        pinned += simulation.pinned;
    }
    let storm = format!("{preemptions} preemptions, {pinned} pinned: the simulation has become too kind");
    assert!(preemptions > 5_000 && pinned > 100, "{storm}");
}
