//! Speed of attention: `cargo bench --bench attention [-- THREADS]`.
//!
//! A layer of the shape of Qwen3-0.6B, without norms and rope: prompts in multiply-adds a second (scores and weighted
//! values, of the keys that are seen), decode in bytes of the cache read a second. The best of many runs; on one thread
//! by its own CPU time, which others on the machine hardly change.

use std::{env, error::Error, hint::black_box, num::NonZeroUsize, time::Duration};

use sconce::engine::{
    batch::Batch,
    blocks::{BLOCK_TOKENS, BlockId},
    kv_cache::{KvCache, KvType},
    layers::{Attention, Rows, Step},
    models::Spec,
    team::{Team, available_threads},
};

const HEADS: usize = 16;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
/// So many that what a layer reads has left the processor's cache when it is read again.
const LAYERS: usize = 6;
const CONTEXT: usize = 16 * 1024;
/// CPU time given to each case.
const PATIENCE: Duration = Duration::from_millis(1500);

struct Bench {
    team: Team,
    attention: Attention,
    cache: KvCache,
    kind: KvType,
    blocks: Vec<BlockId>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1).filter(|a| !a.starts_with("--"));
    let threads = args.next().map_or(Ok(available_threads()), |n| n.parse::<NonZeroUsize>())?;
    for kind in [KvType::F16, KvType::Q8_0] {
        let mut bench = Bench::new(threads, kind)?;
        bench.read();
        for (rows, start) in [(16, 0), (512, 0), (512, 3584), (16, 8192)] {
            bench.prompt(rows, start);
        }
        for (width, context) in [(1, 300), (8, 300), (1, 8192), (1, 16_383)] {
            bench.decode(width, context);
        }
    }
    Ok(())
}

impl Bench {
    fn new(threads: NonZeroUsize, kind: KvType) -> std::io::Result<Self> {
        let spec = Spec {
            architecture: "bench".into(),
            layers: LAYERS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            vocabulary: 1,
            context: CONTEXT,
        };
        let count = CONTEXT / BLOCK_TOKENS;
        // Scattered, as after a while of serving; 77 has no divisor in common with a power of two.
        let blocks = (0..count).map(|i| BlockId((i * 77 % count) as u32)).collect();
        let attention = Attention::new(HEADS, KV_HEADS, HEAD_DIM);
        let mut bench =
            Self { team: Team::new(threads)?, attention, cache: KvCache::new(&spec, count, kind), kind, blocks };
        // All of it is written once, and hardly read.
        bench.attention.window = Some(1);
        bench.time(CONTEXT, 1, 0);
        bench.attention.window = None;
        Ok(bench)
    }

    /// The shortest time of a layer's attention, seconds; `width` sequences of `rows` each, from `start` on, which take
    /// their blocks from one table.
    fn time(&mut self, rows: usize, width: usize, start: usize) -> f64 {
        let mut batch = Batch::new(1);
        let each = self.blocks.len() / width;
        (0..width).for_each(|i| batch.push(&vec![0; rows], start, &self.blocks[i * each..(i + 1) * each], &[]));
        let (mut qkv, mut out) = (Rows::default(), Rows::default());
        qkv.reset(batch.rows(), self.attention.qkv_width());
        qkv.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 * 0.7).sin());
        let mut partials = Vec::new();
        let (begin, mut best) = (self.clock(), Duration::MAX);
        while best == Duration::MAX || self.clock() - begin < PATIENCE {
            let step = Step::new(&self.attention, &batch, None, &mut partials);
            for layer in 0..LAYERS {
                let start = self.clock();
                self.attention.run(&self.team, &step, layer, &mut qkv, &mut self.cache, &mut out);
                best = best.min(self.clock() - start);
            }
        }
        best.as_secs_f64()
    }

    /// What decode is to be compared with: memory read from one end to the other.
    fn read(&self) {
        let memory = vec![1u64; 32 << 20];
        let (begin, mut best) = (self.clock(), Duration::MAX);
        while best == Duration::MAX || self.clock() - begin < PATIENCE {
            let start = self.clock();
            self.team.for_each_chunk(memory.len(), 1 << 16, |range| {
                black_box(memory[range].iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
            });
            best = best.min(self.clock() - start);
        }
        println!("reading {:.1} GB/s", size_of_val(&*memory) as f64 / best.as_secs_f64() / 1e9);
    }

    /// The time, of this thread if it is alone.
    fn clock(&self) -> Duration {
        let which = if self.team.threads() == 1 { libc::CLOCK_THREAD_CPUTIME_ID } else { libc::CLOCK_MONOTONIC };
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes the time to `now`.
        unsafe { libc::clock_gettime(which, &mut now) };
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn prompt(&mut self, rows: usize, start: usize) {
        let seconds = self.time(rows, 1, start);
        let seen: usize = (start + 1..=start + rows).sum();
        let macs = (seen * HEADS * HEAD_DIM * 2) as f64;
        println!(
            "{:?} prompt of {rows} at {start}: {:.2} ms, {:.1} GMAC/s",
            self.kind,
            seconds * 1e3,
            macs / seconds / 1e9
        );
    }

    fn decode(&mut self, width: usize, context: usize) {
        let seconds = self.time(1, width, context);
        let spec = Spec {
            architecture: String::new(),
            layers: 1,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            vocabulary: 1,
            context: 1,
        };
        let bytes = KvCache::block_bytes(&spec, self.kind) * context * width / BLOCK_TOKENS;
        println!(
            "{:?} decode of {width} at {context}: {:.3} ms, {:.1} GB/s",
            self.kind,
            seconds * 1e3,
            bytes as f64 / seconds / 1e9
        );
    }
}
