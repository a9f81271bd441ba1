//! What the scheduler decides, step by step.

use super::*;

fn scheduler(blocks: usize, config: EngineConfig) -> Scheduler {
    Scheduler::new(&config, blocks)
}

fn sequence(id: u64, prompt: usize, answer: usize) -> Sequence {
    // No two begin alike.
    let prompt = (0..prompt as u32).map(|i| 1000 * id as u32 + i).collect::<Vec<_>>();
    let tokens_max = prompt.len() + answer;
    Sequence::new(SeqId(id), prompt, tokens_max, Instant::now())
}

/// Plans, computes and commits a step.
fn compute(scheduler: &mut Scheduler, elapsed: impl Fn(&Step) -> Duration) -> Step {
    let step = scheduler.plan(Instant::now());
    let sampled: Vec<Sampled> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, vec![7])).collect();
    scheduler.commit(&step, &sampled, elapsed(&step));
    step
}

/// As [`compute`], in 10 ms; its chunks as (id, start, rows, sample).
fn step(scheduler: &mut Scheduler) -> Vec<(u64, usize, usize, bool)> {
    let step = compute(scheduler, |_| Duration::from_millis(10));
    step.chunks.iter().map(|c| (c.id.0, c.start, c.tokens, c.sample)).collect()
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
fn prompts_are_scored_once_and_never_many_rows_in_a_step() {
    let mut scheduler = scheduler(100, EngineConfig::default());
    for (id, prompt) in [(1, 100), (2, 50), (3, 150), (4, 1)] {
        let unscored = if id == 3 { 0..0 } else { 0..prompt - 1 };
        scheduler.submit(Sequence { unscored, ..sequence(id, prompt, 10) }).unwrap();
    }
    let mut scored = [0; 4];
    for _ in 0..10 {
        let step = compute(&mut scheduler, |_| Duration::from_millis(10));
        let batch_rows: usize = step.chunks.iter().map(Chunk::wanted_rows).sum();
        assert!(batch_rows <= 64 + step.chunks.len(), "{batch_rows}");
        for chunk in step.chunks.iter().filter(|chunk| chunk.scored > 0) {
            let done = &mut scored[chunk.id.0 as usize - 1];
            assert_eq!(chunk.first_scored(), *done);
            *done += chunk.scored;
        }
    }
    assert_eq!(scored, [99, 49, 0, 0]);
}

#[test]
fn slow_steps_shrink_prompt_chunks_beside_streams() {
    let mut scheduler = scheduler(100, EngineConfig::default());
    scheduler.submit(sequence(1, 1, 100)).unwrap();
    assert_eq!(step(&mut scheduler), [(1, 0, 1, true)]);
    scheduler.submit(sequence(2, 2000, 10)).unwrap();
    let mut prompt_rows = Vec::new();
    for _ in 0..20 {
        let step = compute(&mut scheduler, |step| Duration::from_millis(2 * step.rows() as u64));
        prompt_rows.push(step.rows() - step.streams);
    }
    // 2 ms a row: 42 rows make 85 ms.
    assert!(prompt_rows[5..].iter().all(|&rows| (32..=42).contains(&rows)), "{prompt_rows:?}");
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
    assert_eq!(scheduler.queue.iter().count(), 2);
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
    let deadline = Some(Instant::now() + Duration::from_secs(3600));
    scheduler.submit(Sequence { deadline, ..sequence(2, 10, 10) }).unwrap();
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
        let step = compute(&mut scheduler, |_| Duration::from_millis(1));
        preempted.extend(step.preempted.iter().map(|id| id.0));
    }
    assert_eq!(preempted, [2, 3]);
    assert_eq!(scheduler.sequence(SeqId(1)).unwrap().preemptions, 0);
}

/// A sequence with this prompt.
fn asks(id: u64, prompt: Vec<u32>, answer: usize) -> Sequence {
    let tokens_max = prompt.len() + answer;
    Sequence::new(SeqId(id), prompt, tokens_max, Instant::now())
}

/// `shared` tokens that are always the same, and `own` that are nobody else's.
fn alike(id: u64, shared: usize, own: usize) -> Vec<u32> {
    (0..shared as u32).chain((0..own as u32).map(|i| 1_000_000 + 1000 * id as u32 + i)).collect()
}

