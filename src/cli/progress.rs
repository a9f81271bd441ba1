//! A line on the terminal that says how far something is; nothing where stderr is no terminal.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// What is over sooner needs no line.
const PATIENCE: Duration = Duration::from_millis(500);
const BAR_CELLS: usize = 24;

/// Cleared when dropped.
pub struct Progress {
    terminal: bool,
    started: Instant,
    shown: AtomicBool,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), started: Instant::now(), shown: AtomicBool::new(false) }
    }

    /// Shows a bar, `share` of it full.
    pub fn bar(&self, what: &str, share: f32) {
        let full = (share.clamp(0.0, 1.0) * BAR_CELLS as f32).round() as usize;
        let bar = "█".repeat(full) + &"░".repeat(BAR_CELLS - full);
        self.line(&format!("{what} {bar} {:.0} %", 100.0 * share));
    }

    /// Shows `words` in place of what was shown.
    pub fn line(&self, words: &str) {
        if self.terminal && self.started.elapsed() >= PATIENCE {
            self.shown.store(true, Relaxed);
            // `ESC [K` clears what a longer line has left. A terminal that is gone is no reason to stop.
            let _ = write!(io::stderr().lock(), "\r{words}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.load(Relaxed) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
