//! RMSNorm over rows.

use super::{PARALLEL_MIN_VALUES, Rows};
use crate::engine::{
    kernels::{HEAD_DIM_MAX, kernels},
    team::Team,
};

pub struct RmsNorm {
    weight: Vec<f32>,
    eps: f32,
}

impl RmsNorm {
    pub fn new(weight: Vec<f32>, eps: f32) -> Self {
        Self { weight, eps }
    }

    /// Normalises every row of `x`, shape (tokens, weight), into `out`.
    pub fn forward(&self, team: &Team, x: &Rows, out: &mut Rows) {
        let width = self.weight.len();
        out.reset(x.rows(), width);
        out.for_each_chunk(team, PARALLEL_MIN_VALUES.div_ceil(width), |first, chunk| {
            for (i, out) in chunk.chunks_exact_mut(width).enumerate() {
                self.forward_row(x.row(first + i), out);
            }
        });
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
