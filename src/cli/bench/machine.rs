//! What the machine does at most, by loops that do nothing else: see [`ceilings`](crate::engine::kernels::ceilings).

use std::{fs, sync::Barrier, thread, time::Instant};

use serde::{Deserialize, Serialize};

use crate::engine::kernels::{ceilings::Ceilings, kernels};

/// Each ceiling is the best of so many runs.
const RUNS: usize = 5;
/// A run of the loops that multiply: some hundredths of a second.
const ROUNDS: usize = 10_000;
/// A slow core is given fewer.
const ROUNDS_OF_PLAIN_CODE: usize = 500;

/// The machine as a model's speed is measured against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub threads: usize,
    /// The tier of the float kernels.
    pub kernels: String,
    /// What integer products are made with.
    pub int8: String,
    pub one_thread: Rates,
    pub all_threads: Rates,
}

/// Of one thread, or of all together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Memory read, in 10⁹ bytes a second.
    pub read_gb_per_second: f64,
    /// Multiplications of bytes with their additions, in 10⁹ a second.
    pub int8_gmac_per_second: f64,
    /// The same of floats.
    pub f32_gmac_per_second: f64,
}

impl Machine {
    /// Measures with `threads` threads, over `read_bytes` of memory in all: far more than the caches hold.
    pub fn measure(threads: usize, read_bytes: usize) -> Self {
        let ceilings = Ceilings::of_this_process();
        let memory = vec![1.0f32; read_bytes / size_of::<f32>()];
        let one_thread = Rates::measure(&ceilings, &memory, 1);
        let all_threads = if threads == 1 { one_thread } else { Rates::measure(&ceilings, &memory, threads) };
        let (kernels, int8) = (kernels().name.to_owned(), ceilings.int8_name.to_owned());
        Self { cpu: cpu_name(), threads, kernels, int8, one_thread, all_threads }
    }
}

impl Rates {
    fn measure(ceilings: &Ceilings, memory: &[f32], threads: usize) -> Self {
        let rounds = if ceilings.int8_name == "plain code" { ROUNDS_OF_PLAIN_CODE } else { ROUNDS };
        let share = memory.len().div_ceil(threads).max(1);
        let read = |thread: usize| {
            let share = memory.chunks(share).nth(thread).unwrap_or(&[]);
            ceilings.read(share);
            size_of_val(share) as u64
        };
        Self {
            read_gb_per_second: best(threads, &read),
            int8_gmac_per_second: best(threads, &|_| ceilings.int8_macs(rounds)),
            f32_gmac_per_second: best(threads, &|_| ceilings.float_macs(rounds)),
        }
    }
}

/// The most that `threads` threads get done together of what `work` counts, in 10⁹ a second.
fn best(threads: usize, work: &(dyn Fn(usize) -> u64 + Sync)) -> f64 {
    let begin = Barrier::new(threads);
    let run = |thread: usize| -> Vec<(u64, f64)> {
        let once = |_| {
            begin.wait();
            let start = Instant::now();
            let done = work(thread);
            (done, start.elapsed().as_secs_f64())
        };
        (0..RUNS).map(once).collect()
    };
    let runs: Vec<Vec<(u64, f64)>> = thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let own = run(0);
        // A thread that panics has told why; what it has not done counts as nothing.
        std::iter::once(own).chain(others.into_iter().map(|other| other.join().unwrap_or_default())).collect()
    });
    let of_run = |i: usize| {
        let parts = || runs.iter().filter_map(|parts| parts.get(i));
        parts().map(|(done, _)| *done as f64).sum::<f64>() / parts().map(|(_, seconds)| *seconds).fold(1e-9, f64::max)
    };
    (0..RUNS).map(of_run).fold(0.0, f64::max) / 1e9
}

/// As the system calls it.
fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split_once(':'));
    name.map_or(std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_measured() {
        let machine = Machine::measure(2, 1 << 20);
        for rates in [machine.one_thread, machine.all_threads] {
            for rate in [rates.read_gb_per_second, rates.int8_gmac_per_second, rates.f32_gmac_per_second] {
                assert!(rate > 0.001 && rate.is_finite(), "{machine:?}");
            }
        }
        assert!(!machine.cpu.is_empty());
    }
}
