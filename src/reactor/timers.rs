//! A timer wheel: O(1) to add, no cost for timers that never fire.
//!
//! Knows no clock: time is an argument. Timers are not removed; who adds one keeps its tick, and ignores a key that
//! comes back with another. So moving a deadline later costs nothing until the earlier one fires.

use std::time::{Duration, Instant};

/// The resolution. Timers fire up to one tick late, never early.
const TICK: Duration = Duration::from_millis(50);

/// Slots of the wheel: one round takes 102 s. A timer further away passes its slot once for each round.
const SLOTS: usize = 2048;

/// Timers for which a slot keeps memory while it has fewer.
const SLOT_TIMERS_KEPT: usize = 16;

/// A point in time, counted in ticks since the wheel was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

pub(crate) struct Timers<K> {
    origin: Instant,
    slots: Vec<Vec<(Tick, K)>>,
    /// Everything up to and including this tick has fired.
    fired: Tick,
    /// No timer is due before this tick; `None` without timers.
    next: Option<Tick>,
    len: usize,
}

impl<K: Copy> Timers<K> {
    pub fn new(now: Instant) -> Timers<K> {
        Timers { origin: now, slots: (0..SLOTS).map(|_| Vec::new()).collect(), fired: Tick(0), next: None, len: 0 }
    }

    /// The tick at which a timer for `deadline` would fire.
    pub fn tick_of(&self, deadline: Instant) -> Tick {
        let since = deadline.saturating_duration_since(self.origin);
        let tick = since.as_nanos().div_ceil(TICK.as_nanos());
        Tick(u64::try_from(tick).unwrap_or(u64::MAX).max(self.fired.0 + 1))
    }

    pub fn add(&mut self, tick: Tick, key: K) {
        self.slots[tick.0 as usize % SLOTS].push((tick, key));
        self.len += 1;
        self.next = Some(self.next.map_or(tick, |next| next.min(tick)));
    }

    /// When [`expire`](Timers::expire) has work to do next, or somewhat before.
    pub fn next(&self) -> Option<Instant> {
        self.next.map(|tick| self.origin + TICK * u32::try_from(tick.0).unwrap_or(u32::MAX))
    }

    /// Timers that have not fired, stale ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Forgets the timers that nobody needs any more. Looks at all of them.
    pub fn retain(&mut self, mut needed: impl FnMut(Tick, K) -> bool) {
        self.slots.iter_mut().for_each(|slot| slot.retain(|(tick, key)| needed(*tick, *key)));
        self.len = self.slots.iter().map(Vec::len).sum();
    }

    /// Moves the timers that are due at `now` into `due`.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<(Tick, K)>) {
        let elapsed = now.saturating_duration_since(self.origin).as_nanos() / TICK.as_nanos();
        let until = Tick(u64::try_from(elapsed).unwrap_or(u64::MAX));
        if self.next.is_none_or(|next| until < next) {
            return;
        }
        let before = due.len();
        let span = (until.0 - self.fired.0).min(SLOTS as u64);
        for tick in until.0 - span + 1..=until.0 {
            let slot = &mut self.slots[tick as usize % SLOTS];
            due.extend(slot.extract_if(.., |(at, _)| *at <= until));
            // A burst of deadlines must not leave its mark on one slot after the other.
            slot.shrink_to(SLOT_TIMERS_KEPT);
        }
        self.len -= due.len() - before;
        self.fired = until;
        let later = (1..=SLOTS as u64).map(|ahead| Tick(until.0 + ahead));
        self.next = later.into_iter().find(|tick| !self.slots[tick.0 as usize % SLOTS].is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every timer fires once, at its deadline or up to one tick later, however time moves.
    #[test]
    fn fires_each_timer_once_and_on_time() {
        // Miri takes only the long steps.
        let steps_ms = [200_000, 5_000, 333, 50, 7];
        for step_ms in &steps_ms[..if cfg!(miri) { 2 } else { 5 }] {
            let start = Instant::now();
            let mut timers = Timers::new(start);
            let deadlines_ms: Vec<u64> = (0..500).map(|n| n * n * 3).collect();
            for (key, ms) in deadlines_ms.iter().enumerate() {
                timers.add(timers.tick_of(start + Duration::from_millis(*ms)), key);
            }
            let (mut fired, mut due, mut now_ms) = (vec![0; 500], Vec::new(), 0);
            while now_ms < 1_000_000 {
                now_ms += *step_ms;
                let asleep = timers.next().is_none_or(|next| next > start + Duration::from_millis(now_ms));
                timers.expire(start + Duration::from_millis(now_ms), &mut due);
                assert!(!asleep || due.is_empty(), "fired without having asked to be woken");
                for (_, key) in due.drain(..) {
                    fired[key] += 1;
                    assert!(deadlines_ms[key] <= now_ms, "early: {} at {now_ms}", deadlines_ms[key]);
                    assert!(now_ms < deadlines_ms[key] + 100 + *step_ms, "late: {} at {now_ms}", deadlines_ms[key]);
                }
            }
            assert!(fired.iter().all(|count| *count == 1), "step {step_ms}");
            assert_eq!((timers.next(), timers.len()), (None, 0));
        }
    }

    #[test]
    fn only_what_is_needed_is_retained() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        (0..1000).for_each(|key| timers.add(timers.tick_of(start + Duration::from_secs(key)), key));
        timers.retain(|_, key| key % 10 == 0);
        assert_eq!(timers.len(), 100);
        let mut due = Vec::new();
        timers.expire(start + Duration::from_secs(1001), &mut due);
        assert!(due.len() == 100 && due.iter().all(|(_, key)| key % 10 == 0) && timers.len() == 0);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let mut due = Vec::new();
        timers.add(timers.tick_of(start), ());
        timers.expire(start + Duration::from_secs(5), &mut due);
        timers.add(timers.tick_of(start), ());
        timers.expire(start + Duration::from_secs(5), &mut due);
        assert_eq!(due.len(), 1);
        timers.expire(start + Duration::from_secs(5) + TICK, &mut due);
        assert_eq!(due.len(), 2);
    }
}
