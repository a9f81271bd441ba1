//! RMSNorm.

use crate::engine::kernels::kernels;

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

    /// Normalises one vector as wide as the weight.
    pub fn forward_row(&self, x: &[f32], out: &mut [f32]) {
        kernels().rms_norm(x, &self.weight, self.eps, out);
    }
}
