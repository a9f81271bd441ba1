//! Kernels: everything that a forward pass computes. Matrix products have a folder of their own.
//!
//! Each is one generic function (`norm`, `glu`, `attention`, `matmul`) over a tier's vectors. The tier is chosen once, at
//! run time, from what the CPU has, so that a plain build is fast everywhere;
//! `SCONCE_KERNELS=portable|avx2|avxvnni|avx512|neon` forces a lower one. Within one tier a row's result is the same
//! whatever rows are computed beside it.

pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod ceilings;
mod gelu;
mod glu;
pub mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod portable;
mod rotate;
mod sampling;
mod simd;

use std::sync::OnceLock;

use super::{kv_cache::SCALE_VALUES, layers::PairStyle};
use attention::{Ask, QUERIES_MAX, WholeAsk, Workspace, record_len};
pub use attention::{HEAD_DIM_MAX, HEAD_DIM_MULTIPLE};
use matmul::Matmul;
pub use sampling::{Mass, Moments, RUN, Spread, exp};

/// (x, added, weight and bias, eps)
type AddLayerNorm = unsafe fn(&mut [f32], &[f32], [&[f32]; 2], f32);

/// A set of kernels for one kind of CPU.
pub struct Kernels {
    pub name: &'static str,
    rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    add_layer_norm: AddLayerNorm,
    silu_mul: unsafe fn(&[f32], &[f32], &mut [f32]),
    gelu_mul: unsafe fn(&[f32], &[f32], &mut [f32]),
    gelu_erf: unsafe fn(&mut [f32]),
    gelu_tanh: unsafe fn(&mut [f32]),
    soft_cap: unsafe fn(&mut [f32], f32),
    attend: unsafe fn(&Ask, &mut Workspace, &mut [f32]),
    attend_whole: unsafe fn(&WholeAsk, &mut Workspace, &mut [f32]),
    rotate: unsafe fn(&mut [f32], &[f32], &[f32], PairStyle),
    quantise: unsafe fn(&[f32], &mut [i8], &mut [u16]),
    narrow: unsafe fn(&[f32], &mut [u16]),
    run_maxima: unsafe fn(&[f32], &mut [f32]),
    weigh: unsafe fn(&[f32], f32, f32, &mut [f32]),
    run_weights: unsafe fn(&[f32], f32, f32, &mut [f32]),
    above: unsafe fn(&[f32], &[f32], f32) -> Mass,
    spread: unsafe fn(&[f32], f32) -> Spread,
    moments: unsafe fn(&[f32], f32) -> Moments,
    matmul: &'static Matmul,
}

