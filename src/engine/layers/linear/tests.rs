use std::num::NonZeroUsize;

use candle_core::quantized::GgmlDType::{self, *};

use super::*;

/// A matrix of `outputs` rows of `inputs` values, as a file holds it and as floats.
fn matrix(dtype: GgmlDType, outputs: usize, inputs: usize, phase: f32) -> (Vec<u8>, Vec<f32>) {
    let values: Vec<f32> = (0..outputs * inputs).map(|i| (i as f32 * 0.37 + phase).sin() * 0.2).collect();
    let tensor = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu).unwrap();
    let tensor = QTensor::quantize(&tensor, dtype).unwrap();
    let floats = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (tensor.data().unwrap().into_owned(), floats)
}

fn activations(rows: usize, width: usize) -> Rows {
    let mut x = Rows::default();
    x.reset(rows, width);
    x.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 * 0.71).cos());
    x
}

fn team(threads: usize) -> Team {
    Team::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

/// Products in f64, and how far from them quantised activations may be.
#[track_caller]
fn check(dtype: GgmlDType, heights: &[usize], inputs: usize) {
    let matrices: Vec<_> = heights.iter().enumerate().map(|(i, h)| matrix(dtype, *h, inputs, i as f32)).collect();
    let outputs: usize = heights.iter().sum();
    let bias: Vec<f32> = (0..outputs).map(|i| i as f32).collect();
    let build = |threads| {
        let builder = LinearBuilder::new(inputs);
        let builder = matrices.iter().try_fold(builder, |b, (data, _)| b.matrix(dtype, data)).unwrap();
        builder.build(threads, Some(bias.clone())).unwrap()
    };
    let weights = matrices.iter().flat_map(|(_, floats)| floats.chunks_exact(inputs));
    let weights: Vec<_> = weights.collect();
    // A step of 1/127 of the largest activation, times inputs that add up like a random walk.
    let exact = matches!(dtype, F32 | F16 | BF16);
    let tolerance = if exact { 1e-4 } else { 0.2 / 127.0 * (inputs as f64).sqrt() * 3.0 };
    for rows in [1, 2, 5, 28, 29, 57] {
        let mut x = activations(rows, inputs);
        let mut first: Option<Vec<u32>> = None;
        for threads in 1..=3 {
            let (linear, team) = (build(threads), team(threads));
            let mut out = Rows::default();
            linear.forward(&team, &mut x, Then::Store, &mut out);
            let what = format!("{dtype:?}, {heights:?} x {inputs}, {rows} rows, {threads} threads");
            for row in 0..rows {
                for (output, weights) in weights.iter().enumerate() {
                    let sum: f64 = x.row(row).iter().zip(*weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    let found = f64::from(out.row(row)[output] - bias[output]);
                    assert!((found - sum).abs() < tolerance, "{what}: row {row}, output {output}: {found}, not {sum}");
                }
            }
            let bits: Vec<u32> = out.values().iter().map(|x| x.to_bits()).collect();
            assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{what}");

            let mut sum = activations(rows, outputs);
            let before = sum.values().to_vec();
            linear.forward(&team, &mut x, Then::Add, &mut sum);
            for ((before, product), sum) in before.iter().zip(out.values()).zip(sum.values()) {
                assert!((before + product - sum).abs() <= 1e-4 * (1.0 + sum.abs()), "{what}");
            }
        }
    }
    let linear = build(2);
    for (output, weights) in weights.iter().enumerate() {
        let mut row = vec![0.0; inputs];
        linear.weight_row(output, &mut row);
        assert_eq!(row, *weights, "{dtype:?}: row {output}");
    }
}

#[test]
fn products_are_the_sums_whatever_the_rows_and_threads() {
    for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
        check(dtype, &[32, 16], 256);
    }
    for dtype in [F16, Q4_0, Q8_0] {
        check(dtype, &[37], 96);
    }
    check(Q4K, &[5, 90], 512);
}

#[test]
fn matrices_of_different_types_lie_side_by_side() {
    let ((a, a_floats), (b, b_floats)) = (matrix(Q4K, 20, 256, 0.0), matrix(Q6K, 12, 256, 1.0));
    let builder = LinearBuilder::new(256).matrix(Q4K, &a).unwrap().matrix(Q6K, &b).unwrap();
    let linear = builder.build(2, None).unwrap();
    assert_eq!(linear.outputs(), 32);
    for (output, weights) in a_floats.chunks_exact(256).chain(b_floats.chunks_exact(256)).enumerate() {
        let mut row = vec![0.0; 256];
        linear.weight_row(output, &mut row);
        assert_eq!(row, weights);
    }
}

#[test]
fn bad_matrices_are_refused() {
    let words = vec![0u32; 64];
    // SAFETY: any bytes are bytes.
    let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), 256) };
    let refused = |inputs, dtype, data| LinearBuilder::new(inputs).matrix(dtype, data).err().map(|e| e.0);
    for (inputs, dtype, data, why) in [
        (100, Q4K, bytes, "not whole blocks"),
        (0, F32, bytes, "not whole blocks"),
        (32, Q8_0, &bytes[..35], "are not rows of 34 bytes"),
        (32, Q8_0, &bytes[..0], "are not rows of 34 bytes"),
        (4, F32, &bytes[1..17], "not aligned"),
    ] {
        let found = refused(inputs, dtype, data).unwrap_or_default();
        assert!(found.contains(why), "{found:?}");
    }
}
