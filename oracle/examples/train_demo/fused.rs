//! The two operations that would take most of the time if composed of candle's: causal softmax and cross entropy.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// Softmax of `scale · scores` over the last dimension, in which query i of each block of `length` rows sees keys 0..=i.
/// `scores` is (…, groups · length, length).
pub fn causal_softmax(scores: &Tensor, scale: f32) -> Result<Tensor> {
    scores.contiguous()?.apply_op1(CausalSoftmax { scale })
}

/// Σ weight · −log p(target) ÷ Σ weight, a scalar, of `logits` (rows, vocabulary).
pub fn cross_entropy(logits: &Tensor, targets: Vec<u32>, weights: Vec<f32>) -> Result<Tensor> {
    logits.contiguous()?.apply_op1(CrossEntropy { targets, weights })
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("expected contiguous f32 values"),
    }
}

struct CausalSoftmax {
    scale: f32,
}

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let scores = values(storage, layout)?;
        let length = layout.dims()[layout.dims().len() - 1];
        let mut out = vec![0f32; scores.len()];
        for (at, (row, scores)) in out.chunks_exact_mut(length).zip(scores.chunks_exact(length)).enumerate() {
            let visible = at % length + 1;
            let largest = scores[..visible].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0f32;
            for (to, score) in row[..visible].iter_mut().zip(scores) {
                *to = ((score - largest) * self.scale).exp();
                sum += *to;
            }
            row[..visible].iter_mut().for_each(|p| *p /= sum);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _scores: &Tensor, weights: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let backward = CausalSoftmaxBackward { scale: self.scale };
        Ok(Some(weights.apply_op2_no_bwd(&gradient.contiguous()?, &backward)?))
    }
}

/// scale · p · (g − Σ p · g), row by row.
struct CausalSoftmaxBackward {
    scale: f32,
}

impl CustomOp2 for CausalSoftmaxBackward {
    fn name(&self) -> &'static str {
        "causal-softmax-backward"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (weights, gradient) = (values(s1, l1)?, values(s2, l2)?);
        let length = l1.dims()[l1.dims().len() - 1];
        let mut out = vec![0f32; weights.len()];
        let rows = weights.chunks_exact(length).zip(gradient.chunks_exact(length));
        for (at, (row, (p, g))) in out.chunks_exact_mut(length).zip(rows).enumerate() {
            let visible = at % length + 1;
            let mean: f32 = p[..visible].iter().zip(g).map(|(p, g)| p * g).sum();
            for ((to, p), g) in row[..visible].iter_mut().zip(p).zip(g) {
                *to = self.scale * p * (g - mean);
            }
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

struct CrossEntropy {
    targets: Vec<u32>,
    weights: Vec<f32>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (logits, vocabulary) = (values(storage, layout)?, layout.dims()[1]);
        let mut loss = 0f64;
        for (row, (&target, &weight)) in logits.chunks_exact(vocabulary).zip(self.targets.iter().zip(&self.weights)) {
            if weight > 0.0 {
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = row.iter().map(|logit| (logit - largest).exp()).sum();
                loss += f64::from(weight * (sum.ln() + largest - row[target as usize]));
            }
        }
        let total: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        Ok((CpuStorage::F32(vec![(loss / total) as f32]), Shape::from(())))
    }

    /// weight ÷ Σ weight · (softmax − one-hot). The loss is where the backward pass starts: its own gradient is 1.
    fn bwd(&self, logits: &Tensor, _loss: &Tensor, _one: &Tensor) -> Result<Option<Tensor>> {
        let (rows, vocabulary) = logits.dims2()?;
        let mut gradient = logits.flatten_all()?.to_vec1::<f32>()?;
        let total: f32 = self.weights.iter().sum();
        for (at, row) in gradient.chunks_exact_mut(vocabulary).enumerate() {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|value| *value = (*value - largest).exp());
            let scale = self.weights[at] / total / row.iter().sum::<f32>();
            row.iter_mut().for_each(|value| *value *= scale);
            row[self.targets[at] as usize] -= self.weights[at] / total;
        }
        Ok(Some(Tensor::from_vec(gradient, (rows, vocabulary), logits.device())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::chance::Chance;

    /// Compares the gradient of `loss` with differences of its values.
    #[track_caller]
    fn check(dimensions: &[usize], loss: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        let mut chance = Chance::new(11);
        let count = dimensions.iter().product();
        let values: Vec<f32> = (0..count).map(|_| chance.normal() as f32).collect();
        let at = Var::from_vec(values.clone(), dimensions, &Device::Cpu)?;
        let gradients = loss(&at)?.backward()?;
        let gradient = gradients.get(&at).unwrap().flatten_all()?.to_vec1::<f32>()?;
        for i in 0..count {
            let value_at = |step: f32| -> Result<f32> {
                let mut values = values.clone();
                values[i] += step;
                loss(&Tensor::from_vec(values, dimensions, &Device::Cpu)?)?.to_scalar()
            };
            let slope = (value_at(0.01)? - value_at(-0.01)?) / 0.02;
            assert!((slope - gradient[i]).abs() < 2e-3, "value {i}: slope {slope}, gradient {}", gradient[i]);
        }
        Ok(())
    }

    #[test]
    fn gradients_are_the_slopes() -> Result<()> {
        let factors: Vec<f32> = (0..40).map(|i| ((i * 7) % 13) as f32 / 5.0).collect();
        let factors = Tensor::from_vec(factors, (2, 4, 5), &Device::Cpu)?.narrow(2, 0, 4)?;
        check(&[2, 4, 4], |scores| (causal_softmax(scores, 0.7)? * &factors)?.sum_all())?;
        check(&[3, 6], |logits| cross_entropy(logits, vec![2, 0, 5], vec![1.0, 0.1, 0.5]))
    }

    #[test]
    fn attention_never_sees_what_comes_later() -> Result<()> {
        let weights = causal_softmax(&Tensor::ones((2, 6, 3), candle_core::DType::F32, &Device::Cpu)?, 1.0)?;
        let block = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0 / 3.0; 3]];
        assert_eq!(weights.flatten_all()?.to_vec1::<f32>()?, [block.as_flattened(); 4].concat());
        Ok(())
    }
}
