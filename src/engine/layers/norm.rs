//! RMSNorm.

use crate::engine::kernels::{HEAD_DIM_MAX, kernels};

pub struct RmsNorm {
    weight: Vec<f32>,
    eps: f32,
}

impl RmsNorm {
    pub fn new(weight: Vec<f32>, eps: f32) -> Self {
        Self { weight, eps }
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Normalises one vector as wide as the weight, where it lies.
    pub fn forward_in_place(&self, x: &mut [f32]) {
        let mut head = [0.0; HEAD_DIM_MAX];
        match head.get_mut(..x.len()) {
            Some(copy) => {
                copy.copy_from_slice(x);
                self.forward_row(copy, x);
            }
            None => {
                let copy = x.to_vec();
                self.forward_row(&copy, x);
            }
        }
    }

    /// Normalises one vector as wide as the weight.
    pub fn forward_row(&self, x: &[f32], out: &mut [f32]) {
        kernels().rms_norm(x, &self.weight, self.eps, out);
    }
}
