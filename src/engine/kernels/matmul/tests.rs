use candle_core::{Device, Tensor, quantized::QTensor};

use super::*;
use crate::engine::{fake::Rng, kernels::available};

fn random(rng: &mut Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| (0..4).map(|_| rng.next() as f32 / u64::MAX as f32).sum::<f32>() - 2.0).collect()
}

/// A matrix as a file has it, and as candle dequantises it.
fn quantised(dtype: TensorType, values: Vec<f32>, inputs: usize) -> (Vec<u8>, Vec<f32>) {
    let rows = values.len() / inputs;
    let tensor = Tensor::from_vec(values, (rows, inputs), &Device::Cpu).unwrap();
    let tensor = QTensor::quantize(&tensor, dtype.candles().unwrap()).unwrap();
    let floats = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (tensor.data().unwrap().into_owned(), floats)
}

fn packed(dtype: TensorType, data: &[u8], inputs: usize) -> Vec<Vec<u8>> {
    let row_bytes = inputs / dtype.block_len() * dtype.block_bytes();
    let pack = |rows: &[u8]| {
        let mut panel = vec![0; Kind::of(dtype).unwrap().panel_bytes(inputs)];
        pack_panel(dtype, rows, inputs, &mut panel);
        panel
    };
    data.chunks(LANES * row_bytes).map(pack).collect()
}

const TYPES: [TensorType; 13] = [
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2K,
    TensorType::Q3K,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::F32,
];

#[test]
fn packing_keeps_every_weight() {
    let mut rng = Rng::new(1);
    for dtype in TYPES {
        for (outputs, inputs) in [(16, 256), (37, 512)] {
            let (data, floats) = quantised(dtype, random(&mut rng, outputs * inputs), inputs);
            let panels = packed(dtype, &data, inputs);
            if outputs % LANES == 0 {
                let bytes: usize = panels.iter().map(Vec::len).sum();
                assert_eq!(Kind::packed_bytes(dtype, data.len() as u64), bytes as u64, "{dtype}");
            }
            for (p, panel) in panels.iter().enumerate() {
                for lane in 0..LANES.min(outputs - p * LANES) {
                    let mut row = vec![0.0; inputs];
                    unpack_row(Kind::of(dtype).unwrap(), panel, lane, &mut row);
                    let output = p * LANES + lane;
                    assert_eq!(row, floats[output * inputs..][..inputs], "{dtype}, output {output}");
                }
            }
        }
    }
}

/// Products of every row count, on every tier: equal to the bit to the scalar tier's, row by row, and near to the exact
/// product of dequantised weights and quantised activations.
#[track_caller]
fn check(dtype: TensorType, data: &[u8], inputs: usize, x: &[f32]) {
    let kind = Kind::of(dtype).unwrap();
    let panels = packed(dtype, data, inputs);
    let rows = x.len() / inputs;
    let scalar = *available().last().unwrap();
    let mut blocks_32 = vec![Block32::ZERO; x.len() / 32];
    let mut blocks_256 = vec![Block256::ZERO; x.len() / 256];
    match kind.input() {
        Input::Blocks32 => scalar.quantise_32(x, &mut blocks_32),
        Input::Blocks256 => scalar.quantise_256(x, &mut blocks_256),
        Input::Floats => {}
    }
    let input = |from: usize, rows: usize| match kind.input() {
        Input::Blocks32 => Rows::Blocks32(&blocks_32[from * inputs / 32..][..rows * inputs / 32]),
        Input::Blocks256 => Rows::Blocks256(&blocks_256[from * inputs / 256..][..rows * inputs / 256]),
        Input::Floats => Rows::Floats(&x[from * inputs..][..rows * inputs]),
    };
    for panel in &panels {
        let mut expected = Vec::new();
        for row in 0..rows {
            scalar.multiply(kind, panel, input(row, 1), 1, |_, products| expected.push(products.map(f32::to_bits)));
        }
        for tier in available() {
            for count in 1..=rows {
                let mut found = vec![[0; LANES]; count];
                tier.multiply(kind, panel, input(0, count), count, |row, p| found[row] = p.map(f32::to_bits));
                assert!(found == expected[..count], "{dtype}, {inputs} inputs, {count} rows, {}", tier.name);
            }
        }
        let mut weights = vec![0.0; inputs];
        for lane in 0..LANES {
            unpack_row(kind, panel, lane, &mut weights);
            for (row, expected) in expected.iter().enumerate() {
                let exact: f64 = (0..inputs).map(|i| value(input(row, 1), i) * f64::from(weights[i])).sum();
                let size: f64 = (0..inputs).map(|i| (value(input(row, 1), i) * f64::from(weights[i])).abs()).sum();
                let found = f64::from(f32::from_bits(expected[lane]));
                // Minima are taken off sums that are larger than the products.
                assert!((found - exact).abs() <= 1e-5 * size.max(1e-30) + 1e-30, "{dtype}: {found}, not {exact}");
            }
        }
    }
}

