//! The layers that models are built from. Each takes rows of activations and the team that computes them; only
//! `attention` knows where one sequence ends and the next begins.
//!
//! Every layer computes a row in the same order of operations whatever rows come with it (batch invariance).

mod attention;
mod linear;
mod norm;
mod rope;
mod rows;

pub use attention::{Attention, Buffers, QkNorm, Step};
pub use linear::{Linear, LinearBuilder, Then, WeightsError};
pub use norm::RmsNorm;
pub use rope::{Angles, PairStyle, Rope, Scaling};
pub use rows::Rows;

pub use super::kernels::HEAD_DIM_MAX;
use super::{kernels::kernels, team::Team};

/// Values of work below which a parallel region costs more than it saves.
const PARALLEL_MIN_VALUES: usize = 8 * 1024;

/// `silu(gate) · up` of rows that hold `gate` and then `up`, each as wide as `out`.
pub fn silu_mul(team: &Team, gate_up: &Rows, out: &mut Rows) {
    let width = gate_up.width() / 2;
    out.reset(gate_up.rows(), width);
    let rows_per_chunk = PARALLEL_MIN_VALUES.div_ceil(width);
    out.for_each_chunk(team, rows_per_chunk, |first, chunk| {
        for (i, out) in chunk.chunks_exact_mut(width).enumerate() {
            let (gate, up) = gate_up.row(first + i).split_at(width);
            kernels().silu_mul(gate, up, out);
        }
    });
}
