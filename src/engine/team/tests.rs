use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::ThreadId,
};

use super::*;

/// A team that may use all of its threads, however few cores there are.
fn team(threads: usize) -> Team {
    Team::with_limit(NonZeroUsize::new(threads).unwrap(), || NonZeroUsize::MAX).unwrap()
}

/// xorshift64*.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
}

/// Takes some time, now and then long enough for others to park.
fn dawdle(state: &mut u64) {
    let turns = if cfg!(miri) { 4 } else { 60 };
    let turns = if random(state).is_multiple_of(512) { turns * 100 } else { random(state) % turns };
    (0..turns).for_each(|_| std::hint::spin_loop());
    if random(state).is_multiple_of(64) {
        thread::yield_now();
    }
}

fn seed_of(thread: ThreadId, seed: u64) -> u64 {
    format!("{thread:?}").bytes().fold(seed | 1, |hash, b| hash.wrapping_mul(31) + u64::from(b)) | 1
}

#[test]
fn chunks_cover_every_item_once() {
    for threads in 1..=4 {
        let team = team(threads);
        let cases = [(0, 4), (1, 4), (4, 4), (5, 4), (2, 1), (200, 7), (100, 0)];
        for (items, chunk) in cases.repeat(if cfg!(miri) { 1 } else { 50 }) {
            let seen: Vec<_> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            team.for_each_chunk(items, chunk, |range| {
                for i in range {
                    seen[i].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1), "{items} items by {chunk}");
        }
    }
}

#[test]
fn a_share_is_taken_in_order_and_by_others_from_its_end() {
    let shared = Shared::new(2);
    // (taker, owner, stage, what it gets) of the chunks 4 to 8.
    for (taker, owner, stage, taken) in [
        (0, 0, 0, Some(4)),
        (1, 0, 0, Some(7)),
        (0, 0, 0, Some(5)),
        (0, 0, 0, Some(6)),
        (0, 0, 0, None),
        (1, 0, 0, None),
        // Nobody has taken of the other share before its second stage.
        (0, 1, 1, Some(7)),
        (1, 1, 1, Some(4)),
        (1, 0, 1, Some(7)),
        // Who is late finds nothing.
        (0, 0, 0, None),
        (1, 0, 2, Some(7)),
    ] {
        assert_eq!(shared.take(taker, owner, stage, 4..8), taken, "{taker} of {owner} in {stage}");
    }
    assert_eq!(shared.take(0, 0, 3, 4..4), None);
}

/// Every item of a stage is made of two of the stage before, which some other thread may have written.
fn next(previous: &[u64], i: usize) -> u64 {
    let n = previous.len();
    previous[(i * 7 + 3) % n].wrapping_mul(31).wrapping_add(previous[(i + 1) % n]).rotate_left(9)
}

/// Regions of many stages of random sizes, with threads that take their time in chunks and between stages.
#[track_caller]
fn check_stages(threads: usize, regions: u64, stages: usize) {
    const ITEMS: usize = 37;
    let team = team(threads);
    for seed in 0..regions {
        let mut expected = vec![(0..ITEMS as u64).collect::<Vec<_>>()];
        for stage in 0..stages {
            expected.push((0..ITEMS).map(|i| next(&expected[stage], i)).collect());
        }
        let (mut even, mut odd) = (expected[0].clone(), vec![0; ITEMS]);
        let buffers = [DisjointMut::new(&mut even), DisjointMut::new(&mut odd)];
        team.run(|crew| {
            let mut own = seed_of(thread::current().id(), seed);
            let mut common = seed + 1;
            // Some come late.
            (0..random(&mut own) % 40).for_each(|_| dawdle(&mut own));
            for stage in 0..stages {
                let chunk = random(&mut common) as usize % (ITEMS + 5);
                let pace = Cell::new(own);
                crew.stage(ITEMS, chunk, |range| {
                    let mut own = pace.get();
                    dawdle(&mut own);
                    pace.set(own);
                    // SAFETY: this stage reads one buffer, and writes each place of the other once.
                    let (from, to) =
                        unsafe { (buffers[stage % 2].read(0..ITEMS), buffers[1 - stage % 2].range(range.clone())) };
                    to.iter_mut().zip(range).for_each(|(to, i)| *to = next(from, i));
                });
                own = pace.get();
                // Between stages too, and now and then there is one of nothing.
                dawdle(&mut own);
                if random(&mut common).is_multiple_of(8) {
                    crew.stage(0, 1, |_| unreachable!("a chunk of nothing"));
                }
            }
        });
        let found = if stages.is_multiple_of(2) { even } else { odd };
        assert_eq!(found, expected[stages], "{threads} threads, seed {seed}");
    }
}

#[test]
fn a_stage_sees_all_that_the_stage_before_wrote() {
    if cfg!(miri) {
        return check_stages(3, 2, 12);
    }
    for threads in [2, 3, 8] {
        check_stages(threads, 30, 200);
        check_stages(threads, 400, 3);
    }
    check_stages(2, 1, 20_000);
}

/// Two chunks that wait for each other are done only if a worker comes in.
#[test]
fn workers_take_part() {
    let team = team(2);
    for _ in 0..20 {
        let both = Barrier::new(2);
        team.for_each_chunk(2, 1, |_| {
            both.wait();
        });
    }
}

/// The worker comes to its first stage only when the caller is through with all of them.
#[test]
fn nobody_waits_for_a_thread_without_a_chunk() {
    let team = team(2);
    let caller = thread::current().id();
    let (inside, through) = (AtomicBool::new(false), AtomicBool::new(false));
    let sum = AtomicUsize::new(0);
    team.run(|crew| {
        if thread::current().id() == caller {
            while !inside.load(Ordering::Acquire) {
                thread::yield_now();
            }
        } else {
            inside.store(true, Ordering::Release);
            while !through.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
        for _ in 0..50 {
            crew.stage(10, 3, |range| {
                assert_eq!(thread::current().id(), caller);
                sum.fetch_add(range.len(), Ordering::Relaxed);
            });
        }
        through.store(true, Ordering::Release);
    });
    assert_eq!(sum.into_inner(), 500);
}

/// A chunk that goes on until all others have parked, at every stage's end and at the region's.
#[test]
fn who_waits_parks_and_is_woken() {
    let team = team(3);
    let shared = &*team.shared;
    let parked = |threads: usize| {
        while shared.sleeping() < threads {
            thread::yield_now();
        }
    };
    for _ in 0..5 {
        let all = Barrier::new(3);
        team.run(|crew| {
            for _ in 0..3 {
                crew.stage(3, 1, |range| {
                    all.wait();
                    if range.start == 1 {
                        parked(2);
                    }
                });
            }
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Before,
    Chunk,
    Between,
    After,
}

/// All threads come in, and one panics; the others are by then waiting, working, or asleep.
#[track_caller]
fn check_panic(threads: usize, guilty_is_caller: bool, place: Place, others_sleep: bool) {
    let team = team(threads);
    let shared = &*team.shared;
    let caller = thread::current().id();
    // The first non-caller to say so is the guilty one.
    let chosen = AtomicBool::new(false);
    let all = Barrier::new(threads);
    let what = format!("{threads} threads, the caller's: {guilty_is_caller}, {place:?}, asleep: {others_sleep}");
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        team.run(|crew| {
            let is_caller = thread::current().id() == caller;
            let guilty = if guilty_is_caller { is_caller } else { !is_caller && !chosen.swap(true, Ordering::Relaxed) };
            all.wait();
            let fail = |here: Place| {
                if guilty && place == here {
                    while others_sleep && here == Place::Chunk && shared.sleeping() < threads - 1 {
                        thread::yield_now();
                    }
                    panic::resume_unwind(Box::new(what.clone()));
                }
            };
            fail(Place::Before);
            crew.stage(threads, 1, |_| {
                // Each takes one, unless one panicked before.
                if place != Place::Before {
                    all.wait();
                }
                fail(Place::Chunk);
            });
            fail(Place::Between);
            crew.stage(100, 3, |_| ());
            fail(Place::After);
        });
    }));
    let payload = result.expect_err(&what);
    assert_eq!(payload.downcast_ref::<String>(), Some(&what));
    let runs = AtomicUsize::new(0);
    team.for_each_chunk(8, 1, |_| {
        runs.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(runs.into_inner(), 8, "{what}");
}

#[test]
fn a_panic_anywhere_reaches_the_caller_and_leaves_the_team_usable() {
    for threads in [2, 4] {
        for place in [Place::Before, Place::Chunk, Place::Between, Place::After] {
            for guilty_is_caller in [true, false] {
                for others_sleep in [false, true] {
                    check_panic(threads, guilty_is_caller, place, others_sleep);
                }
            }
        }
    }
}

#[test]
fn a_panic_with_nobody_beside_is_the_callers_own() {
    let team = team(1);
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        team.run(|crew| crew.stage(3, 1, |_| panic::resume_unwind(Box::new(7))));
    }));
    assert_eq!(result.unwrap_err().downcast_ref::<i32>(), Some(&7));
}

#[test]
#[should_panic(expected = "a stage within a stage")]
fn a_stage_within_a_stage_is_our_bug() {
    team(1).run(|crew| crew.stage(1, 1, |_| crew.stage(1, 1, |_| ())));
}

/// A quota that shrinks to one core is followed a second later, and nothing runs beside the caller.
#[test]
fn takes_no_more_threads_than_are_available() {
    static AVAILABLE: AtomicUsize = AtomicUsize::new(2);
    let team = Team::with_limit(NonZeroUsize::new(3).unwrap(), || {
        NonZeroUsize::new(AVAILABLE.load(Ordering::Relaxed)).unwrap()
    })
    .unwrap();
    let start = Instant::now();
    for (available, later_seconds, threads) in [(2, 0, 2), (1, 0, 2), (1, 2, 1), (9, 2, 1), (9, 4, 3)] {
        AVAILABLE.store(available, Ordering::Relaxed);
        assert_eq!(team.threads_at(start + Duration::from_secs(later_seconds)), threads, "{later_seconds} s");
    }
    AVAILABLE.store(1, Ordering::Relaxed);
    assert_eq!(team.threads_at(start + Duration::from_secs(6)), 1);
    let caller = thread::current().id();
    team.run(|crew| {
        assert_eq!(crew.threads(), 1);
        crew.stage(100, 1, |_| assert_eq!(thread::current().id(), caller));
    });
}
