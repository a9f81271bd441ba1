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
