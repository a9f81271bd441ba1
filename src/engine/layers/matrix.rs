//! One matrix of packed weights.

use std::{array, sync::Arc};

use super::linear::WeightsError;
use crate::engine::{
    gguf::TensorType,
    kernels::matmul::{self, Kind, LANES},
    memory::{Arena, Piece},
    team::{DisjointMut, Team},
};

/// Panels that are packed at once: some hundred microseconds of work.
const PACKED_AT_ONCE: usize = 4;

/// Shape (outputs, inputs), in panels of sixteen outputs; those that the last panel has too many are zero.
pub struct Matrix {
    kind: Kind,
    outputs: usize,
    inputs: usize,
    memory: Arc<Piece>,
    /// Where its first panel is, and how far it is from one to the next.
    start: usize,
    stride: usize,
    panel_bytes: usize,
}

impl Matrix {
    /// Packs whole rows of `inputs` weights, stored as `dtype`, on the team.
    pub fn pack(
        team: &Team,
        arena: &mut Arena,
        dtype: TensorType,
        data: &[u8],
        inputs: usize,
    ) -> Result<Self, WeightsError> {
        let [matrix] = Self::pack_in_turns(team, arena, [(dtype, data)], inputs)?;
        Ok(matrix)
    }

    /// Packs matrices of the same shape whose panels are used in turns, and lie in memory so: one stream to read, not
    /// several.
    pub fn pack_in_turns<const N: usize>(
        team: &Team,
        arena: &mut Arena,
        stored: [(TensorType, &[u8]); N],
        inputs: usize,
    ) -> Result<[Self; N], WeightsError> {
        let mut shapes = [(Kind::F32, 0); N];
        for (shape, (dtype, data)) in shapes.iter_mut().zip(stored) {
            *shape = check(dtype, data, inputs)?;
        }
        let outputs = shapes[0].1;
        if let Some((_, other)) = shapes.iter().find(|shape| shape.1 != outputs) {
            return Err(WeightsError(format!("{outputs} rows and {other} rows, which should be as many")));
        }
        let (panels, stride) = (outputs.div_ceil(LANES), shapes.iter().map(|(kind, _)| kind.panel_bytes(inputs)).sum());
        let mut memory = arena.allocate(panels * stride);
        let bytes = DisjointMut::new(&mut memory);
        let mut starts = [0; N];
        let mut start = 0;
        for i in 0..N {
            let ((kind, _), (dtype, data)) = (shapes[i], stored[i]);
            let (panel_bytes, rows_bytes) = (kind.panel_bytes(inputs), LANES * data.len() / outputs);
            team.for_each_chunk(panels, PACKED_AT_ONCE, |chunk| {
                for panel in chunk {
                    let rows = &data[panel * rows_bytes..data.len().min((panel + 1) * rows_bytes)];
                    let at = start + panel * stride;
                    // SAFETY: a panel is packed once.
                    matmul::pack_panel(dtype, rows, inputs, unsafe { bytes.range(at..at + panel_bytes) });
                }
            });
            starts[i] = start;
            start += panel_bytes;
        }
        let memory = Arc::new(memory);
        Ok(array::from_fn(|i| {
            let ((kind, _), memory) = (shapes[i], Arc::clone(&memory));
            let panel_bytes = kind.panel_bytes(inputs);
            Self { kind, outputs, inputs, memory, start: starts[i], stride, panel_bytes }
        }))
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes
    }

    pub fn panel(&self, index: usize) -> &[u8] {
        &self.memory[self.start + index * self.stride..][..self.panel_bytes]
    }

    /// The weights of one output.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs && out.len() == self.inputs);
        matmul::unpack_row(self.kind, self.panel(output / LANES), output % LANES, out);
    }
}

/// How rows of `inputs` weights, stored as `dtype`, are packed, and how many there are.
fn check(dtype: TensorType, data: &[u8], inputs: usize) -> Result<(Kind, usize), WeightsError> {
    let kind = Kind::of(dtype).ok_or_else(|| WeightsError(format!("there are no kernels for {dtype}")))?;
    let block = dtype.block_len();
    if inputs == 0 || !inputs.is_multiple_of(block) {
        return Err(WeightsError(format!("rows of {inputs} values are not whole blocks of {block} ({dtype})")));
    }
    let row_bytes = inputs / block * dtype.block_bytes();
    if data.is_empty() || !data.len().is_multiple_of(row_bytes) {
        return Err(WeightsError(format!("{} bytes are not rows of {row_bytes} bytes", data.len())));
    }
    Ok((kind, data.len() / row_bytes))
}
