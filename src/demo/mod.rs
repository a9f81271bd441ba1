//! The embedded demo model: what `sconce` serves when it is given no model, with no file and no network.
//!
//! A Qwen3 network of 2.7 million parameters (4 layers, hidden size 256, 4 query and 2 key heads of 64, 1,024 positions)
//! with its own byte-level BPE vocabulary of 1,280 tokens and a ChatML template, as a Q8_0 GGUF of 2.9 MB. It answers
//! simple questions about Sconce, makes small talk and tells little stories; to anything else it answers that it is only
//! a demo and how to load a real model.
//!
//! `oracle/examples/train_demo` made it, on one CPU core, from text that the same example composes from templates of its own:
//!
//! ```text
//! cargo run --release -p oracle --example train_demo -- --out src/demo/sconce-demo.gguf
//! ```
//!
//! `tests/demo_questions.rs` asks it 20 questions whose phrasings (`tests/data/demo_questions.json`) are kept out of
//! that text. Knows nothing of the engine: these are only bytes.

/// Placed at the start of a page, so that kernels find every tensor as aligned as GGUF aligns it.
#[repr(C, align(4096))]
struct PageAligned<T: ?Sized>(T);

static FILE: &PageAligned<[u8]> = &PageAligned(*include_bytes!("sconce-demo.gguf"));

/// The GGUF file.
pub static MODEL: &[u8] = &FILE.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gguf::Gguf;

    #[test]
    fn the_file_is_a_small_aligned_qwen3() {
        assert!(MODEL.len() <= 6_000_000 && MODEL.as_ptr().addr().is_multiple_of(4096));
        let file = Gguf::from_static(MODEL).unwrap();
        let keys = file.metadata();
        assert_eq!(keys.str("general.architecture").unwrap(), "qwen3");
        assert_eq!(keys.str("general.name").unwrap(), "sconce-demo");
        let parameters: usize = file.tensors().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
        assert!((2_000_000..5_000_000).contains(&parameters), "{parameters}");
    }
}
