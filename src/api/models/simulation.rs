//! The machine under thousands of random schedules: requests, loads that take time or fail, idle times, removals.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    machine::Machine,
    room::Memory,
    state::{Effect, ModelId, Policy, Refusal, State},
};

const BYTES_MAX: u64 = 100;
const WAITERS_MAX: usize = 4;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() { None } else { Some(items[self.below(items.len() as u64) as usize]) }
    }
}

/// What the machine believes, seen from outside.
struct World {
    machine: Machine<u64>,
    random: Random,
    now: Instant,
    models: Vec<ModelId>,
    /// Being loaded: into how much at most.
    loading: BTreeMap<ModelId, u64>,
    resident: BTreeSet<ModelId>,
    ending: BTreeSet<ModelId>,
    /// One for each caller that has a model.
    live: Vec<ModelId>,
    /// Models that may be ended with callers from then on.
    grace: BTreeMap<ModelId, Option<Instant>>,
    /// Who waits, and until when.
    waiting: BTreeMap<u64, Instant>,
    asked: u64,
    /// How many got a model, had none in time, and so on.
    given: usize,
    refused: usize,
    evicted: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let machine = Machine::new(Memory::new(Some(BYTES_MAX), || None), WAITERS_MAX);
        let mut it = Self {
            machine,
            random: Random(seed),
            now,
            models: Vec::new(),
            loading: BTreeMap::new(),
            resident: BTreeSet::new(),
            ending: BTreeSet::new(),
            live: Vec::new(),
            grace: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asked: 0,
            given: 0,
            refused: 0,
            evicted: 0,
        };
        for id in 0..2 + it.random.below(4) {
            it.add(ModelId(id));
        }
        it
    }

    fn add(&mut self, id: ModelId) {
        let idle_max = (self.random.below(3) == 0).then(|| Duration::from_millis(self.random.below(20_000)));
        let bytes_min = 1 + self.random.below(BYTES_MAX + 5);
        let replaces = self.random.of(&self.models);
        self.machine.add(id, Policy { bytes_min, idle_max, replaces }, self.now);
        self.models.push(id);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..40 => self.ask(),
            40..62 => self.release(),
            62..72 => self.finish_load(),
            72..80 => self.finish_end(),
            80..96 => {
                let millis = self.random.below(3_000);
                self.pass(Duration::from_millis(millis));
            }
            96 => {
                if let Some(id) = self.random.of(&self.models) {
                    self.machine.unload(id, self.now);
                }
            }
            97 => self.remove(),
            98 => self.add(ModelId(1000 + self.asked)),
            _ => {
                let idle_max = Some(Duration::from_millis(self.random.below(5_000)));
                if let Some(id) = self.random.of(&self.models) {
                    self.machine.set_idle_max(id, idle_max);
                }
            }
        }
        self.carry_out();
        self.check();
    }

    fn ask(&mut self) {
        let Some(id) = self.random.of(&self.models) else { return };
        self.asked += 1;
        let deadline = self.now + Duration::from_millis(1 + self.random.below(60_000));
        self.waiting.insert(self.asked, deadline);
        if let Some((who, answer)) = self.machine.ask(id, self.asked, deadline, self.now) {
            assert_eq!(who, self.asked);
            self.answer(who, id, answer);
        }
    }

    fn answer(&mut self, who: u64, id: ModelId, answer: Result<(), Refusal>) {
        let deadline = self.waiting.remove(&who).expect("answered twice");
        match answer {
            Ok(()) => {
                assert!(self.resident.contains(&id) && !self.ending.contains(&id), "{id:?} is not there");
                self.live.push(id);
                self.given += 1;
            }
            Err(refusal) => {
                if refusal == Refusal::Timeout {
                    assert!(deadline <= self.now, "told too early that it is too late");
                }
                if let Refusal::NoRoom { needed, left, busy } = &refusal {
                    assert!(needed > left && (!busy.is_empty() || *needed > BYTES_MAX), "{refusal:?}");
                    assert!(busy.iter().all(|id| self.live.contains(id)), "{refusal:?}");
                }
                self.refused += 1;
            }
        }
    }

    fn release(&mut self) {
        if !self.live.is_empty() {
            let at = self.random.below(self.live.len() as u64) as usize;
            let id = self.live.swap_remove(at);
            self.machine.released(id, self.now);
        }
    }

    fn finish_load(&mut self) {
        let Some((id, most)) = self.loading.pop_first() else { return };
        if self.random.below(5) == 0 {
            self.machine.failed(id, "no luck".to_owned(), self.now);
        } else {
            self.resident.insert(id);
            let bytes = 1 + self.random.below(most);
            self.machine.loaded(id, bytes, self.now);
        }
    }

    fn finish_end(&mut self) {
        if let Some(id) = self.ending.pop_first() {
            self.resident.remove(&id);
            self.machine.ended(id, self.now);
        }
    }

    fn remove(&mut self) {
        if self.models.is_empty() {
            return;
        }
        let id = self.models.swap_remove(self.random.below(self.models.len() as u64) as usize);
        let by = (self.random.below(2) == 0).then(|| self.now + Duration::from_secs(5));
        self.grace.insert(id, by);
        self.machine.remove(id, by, self.now);
    }

    /// Time goes by, from one deadline to the next.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.next_deadline(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.machine.tick(self.now);
            self.carry_out();
            assert!(
                self.machine.next_deadline(self.now).is_none_or(|next| next > self.now),
                "a tick that does nothing"
            );
        }
        self.now = end;
        self.machine.tick(self.now);
        assert!(!self.machine.has_effects(), "something was due at no deadline: {:?}", self.machine.take_effects());
    }

    fn carry_out(&mut self) {
        for effect in self.machine.take_effects() {
            match effect {
                Effect::Answer { waiter, model, answer } => self.answer(waiter, model, answer),
                Effect::Load { model, bytes } => {
                    assert!(self.loading.is_empty() && !self.resident.contains(&model), "{model:?} is loaded twice");
                    self.loading.insert(model, bytes.expect("the bound is known"));
                }
                Effect::End(id) => {
                    let late = self.grace.get(&id).is_some_and(|by| by.is_some_and(|by| by <= self.now));
                    assert!(late || !self.live.contains(&id), "{id:?} has callers");
                    assert!(self.resident.contains(&id) && self.ending.insert(id), "{id:?} ends twice");
                    self.evicted += 1;
                }
                Effect::Forget(id) => assert!(self.grace.contains_key(&id) && !self.resident.contains(&id)),
            }
        }
    }

    fn check(&self) {
        assert!(self.machine.held() <= BYTES_MAX, "{} bytes", self.machine.held());
        assert!(
            self.waiting.values().all(|deadline| *deadline > self.now)
                || self.machine.next_deadline(self.now).is_some()
        );
        for id in self.models.iter().chain(self.grace.keys()) {
            let Some(model) = self.machine.get(*id) else { continue };
            assert_eq!(model.live, self.live.iter().filter(|live| *live == id).count(), "{id:?}");
            assert!(model.waiting() <= WAITERS_MAX);
            let loading = matches!(model.state, State::Loading { .. });
            assert_eq!(loading, self.loading.contains_key(id), "{id:?} {:?}", model.state);
            let here = matches!(model.state, State::Served { .. } | State::Closing { .. } | State::Ending { .. });
            assert_eq!(here, self.resident.contains(id), "{id:?} {:?}", model.state);
        }
    }

    /// Everything that is under way ends, and time passes: nobody waits for ever.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            while !self.live.is_empty() {
                self.release();
                self.carry_out();
            }
            self.finish_end();
            self.finish_load();
            self.carry_out();
            self.check();
            if self.waiting.is_empty() && self.loading.is_empty() && self.ending.is_empty() {
                return;
            }
            self.pass(Duration::from_millis(500));
        }
        panic!("{:?} wait for ever", self.waiting);
    }
}