/// One activation as the kernels see it.
fn value(rows: Rows, i: usize) -> f64 {
    use activations::Block;
    let block = |values: &mut [i8], scale: f32, i: usize| f64::from(values[i]) * f64::from(scale);
    match rows {
        Rows::Blocks32(x) => {
            let mut b = x[i / 32];
            let scale = b.scale();
            block(b.values(), scale, i % 32)
        }
        Rows::Blocks256(x) => {
            let mut b = x[i / 256];
            let scale = b.scale();
            block(b.values(), scale, i % 256)
        }
        Rows::Floats(x) => f64::from(x[i]),
    }
}

#[test]
fn every_tier_gives_the_scalar_products_to_the_bit() {
    let mut rng = Rng::new(2);
    for dtype in TYPES {
        let sizes: &[usize] = match dtype.block_len() {
            256 => &[256, 1024],
            32 => &[32, 224, 1024],
            _ => &[1, 7, 64, 257],
        };
        for &inputs in sizes {
            let (data, _) = quantised(dtype, random(&mut rng, 19 * inputs), inputs);
            check(dtype, &data, inputs, &random(&mut rng, 13 * inputs));
        }
    }
}

/// Any bytes are weights, also those that no quantiser would write, and the largest sums are still exact.
#[test]
fn any_blocks_give_the_same_on_every_tier() {
    let mut rng = Rng::new(3);
    let types = TYPES.into_iter().filter(|dtype| dtype.block_len() > 1);
    for dtype in types.chain([TensorType::Iq4Nl, TensorType::Iq4Xs]) {
        for extreme in [None, Some(0x00), Some(0xff), Some(0x80), Some(0x7f)] {
            let inputs = 512;
            let mut data: Vec<u8> = (0..16 * inputs / dtype.block_len() * dtype.block_bytes())
                .map(|_| extreme.unwrap_or(rng.next() as u8))
                .collect();
            // Factors that are ordinary numbers: half floats between 2^-8 and 2^-1 in size.
            for block in data.chunks_exact_mut(dtype.block_bytes()) {
                for &at in factor_places(dtype) {
                    block[at..at + 2].copy_from_slice(&(0x1c00 | rng.next() as u16 & 0x9fff).to_le_bytes());
                }
            }
            let signs: Vec<f32> = (0..3 * inputs).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
            check(dtype, &data, inputs, &signs);
            check(dtype, &data, inputs, &vec![0.0; inputs]);
        }
    }
}

fn factor_places(dtype: TensorType) -> &'static [usize] {
    match dtype {
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
        TensorType::Q2K => &[80, 82],
        TensorType::Q3K => &[108],
        TensorType::Q6K => &[208],
        _ => &[0],
    }
}

#[test]
fn activations_are_quantised_alike_on_every_tier() {
    let mut rng = Rng::new(4);
    for scale in [1.0, 1e-30, 1e30, 1e-42] {
        let mut row: Vec<f32> = random(&mut rng, 512).iter().map(|x| x * scale).collect();
        // Ties: these round to even.
        row[..8].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5].map(|x| x * scale));
        let values = |tier: &Kernels| {
            let (mut b32, mut b256) = ([Block32::ZERO; 16], [Block256::ZERO; 2]);
            tier.quantise_32(&row, &mut b32);
            tier.quantise_256(&row, &mut b256);
            format!("{b32:?} {b256:?}")
        };
        let expected = values(available().last().unwrap());
        for tier in available() {
            assert_eq!(values(tier), expected, "{} at {scale:e}", tier.name);
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_every_product() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 31, 300] {
            let mut row = vec![1.0; 512];
            row[at] = bad;
            for tier in available() {
                let mut blocks = [Block256::ZERO; 2];
                tier.quantise_256(&row, &mut blocks);
                let (data, _) = quantised(TensorType::Q4K, vec![0.5; 16 * 512], 512);
                let panel = &packed(TensorType::Q4K, &data, 512)[0];
                tier.multiply(Kind::Q4K, panel, Rows::Blocks256(&blocks), 1, |_, products| {
                    assert!(products.iter().all(|x| x.is_nan()), "{bad} at {at}, {}: {products:?}", tier.name);
                });
            }
        }
    }
}
