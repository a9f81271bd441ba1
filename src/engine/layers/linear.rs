//! Matrices of weights that share their inputs, multiplied with rows of activations as stages of a region.
//!
//! A stage's chunks are runs of panels; each thread keeps a chunk's weights in its cache while the rows go by. An output's
//! sum is made in the same order whatever the number of rows or threads.

use std::ops::Range;

use super::{
    matrix::Matrix,
    operand::{Forms, SharedOperand},
    rows::SharedRows,
};
use crate::engine::{
    gguf::TensorType,
    kernels::{kernels, matmul::LANES},
    memory::Arena,
    team::{Crew, Team},
};

/// Weights that can't be used; says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsError(pub String);

/// What is done with a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Store,
    /// Add it to what the output holds (a residual).
    Add,
}

impl Then {
    fn put(self, out: &mut [f32], products: &[f32]) {
        let add = |(out, product): (&mut f32, &f32)| *out += product;
        // Nearly always there are sixteen, and for a number that is known the compiler needs no loop.
        if let (Some((out, [])), Some((products, []))) =
            (out.split_first_chunk_mut::<LANES>(), products.split_first_chunk::<LANES>())
        {
            match self {
                Self::Store => *out = *products,
                Self::Add => out.iter_mut().zip(products).for_each(add),
            }
        } else {
            match self {
                Self::Store => out.copy_from_slice(products),
                Self::Add => out.iter_mut().zip(products).for_each(add),
            }
        }
    }
}

/// Chunks that each thread gets: the wait for the last one is short, and one that lost its core for a while delays little.
const CHUNKS_PER_THREAD: usize = 24;
/// A chunk's weights stay in the second-level cache beside a block of rows.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Rows that go by a chunk's panels before the next panel's turn.
const ROWS_AT_ONCE: usize = 64;

/// `x · weightsᵀ + bias`, with the outputs of all matrices side by side.
pub struct Linear {
    inputs: usize,
    outputs: usize,
    parts: Vec<Part>,
    bias: Option<Vec<f32>>,
}

struct Part {
    /// Of its outputs among all.
    first: usize,
    matrix: Matrix,
}

/// Collects matrices of the same inputs into one [`Linear`].
pub struct LinearBuilder<'t> {
    team: &'t Team,
    arena: &'t mut Arena,
    inputs: usize,
    outputs: usize,
    parts: Vec<Part>,
}

impl<'t> LinearBuilder<'t> {
    pub fn new(team: &'t Team, arena: &'t mut Arena, inputs: usize) -> Self {
        Self { team, arena, inputs, outputs: 0, parts: Vec::new() }
    }

    /// Packs a matrix of whole rows of `inputs` weights, stored as `dtype`.
    pub fn matrix(mut self, dtype: TensorType, data: &[u8]) -> Result<Self, WeightsError> {
        let matrix = Matrix::pack(self.team, self.arena, dtype, data, self.inputs)?;
        self.push(matrix);
        Ok(self)
    }

    /// Packs two matrices of the same shape for [`Linear::gated`].
    pub fn pair(mut self, stored: [(TensorType, &[u8]); 2]) -> Result<Self, WeightsError> {
        let matrices = Matrix::pack_in_turns(self.team, self.arena, stored, self.inputs)?;
        matrices.into_iter().for_each(|matrix| self.push(matrix));
        Ok(self)
    }

    fn push(&mut self, matrix: Matrix) {
        let first = self.outputs;
        self.outputs += matrix.outputs();
        self.parts.push(Part { first, matrix });
    }

    /// `bias` is as long as the outputs.
    pub fn build(self, bias: Option<Vec<f32>>) -> Linear {
        assert!(bias.as_ref().is_none_or(|b| b.len() == self.outputs), "a bias for every output");
        Linear { inputs: self.inputs, outputs: self.outputs, parts: self.parts, bias }
    }
}

