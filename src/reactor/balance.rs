//! Which loop gets the next connection: the one with the least live load.
//!
//! Knows no socket and no clock. Load is a loop's connections, as a multiple of what all have on average, and the share
//! of the last moments in which it was busy. Among idle loops the one with the fewest connections is the least loaded.
//! A loop that is kept busy by a few gets fewer newcomers, but not none for ever: the others' connections count too.

use std::time::{Duration, Instant};

/// The shortest time over which a share is taken. Over less, a single turn looks like a full load.
const INTERVAL: Duration = Duration::from_millis(100);

/// A loop that is busy all the time counts as if it had this many times the average of connections more. With two loops
/// this leaves a quarter of the newcomers to one that is always busy: it may be so only because it accepts them.
const BUSY_WEIGHT: f64 = 1.0;

pub(crate) struct Balance {
    observed_at: Instant,
    loops: Vec<Observed>,
}

/// One loop at the last observation.
#[derive(Clone, Default)]
struct Observed {
    busy: Duration,
    /// Of the time before: 0 is idle, 1 is busy all the time.
    share: f64,
}

impl Balance {
    pub fn new(loops: usize, now: Instant) -> Balance {
        Balance { observed_at: now, loops: vec![Observed::default(); loops] }
    }

    /// Looks at how long each loop has been busy so far, unless it did so a moment ago.
    pub fn observe(&mut self, now: Instant, busy: impl Fn(usize) -> Duration) {
        let elapsed = now.saturating_duration_since(self.observed_at);
        if elapsed < INTERVAL {
            return;
        }
        self.observed_at = now;
        for (index, before) in self.loops.iter_mut().enumerate() {
            let busy = busy(index);
            let share = busy.saturating_sub(before.busy).div_duration_f64(elapsed).min(1.0);
            *before = Observed { busy, share };
        }
    }

    /// The loop for the next connection, from how many each has open.
    pub fn choose(&self, open: impl Fn(usize) -> usize) -> usize {
        let total: usize = (0..self.loops.len()).map(&open).sum();
        let mean = (total as f64 / self.loops.len() as f64).max(1.0);
        let loads = self.loops.iter().enumerate();
        let loads = loads.map(|(index, observed)| (index, open(index) as f64 / mean + BUSY_WEIGHT * observed.share));
        loads.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out `newcomers` connections over a second, in which each loop is busy for its share, and returns how many
    /// each loop has at the end.
    fn spread(open: &[usize], busy_percent: &[u64], newcomers: usize) -> Vec<usize> {
        let start = Instant::now();
        let mut balance = Balance::new(open.len(), start);
        let mut open = open.to_vec();
        for n in 0..newcomers {
            let since = Duration::from_millis(1000 + 1000 * n as u64 / newcomers as u64);
            balance.observe(start + since, |index| since * busy_percent[index] as u32 / 100);
            let chosen = balance.choose(|index| open[index]);
            open[chosen] += 1;
        }
        open
    }

    #[test]
    fn idle_loops_get_the_same_number() {
        assert_eq!(spread(&[0, 0, 0], &[0, 0, 0], 6), [2, 2, 2]);
        assert_eq!(spread(&[10, 4, 7], &[0, 0, 0], 9), [10, 10, 10]);
        assert_eq!(spread(&[5, 5], &[100, 100], 4), [7, 7]);
    }

    #[test]
    fn a_busy_loop_with_few_connections_gets_fewer() {
        assert_eq!(spread(&[5, 7], &[100, 10], 4), [5, 11]);
        // But not none for ever.
        let after = spread(&[0, 0], &[100, 0], 10_000);
        assert!(after[0] > 0 && after[0] < after[1], "{after:?}");
    }

    #[test]
    fn a_small_difference_in_business_makes_a_small_one_in_number() {
        let after = spread(&[100, 100], &[31, 29], 1000);
        assert!(after[0].abs_diff(after[1]) < 40, "{after:?}");
    }

    #[test]
    fn a_share_is_not_taken_over_less_than_the_interval() {
        let start = Instant::now();
        let mut balance = Balance::new(2, start);
        let busy = |ms| move |index| if index == 0 { Duration::from_millis(ms) } else { Duration::ZERO };
        balance.observe(start + INTERVAL / 2, busy(50));
        assert_eq!(balance.choose(|_| 1), 0);
        balance.observe(start + INTERVAL, busy(50));
        assert_eq!(balance.choose(|_| 1), 1);
        // What was long ago is forgotten.
        balance.observe(start + INTERVAL * 2, busy(50));
        assert_eq!(balance.choose(|_| 1), 0);
    }
}
