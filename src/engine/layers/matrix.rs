//! One matrix of packed weights.

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
    panels: Piece,
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
        let kind = Kind::of(dtype).ok_or_else(|| WeightsError(format!("there are no kernels for {dtype}")))?;
        let block = dtype.block_len();
        if inputs == 0 || !inputs.is_multiple_of(block) {
            return Err(WeightsError(format!("rows of {inputs} values are not whole blocks of {block} ({dtype})")));
        }
        let row_bytes = inputs / block * dtype.block_bytes();
        if data.is_empty() || !data.len().is_multiple_of(row_bytes) {
            return Err(WeightsError(format!("{} bytes are not rows of {row_bytes} bytes", data.len())));
        }
        let outputs = data.len() / row_bytes;
        let (panels, panel_bytes) = (outputs.div_ceil(LANES), kind.panel_bytes(inputs));
        let mut packed = arena.allocate(panels * panel_bytes);
        let bytes = DisjointMut::new(&mut packed);
        team.for_each_chunk(panels, PACKED_AT_ONCE, |chunk| {
            for panel in chunk {
                let rows = &data[panel * LANES * row_bytes..data.len().min((panel + 1) * LANES * row_bytes)];
                // SAFETY: a panel is packed once.
                let panel = unsafe { bytes.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
                matmul::pack_panel(dtype, rows, inputs, panel);
            }
        });
        Ok(Self { kind, outputs, inputs, panels: packed })
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
        self.panels() * self.panel_bytes()
    }

    pub fn panel_bytes(&self) -> usize {
        self.kind.panel_bytes(self.inputs)
    }

    pub fn panel(&self, index: usize) -> &[u8] {
        let bytes = self.panel_bytes();
        &self.panels[index * bytes..][..bytes]
    }

    /// The weights of one output.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs && out.len() == self.inputs);
        matmul::unpack_row(self.kind, self.panel(output / LANES), output % LANES, out);
    }
}
