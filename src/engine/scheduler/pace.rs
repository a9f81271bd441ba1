//! How many rows a step may have so that running streams don't wait too long: a measured cost model.
//!
//! A step of `r` rows takes about `a + b r`: weights are read once, arithmetic is done per row. [`Pace`] keeps only the
//! smoothed quotient `time / rows` of the steps that carried prompt rows. Planning `gap_max / quotient` rows and measuring
//! again converges to the `r` with `a + b r = gap_max`, without knowing `a` or `b`: the map `r → gap r / (a + b r)` has
//! that fixed point, and its slope there is `a / gap < 1`.

use std::time::Duration;

/// Fewer prompt rows than this waste the step's reading of the weights; prompts always get as many.
const PROMPT_ROWS_MIN: usize = 16;

/// Weight of the newest measurement.
const SMOOTHING: f64 = 0.25;

#[derive(Debug)]
pub struct Pace {
    gap_max: Duration,
    /// `None` before the first measurement.
    seconds_per_row: Option<f64>,
}

impl Pace {
    pub fn new(gap_max: Duration) -> Self {
        Self { gap_max, seconds_per_row: None }
    }

    /// A step of `rows` rows, prompt rows among them, took `elapsed`.
    pub fn measured(&mut self, rows: usize, elapsed: Duration) {
        let latest = elapsed.as_secs_f64() / rows as f64;
        let smoothed = self.seconds_per_row.map_or(latest, |known| known + SMOOTHING * (latest - known));
        self.seconds_per_row = Some(smoothed);
    }

    /// Prompt rows that go with `decode_rows` in one step: at least 16, at most `rows_max`.
    pub fn prompt_rows(&self, decode_rows: usize, rows_max: usize) -> usize {
        let rows = match self.seconds_per_row {
            // A float beyond usize saturates.
            Some(seconds) => (self.gap_max.as_secs_f64() / seconds.max(1e-9)) as usize,
            None => 0,
        };
        rows.saturating_sub(decode_rows).min(rows_max).max(PROMPT_ROWS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a machine whose step takes `fixed + per_row * rows` (µs) until the pace has settled.
    #[track_caller]
    fn check(fixed: f64, per_row: f64, decode_rows: usize, expected_prompt_rows: std::ops::RangeInclusive<usize>) {
        let mut pace = Pace::new(Duration::from_millis(100));
        for _ in 0..100 {
            let rows = decode_rows + pace.prompt_rows(decode_rows, 1024);
            let elapsed = Duration::from_secs_f64((fixed + per_row * rows as f64) * 1e-6);
            pace.measured(rows, elapsed);
        }
        let rows = pace.prompt_rows(decode_rows, 1024);
        assert!(expected_prompt_rows.contains(&rows), "{rows} prompt rows");
    }

    #[test]
    fn settles_where_a_step_takes_the_gap() {
        check(10_000.0, 1_000.0, 10, 78..=81); // 10 ms + 90 rows of 1 ms = 100 ms
        check(50_000.0, 500.0, 0, 97..=101);
        check(0.0, 100.0, 64, 930..=937);
        check(0.0, 10.0, 64, 1024..=1024); // a fast machine meets the configured bound
        check(300_000.0, 5_000.0, 8, 16..=16); // a slow one still makes progress with prompts
    }

    #[test]
    fn starts_small_and_never_exceeds_the_bound_but_for_progress() {
        let pace = Pace::new(Duration::from_millis(100));
        assert_eq!(pace.prompt_rows(3, 128), 16);
        assert_eq!(pace.prompt_rows(3, 4), 16);
    }
}
