//! Drives the scheduler through thousands of seeded lives: tiny caches, storms of preemption, prompts that begin alike,
//! tenants, guesses right and wrong, clients that come, fall behind and leave at any moment, steps of any duration.
//!
//! `SCONCE_SIMULATIONS` sets how many.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic,
};

use super::*;
use crate::engine::{
    blocks::{BlockId, blocks_for},
    fake::{HashModel, Rng, alone},
    prefix::Tenant,
    request::ClientKey,
    speculation::Speculation,
};

const VOCABULARY: usize = 1000;
const SIMULATIONS: usize = 10_000;

/// What has happened, over all simulations: so that they don't become too kind.
#[derive(Debug, Default)]
struct Events {
    preemptions: usize,
    /// Sequences that were preempted so often that they became pinned.
    pinned: usize,
    cached_tokens: usize,
    accepted_tokens: usize,
    wrong_guesses: usize,
    overdue: usize,
}

/// What the simulation knows of a sequence that it has submitted.
struct Client {
    prompt: Vec<u32>,
    tokens_max: usize,
    tenant: Option<Tenant>,
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
    /// The model generates only smaller tokens: the fewer there are, the more guesses are right.
    choices: usize,
    /// What prompts begin with.
    beginnings: Vec<Vec<u32>>,
    /// For whom each block was written.
    written_for: HashMap<BlockId, Option<Tenant>>,
    events: Events,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = EngineConfig {
            step_tokens_max: rng.within(1, 200),
            step_prompt_tokens_max: rng.within(1, 100),
            running_max: rng.within(1, 10),
            draft_max: rng.within(0, 8),
            ..EngineConfig::default()
        };
        let storm = rng.one_in(3);
        let blocks = if storm { rng.within(8, 16) } else { rng.within(1, 20) };
        let choices = [2, 3, 20, VOCABULARY][rng.within(0, 4)];
        let mut beginning = || (0..rng.within(0, 120)).map(|_| rng.within(0, choices) as u32).collect();
        Self {
            beginnings: vec![beginning(), beginning(), beginning()],
            rng,
            storm,
            scheduler: Scheduler::new(&config, blocks),
            config,
            model: HashModel::new(blocks, VOCABULARY, choices, usize::MAX),
            now: Instant::now(),
            clients: BTreeMap::new(),
            ended: BTreeSet::new(),
            choices,
            written_for: HashMap::new(),
            events: Events::default(),
        }
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
        assert_eq!((self.scheduler.running_count(), self.scheduler.queue.iter().count()), (0, 0));
    }

    fn submit(&mut self, id: SeqId) {
        let Self { rng, storm, choices, now, .. } = self;
        let mut prompt = self.beginnings[rng.within(0, 3)].clone();
        if *storm {
            prompt.truncate(rng.within(0, 64));
        }
        let tail = rng.within(1, if *storm { 20 } else { 80 });
        prompt.extend((0..tail).map(|_| rng.within(0, *choices) as u32));
        let tokens_max = if *storm { 256 } else { prompt.len() + rng.within(1, 100) };
        let sequence = Sequence {
            priority: rng.within(0, 3) as i32 - 1,
            client: rng.one_in(2).then(|| ClientKey(rng.within(0, 3) as u64)),
            tenant: rng.one_in(3).then(|| Tenant("apart".into())),
            deadline: rng.one_in(10).then(|| *now + Duration::from_millis(500)),
            expires: rng.one_in(50).then(|| *now + Duration::from_secs(3)),
            speculation: rng.one_in(2).then(|| Speculation::new(&prompt)),
            ..Sequence::new(id, prompt.clone(), tokens_max, *now)
        };
        let tenant = sequence.tenant.clone();
        let submitted = self.scheduler.submit(sequence);
        if blocks_for(tokens_max) > self.scheduler.pool.total() {
            assert!(matches!(submitted, Err(RequestError::CacheExceeded { .. })));
            self.ended.insert(id);
            return;
        }
        submitted.unwrap();
        let client = Client {
            prompt,
            tokens_max,
            tenant,
            generated: Vec::new(),
            admitted: false,
            parked: false,
            was_parked: false,
            preemptions: 0,
        };
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
        self.note(&step);

        let mut sampled = self.compute(&step);
        // A row costs little beside the step, so that drafts pay.
        let elapsed = Duration::from_micros((self.rng.within(1_000, 50_000) + 100 * step.rows()) as u64);
        self.now += elapsed;
        // A client that leaves while its step is computed.
        if !step.chunks.is_empty() && self.rng.one_in(100) {
            let id = step.chunks[self.rng.within(0, step.chunks.len())].id;
            self.end(id);
            sampled.retain(|(sampled, _)| *sampled != id);
        }
        self.scheduler.commit(&step, &sampled, elapsed);
        for (id, tokens) in sampled {
            let client = self.clients.get_mut(&id).unwrap();
            client.generated.extend(tokens);
            let length = client.prompt.len() + client.generated.len();
            assert!(length <= client.tokens_max);
            if length == client.tokens_max {
                self.end(id);
            }
        }
        self.check_blocks();
    }

    /// Who has come and gone by the plan.
    fn note(&mut self, step: &Step) {
        for &id in &step.expired {
            let client = self.clients.remove(&id).unwrap();
            assert!(!client.admitted && client.generated.is_empty());
            assert!(self.ended.insert(id));
        }
        for &id in &step.overdue {
            let client = self.clients.remove(&id).unwrap();
            self.check_answer(id, &client);
            assert!(self.ended.insert(id));
            self.events.overdue += 1;
        }
        for id in &step.admitted {
            self.clients.get_mut(id).unwrap().admitted = true;
        }
        for id in &step.preempted {
            self.events.preemptions += 1;
            let client = self.clients.get_mut(id).unwrap();
            client.preemptions += 1;
            self.events.pinned += usize::from(client.preemptions == Sequence::PREEMPTIONS_MAX);
            assert!(client.was_parked || client.preemptions <= Sequence::PREEMPTIONS_MAX);
        }
    }

    /// Computes a step as the engine does; what its sequences get.
    fn compute(&mut self, step: &Step) -> Vec<Sampled> {
        let batch = self.scheduler.batch(step, self.choices);
        self.model.write(&batch);
        let mut sampled = Vec::new();
        for (chunk, segment) in step.chunks.iter().zip(&batch.segments) {
            let tenant = &self.clients[&chunk.id].tenant;
            let written = chunk.start / BLOCK_TOKENS..blocks_for(chunk.start + chunk.rows());
            for block in &segment.blocks[written] {
                assert_eq!(self.scheduler.pool.holders(*block), 1, "{block:?} is written while others hold it");
                assert!(!self.scheduler.pool.is_published(*block), "{block:?} is written while others may find it");
                self.written_for.insert(*block, tenant.clone());
            }
            for block in &segment.blocks {
                assert_eq!(&self.written_for[block], tenant, "{block:?} is another tenant's");
            }
            if chunk.sample {
                let first = segment.first_row + chunk.tokens - 1;
                let mut tokens = vec![self.model.token_after(segment, first)];
                while chunk.draft.get(tokens.len() - 1) == tokens.last() {
                    tokens.push(self.model.token_after(segment, first + tokens.len()));
                }
                self.events.accepted_tokens += tokens.len() - 1;
                self.events.wrong_guesses += usize::from(tokens.len() <= chunk.draft.len());
                sampled.push((chunk.id, tokens));
            }
        }
        sampled
    }

    fn streams(&self) -> impl Iterator<Item = SeqId> {
        self.scheduler.running.iter().filter(|s| !s.parked && s.is_stream()).map(|s| s.id)
    }

    fn check_step(&self, step: &Step, before: &BTreeSet<SeqId>, streams: &[SeqId]) {
        let scheduler = &self.scheduler;
        // Every stream has its row, first, unless it has left, was preempted or no block is left for it.
        let (rows, prompts) = step.chunks.split_at(step.streams);
        for id in streams {
            let has_row = rows.iter().any(|chunk| chunk.id == *id && chunk.tokens == 1 && chunk.sample);
            let gone = step.preempted.contains(id) || step.overdue.contains(id);
            let without_block = scheduler.running_index(*id).is_some_and(|index| {
                let later = &scheduler.running[index + 1..];
                scheduler.running[index].computed.is_multiple_of(BLOCK_TOKENS)
                    && later.iter().all(|s| s.is_pinned() || s.blocks.is_empty())
            });
            assert!(has_row || gone || without_block, "{id:?} waits for others");
        }
        assert!(rows.iter().all(|chunk| chunk.draft.len() <= self.config.draft_max));
        assert!(prompts.iter().all(|chunk| chunk.draft.is_empty()));
        // The budgets hold.
        let prompt_rows: usize = prompts.iter().map(Chunk::rows).sum();
        let rows_max = if rows.is_empty() { self.config.step_tokens_max } else { self.config.step_prompt_tokens_max };
        assert!(prompt_rows <= rows_max.max(16));
        // One chunk each, only of sequences that run, are not parked, and start where they have got to.
        let ids: BTreeSet<SeqId> = step.chunks.iter().map(|chunk| chunk.id).collect();
        assert_eq!(ids.len(), step.chunks.len());
        for chunk in &step.chunks {
            let sequence = scheduler.sequence(chunk.id).unwrap();
            assert!(!sequence.parked && chunk.tokens > 0 && chunk.start == sequence.computed);
            assert!(before.contains(&chunk.id) || step.admitted.contains(&chunk.id));
        }
        // Somebody gets on, if anybody wants to.
        let wanting = scheduler.running.iter().chain(scheduler.queue.iter()).any(|s| !s.parked);
        assert_eq!(!step.chunks.is_empty(), wanting, "standstill");
    }

    fn check_blocks(&self) {
        let scheduler = &self.scheduler;
        let mut holders: BTreeMap<BlockId, usize> = BTreeMap::new();
        for sequence in &scheduler.running {
            assert!(sequence.blocks.len() <= sequence.blocks_max());
            assert_eq!(sequence.blocks.len(), blocks_for(sequence.computed), "blocks come as tokens are computed");
            sequence.blocks.iter().for_each(|block| *holders.entry(*block).or_default() += 1);
        }
        assert!(holders.iter().all(|(block, &count)| scheduler.pool.holders(*block) == count));
        assert_eq!(scheduler.blocks_held(), holders.len());
        assert_eq!(scheduler.pool.available() + holders.len(), scheduler.pool.total());
        assert!(scheduler.queue.iter().all(|s| s.blocks.is_empty() && s.computed == 0));
        assert!(scheduler.running.is_sorted_by_key(Sequence::rank));
    }

    fn end(&mut self, id: SeqId) {
        let client = self.clients.remove(&id).unwrap();
        let sequence = self.scheduler.remove(id).expect("it is there until it is removed");
        assert!(self.ended.insert(id), "{id:?} ended twice");
        assert!(sequence.cached_tokens < client.prompt.len());
        self.events.cached_tokens += sequence.cached_tokens;
        self.check_answer(id, &client);
        assert!(sequence.tokens.starts_with(&client.prompt));
    }

    fn check_answer(&self, id: SeqId, client: &Client) {
        assert_eq!(client.generated, alone(&client.prompt, client.generated.len(), self.choices), "{id:?}");
    }
}

#[test]
fn sequences_get_the_tokens_they_would_get_alone() {
    let simulations = std::env::var("SCONCE_SIMULATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(SIMULATIONS);
    let mut all = Events::default();
    for seed in 0..simulations {
        let mut simulation = Simulation::new(seed as u64);
        if let Err(panic) = panic::catch_unwind(panic::AssertUnwindSafe(|| simulation.run())) {
            eprintln!("seed {seed}");
            panic::resume_unwind(panic);
        }
        let events = simulation.events;
        all.preemptions += events.preemptions;
        all.pinned += events.pinned;
        all.cached_tokens += events.cached_tokens;
        all.accepted_tokens += events.accepted_tokens;
        all.wrong_guesses += events.wrong_guesses;
        all.overdue += events.overdue;
    }
    let Events { preemptions, pinned, cached_tokens, accepted_tokens, wrong_guesses, overdue } = all;
    let often = [preemptions, cached_tokens / BLOCK_TOKENS, accepted_tokens, wrong_guesses];
    let kind = often.into_iter().any(|events| events < simulations) || pinned.min(overdue) < simulations / 50;
    assert!(!kind, "the simulation has become too kind: {all:?}");
}
