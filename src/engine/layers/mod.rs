//! The layers that models are built from, as stages of a parallel region.
//!
//! Each takes rows of activations; only `attention` knows where one sequence ends and the next begins. Every layer computes a
//! row in the same order of operations whatever rows come with it (batch invariance).

mod attention;
mod linear;
mod matrix;
mod norm;
mod operand;
mod rope;
mod rows;

pub use super::kernels::HEAD_DIM_MAX;
pub use attention::{Attention, Buffers, QkNorm, Step};
pub use linear::{Linear, LinearBuilder, Then, WeightsError};
pub use norm::RmsNorm;
pub use operand::{Forms, Operand, SharedOperand};
pub use rope::{Angles, PairStyle, Rope, Scaling};
pub use rows::{Rows, SharedRows};
