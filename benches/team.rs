//! What sharing work costs: `cargo bench --bench team [-- THREADS]`.
//!
//! Empty stages and regions, then steps of a model's shape (many stages that stream memory, or that compute), on free
//! cores and beside a busy loop pinned to the first one.

use std::{
    env,
    error::Error,
    hint::black_box,
    num::NonZeroUsize,
    process::{Child, Command},
    time::{Duration, Instant},
};

use sconce::engine::team::{Team, available_threads};

/// Stages of a step, and chunks of a stage.
const STAGES: usize = 150;
const CHUNKS: usize = 16;
/// What a step reads.
const STREAMED_BYTES: usize = 384 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1).filter(|a| !a.starts_with("--"));
    let threads = args.next().map_or(Ok(available_threads()), |n| n.parse::<NonZeroUsize>())?;
    let team = Team::new(threads)?;
    println!("{} threads", team.threads());
    println!("region     {:>8.2} us", region_micros(&team));
    println!("stage      {:>8.2} us", stage_micros(&team));

    let memory = vec![1u64; STREAMED_BYTES / 8];
    let free = Steps::measure(&team, &memory);
    free.print("free", &free);
    let hog = Hog::start()?;
    Steps::measure(&team, &memory).print("beside a busy loop", &free);
    drop(hog);
    Ok(())
}

fn region_micros(team: &Team) -> f64 {
    smallest(200, || {
        let start = Instant::now();
        (0..100).for_each(|_| team.for_each_chunk(2, 1, |_| ()));
        start.elapsed().as_secs_f64() * 1e6 / 100.0
    })
}

/// What a stage takes beyond its work: a chunk for each thread, of a microsecond or so.
fn stage_micros(team: &Team) -> f64 {
    const STAGES: usize = 1000;
    let work = || (0..100).for_each(|_| std::hint::spin_loop());
    let alone = smallest(200, || {
        let start = Instant::now();
        (0..STAGES).for_each(|_| work());
        start.elapsed().as_secs_f64()
    });
    let together = smallest(200, || {
        let start = Instant::now();
        team.run(|crew| (0..STAGES).for_each(|_| crew.stage(crew.threads(), 1, |_| work())));
        start.elapsed().as_secs_f64()
    });
    (together - alone) * 1e6 / STAGES as f64
}

fn smallest(runs: usize, measure: impl Fn() -> f64) -> f64 {
    (0..runs).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

/// Steps per second, of each kind.
struct Steps {
    streaming: f64,
    computing: f64,
}

impl Steps {
    fn measure(team: &Team, memory: &[u64]) -> Self {
        let part = memory.len() / STAGES;
        let streaming = per_second(team, |stage, chunk, of| {
            let from = &memory[stage * part + chunk * part / of..stage * part + (chunk + 1) * part / of];
            black_box(from.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
        });
        let computing = per_second(team, |_, _, _| {
            let mut x = black_box([1.0f32; 32]);
            for _ in 0..3000 {
                x.iter_mut().for_each(|x| *x = *x * 0.999 + 0.001);
            }
            black_box(x);
        });
        Self { streaming, computing }
    }

    fn print(&self, name: &str, free: &Self) {
        let Self { streaming, computing } = self;
        println!(
            "{name:<18} streaming {streaming:>6.1} steps/s ({:.2} of free, {:.1} GB/s), computing {computing:>6.1} ({:.2})",
            streaming / free.streaming,
            streaming * STREAMED_BYTES as f64 / 1e9,
            computing / free.computing
        );
    }
}

/// Runs steps for a while; `work(stage, chunk, chunks)`.
fn per_second(team: &Team, work: impl Fn(usize, usize, usize) + Sync) -> f64 {
    let start = Instant::now();
    let mut steps = 0;
    while start.elapsed() < Duration::from_secs(3) {
        team.run(|crew| {
            for stage in 0..STAGES {
                crew.stage(CHUNKS, 1, |chunk| work(stage, chunk.start, CHUNKS));
            }
        });
        steps += 1;
    }
    f64::from(steps) / start.elapsed().as_secs_f64()
}

/// A busy loop of another process, on the first core.
struct Hog(Child);

impl Hog {
    fn start() -> std::io::Result<Self> {
        Ok(Self(Command::new("taskset").args(["-c", "0", "sh", "-c", "while :; do :; done"]).spawn()?))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
