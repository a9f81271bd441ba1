//! Speed of a model's forward pass: `cargo bench --bench engine -- MODEL.gguf [THREADS]`.
//!
//! Decode by batch width at two depths of context, and prompts by length; no scheduler, no sampling, no HTTP.

use std::{env, error::Error, num::NonZeroUsize, path::Path, time::Instant};

use sconce::engine::{
    batch::{Batch, Want},
    blocks::{BLOCK_TOKENS, BlockId},
    kv_cache::KvCache,
    models::{self, LoadOptions, Source},
    prepare_process,
    team::available_threads,
};

/// Blocks of each sequence, and sequences that the cache holds.
const BLOCKS: usize = 32;
const WIDTH_MAX: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: nothing has started a thread yet.
    unsafe { prepare_process() };
    // Cargo adds flags of its own.
    let mut args = env::args().skip(1).filter(|a| !a.starts_with("--"));
    let Some(path) = args.next() else {
        println!("usage: cargo bench --bench engine -- MODEL.gguf [THREADS]");
        return Ok(());
    };
    let threads = args.next().map_or(Ok(available_threads()), |n| n.parse::<NonZeroUsize>())?;
    let start = Instant::now();
    let mut model = models::load(&Source::open(Path::new(&path))?, LoadOptions::new(threads))?;
    println!("loaded in {:.1} s, {threads} threads", start.elapsed().as_secs_f64());
    let mut cache = KvCache::new(model.spec(), WIDTH_MAX * BLOCKS);
    let vocabulary = model.spec().vocabulary;
    let token = |i: usize| (i * 7919 % vocabulary) as u32;
    let table =
        |sequence: usize| -> Vec<BlockId> { (0..BLOCKS).map(|i| BlockId((sequence * BLOCKS + i) as u32)).collect() };
    let mut outcome = models::Outcome::default();
    let mut time = |name: String, batch: Batch| -> Result<(), Box<dyn Error>> {
        let mut seconds = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            model.forward(&batch, &mut cache, &mut outcome).map_err(|e| e.0)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        println!("{name:<28} {:>8.2} ms {:>8.1} tokens/s", median * 1e3, batch.rows() as f64 / median);
        Ok(())
    };
    for (width, context) in [(1, 1), (1, 1000), (2, 1), (4, 1), (8, 1), (8, 1000), (16, 1), (32, 1)] {
        let mut batch = Batch::new(vocabulary);
        (0..width)
            .for_each(|s| batch.push(&[token(s)], context.min(BLOCKS * BLOCK_TOKENS - 1), &table(s), &[Want::Best]));
        time(format!("decode {width} at {context}"), batch)?;
    }
    for (rows, start) in [(16, 0), (32, 0), (64, 0), (128, 0), (512, 0), (64, 900)] {
        let mut batch = Batch::new(vocabulary);
        let tokens: Vec<u32> = (0..rows).map(token).collect();
        batch.push(&tokens, start, &table(0), &[Want::Best]);
        time(format!("prompt of {rows} at {start}"), batch)?;
    }
    Ok(())
}