#[test]
fn random_schedules() {
    let (mut given, mut refused, mut evicted) = (0, 0, 0);
    for seed in 0..3_000 {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..300).for_each(|_| world.step());
            if seed % 2 == 0 {
                world.settle();
            }
            world.machine.shutdown();
            world.carry_out();
            assert!(world.waiting.is_empty(), "{:?} were not told of the end", world.waiting);
            (world.given, world.refused, world.evicted)
        });
        let counts = result.unwrap_or_else(|panic| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic)
        });
        (given, refused, evicted) = (given + counts.0, refused + counts.1, evicted + counts.2);
    }
    // The schedules reach what they are for.
    assert!(given > 20_000 && refused > 20_000 && evicted > 10_000, "{given} {refused} {evicted}");
}

/// Two models that don't fit side by side are served in turns, each for a while.
#[test]
fn turns() {
    let start = Instant::now();
    let at = |millis: u64| start + Duration::from_millis(millis);
    let mut machine = Machine::new(Memory::new(Some(BYTES_MAX), || None), WAITERS_MAX);
    let [a, b] = [ModelId(1), ModelId(2)];
    for id in [a, b] {
        machine.add(id, Policy { bytes_min: 60, idle_max: None, replaces: None }, start);
    }
    let far = at(1_000_000);
    assert_eq!(machine.ask(a, 'a', far, at(0)), None);
    // b is asked for while a is being loaded, which is no reason to refuse it.
    assert_eq!(machine.ask(b, 'b', far, at(100)), None);
    assert_eq!(machine.take_effects(), [Effect::Load { model: a, bytes: Some(100) }]);
    machine.loaded(a, 60, at(1_000));
    assert_eq!(machine.take_effects(), [Effect::Answer { waiter: 'a', model: a, answer: Ok(()) }]);
    // Loading took a second, so a's place is its own for four.
    assert_eq!(machine.next_deadline(at(1_000)), Some(at(5_000)));
    machine.released(a, at(2_000));
    assert_eq!(machine.ask(a, 'c', far, at(3_000)), Some(('c', Ok(()))));
    machine.tick(at(4_999));
    assert!(!machine.has_effects());
    // Then it takes nobody new, and goes when its last request has ended.
    machine.tick(at(5_000));
    assert_eq!(machine.ask(a, 'd', far, at(5_500)), None);
    assert!(!machine.has_effects());
    machine.released(a, at(6_000));
    assert_eq!(machine.take_effects(), [Effect::End(a)]);
    machine.ended(a, at(6_100));
    assert_eq!(machine.take_effects(), [Effect::Load { model: b, bytes: Some(100) }]);
    machine.loaded(b, 60, at(7_000));
    assert_eq!(machine.take_effects(), [Effect::Answer { waiter: 'b', model: b, answer: Ok(()) }]);
    machine.released(b, at(7_100));
    machine.tick(at(11_000));
    assert_eq!(machine.take_effects(), [Effect::End(b)], "for d");
    machine.ended(b, at(11_000));
    machine.take_effects();
    machine.loaded(a, 60, at(11_500));
    assert_eq!(machine.take_effects(), [Effect::Answer { waiter: 'd', model: a, answer: Ok(()) }]);
    // Who comes when the other has requests is told, at once.
    let busy = Refusal::NoRoom { needed: 60, left: 40, busy: vec![a] };
    assert_eq!(machine.ask(b, 'e', far, at(60_000)), Some(('e', Err(busy))));
}

