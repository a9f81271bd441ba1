//! How many prompt rows a step may have so that running streams don't wait too long: a measured cost model.
//!
//! A step with prompt rows takes `a + b · rows + c · reach` seconds: the weights are read once, arithmetic is done per row,
//! and attention per row and position that it looks back to. Each step is one equation for the three costs. A Kalman filter
//! (Kalman 1960) keeps the best guess and how sure it is of each: a cost that no step has shown yet stays what was assumed,
//! and when the machine gets slower or faster, the guess follows within a few steps.

use std::time::Duration;

/// Fewer prompt rows than this waste the step's reading of the weights; prompts always get as many.
pub const PROMPT_ROWS_MIN: usize = 16;
/// The share of the gap that is planned for; the rest is for what the model does not foresee.
const PLANNED: f64 = 0.85;
/// Assumed until measured: to attend to so many positions costs as much as all else that is done for a row.
const POSITIONS_LIKE_A_ROW: f64 = 4096.0;
/// How far measured times scatter, and how far a cost may drift from one step to the next, as shares.
const SCATTER: f64 = 0.1;
const DRIFT: f64 = 0.05;

/// The rows of a step, and how far they look back, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    pub rows: f64,
    /// Positions attended to, summed over rows.
    pub reach: f64,
}

impl Load {
    /// Rows at the positions from `start` on.
    pub fn chunk(start: usize, rows: usize) -> Self {
        let (start, rows) = (start as f64, rows as f64);
        Self { rows, reach: rows * start + rows * (rows + 1.0) / 2.0 }
    }

    fn features(self) -> [f64; 3] {
        [1.0, self.rows, self.reach]
    }
}

impl std::ops::Add for Load {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, reach: self.reach + other.reach }
    }
}

#[derive(Debug)]
pub struct Pace {
    gap_seconds: f64,
    /// `None` before the first measurement.
    costs: Option<Costs>,
}

/// Seconds for a step, for a row, for a position looked back to.
#[derive(Debug)]
struct Costs {
    mean: [f64; 3],
    covariance: [[f64; 3]; 3],
    /// Variances never grow beyond these.
    variance_max: [f64; 3],
}

impl Pace {
    pub fn new(gap_max: Duration) -> Self {
        Self { gap_seconds: gap_max.as_secs_f64(), costs: None }
    }

    /// A step of this load, prompt rows among it, took `elapsed`.
    pub fn measured(&mut self, load: Load, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(1e-6);
        match &mut self.costs {
            None => self.costs = Some(Costs::first(load, seconds)),
            Some(costs) => costs.update(load, seconds),
        }
    }

    /// Seconds that one row more takes, without its attention; 0 before the first measurement.
    pub fn row_seconds(&self) -> f64 {
        self.costs.as_ref().map_or(0.0, |costs| costs.mean[1])
    }

    /// Seconds that attention takes; 0 before the first measurement.
    pub fn attention_seconds(&self, load: Load) -> f64 {
        self.costs.as_ref().map_or(0.0, |costs| costs.mean[2] * load.reach)
    }

    /// Prompt rows, from position `start` on, that can join a step that has `load` already, `prompt_rows` of it prompts.
    pub fn prompt_rows(&self, load: Load, prompt_rows: usize, start: usize) -> usize {
        let least = PROMPT_ROWS_MIN.saturating_sub(prompt_rows);
        let Some(costs) = &self.costs else { return least };
        // seconds_left = b r + c (start r + r² / 2), solved for r.
        let seconds_left = PLANNED * self.gap_seconds - costs.seconds(load);
        let [_, row, position] = costs.mean;
        let linear = (row + position * start as f64).max(1e-9);
        let root = (linear * linear + 2.0 * position * seconds_left.max(0.0)).sqrt();
        // 2s / (b + √…) is the solution that holds for c = 0 too. A float beyond usize saturates.
        ((2.0 * seconds_left.max(0.0) / (linear + root)) as usize).max(least)
    }
}

impl Costs {
    /// All is put down to the rows, which errs towards short steps.
    fn first(load: Load, seconds: f64) -> Self {
        let row = seconds / load.rows.max(1.0);
        let variance_max = [seconds, row, row / POSITIONS_LIKE_A_ROW].map(|deviation| deviation * deviation);
        let mut covariance = [[0.0; 3]; 3];
        (0..3).for_each(|i| covariance[i][i] = variance_max[i]);
        Self { mean: [0.0, row, row / POSITIONS_LIKE_A_ROW], covariance, variance_max }
    }

    fn seconds(&self, load: Load) -> f64 {
        dot(self.mean, load.features())
    }

