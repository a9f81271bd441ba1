//! What steps without prompts cost by their rows: measured, and asked for two decisions.
//!
//! *Is a wider batch worth it?* A step reads all weights whatever its width, and the more streams share that, the more tokens
//! a second there are, but the longer each stream waits for its next one. Once the step takes ten times what a single row
//! takes, reading is a tenth of it, and no width can bring more than that tenth: then no more sequences are admitted. Nor
//! when a step would last longer than the gap that streams should have. But [`WIDTH_MIN`] are always let in: on a machine
//! that is too slow for the gap to be kept, waiting in the queue would be no better.
//!
//! *Is a draft worth it?* While a step is bound by memory, rows ride free, or nearly so; by arithmetic, each costs its share.
//! No formula tells where one becomes the other: so what each number of rows took the last times is kept in a table.

/// The table's length; wider steps are computed from the widest in it.
const ROWS_MAX: usize = 128;
/// Weight of the newest measurement.
const SMOOTHING: f64 = 0.2;
/// After so many steps a measurement no longer counts: the machine may have changed.
const STEPS_KEPT: u64 = 2_000;
/// A step that takes so often what one row takes is wide enough.
const WORTH: f64 = 10.0;
/// Sequences that run side by side whatever they cost.
pub const WIDTH_MIN: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Measured {
    seconds: f64,
    step: u64,
}

#[derive(Debug)]
pub struct Widths {
    /// By rows; the attention's share, which depends on the context, is taken out.
    by_rows: Vec<Option<Measured>>,
    steps: u64,
}

impl Widths {
    pub fn new() -> Self {
        Self { by_rows: vec![None; ROWS_MAX + 1], steps: 0 }
    }

    /// A step of `rows` decode rows took so long beside its attention.
    pub fn measured(&mut self, rows: usize, seconds: f64) {
        self.steps += 1;
        let known = self.known(rows);
        let Some(slot) = self.by_rows.get_mut(rows) else { return };
        let seconds = known.map_or(seconds, |known| known + SMOOTHING * (seconds - known));
        *slot = Some(Measured { seconds, step: self.steps });
    }

    /// What a step of `rows` rows takes: measured, or drawn between its measured neighbours; beyond the widest one, every row
    /// costs `row_seconds`. `None` if nothing has been measured.
    pub fn seconds(&self, rows: usize, row_seconds: f64) -> Option<f64> {
        let below = (1..=rows.min(ROWS_MAX)).rev().find_map(|n| Some((n, self.known(n)?)));
        let above = (rows..=ROWS_MAX).find_map(|n| Some((n, self.known(n)?)));
        match (below, above) {
            (Some((low, least)), Some((high, most))) if high > low => {
                Some(least + (most - least) * (rows - low) as f64 / (high - low) as f64)
            }
            (Some((low, seconds)), _) => Some(seconds + row_seconds * (rows - low) as f64),
            (None, above) => above.map(|(_, seconds)| seconds),
        }
    }

    /// Whether a step of `width` streams, with `attention_seconds` for their contexts, is worth having.
    pub fn pays(&self, width: usize, row_seconds: f64, attention_seconds: f64, gap_seconds: f64) -> bool {
        let (Some(one), Some(all)) = (self.seconds(1, row_seconds), self.seconds(width, row_seconds)) else {
            return true;
        };
        width <= WIDTH_MIN || (all <= WORTH * one && all + attention_seconds <= gap_seconds)
    }

    fn known(&self, rows: usize) -> Option<f64> {
        let measured = (*self.by_rows.get(rows)?)?;
        (self.steps - measured.step < STEPS_KEPT).then_some(measured.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widest batch of a machine that reads its weights in 8 ms and takes `row_ms` for each row beyond the eighth.
    #[track_caller]
    fn check(row_ms: f64, gap_ms: f64, expected: usize) {
        let mut widths = Widths::new();
        let mut width = 1;
        while width < 200 && widths.pays(width, row_ms * 1e-3, 0.0, gap_ms * 1e-3) {
            widths.measured(width, 8e-3 + row_ms * 1e-3 * width.saturating_sub(8) as f64);
            width += 1;
        }
        assert_eq!(width - 1, expected);
    }

    #[test]
    fn width_ends_where_it_no_longer_pays() {
        check(0.97, 1000.0, 82); // 80 ms: ten times the single row
        check(0.97, 50.0, 51); // the gap
        check(20.0, 1000.0, 11);
        check(20.0, 5.0, WIDTH_MIN);
        check(0.0, 1000.0, 199);
    }

    #[test]
    fn what_was_not_measured_lies_between_what_was() {
        let mut widths = Widths::new();
        assert_eq!(widths.seconds(3, 1.0), None);
        widths.measured(4, 10.0);
        assert_eq!(widths.seconds(2, 1.0), Some(10.0));
        assert_eq!(widths.seconds(6, 1.0), Some(12.0));
        widths.measured(8, 18.0);
        assert_eq!(widths.seconds(6, 1.0), Some(14.0));
        assert_eq!(widths.seconds(300, 1.0), Some(18.0 + 292.0));
        for _ in 0..STEPS_KEPT {
            widths.measured(4, 10.0);
        }
        assert_eq!(widths.seconds(8, 1.0), Some(14.0), "too long ago");
    }
}