#[test]
fn of_prompts_that_begin_alike_and_come_together_one_is_computed() {
    let mut scheduler = scheduler(1000, EngineConfig::default());
    for id in 0..8 {
        scheduler.submit(asks(id, alike(id, 512, 20), 10)).unwrap();
    }
    // The first in two steps and a bit; all have their first token at the end of the third.
    let steps: Vec<Step> = (0..3).map(|_| compute(&mut scheduler, |_| Duration::from_millis(10))).collect();
    assert_eq!(steps.iter().map(Step::rows).collect::<Vec<_>>(), [256, 256, 8 * 20]);
    let cached = |id| scheduler.sequence(SeqId(id)).unwrap().cached_tokens;
    assert_eq!((0..8).map(cached).collect::<Vec<_>>(), [0, 512, 512, 512, 512, 512, 512, 512]);
    assert_eq!(scheduler.blocks_held(), 16 + 8);

    // Whoever comes later finds it too, also when all of them are gone; all but the last token.
    for id in 0..8 {
        scheduler.remove(SeqId(id));
    }
    assert_eq!((scheduler.blocks_held(), scheduler.blocks_cached()), (0, 16));
    scheduler.submit(asks(8, alike(8, 512, 0), 10)).unwrap();
    assert_eq!(step(&mut scheduler), [(8, 480, 32, true)]);
}

#[test]
fn without_a_prefix_cache_every_prompt_is_computed() {
    let mut scheduler = scheduler(1000, EngineConfig { prefix_cache: false, ..Default::default() });
    for id in 0..2 {
        scheduler.submit(asks(id, alike(id, 64, 20), 10)).unwrap();
    }
    assert_eq!(step(&mut scheduler), [(0, 0, 84, true), (1, 0, 84, true)]);
    scheduler.remove(SeqId(0));
    scheduler.remove(SeqId(1));
    assert_eq!((scheduler.blocks_held(), scheduler.blocks_cached()), (0, 0));
}

#[test]
fn when_the_one_that_is_computed_leaves_another_goes_on() {
    let mut scheduler = scheduler(1000, EngineConfig { step_tokens_max: 64, ..Default::default() });
    for id in 0..3 {
        scheduler.submit(asks(id, alike(id, 512, 20), 10)).unwrap();
    }
    assert_eq!(step(&mut scheduler), [(0, 0, 64, false)]);
    scheduler.remove(SeqId(0));
    assert_eq!(step(&mut scheduler), [(1, 64, 64, false)]);
    scheduler.set_parked(SeqId(1), true);
    assert_eq!(step(&mut scheduler), [(2, 128, 64, false)]);
}

#[test]
fn the_next_turn_of_a_chat_finds_the_answer_of_the_last() {
    let mut scheduler = scheduler(100, EngineConfig::default());
    scheduler.submit(asks(1, alike(1, 0, 50), 100)).unwrap();
    for _ in 0..60 {
        step(&mut scheduler);
    }
    // 50 and 60 tokens, of which the last is not computed.
    let mut chat = scheduler.remove(SeqId(1)).unwrap().tokens;
    assert_eq!(chat.len(), 110);
    chat.extend(alike(2, 0, 30));
    scheduler.submit(asks(2, chat.clone(), 10)).unwrap();
    assert_eq!(step(&mut scheduler), [(2, 96, 44, true)]);
    // But not for another tenant, nor when nobody should trust it.
    let tenant = Some(crate::engine::prefix::Tenant("a".into()));
    scheduler.submit(Sequence { tenant, ..asks(3, chat.clone(), 10) }).unwrap();
    assert_eq!(step(&mut scheduler), [(2, 140, 1, true), (3, 0, 128, false)]);
    scheduler.remove(SeqId(3));
    scheduler.discard(SeqId(2));
    scheduler.submit(asks(4, chat, 10)).unwrap();
    assert_eq!(step(&mut scheduler), [(4, 0, 140, true)]);
}

