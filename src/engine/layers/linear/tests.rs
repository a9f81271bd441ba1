use std::num::NonZeroUsize;

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor},
};

use super::*;
use crate::engine::{
    kernels::matmul::Input,
    layers::{Operand, Rows},
    memory::Arena,
};

/// A matrix of `outputs` rows of `inputs` values, as a file holds it and as floats.
fn matrix(dtype: GgmlDType, outputs: usize, inputs: usize, phase: f32) -> (Vec<u8>, Vec<f32>) {
    let values: Vec<f32> = (0..outputs * inputs).map(|i| (i as f32 * 0.37 + phase).sin() * 0.2).collect();
    let tensor = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu).unwrap();
    let tensor = QTensor::quantize(&tensor, dtype).unwrap();
    let floats = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (tensor.data().unwrap().into_owned(), floats)
}

fn activation(row: usize, column: usize) -> f32 {
    (row as f32 * 31.0 + column as f32 * 0.71).cos()
}

fn operand(rows: usize, width: usize, forms: Forms) -> Operand {
    let mut x = Operand::default();
    x.reset(rows, width, forms);
    x
}

fn team(threads: usize) -> Team {
    Team::with_limit(NonZeroUsize::new(threads).unwrap(), || NonZeroUsize::MAX).unwrap()
}

/// The products of `rows` rows, and what `Then::Add` makes of ones.
fn products(linear: &Linear, team: &Team, rows: usize) -> (Rows, Rows) {
    let mut x = operand(rows, linear.inputs(), linear.forms());
    let (mut out, mut sum) = (Rows::default(), Rows::default());
    out.reset(rows, linear.outputs());
    sum.reset(rows, linear.outputs());
    sum.values_mut().fill(1.0);
    {
        // SAFETY: each stage writes what no other chunk of it reads or writes.
        let (x, out, sum) = unsafe { (x.share(), out.share(), sum.share()) };
        team.run(|crew| {
            x.fill(crew, |row, values| (0..).zip(values).for_each(|(i, value)| *value = activation(row, i)));
            linear.forward(crew, &x, Then::Store, &out);
            linear.forward(crew, &x, Then::Add, &sum);
        });
    }
    (out, sum)
}

/// Products in f64, and how far from them quantised activations may be.
#[track_caller]
fn check(matrices: &[(TensorType, GgmlDType, usize)], inputs: usize) {
    let written: Vec<_> = matrices
        .iter()
        .enumerate()
        .map(|(i, (_, dtype, outputs))| matrix(*dtype, *outputs, inputs, i as f32))
        .collect();
    let outputs: usize = matrices.iter().map(|m| m.2).sum();
    let bias: Vec<f32> = (0..outputs).map(|i| i as f32).collect();
    let build = |team: &Team| {
        let mut arena = Arena::default();
        let mut builder = LinearBuilder::new(team, &mut arena, inputs);
        for ((dtype, ..), (data, _)) in matrices.iter().zip(&written) {
            builder = builder.matrix(*dtype, data).unwrap();
        }
        builder.build(Some(bias.clone()))
    };
    let weights: Vec<&[f32]> = written.iter().flat_map(|(_, floats)| floats.chunks_exact(inputs)).collect();
    // A step of 1/127 of the largest activation, times inputs that add up like a random walk.
    let exact = matrices.iter().all(|(dtype, ..)| dtype.block_len() == 1);
    let tolerance = if exact { 1e-4 } else { 0.2 / 127.0 * (inputs as f64).sqrt() * 3.0 };
    for rows in [1, 2, 5, 64, 67] {
        let mut first: Option<Vec<u32>> = None;
        for threads in 1..=3 {
            let team = team(threads);
            let (out, sum) = products(&build(&team), &team, rows);
            let what = format!("{matrices:?} x {inputs}, {rows} rows, {threads} threads");
            for row in 0..rows {
                for (output, weights) in weights.iter().enumerate() {
                    let product = |(i, w): (usize, &f32)| f64::from(activation(row, i)) * f64::from(*w);
                    let exact: f64 = weights.iter().enumerate().map(product).sum();
                    let found = f64::from(out.row(row)[output] - bias[output]);
                    assert!(
                        (found - exact).abs() < tolerance,
                        "{what}: row {row}, output {output}: {found}, not {exact}"
                    );
                    let added = out.row(row)[output] + 1.0;
                    assert_eq!(sum.row(row)[output], added, "{what}");
                }
            }
            let bits: Vec<u32> = out.values().iter().map(|x| x.to_bits()).collect();
            assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{what}");
        }
    }
    let linear = build(&team(2));
    for (output, weights) in weights.iter().enumerate() {
        let mut row = vec![0.0; inputs];
        linear.weight_row(output, &mut row);
        assert_eq!(row, *weights, "{matrices:?}: row {output}");
    }
}