/// Instantiates the kernels of a tier inside functions that carry its CPU features.
macro_rules! tier {
    ($table:ident, $name:literal, $simd:ty, $matmul:expr $(, $features:literal)?) => {
        static $table: Kernels = {
            $(#[target_feature(enable = $features)])?
            unsafe fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
                // SAFETY: the features are this function's; the rest is the caller's.
                unsafe { norm::rms_norm::<$simd>(x, weight, eps, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn add_layer_norm(x: &mut [f32], added: &[f32], affine: [&[f32]; 2], eps: f32) {
                // SAFETY: as above.
                unsafe { norm::add_layer_norm::<$simd>(x, added, affine, eps) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { glu::silu_mul::<$simd>(gate, up, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { glu::gelu_mul::<$simd>(gate, up, out) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn gelu_erf(values: &mut [f32]) {
                // SAFETY: as above.
                unsafe { gelu::gelu::<$simd, gelu::Erf>(values) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn gelu_tanh(values: &mut [f32]) {
                // SAFETY: as above.
                unsafe { gelu::gelu::<$simd, gelu::Tanh>(values) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn soft_cap(values: &mut [f32], cap: f32) {
                // SAFETY: as above.
                unsafe { attention::soft_cap::<$simd>(values, cap) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn attend(ask: &Ask, space: &mut Workspace, records: &mut [f32]) {
                // SAFETY: as above.
                unsafe { attention::attend::<$simd>(ask, space, records) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn attend_whole(ask: &WholeAsk, space: &mut Workspace, records: &mut [f32]) {
                // SAFETY: as above.
                unsafe { attention::attend_whole::<$simd>(ask, space, records) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], style: PairStyle) {
                // SAFETY: as above.
                unsafe { rotate::rotate::<$simd>(head, cos, sin, style) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn quantise(x: &[f32], values: &mut [i8], scales: &mut [u16]) {
                // SAFETY: as above.
                unsafe { attention::quantise::<$simd>(x, values, scales) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn narrow(from: &[f32], to: &mut [u16]) {
                // SAFETY: as above.
                unsafe { simd::narrow::<$simd>(from, to) }
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_maxima(row: &[f32], maxima: &mut [f32]) {
                sampling::run_maxima(row, maxima)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn weigh(logits: &[f32], max: f32, inverse: f32, weights: &mut [f32]) {
                sampling::weigh(logits, max, inverse, weights)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn run_weights(row: &[f32], max: f32, inverse: f32, sums: &mut [f32]) {
                sampling::run_weights(row, max, inverse, sums)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn above(row: &[f32], weights: &[f32], threshold: f32) -> Mass {
                sampling::above(row, weights, threshold)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn spread(row: &[f32], max: f32) -> Spread {
                sampling::spread(row, max)
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn moments(row: &[f32], max: f32) -> Moments {
                sampling::moments(row, max)
            }
            Kernels {
                name: $name,
                rms_norm,
                add_layer_norm,
                silu_mul,
                gelu_mul,
                gelu_erf,
                gelu_tanh,
                soft_cap,
                attend,
                attend_whole,
                rotate,
                quantise,
                narrow,
                run_maxima,
                weigh,
                run_weights,
                above,
                spread,
                moments,
                matmul: &$matmul,
            }
        };
    };
}

tier!(PORTABLE, "portable", portable::Portable, matmul::SCALAR);
#[cfg(target_arch = "x86_64")]
tier!(AVX2, "avx2", avx2::Avx2, matmul::AVX2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tier!(AVX_VNNI, "avxvnni", avx2::Avx2, matmul::AVX_VNNI, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tier!(AVX512, "avx512", avx512::Avx512, matmul::AVX512_VNNI, "avx512f,avx512bw,avx2,fma,f16c");
#[cfg(target_arch = "aarch64")]
tier!(NEON, "neon", neon::Neon, matmul::NEON, "neon,dotprod");

/// The tiers that this CPU can run, best first.
pub fn available() -> Vec<&'static Kernels> {
    let mut tiers = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let v3 =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        if v3
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
        {
            tiers.push(&AVX512);
        }
        if v3 && is_x86_feature_detected!("avxvnni") {
            tiers.push(&AVX_VNNI);
        }
        if v3 {
            tiers.push(&AVX2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        tiers.push(&NEON);
    }
    tiers.push(&PORTABLE);
    tiers
}

/// The kernels of this process: the best that the CPU has, or what `SCONCE_KERNELS` names if the CPU has it.
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let tiers = available();
        let Ok(wanted) = std::env::var("SCONCE_KERNELS") else { return tiers[0] };
        tiers.iter().find(|t| t.name == wanted).copied().unwrap_or_else(|| {
            let names: Vec<_> = tiers.iter().map(|t| t.name).collect();
            log::warn!("SCONCE_KERNELS={wanted} is not to be had on this CPU, only {}", names.join(", "));
            tiers[0]
        })
    })
}

/// The safe faces of the kernels. A table exists only for CPUs that have its features (see [`available`]), which is
/// half of each kernel's obligation; the asserts are the other half.
impl Kernels {
    /// RMSNorm of one row.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert!(x.len() == weight.len() && x.len() == out.len());
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.rms_norm)(x, weight, eps, out) }
    }

    /// LayerNorm of `x + added`, one row, with weight and bias, written where `x` is.
    pub fn add_layer_norm(&self, x: &mut [f32], added: &[f32], affine: [&[f32]; 2], eps: f32) {
        assert!(added.len() == x.len() && affine.iter().all(|values| values.len() == x.len()));
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.add_layer_norm)(x, added, affine, eps) }
    }

    /// `silu(gate) · up`.
    pub fn silu_mul(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && gate.len() == out.len());
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.silu_mul)(gate, up, out) }
    }

    /// `gelu(gate) · up`, with GELU's approximation by tanh.
    pub fn gelu_mul(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && gate.len() == out.len());
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.gelu_mul)(gate, up, out) }
    }

    /// GELU of every value, the same for a value wherever it stands.
    pub fn gelu_erf(&self, values: &mut [f32]) {
        // SAFETY: features by construction.
        unsafe { (self.gelu_erf)(values) }
    }

    /// As [`gelu_erf`](Self::gelu_erf), with GELU's approximation by tanh.
    pub fn gelu_tanh(&self, values: &mut [f32]) {
        // SAFETY: features by construction.
        unsafe { (self.gelu_tanh)(values) }
    }

    /// `cap · tanh(x / cap)` of every value, the same for a value wherever it stands.
    pub fn soft_cap(&self, values: &mut [f32], cap: f32) {
        // SAFETY: features by construction.
        unsafe { (self.soft_cap)(values, cap) }
    }

    /// Attention of up to [`QUERIES_MAX`] queries, which lie in `space`, over one chunk of one KV head; `records` gets
    /// [`record_len`] floats of each.
    pub fn attend(&self, ask: &Ask, space: &mut Workspace, records: &mut [f32]) {
        let (dim, queries) = (ask.head.dim(), ask.positions.len());
        assert!(dim.is_multiple_of(HEAD_DIM_MULTIPLE) && dim <= HEAD_DIM_MAX && queries <= QUERIES_MAX);
        assert!(records.len() == queries * record_len(dim));
        assert!(ask.positions.iter().all(|p| ask.head.covers(*p as usize)));
        // SAFETY: features by construction, sizes as asserted.
        unsafe { (self.attend)(ask, space, records) }
    }

    /// Attention of the queries in `space` over keys that all of them see; `records` as for [`attend`](Self::attend).
    pub fn attend_whole(&self, ask: &WholeAsk, space: &mut Workspace, records: &mut [f32]) {
        let dim = ask.dim();
        assert!(dim.is_multiple_of(HEAD_DIM_MULTIPLE) && dim <= HEAD_DIM_MAX && ask.queries <= QUERIES_MAX);
        assert!(ask.fits() && records.len() == ask.queries * record_len(dim));
        // SAFETY: features by construction, sizes as asserted.
        unsafe { (self.attend_whole)(ask, space, records) }
    }

    /// Turns pairs of a head's values by the angles of [`Rope`](super::layers::Rope), one cosine and sine a value.
    pub fn rotate(&self, head: &mut [f32], cos: &[f32], sin: &[f32], style: PairStyle) {
        assert!(head.len() == cos.len() && head.len() == sin.len() && head.len().is_multiple_of(2));
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.rotate)(head, cos, sin, style) }
    }

    /// To bytes with a scale, a bfloat16 as bits, for each [`SCALE_VALUES`]; a multiple of 16 values.
    pub fn quantise(&self, x: &[f32], values: &mut [i8], scales: &mut [u16]) {
        assert!(x.len().is_multiple_of(HEAD_DIM_MULTIPLE) && values.len() == x.len());
        assert!(scales.len() == x.len().div_ceil(SCALE_VALUES));
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.quantise)(x, values, scales) }
    }

    /// To half precision, to nearest even.
    pub fn narrow(&self, from: &[f32], to: &mut [u16]) {
        assert_eq!(from.len(), to.len());
        // SAFETY: features by construction, lengths as asserted.
        unsafe { (self.narrow)(from, to) }
    }

    /// The largest of each [`RUN`] of logits; NaN if any of it is.
    pub fn run_maxima(&self, row: &[f32], maxima: &mut [f32]) {
        assert_eq!(maxima.len(), row.len().div_ceil(RUN));
        // SAFETY: features by construction; the rest is safe code.
        unsafe { (self.run_maxima)(row, maxima) }
    }

    /// Probabilities relative to that of the largest logit, `max`, at the temperature `1 / inverse`.
    pub fn weigh(&self, logits: &[f32], max: f32, inverse: f32, weights: &mut [f32]) {
        assert_eq!(logits.len(), weights.len());
        // SAFETY: features by construction; the rest is safe code.
        unsafe { (self.weigh)(logits, max, inverse, weights) }
    }

    /// As [`weigh`](Self::weigh), added up by [`RUN`].
    pub fn run_weights(&self, row: &[f32], max: f32, inverse: f32, sums: &mut [f32]) {
        assert_eq!(sums.len(), row.len().div_ceil(RUN));
        // SAFETY: features by construction; the rest is safe code.
        unsafe { (self.run_weights)(row, max, inverse, sums) }
    }

    /// The tokens whose logits are above `threshold`; a weight for each logit.
    pub fn above(&self, row: &[f32], weights: &[f32], threshold: f32) -> Mass {
        assert_eq!(row.len(), weights.len());
        // SAFETY: features by construction.
        unsafe { (self.above)(row, weights, threshold) }
    }

    /// A row's distribution about its best logit, `max`.
    pub fn spread(&self, row: &[f32], max: f32) -> Spread {
        // SAFETY: features by construction; the rest is safe code.
        unsafe { (self.spread)(row, max) }
    }

    /// The moments of a row's logits about its best one, `max`.
    pub fn moments(&self, row: &[f32], max: f32) -> Moments {
        // SAFETY: as above.
        unsafe { (self.moments)(row, max) }
    }
}

#[cfg(test)]
mod tests;