#[test]
fn guesses_are_checked_while_they_pay() {
    // A loop of four tokens with something else in between now and then: guessed well, but not too well.
    let text = |i: u32| if crate::engine::fake::mix(u64::from(i)).is_multiple_of(4) { 9 } else { i % 4 };
    let prompt: Vec<u32> = (0..40).map(text).collect();
    // Tokens guessed in the steps after the hundredth, per stream and step.
    let drafted = |streams: u64, row_us: u64, draft_max: usize| {
        let mut scheduler = scheduler(1000, EngineConfig { draft_max, ..Default::default() });
        for id in 0..streams {
            let speculation = Some(crate::engine::speculation::Speculation::new(&prompt));
            scheduler.submit(Sequence { speculation, ..asks(id, prompt.clone(), 2_000) }).unwrap();
        }
        let mut drafted = 0;
        for round in 0..200 {
            let step = scheduler.plan(Instant::now());
            let follow = |chunk: &Chunk| {
                let mut tokens = vec![text((chunk.start + chunk.tokens) as u32)];
                while chunk.draft.get(tokens.len() - 1) == tokens.last() {
                    tokens.push(text((chunk.start + chunk.tokens + tokens.len()) as u32));
                }
                tokens
            };
            let sampled: Vec<Sampled> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, follow(c))).collect();
            scheduler.commit(&step, &sampled, Duration::from_micros(8_000 + row_us * step.rows() as u64));
            drafted += if round < 100 { 0 } else { step.rows() - step.chunks.len() };
        }
        drafted as f64 / (100 * streams) as f64
    };
    assert!(drafted(1, 10, 7) > 3.0, "rows ride free");
    assert!(drafted(1, 10, 2) > 1.0 && drafted(1, 10, 2) <= 2.0);
    assert_eq!(drafted(1, 10, 0), 0.0);
    assert!((0.5..3.0).contains(&drafted(4, 800, 7)), "rows cost something");
    assert!(drafted(16, 2_000, 7) < 0.2, "the batch is wide, rows cost what they bring");
}

#[test]
fn wrong_guesses_are_not_made_for_long() {
    // The same pairs again and again, never followed by the same: what seems to come does not.
    let pairs = |i: u32| if i % 3 == 2 { i } else { i % 3 };
    let prompt: Vec<u32> = (0..30).map(pairs).collect();
    let mut scheduler = scheduler(1000, EngineConfig::default());
    let speculation = Some(crate::engine::speculation::Speculation::new(&prompt));
    scheduler.submit(Sequence { speculation, ..asks(1, prompt, 1000) }).unwrap();
    let mut drafted = Vec::new();
    for i in 30..400 {
        let step = scheduler.plan(Instant::now());
        drafted.push(step.chunks[0].draft.len());
        scheduler.commit(&step, &[(SeqId(1), vec![pairs(i)])], Duration::from_millis(8 + step.rows() as u64));
    }
    assert!(drafted[..30].iter().sum::<usize>() > 0);
    assert_eq!(drafted[200..].iter().sum::<usize>(), 0, "{drafted:?}");
}

#[test]
fn what_is_foretold_is_drafted_once() {
    let draft = |draft_max: usize, row_us: u64| {
        let mut scheduler = scheduler(1000, EngineConfig { draft_max, ..Default::default() });
        let speculation = (draft_max > 0).then(|| crate::engine::speculation::Speculation::new(&[]));
        scheduler.submit(Sequence { speculation, ..sequence(1, 2, 500) }).unwrap();
        for _ in 0..5 {
            compute(&mut scheduler, |step| Duration::from_micros(8_000 + row_us * step.rows() as u64));
        }
        scheduler.foretell(SeqId(1), || (100..140).collect());
        let foretold = compute(&mut scheduler, |_| Duration::from_millis(8));
        let later = scheduler.plan(Instant::now());
        assert!(later.chunks[0].draft.iter().all(|&token| token == 7), "it has not come true");
        foretold.chunks[0].draft.clone()
    };
    // More than is ever guessed, for it is known; but others do not wait for all of it.
    assert_eq!(draft(7, 100), (100..115).collect::<Vec<u32>>());
    assert!(draft(0, 100).is_empty());
}

#[test]
fn a_timeout_ends_a_request_in_any_state() {
    let now = Instant::now();
    let mut scheduler = scheduler(100, EngineConfig { running_max: 1, ..Default::default() });
    for id in 1..=2 {
        scheduler.submit(Sequence { expires: Some(now + Duration::from_secs(9)), ..sequence(id, 40, 10) }).unwrap();
    }
    assert_eq!(scheduler.plan(now).chunks.len(), 1);
    let step = scheduler.plan(now + Duration::from_secs(9));
    assert_eq!((step.overdue, step.chunks.len()), (vec![SeqId(1), SeqId(2)], 0));
    assert_eq!((scheduler.blocks_held(), scheduler.running_count()), (0, 0));
}