#[test]
fn products_are_the_sums_whatever_the_rows_and_threads() {
    check(&[(TensorType::Q4K, GgmlDType::Q4K, 37), (TensorType::Q6K, GgmlDType::Q6K, 16)], 512);
    check(&[(TensorType::Q8_0, GgmlDType::Q8_0, 5), (TensorType::F16, GgmlDType::F16, 40)], 96);
    check(&[(TensorType::Q4K, GgmlDType::Q4K, 16), (TensorType::Q5_0, GgmlDType::Q5_0, 16)], 256);
    check(&[(TensorType::F32, GgmlDType::F32, 33)], 7);
}

#[test]
fn gate_and_up_come_together() {
    let (inputs, outputs, rows) = (256, 40, 70);
    let team = team(2);
    let (gate, up) = (matrix(GgmlDType::Q4K, outputs, inputs, 0.0), matrix(GgmlDType::Q6K, outputs, inputs, 1.0));
    let mut arena = Arena::default();
    let builder = LinearBuilder::new(&team, &mut arena, inputs);
    let apart = builder.matrix(TensorType::Q4K, &gate.0).unwrap().matrix(TensorType::Q6K, &up.0).unwrap().build(None);
    let (expected, _) = products(&apart, &team, rows);
    let pair = [(TensorType::Q4K, &gate.0[..]), (TensorType::Q6K, &up.0)];
    let linear = LinearBuilder::new(&team, &mut arena, inputs).pair(pair).unwrap().build(None);
    assert_eq!((linear.outputs(), linear.bytes()), (apart.outputs(), apart.bytes()));
    assert_eq!(products(&linear, &team, rows).0.values(), expected.values());
    let (mut x, mut out) = (operand(rows, inputs, linear.forms()), Rows::default());
    out.reset(rows, outputs);
    {
        // SAFETY: each stage writes what no other chunk of it reads or writes.
        let (x, out) = unsafe { (x.share(), out.share()) };
        team.run(|crew| {
            x.fill(crew, |row, values| (0..).zip(values).for_each(|(i, value)| *value = activation(row, i)));
            linear.gated(crew, &x, &out, |gate, up, out| {
                (0..).zip(out).for_each(|(i, out)| *out = gate[i] - 2.0 * up[i])
            });
        });
    }
    for row in 0..rows {
        let (gate, up) = expected.row(row).split_at(outputs);
        let joined: Vec<f32> = gate.iter().zip(up).map(|(gate, up)| gate - 2.0 * up).collect();
        assert_eq!(out.row(row), joined, "row {row}");
    }
}

#[test]
fn parts_cover_all_outputs_once() {
    let team = team(3);
    let (data, _) = matrix(GgmlDType::Q8_0, 300, 32, 0.0);
    let mut arena = Arena::default();
    let linear = LinearBuilder::new(&team, &mut arena, 32).matrix(TensorType::Q8_0, &data).unwrap().build(None);
    for parts in [1, 2, 7, 100] {
        let mut x = operand(2, 32, Forms::default().with(Input::Blocks32));
        // SAFETY: each stage writes what no other chunk of it reads or writes.
        let x = unsafe { x.share() };
        let seen = std::sync::Mutex::new(Vec::new());
        team.run(|crew| {
            x.quantise(crew);
            linear.products_in_parts(crew, &x, parts, |part, row, first, products| {
                assert!(part < parts);
                seen.lock().unwrap().extend((first..first + products.len()).map(|output| (row, output)));
            });
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert!(seen.into_iter().eq((0..2).flat_map(|row| (0..300).map(move |output| (row, output)))));
    }
}

#[test]
fn bad_matrices_are_refused() {
    let team = team(1);
    let refused = |inputs, dtype, data: &[u8]| {
        LinearBuilder::new(&team, &mut Arena::default(), inputs).matrix(dtype, data).err().map(|e| e.0)
    };
    for (inputs, dtype, bytes, why) in [
        (100, TensorType::Q4K, 256, "not whole blocks"),
        (0, TensorType::F32, 256, "not whole blocks"),
        (32, TensorType::Q8_0, 35, "are not rows of 34 bytes"),
        (32, TensorType::Q8_0, 0, "are not rows of 34 bytes"),
        (256, TensorType::Iq1S, 50, "there are no kernels for iq1_s"),
    ] {
        let found = refused(inputs, dtype, &vec![0; bytes]).unwrap_or_default();
        assert!(found.contains(why), "{found:?}");
    }
    let unlike = [(TensorType::Q8_0, &[0; 34][..]), (TensorType::F32, &[0; 256])];
    let found = LinearBuilder::new(&team, &mut Arena::default(), 32).pair(unlike).err().map(|e| e.0);
    assert!(found.as_ref().is_some_and(|why| why.contains("1 rows and 2 rows")), "{found:?}");
}
