//! Tiny random encoders against the formulas in f64, and requests against inputs that are computed alone.

mod naive;
mod serving;
mod tiny;

use std::num::NonZeroUsize;

use tiny::{Tiny, inputs};

use super::*;
use crate::engine::models::Quantize;

fn options(threads: usize) -> LoadOptions {
    LoadOptions::new(NonZeroUsize::new(threads).unwrap())
}

/// Every input by itself.
fn alone(model: &mut EncoderModel, inputs: &[InputTokens]) -> Vec<Vec<f32>> {
    let forward = |input: &InputTokens| {
        let (mut batch, mut outputs) = (InputBatch::default(), Vec::new());
        batch.push(input);
        model.forward(&batch, &mut outputs).unwrap();
        outputs
    };
    inputs.iter().map(forward).collect()
}

#[track_caller]
fn check_formula(tiny: Tiny) {
    let written = tiny.write();
    let mut model = load(&written.source(), options(1)).unwrap();
    let inputs = inputs(&tiny, 12);
    for (input, output) in inputs.iter().zip(alone(&mut model, &inputs)) {
        let expected = naive::forward(&tiny, &written.tensors, input);
        assert_eq!(output.len(), expected.len());
        for (i, (found, expected)) in output.iter().zip(&expected).enumerate() {
            let close = (f64::from(*found) - expected).abs() <= 2e-4 * (1.0 + expected.abs());
            assert!(close, "{tiny:?}: value {i} of {} tokens is {found}, not {expected}", input.tokens.len());
        }
    }
}

#[test]
fn every_kind_of_encoder_is_the_formula() {
    let bert = Tiny::default();
    check_formula(bert);
    check_formula(Tiny { pooling: 2, activation: "gelu_tanh", ..bert });
    check_formula(Tiny { pooling: 3, normalize: false, activation: "relu", ..bert });
    check_formula(Tiny { offset: 2, types: 1, ..bert });
    check_formula(Tiny { types: 0, heads: 4, ..bert });
    check_formula(Tiny { scores: Some("sigmoid"), ..bert });
    check_formula(Tiny { scores: Some("identity"), ..bert });
    check_formula(Tiny { gated: true, ..bert });
}

#[test]
fn inputs_do_not_know_of_each_other() {
    for tiny in [Tiny::default(), Tiny { gated: true, ..Tiny::default() }] {
        let source = tiny.write().source();
        for quantize in [None, Some(Quantize::Q8_0)] {
            let inputs = inputs(&tiny, 40);
            let mut model = load(&source, LoadOptions { quantize, ..options(1) }).unwrap();
            let expected = alone(&mut model, &inputs);
            for threads in [1, 2, 3] {
                let mut model = load(&source, LoadOptions { quantize, ..options(threads) }).unwrap();
                for size in [2, 7, 40] {
                    for (inputs, expected) in inputs.chunks(size).zip(expected.chunks(size)) {
                        let (mut batch, mut outputs) = (InputBatch::default(), Vec::new());
                        inputs.iter().for_each(|input| batch.push(input));
                        model.forward(&batch, &mut outputs).unwrap();
                        assert_eq!(outputs, expected.concat(), "{threads} threads, {size} inputs a batch");
                    }
                }
            }
        }
    }
}

#[test]
fn quantised_weights_give_nearly_the_same() {
    let tiny = Tiny::default();
    let source = tiny.write().source();
    let inputs = inputs(&tiny, 12);
    let expected = alone(&mut load(&source, options(1)).unwrap(), &inputs);
    let mut quantised = load(&source, LoadOptions { quantize: Some(Quantize::Q8_0), ..options(1) }).unwrap();
    for (a, b) in expected.iter().zip(alone(&mut quantised, &inputs)) {
        let cosine: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999, "{cosine}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let tiny = Tiny::default();
    let mut model = load(&tiny.write().source(), options(1)).unwrap();
    for tokens in [vec![], vec![0; tiny.positions + 1], vec![tiny.vocabulary() as u32]] {
        let mut batch = InputBatch::default();
        batch.push(&InputTokens::of_one(tokens));
        assert!(model.forward(&batch, &mut Vec::new()).is_err());
    }
    for (broken, what) in [
        (Tiny { pooling: 0, ..tiny }, "bert.pooling_type"),
        (Tiny { labels: 3, scores: Some("sigmoid"), ..tiny }, "num_labels"),
        (Tiny { heads: 3, ..tiny }, "attention.head_count"),
    ] {
        let error = load(&broken.write().source(), options(1)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn shortened_vectors_have_length_one() {
    let mut vector = vec![3.0, 4.0, 12.0];
    shorten(&mut vector, 2);
    assert_eq!(vector, [0.6, 0.8]);
    let mut zeros = vec![0.0; 3];
    shorten(&mut zeros, 9);
    assert_eq!(zeros, [0.0; 3]);
}