impl Linear {
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.matrix.bytes()).sum()
    }

    /// The forms in which it takes its inputs.
    pub fn forms(&self) -> Forms {
        self.parts.iter().fold(Forms::default(), |forms, part| forms.with(part.matrix.kind().input()))
    }

    /// A stage: the products of all rows of `x`, stored to or added to `out`.
    pub fn forward(&self, crew: &Crew, x: &SharedOperand, then: Then, out: &SharedRows) {
        assert!(x.width() == self.inputs && out.width() == self.outputs);
        self.products(crew, x, |row, first, products| {
            then.put(out.part_mut(row, first..first + products.len()), products);
        });
    }

    /// A stage for two matrices of the same outputs, gate and up: `join(gate, up, out)` makes outputs of their products.
    pub fn gated(&self, crew: &Crew, x: &SharedOperand, out: &SharedRows, join: impl Fn(&[f32], &[f32], &mut [f32])) {
        let [gate, up] = &self.parts[..] else { panic!("a gate and an up") };
        let outputs = gate.matrix.outputs();
        assert!(up.matrix.outputs() == outputs && x.width() == self.inputs && out.width() == outputs);
        let panels = gate.matrix.panels();
        crew.stage(panels, panels_per_chunk(crew, panels, self.bytes()), |panels| {
            for rows in blocks(x.rows()) {
                for panel in panels.clone() {
                    self.panel(gate, panel, x, rows.clone(), |row, first, gates| {
                        Then::Store.put(out.part_mut(row, first..first + gates.len()), gates);
                    });
                    self.panel(up, panel, x, rows.clone(), |row, first, ups| {
                        let first = first - up.first;
                        let out = out.part_mut(row, first..first + ups.len());
                        let mut gates = [0.0; LANES];
                        gates[..ups.len()].copy_from_slice(out);
                        join(&gates[..ups.len()], ups, out);
                    });
                }
            }
        });
    }

    /// A stage that hands out all products: `put(row, first output, products)`, up to sixteen at a time.
    pub fn products(&self, crew: &Crew, x: &SharedOperand, put: impl Fn(usize, usize, &[f32])) {
        let chunk = panels_per_chunk(crew, self.panels(), self.bytes());
        self.stage(crew, x, chunk, |_, row, first, products| put(row, first, products));
    }

    /// As [`products`](Self::products), in `parts` parts at most, however many threads there are: `put(part, row, first
    /// output, products)`. A part is one thread's.
    pub fn products_in_parts(
        &self,
        crew: &Crew,
        x: &SharedOperand,
        parts: usize,
        put: impl Fn(usize, usize, usize, &[f32]),
    ) {
        self.stage(crew, x, self.panels().div_ceil(parts), put);
    }

    fn panels(&self) -> usize {
        self.parts.iter().map(|part| part.matrix.panels()).sum()
    }

    fn stage(&self, crew: &Crew, x: &SharedOperand, chunk: usize, put: impl Fn(usize, usize, usize, &[f32])) {
        assert_eq!(x.width(), self.inputs);
        crew.stage(self.panels(), chunk, |panels| {
            let index = panels.start / chunk;
            for rows in blocks(x.rows()) {
                for panel in panels.clone() {
                    let (part, panel) = self.find(panel);
                    self.panel(part, panel, x, rows.clone(), |row, first, products| put(index, row, first, products));
                }
            }
        });
    }

    /// The part that panel `index` of all panels is in, and its index there.
    fn find(&self, mut index: usize) -> (&Part, usize) {
        for part in &self.parts {
            match index.checked_sub(part.matrix.panels()) {
                Some(rest) => index = rest,
                None => return (part, index),
            }
        }
        panic!("a panel beyond the last")
    }

    /// The products of some rows with one panel, biases added.
    fn panel(
        &self,
        part: &Part,
        panel: usize,
        x: &SharedOperand,
        rows: Range<usize>,
        mut put: impl FnMut(usize, usize, &[f32]),
    ) {
        let matrix = &part.matrix;
        let count = LANES.min(matrix.outputs() - panel * LANES);
        let first = part.first + panel * LANES;
        let bias = self.bias.as_ref().map(|bias| &bias[first..first + count]);
        let input = x.get(matrix.kind().input(), rows.clone());
        kernels().multiply(matrix.kind(), matrix.panel(panel), input, rows.len(), |row, products| {
            let mut products = *products;
            if let Some(bias) = bias {
                products.iter_mut().zip(bias).for_each(|(product, bias)| *product += bias);
            }
            put(rows.start + row, first, &products[..count]);
        });
    }

    /// The weights of output `index` as floats: a token's embedding, where the matrix is an embedding table.
    pub fn weight_row(&self, index: usize, out: &mut [f32]) {
        let part = self.parts.iter().rfind(|part| part.first <= index).expect("an output of this layer");
        part.matrix.row(index - part.first, out);
    }
}

/// Rows in blocks of [`ROWS_AT_ONCE`].
fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS_AT_ONCE).map(move |first| first..rows.min(first + ROWS_AT_ONCE))
}

fn panels_per_chunk(crew: &Crew, panels: usize, bytes: usize) -> usize {
    let fitting = CHUNK_BYTES_MAX * panels / bytes;
    panels.div_ceil(crew.threads() * CHUNKS_PER_THREAD).min(fitting).max(1)
}

#[cfg(test)]
mod tests;
