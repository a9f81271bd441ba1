//! Speed of the matrix products, one thread: `cargo bench --bench kernels [-- FORMAT]`.
//!
//! A matrix that fits in the second-level cache shows the arithmetic, one of 64 MiB the reading of weights. The best of
//! many short runs, so that other work on the machine does not show.

use std::{hint::black_box, time::Instant};

use sconce::engine::{
    gguf::TensorType,
    kernels::{
        Kernels, available,
        matmul::{Block32, Block256, Input, Kind, LANES, Rows},
    },
};

const INPUTS: usize = 1024;
const CACHED_PANELS: usize = 16;
const TYPES: [TensorType; 11] = [
    TensorType::Q4K,
    TensorType::Q6K,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q5K,
    TensorType::Q5_0,
    TensorType::Q2K,
    TensorType::Iq4Nl,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::F32,
];

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    for tier in available().into_iter().filter(|t| t.name != "portable") {
        println!("{:<8} {:>12} {:>10} {:>10} {:>10} {:>10}", tier.name, "rows", "1 (GB/s)", "2", "8", "8 far");
        for dtype in TYPES.into_iter().filter(|t| wanted.as_deref().is_none_or(|w| w == t.name())) {
            measure(tier, dtype);
        }
    }
}

fn measure(tier: &Kernels, dtype: TensorType) {
    let Some(kind) = Kind::of(dtype) else { return };
    let panel_bytes = kind.panel_bytes(INPUTS);
    let panels = (64 << 20) / panel_bytes;
    let weights = vec![0x11u8; panels * panel_bytes];
    let floats: Vec<f32> = (0..64 * INPUTS).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut blocks_32 = vec![Block32::ZERO; floats.len() / 32];
    let mut blocks_256 = vec![Block256::ZERO; floats.len() / 256];
    tier.quantise_32(&floats, &mut blocks_32);
    tier.quantise_256(&floats, &mut blocks_256);
    let input = |rows: usize| match kind.input() {
        Input::Blocks32 => Rows::Blocks32(&blocks_32[..rows * INPUTS / 32]),
        Input::Blocks256 => Rows::Blocks256(&blocks_256[..rows * INPUTS / 256]),
        Input::Floats => Rows::Floats(&floats[..rows * INPUTS]),
    };
    let time = |rows: usize, panels: usize, runs: usize| {
        let run = |_| {
            let start = Instant::now();
            for panel in weights.chunks_exact(panel_bytes).take(panels) {
                tier.multiply(kind, panel, input(rows), rows, |_, products| {
                    black_box(products);
                });
            }
            start.elapsed().as_secs_f64()
        };
        (0..runs).map(run).fold(f64::INFINITY, f64::min)
    };
    let read = (panels * panel_bytes) as f64 / time(1, panels, 10) / 1e9;
    let far = (8 * panels * LANES * INPUTS) as f64 / time(8, panels, 10) / 1e9;
    let macs = |rows: usize| (rows * CACHED_PANELS * LANES * INPUTS) as f64 / time(rows, CACHED_PANELS, 300) / 1e9;
    println!("{:<8} {:>12.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1}", dtype.name(), read, macs(1), macs(2), macs(8), far);
}
