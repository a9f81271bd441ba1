//! How much KV cache a model gets: what was asked for, or what is useful and fits the machine.
//!
//! Pure: the memory that is left is an argument.

use super::load;
use crate::{
    config::{ModelConfig, show_bytes},
    engine::{blocks::BLOCK_TOKENS, kv_cache::KvCache, models::Spec},
};

/// KV memory where nobody says otherwise and no machine is too small for it: a long conversation of a small model.
const KV_BYTES_DEFAULT: u64 = 2 << 30;
/// KV memory without which a model is not worth loading where nobody says otherwise, unless its context takes less.
const KV_BYTES_LEAST: u64 = 256 << 20;
/// Where the system does not say how much memory is left.
const AVAILABLE_BYTES_UNKNOWN: u64 = 2 << 30;

/// How many KV blocks there will be, and the context they allow.
#[derive(Debug, PartialEq)]
pub struct Room {
    pub blocks: usize,
    pub bytes: u64,
    pub context: usize,
    /// The context is less than the model's for want of memory.
    pub cut: bool,
}

impl Room {
    /// Memory that must be left beside the weights for a cache that is worth it.
    pub fn least(model: &ModelConfig, spec: &Spec, running_max: usize) -> u64 {
        let context = model.context.unwrap_or(spec.context).min(spec.context);
        let one = (context.div_ceil(BLOCK_TOKENS) * KvCache::block_bytes(spec, load::kv_type(model))) as u64;
        match model.kv_bytes {
            Some(bytes) => bytes.min(one.saturating_mul(running_max as u64)),
            // Half of what is left becomes the cache.
            None if model.context.is_some() => 2 * one,
            None => 2 * one.min(KV_BYTES_LEAST),
        }
    }

    /// Takes the memory it is told to, else what is useful within half of what is `available`.
    pub fn plan(model: &ModelConfig, spec: &Spec, running_max: usize, available: Option<u64>) -> Result<Self, String> {
        let block_bytes = KvCache::block_bytes(spec, load::kv_type(model)) as u64;
        let context = model.context.unwrap_or(spec.context);
        if context > spec.context {
            let trained = spec.context;
            return Err(format!("context = {context}: must be 32 to {trained}, what the model was trained for"));
        }
        let one = context.div_ceil(BLOCK_TOKENS);
        // More than all sequences at their longest is never used.
        let useful = one.saturating_mul(running_max);
        let bytes = model.kv_bytes.unwrap_or_else(|| {
            let half = available.unwrap_or(AVAILABLE_BYTES_UNKNOWN) / 2;
            (one as u64 * block_bytes).max(KV_BYTES_DEFAULT).min(half)
        });
        let blocks = usize::try_from(bytes / block_bytes).unwrap_or(usize::MAX).min(useful);
        if blocks == 0 {
            return Err(format!("the KV cache needs {} at least: raise kv_memory", show_bytes(block_bytes)));
        }
        let fits = blocks.saturating_mul(BLOCK_TOKENS);
        if model.context.is_some() && fits < context {
            let needed = show_bytes((one as u64 * block_bytes).next_multiple_of(1 << 20));
            return Err(format!("context = {context} needs {needed} of KV memory: raise kv_memory or lower context"));
        }
        Ok(Self { blocks, bytes: blocks as u64 * block_bytes, context: context.min(fits), cut: fits < context })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(context: Option<usize>, kv_bytes: Option<u64>) -> ModelConfig {
        ModelConfig { context, kv_bytes, ..ModelConfig::demo() }
    }

    /// 1 KiB a token, 32 KiB a block.
    fn spec() -> Spec {
        Spec { architecture: "qwen3".to_owned(), layers: 1, kv_heads: 2, head_dim: 128, vocabulary: 9, context: 4096 }
    }

    #[track_caller]
    fn check(
        context: Option<usize>,
        kv_bytes: Option<u64>,
        available: u64,
        expected: Result<(usize, usize, bool), &str>,
    ) {
        let room = Room::plan(&model(context, kv_bytes), &spec(), 8, Some(available));
        match (room, expected) {
            (Ok(room), Ok(expected)) => assert_eq!((room.blocks, room.context, room.cut), expected),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (room, expected) => panic!("{room:?}, not {expected:?}"),
        }
    }

    const MIB: u64 = 1 << 20;

    /// What is left at least is enough to be planned with.
    #[test]
    fn least_room() {
        for (context, kv_bytes, expected) in [
            (None, None, 8 * MIB),
            (Some(1024), None, 2 * MIB),
            (None, Some(5 * MIB), 5 * MIB),
            (None, Some(1 << 40), 8 * 4 * MIB),
        ] {
            let model = model(context, kv_bytes);
            let least = Room::least(&model, &spec(), 8);
            assert_eq!(least, expected, "{context:?} {kv_bytes:?}");
            let room = Room::plan(&model, &spec(), 8, Some(least)).unwrap();
            assert!(!room.cut && room.bytes <= least, "{room:?}");
        }
    }

    #[test]
    fn room_for_the_cache() {
        // Enough of everything: eight sequences at their longest, no more.
        check(None, None, 64 << 30, Ok((8 * 128, 4096, false)));
        check(Some(100), None, 64 << 30, Ok((8 * 4, 100, false)));
        check(None, Some(1 << 40), 64 << 30, Ok((8 * 128, 4096, false)));
        // A small machine: half of what it has, and the context follows.
        check(None, None, 4 * MIB, Ok((64, 2048, true)));
        check(None, Some(MIB), 64 << 30, Ok((32, 1024, true)));
        // What was asked for and can't be had is an error.
        check(Some(4096), Some(MIB), 64 << 30, Err("context = 4096 needs 4 MiB"));
        check(Some(8192), None, 64 << 30, Err("must be 32 to 4096"));
        check(None, Some(1 << 10), 64 << 30, Err("32 KiB at least"));
    }
}
