//! Architectures that are not batched: they run as candle-transformers has them, one request at a time, on one thread, in
//! 32-bit floats. A way to use them, not a way to serve many; they need a build with the feature `compat`.

#[cfg(not(feature = "compat"))]
mod disabled;
#[cfg(feature = "compat")]
mod enabled;

#[cfg(not(feature = "compat"))]
pub(super) use disabled::load;
#[cfg(feature = "compat")]
pub(super) use enabled::load;

/// The architectures that candle-transformers computes, from Hugging Face directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbatched {
    /// Phi 1, 1.5 and 2.
    Phi,
    Falcon,
    StarCoder2,
    StableLm,
    Mixtral,
    /// Qwen1.5-MoE and Qwen2-MoE.
    Qwen2Moe,
}

impl Unbatched {
    pub const ALL: [Self; 6] =
        [Self::Phi, Self::Falcon, Self::StarCoder2, Self::StableLm, Self::Mixtral, Self::Qwen2Moe];

    pub fn name(self) -> &'static str {
        match self {
            Self::Phi => "phi",
            Self::Falcon => "falcon",
            Self::StarCoder2 => "starcoder2",
            Self::StableLm => "stablelm",
            Self::Mixtral => "mixtral",
            Self::Qwen2Moe => "qwen2moe",
        }
    }
}