/// The least recently used goes, and only as many as must.
#[test]
fn the_least_recently_used_goes_first() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut machine = Machine::new(Memory::new(Some(BYTES_MAX), || None), WAITERS_MAX);
    let ids = [1, 2, 3, 4].map(ModelId);
    for id in ids {
        machine.add(id, Policy { bytes_min: 33, idle_max: None, replaces: None }, start);
    }
    let [first, second, third, fourth] = ids;
    for (id, seconds) in [(first, 1), (second, 2), (third, 3)] {
        machine.ask(id, (), at(1_000), at(seconds));
        machine.loaded(id, 33, at(seconds));
        machine.released(id, at(seconds));
    }
    assert_eq!(machine.ask(first, (), at(1_000), at(10)), Some(((), Ok(()))));
    machine.released(first, at(11));
    machine.take_effects();
    assert_eq!(machine.ask(fourth, (), at(1_000), at(20)), None);
    assert_eq!(machine.take_effects(), [Effect::End(second)]);
}

#[test]
fn failures_are_tried_again_later_and_later() {
    let start = Instant::now();
    let mut machine = Machine::new(Memory::new(None, || None), WAITERS_MAX);
    let id = ModelId(1);
    machine.add(id, Policy { bytes_min: 1, idle_max: None, replaces: None }, start);
    let mut now = start;
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let retry_after = Duration::from_secs(seconds);
        assert_eq!(machine.ask(id, 'a', now + retry_after, now), None);
        machine.failed(id, "bad".to_owned(), now);
        let refused = |retry_after| Err(Refusal::Failed { retry_after });
        let told = Effect::Answer { waiter: 'a', model: id, answer: refused(retry_after) };
        assert_eq!(machine.take_effects(), [Effect::Load { model: id, bytes: None }, told]);
        let soon = now + Duration::from_millis(500);
        let left = retry_after - Duration::from_millis(500);
        assert_eq!(machine.ask(id, 'b', soon + retry_after, soon), Some(('b', refused(left))));
        now += retry_after;
    }
}
