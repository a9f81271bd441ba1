//! Products of one row with weights that lie in memory, on all threads, beside a loop that only reads them:
//! `cargo bench --bench streaming [-- FORMAT]`.
//!
//! The two take turns, pass by pass, since what memory gives changes with the machine's neighbours; medians are shown.

use std::{hint::black_box, time::Instant};

use sconce::engine::{
    gguf::TensorType,
    kernels::{
        kernels,
        matmul::{Block32, Block256, Input, Kind, Rows},
    },
    memory::Arena,
    team::{Team, available_threads},
};

const INPUTS: usize = 1024;
const BYTES: usize = 256 << 20;
/// A stage's weights, as in a small model, and into how many chunks they are cut for each thread.
const STAGE_BYTES: usize = 3 << 20;
const CHUNKS: usize = 24;
const TURNS: usize = 41;
const TYPES: [TensorType; 11] = [
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q5_0,
    TensorType::Q2K,
    TensorType::Iq4Nl,
    TensorType::Iq4Xs,
    TensorType::F16,
    TensorType::Bf16,
];

fn main() -> std::io::Result<()> {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let team = Team::new(available_threads())?;
    println!("{:<8} {:>14} {:>10} {:>8}", kernels().name, "reading, GB/s", "products", "share");
    for dtype in TYPES.into_iter().filter(|t| wanted.as_deref().is_none_or(|w| w == t.name())) {
        measure(&team, dtype);
    }
    Ok(())
}

fn measure(team: &Team, dtype: TensorType) {
    let Some(kind) = Kind::of(dtype) else { return };
    let panel_bytes = kind.panel_bytes(INPUTS);
    let panels = STAGE_BYTES / panel_bytes;
    let mut memory = Arena::default().allocate(BYTES / (panels * panel_bytes) * panels * panel_bytes);
    memory.fill(0x11);

    let x: Vec<f32> = (0..INPUTS).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut blocks_32 = vec![Block32::ZERO; INPUTS / 32];
    let mut blocks_256 = vec![Block256::ZERO; INPUTS / 256];
    kernels().quantise_32(&x, &mut blocks_32);
    kernels().quantise_256(&x, &mut blocks_256);
    let input = || match kind.input() {
        Input::Blocks32 => Rows::Blocks32(&blocks_32),
        Input::Blocks256 => Rows::Blocks256(&blocks_256),
        Input::Floats => Rows::Floats(&x),
    };

    let pass = |work: &(dyn Fn(&[u8]) + Sync)| {
        let start = Instant::now();
        team.run(|crew| {
            for stage in memory.chunks(panels * panel_bytes) {
                let chunk = panels.div_ceil(crew.threads() * CHUNKS);
                crew.stage(panels, chunk, |range| work(&stage[range.start * panel_bytes..range.end * panel_bytes]));
            }
        });
        memory.len() as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    let read = |bytes: &[u8]| {
        let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        black_box(words.fold(0, u64::wrapping_add));
    };
    let multiply = |bytes: &[u8]| {
        for panel in bytes.chunks_exact(panel_bytes) {
            kernels().multiply(kind, panel, input(), 1, |_, products| {
                black_box(products);
            });
        }
    };
    let turns: Vec<(f64, f64)> = (0..TURNS).map(|_| (pass(&read), pass(&multiply))).collect();
    let median = |of: fn(&(f64, f64)) -> f64| {
        let mut figures: Vec<f64> = turns.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures[TURNS / 2]
    };
    let (reading, products, share) = (median(|t| t.0), median(|t| t.1), median(|t| t.1 / t.0));
    println!("{:<8} {reading:>14.1} {products:>10.1} {share:>8.2}", dtype.name());
}
