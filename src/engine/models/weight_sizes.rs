//! How large a model's weights are, and how much is computed with them: what its speed is measured against.

use super::{Quantize, Source};

/// Sizes of all weights of a dense decoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightSizes {
    /// Values in all tensors.
    pub parameters: u64,
    /// Bytes of the layers' matrices, which every step reads once, however many rows it has.
    pub layer_bytes: u64,
    /// Bytes of the output head, which a step with sampled rows reads once.
    pub head_bytes: u64,
    /// Bytes of the table of the tokens' vectors, of which a step reads a row each; 0 where the head is the table.
    pub table_bytes: u64,
    /// Multiplications and additions of a row in the layers' matrices.
    pub row_macs: u64,
    /// The same of a sampled row in the head.
    pub head_macs: u64,
}

impl WeightSizes {
    /// As the files have them, or as they are quantised at load.
    pub fn of(source: &Source, quantize: Option<Quantize>) -> Self {
        // With tied embeddings the table of the tokens is the head as well.
        let head = if source.tensor("output.weight").is_some() { "output.weight" } else { "token_embd.weight" };
        let mut sizes = Self::default();
        for tensor in source.tensors() {
            let values = tensor.shape.iter().map(|n| *n as u64).product::<u64>();
            let bytes = quantize.map_or(tensor.bytes, |quantize| quantize.kept(&tensor).1) as u64;
            sizes.parameters += values;
            if tensor.name == head {
                sizes.head_bytes = bytes;
                sizes.head_macs = values;
            } else if tensor.name == "token_embd.weight" {
                sizes.table_bytes = bytes;
            } else if tensor.shape.len() == 2 && tensor.name.starts_with("blk.") {
                sizes.layer_bytes += bytes;
                sizes.row_macs += values;
            }
        }
        sizes
    }

    /// Bytes of all matrices in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.layer_bytes + self.head_bytes + self.table_bytes
    }

    /// Bytes that a step reads, one with sampled rows.
    pub fn step_bytes(&self) -> u64 {
        self.layer_bytes + self.head_bytes
    }

    /// Multiplications and additions of a step.
    pub fn step_macs(&self, rows: usize, sampled: usize) -> u64 {
        self.row_macs * rows as u64 + self.head_macs * sampled as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gguf::{Gguf, GgufWriter, TensorType};

    fn of(file: &GgufWriter, quantize: Option<Quantize>) -> WeightSizes {
        WeightSizes::of(&Gguf::from_bytes(file.to_bytes()).unwrap().into(), quantize)
    }

    #[test]
    fn what_a_step_reads_and_computes() {
        let data = [0; 64 * 64 * 4];
        let mut file = GgufWriter::new();
        file.tensor("token_embd.weight", TensorType::F32, &[8, 32], &data[..8 * 32 * 4]);
        file.tensor("blk.0.attn_norm.weight", TensorType::F32, &[32], &data[..32 * 4]);
        file.tensor("blk.0.ffn_up.weight", TensorType::F16, &[64, 32], &data[..64 * 32 * 2]);
        let sizes = of(&file, None);
        assert_eq!(sizes.parameters, 8 * 32 + 32 + 64 * 32);
        assert_eq!(sizes.step_bytes(), 8 * 32 * 4 + 64 * 32 * 2);
        assert_eq!(sizes.step_macs(10, 1), 10 * 64 * 32 + 8 * 32);
        assert_eq!(of(&file, Some(Quantize::Q8_0)).step_bytes(), (8 + 64) * 34);

        file.tensor("output.weight", TensorType::Q8_0, &[8, 32], &data[..8 * 34]);
        let untied = of(&file, None);
        assert_eq!((untied.head_bytes, untied.head_macs), (8 * 34, sizes.head_macs));
    }
}