/// Streams wait no longer than the gap for their next token, whatever prompts come in, shallow and deep.
#[test]
fn the_gap_is_kept() {
    let mut rng = crate::engine::fake::Rng::new(7);
    let mut scheduler = scheduler(4000, EngineConfig { running_max: 16, ..Default::default() });
    let (mut now, mut late, mut beside) = (Instant::now(), 0, 0);
    for id in 0..60 {
        let prompt = if rng.one_in(4) { rng.within(2_000, 8_000) } else { rng.within(10, 500) };
        scheduler.submit(Sequence { since: now, ..sequence(id, prompt, rng.within(20, 200)) }).unwrap();
    }
    while scheduler.running_count() + scheduler.queue.iter().count() > 0 {
        let step = scheduler.plan(now);
        // 8 ms for the weights, 0.8 ms a row, as much again at a depth of 4000; the machine scatters by a tenth.
        let load = step.load();
        let seconds =
            (8e-3 + 0.8e-3 * load.rows + 0.2e-6 * load.reach) * (0.95 + 0.1 * rng.within(0, 1000) as f64 / 1e3);
        let elapsed = Duration::from_secs_f64(seconds);
        if step.streams > 0 && step.chunks.len() > step.streams {
            beside += 1;
            late += usize::from(elapsed > Duration::from_millis(100) && step.rows() > step.streams + 16);
        }
        let sampled: Vec<Sampled> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, vec![9])).collect();
        scheduler.commit(&step, &sampled, elapsed);
        now += elapsed;
        for (id, _) in sampled {
            if scheduler.sequence(id).is_some_and(|s| s.tokens.len() == s.tokens_max) {
                scheduler.remove(id);
            }
        }
    }
    assert!(beside > 500 && late * 100 <= beside, "{late} of {beside} steps took longer than the gap");
}

/// A steady stream of important prompts, more than can be served: the unimportant one is served too.
#[test]
fn nobody_starves_under_a_steady_stream_of_higher_priority() {
    let mut scheduler = scheduler(60, EngineConfig { running_max: 4, ..Default::default() });
    let mut now = Instant::now();
    scheduler.submit(Sequence { priority: -2, since: now, ..sequence(0, 600, 20) }).unwrap();
    for id in 1..3_000 {
        scheduler.submit(Sequence { priority: 3, since: now, ..sequence(id, 300, 5) }).unwrap();
        let step = scheduler.plan(now);
        let sampled: Vec<Sampled> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, vec![9])).collect();
        scheduler.commit(&step, &sampled, Duration::from_millis(80));
        now += Duration::from_millis(80);
        for (id, _) in sampled {
            if scheduler.sequence(id).is_some_and(|s| s.tokens.len() == s.tokens_max) {
                scheduler.remove(id);
            }
        }
        if scheduler.sequence(SeqId(0)).is_none() {
            // Five levels of priority are fifty seconds, 625 steps.
            assert!(id < 1_000, "served after {id} steps");
            return;
        }
    }
    panic!("starved");
}

/// The bound of the paper (Sheng et al. 2024, theorem 4.8): what two clients that always wait for more have been served
/// differs by twice a batch's worth at most.
#[test]
fn clients_get_equal_shares_whatever_they_ask() {
    let config = EngineConfig { running_max: 4, ..Default::default() };
    let mut scheduler = scheduler(200, config);
    let clients = [crate::engine::request::ClientKey(1), crate::engine::request::ClientKey(2)].map(Some);
    let (mut id, mut served) = (0, [0u64; 2]);
    for round in 0..3_000 {
        for (which, (client, (prompt, answer))) in clients.into_iter().zip([(300, 40), (30, 10)]).enumerate() {
            // The first floods, the second always has two waiting.
            while scheduler.queue.iter().filter(|s| s.client == client).count() < [40, 2][which] {
                id += 1;
                scheduler.submit(Sequence { client, ..sequence(id, prompt, answer) }).unwrap();
            }
        }
        let step = scheduler.plan(Instant::now());
        for id in &step.admitted {
            let sequence = scheduler.sequence(*id).unwrap();
            served[usize::from(sequence.client == clients[1])] +=
                (sequence.tokens.len() - sequence.cached_tokens) as u64;
        }
        let sampled: Vec<Sampled> = step.chunks.iter().filter(|c| c.sample).map(|c| (c.id, vec![9])).collect();
        scheduler.commit(&step, &sampled, Duration::from_millis(30));
        for (id, _) in sampled {
            let sequence = scheduler.sequence(id).unwrap();
            served[usize::from(sequence.client == clients[1])] += 2;
            if sequence.tokens.len() == sequence.tokens_max {
                scheduler.remove(id);
            }
        }
        assert!(served[0].abs_diff(served[1]) <= 2 * (2 * 4 * 340), "round {round}: {served:?}");
    }
    assert!(served[0] > 20_000, "{served:?}");
}
