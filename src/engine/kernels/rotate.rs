//! Rotary embedding of one head: `x · cos + partner(x) · sin`, where the sines carry the signs of the rotation.

use super::simd::Simd;
use crate::engine::layers::PairStyle;

/// # Safety
/// The CPU has the features of `S`; the slices are as long as each other, an even number.
#[inline(always)]
pub(super) unsafe fn rotate<S: Simd>(head: &mut [f32], cos: &[f32], sin: &[f32], style: PairStyle) {
    // SAFETY: features by the caller; pointers stay `LANES` below the ends.
    unsafe {
        match style {
            PairStyle::Halves => {
                let pairs = head.len() / 2;
                let whole = pairs - pairs % S::LANES;
                let (x, y) = (head.as_mut_ptr(), head.as_mut_ptr().add(pairs));
                for i in (0..whole).step_by(S::LANES) {
                    let (a, b) = (S::load(x.add(i)), S::load(y.add(i)));
                    let (cos, cos_y) = (S::load(cos.as_ptr().add(i)), S::load(cos.as_ptr().add(pairs + i)));
                    let (sin, sin_y) = (S::load(sin.as_ptr().add(i)), S::load(sin.as_ptr().add(pairs + i)));
                    S::store(x.add(i), S::add(S::mul(a, cos), S::mul(b, sin)));
                    S::store(y.add(i), S::add(S::mul(b, cos_y), S::mul(a, sin_y)));
                }
                for i in whole..pairs {
                    let (a, b) = (head[i], head[pairs + i]);
                    head[i] = a * cos[i] + b * sin[i];
                    head[pairs + i] = b * cos[pairs + i] + a * sin[pairs + i];
                }
            }
            PairStyle::Neighbours => {
                let whole = head.len() - head.len() % S::LANES;
                for i in (0..whole).step_by(S::LANES) {
                    let x = S::load(head.as_ptr().add(i));
                    let turned = S::mul(S::swap_pairs(x), S::load(sin.as_ptr().add(i)));
                    let kept = S::mul(x, S::load(cos.as_ptr().add(i)));
                    S::store(head.as_mut_ptr().add(i), S::add(kept, turned));
                }
                for i in (whole..head.len()).step_by(2) {
                    let (a, b) = (head[i], head[i + 1]);
                    head[i] = a * cos[i] + b * sin[i];
                    head[i + 1] = b * cos[i + 1] + a * sin[i + 1];
                }
            }
        }
    }
}