    fn update(&mut self, load: Load, seconds: f64) {
        let x = load.features();
        for i in 0..3 {
            let grown = self.covariance[i][i] + DRIFT * DRIFT * self.variance_max[i];
            self.covariance[i][i] = grown.min(self.variance_max[i]);
        }
        let spread = self.covariance.map(|row| dot(row, x));
        let error = seconds - self.seconds(load);
        // A share of what was measured: a step that was held up by something else counts less, but it counts.
        let scatter = SCATTER * seconds;
        let total = dot(spread, x) + scatter * scatter;
        for i in 0..3 {
            let gain = spread[i] / total;
            self.mean[i] = (self.mean[i] + gain * error).max(0.0);
            for (covariance, spread) in self.covariance[i].iter_mut().zip(spread) {
                *covariance -= gain * spread;
            }
        }
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::Rng;

    /// A machine whose step takes so many microseconds, for a row and for a thousand positions.
    #[derive(Clone, Copy)]
    struct Machine {
        fixed: f64,
        row: f64,
        thousand_positions: f64,
    }

    impl Machine {
        fn run(self, load: Load) -> Duration {
            Duration::from_secs_f64(
                (self.fixed + self.row * load.rows + self.thousand_positions * load.reach / 1e3) * 1e-6,
            )
        }
    }

    const GAP: Duration = Duration::from_millis(100);

    /// Takes prompts in beside `streams` until the pace has settled; the prompt rows at `start` then.
    fn settled(machine: Machine, streams: usize, start: usize, pace: &mut Pace) -> usize {
        let decode = (0..streams).fold(Load::default(), |load, _| load + Load::chunk(100, 1));
        for _ in 0..100 {
            let rows = pace.prompt_rows(decode, 0, start).min(1024);
            let load = decode + Load::chunk(start, rows);
            pace.measured(load, machine.run(load));
        }
        pace.prompt_rows(decode, 0, start)
    }

    #[track_caller]
    fn check(machine: Machine, streams: usize, start: usize, expected: std::ops::RangeInclusive<usize>) {
        let rows = settled(machine, streams, start, &mut Pace::new(GAP));
        assert!(expected.contains(&rows), "{rows} prompt rows");
    }

    #[test]
    fn settles_where_a_step_takes_its_share_of_the_gap() {
        let row = |fixed, row| Machine { fixed, row, thousand_positions: 0.0 };
        check(row(10_000.0, 1_000.0), 10, 0, 62..=66); // 10 ms + 75 rows of 1 ms = 85 ms
        check(row(50_000.0, 500.0), 0, 0, 66..=72);
        check(row(0.0, 100.0), 64, 0, 750..=800);
        check(row(300_000.0, 5_000.0), 8, 0, 16..=16); // a slow machine still makes progress with prompts
        // 8000 positions are as dear as the row itself.
        check(Machine { fixed: 5_000.0, row: 1_000.0, thousand_positions: 125.0 }, 0, 8_000, 37..=41);
    }

    #[test]
    fn deep_prompts_get_fewer_rows_at_once() {
        let machine = Machine { fixed: 8_000.0, row: 800.0, thousand_positions: 150.0 };
        let mut pace = Pace::new(GAP);
        settled(machine, 4, 0, &mut pace);
        settled(machine, 4, 2_000, &mut pace);
        // Deeper than ever: the first step keeps the gap already.
        for start in [6_000, 12_000, 500, 30_000] {
            let load = Load::chunk(start, pace.prompt_rows(Load::default(), 0, start));
            assert!(machine.run(load) < GAP || load.rows <= 16.0, "{load:?} at {start}");
            pace.measured(load, machine.run(load));
        }
    }

    #[test]
    fn follows_a_machine_that_changes_and_scatters() {
        let mut rng = Rng::new(3);
        let mut pace = Pace::new(GAP);
        let mut late = 0;
        for step in 0..1_000 {
            let speed = if step / 100 % 2 == 0 { 1.0 } else { 2.0 };
            let machine = Machine { fixed: 8_000.0 * speed, row: 900.0 * speed, thousand_positions: 100.0 * speed };
            let start = rng.within(0, 3_000);
            let load = Load::chunk(start, pace.prompt_rows(Load::default(), 0, start).min(256));
            let elapsed = machine.run(load).mul_f64(1.0 + 0.1 * (rng.next() as f64 / u64::MAX as f64 - 0.5));
            pace.measured(load, elapsed);
            late += usize::from(elapsed > GAP);
        }
        // A few steps after each of the five times that it gets slower.
        assert!(late <= 25, "{late} of 1000 steps took longer than the gap");
    }

    #[test]
    fn starts_small() {
        let pace = Pace::new(GAP);
        assert_eq!(pace.prompt_rows(Load::default(), 0, 0), 16);
        assert_eq!(pace.prompt_rows(Load::default(), 12, 0), 4);
        assert_eq!(pace.prompt_rows(Load::default(), 20, 0), 0);
    }
}
