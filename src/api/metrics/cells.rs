//! What metrics are counted in: atomics that any thread may bump and that are read without stopping anyone.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Durations by bucket.
pub struct Histogram {
    bounds_seconds: &'static [f64],
    /// One for each bound and one for what lies above them all; not cumulative.
    counts: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
}

impl Histogram {
    pub fn new(bounds_seconds: &'static [f64]) -> Self {
        let counts = (0..=bounds_seconds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_seconds, counts, sum_micros: AtomicU64::new(0) }
    }

    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds_seconds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(duration.as_micros() as u64, Relaxed);
    }

    /// Upper bounds with the count of observations at or below each; the last is infinity, so its count is the total.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut total = 0;
        self.bounds_seconds.iter().copied().chain([f64::INFINITY]).zip(&self.counts).map(move |(bound, count)| {
            total += count.load(Relaxed);
            (bound, total)
        })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_micros.load(Relaxed) as f64 / 1e6
    }
}

/// How many per second, over the last [`Rate::SECONDS`] whole seconds. Time is an argument: seconds since the start.
#[derive(Default)]
pub struct Rate {
    /// A second (upper 32 bits) and what was counted in it; a slot of an older second is stale.
    slots: [AtomicU64; Rate::SLOTS],
}

impl Rate {
    const SLOTS: usize = 16;
    /// Width of the window.
    pub const SECONDS: u64 = 10;

    pub fn add(&self, second: u64, n: u32) {
        let slot = &self.slots[second as usize % Self::SLOTS];
        let stamp = second << 32;
        // A failed exchange means that another thread counted: look again.
        let bump =
            |old: u64| Some(if old >> 32 == second { old.saturating_add(n.into()) } else { stamp | u64::from(n) });
        let _ = slot.fetch_update(Relaxed, Relaxed, bump);
    }

    /// The mean over the last whole seconds before `second`; since the start while that is shorter.
    pub fn per_second(&self, second: u64) -> f64 {
        let width = second.clamp(1, Self::SECONDS);
        let first = second.saturating_sub(width);
        let in_window = |slot: u64| (first..=second.saturating_sub(1)).contains(&(slot >> 32));
        // In the first second there is no whole one yet: show what it has.
        let young = second == 0;
        let total: u64 = self
            .slots
            .iter()
            .map(|slot| slot.load(Relaxed))
            .filter(|slot| young || in_window(*slot))
            .map(|slot| slot & 0xffff_ffff)
            .sum();
        total as f64 / width as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_at_or_below() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for millis in [50, 100, 101, 1000, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative, [(0.1, 2), (1.0, 4), (f64::INFINITY, 5)]);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum_seconds(), 6.251);
    }

    #[test]
    fn rate_forgets() {
        let rate = Rate::default();
        rate.add(0, 5);
        assert_eq!(rate.per_second(0), 5.0);
        assert_eq!(rate.per_second(1), 5.0);
        for second in 1..=20 {
            rate.add(second, 3);
        }
        assert_eq!(rate.per_second(21), 3.0);
        assert_eq!(rate.per_second(26), 1.5);
        assert_eq!(rate.per_second(60), 0.0);
    }
}
