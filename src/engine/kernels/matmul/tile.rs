//! The micro-kernel: a few rows of activations times a panel of packed weights.

use super::{
    activations::Block,
    formats::{Format, Zero},
    lanes::{LANES, Lanes},
};

/// Products of `ROWS` rows with the sixteen outputs of a panel, to `out`, shape (ROWS, 16).
///
/// Integer sums are exact. Floats are added in one order, whatever the rows and the tier: sub-blocks of a group from 0 on,
/// then the groups.
///
/// # Safety
/// The CPU has the features of `T`. `panel` holds `groups` groups, `x` has rows of `groups` blocks, `stride` bytes apart,
/// and `out` has room for `16 · ROWS` values.
#[inline(always)]
pub(super) unsafe fn quantised<T: Lanes, F: Format, const ROWS: usize>(
    panel: *const u8,
    groups: usize,
    x: *const u8,
    stride: usize,
    out: *mut f32,
) {
    // SAFETY: the caller's; loops stay within a group and its blocks.
    unsafe {
        let mut rows = [x.cast::<F::X>(); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = x.add(r * stride).cast();
        }
        let mut totals = [T::splat(0.0); ROWS];
        for g in 0..groups {
            let sums = group::<T, F, ROWS>(panel.add(g * F::LAYOUT.bytes), &rows);
            for r in 0..ROWS {
                totals[r] = T::fma(sums[r], T::splat((*rows[r]).scale()), totals[r]);
                rows[r] = rows[r].add(1);
            }
        }
        for (r, total) in totals.into_iter().enumerate() {
            T::store(out.add(r * LANES), total);
        }
    }
}

/// So far ahead of the weights in use, in bytes, memory is asked for more.
const AHEAD: usize = 4096;

/// Asks for the bytes that are in use `AHEAD` bytes later, if `slow`; panels of a matrix follow each other. With several
/// rows, or two scales for each vector, weights are read so slowly that the processor does not see a stream in it; else it
/// does better alone.
#[inline(always)]
unsafe fn fetch_ahead<T: Lanes>(slow: bool, here: *const u8, bytes: usize) {
    if slow {
        for at in (0..bytes).step_by(64) {
            // SAFETY: features by the caller; any address will do.
            unsafe { T::prefetch(here.wrapping_add(AHEAD + at)) };
        }
    }
}

/// One group of inputs, before the scales of the activations.
#[inline(always)]
unsafe fn group<T: Lanes, F: Format, const ROWS: usize>(group: *const u8, rows: &[*const F::X; ROWS]) -> [T::F; ROWS] {
    const { assert!(matches!(F::LAYOUT.round(), 1 | 2 | 4)) };
    // SAFETY: the caller's.
    unsafe {
        let factors = F::factors::<T>(group);
        let mut sums = [T::splat(0.0); ROWS];
        for round in 0..F::LAYOUT.subs() / F::LAYOUT.round() {
            let first = round * F::LAYOUT.round();
            // Not a loop: each place in a round is compiled for the bits it takes, which else were chosen by jumps.
            sub_block::<T, F, ROWS>(group, first, factors, rows, &mut sums);
            if F::LAYOUT.round() > 1 {
                sub_block::<T, F, ROWS>(group, first + 1, factors, rows, &mut sums);
            }
            if F::LAYOUT.round() > 2 {
                sub_block::<T, F, ROWS>(group, first + 2, factors, rows, &mut sums);
                sub_block::<T, F, ROWS>(group, first + 3, factors, rows, &mut sums);
            }
        }
        sums
    }
}

/// Adds one sub-block to the sums of its group.
#[inline(always)]
unsafe fn sub_block<T: Lanes, F: Format, const ROWS: usize>(
    group: *const u8,
    sub: usize,
    (scale_factor, min_factor): (T::F, T::F),
    rows: &[*const F::X; ROWS],
    sums: &mut [T::F; ROWS],
) {
    // SAFETY: the caller's.
    unsafe {
        let step = F::LAYOUT.bytes / F::LAYOUT.subs();
        fetch_ahead::<T>(ROWS > 1 || F::LAYOUT.sub == 16, group.wrapping_add(sub * step), step);
        let products = products::<T, F, ROWS>(group, sub, rows);
        let scale = F::scale::<T>(group, sub, scale_factor);
        for r in 0..ROWS {
            sums[r] = T::fma(T::to_float(products[r]), scale, sums[r]);
        }
        if F::LAYOUT.mins {
            let min = F::min::<T>(group, sub, min_factor);
            for r in 0..ROWS {
                sums[r] = T::fnma(T::splat(sum::<F>(rows[r], sub)), min, sums[r]);
            }
        }
    }
}

/// The integer products of one sub-block: `Σ (quant - zero) · x`.
#[inline(always)]
unsafe fn products<T: Lanes, F: Format, const ROWS: usize>(
    group: *const u8,
    sub: usize,
    rows: &[*const F::X; ROWS],
) -> [T::I; ROWS] {
    // SAFETY: the caller's.
    unsafe {
        let mut products = [T::splat_i(0); ROWS];
        for r in 0..ROWS {
            match F::LAYOUT.zero {
                Zero::At(0) => {}
                Zero::At(zero) => products[r] = T::splat_i(start::<F>(rows[r], sub, zero)),
                Zero::At128 => products[r] = T::start_offset(start::<F>(rows[r], sub, 128)),
            }
        }
        for quad in 0..F::LAYOUT.sub / 4 {
            let quad = sub * (F::LAYOUT.sub / 4) + quad;
            let weights = F::quad::<T>(group, quad);
            for r in 0..ROWS {
                let x = rows[r].cast::<i8>().add(4 * quad);
                products[r] = match F::LAYOUT.zero {
                    Zero::At(_) => T::dot(products[r], weights, x),
                    Zero::At128 => T::dot_offset(products[r], weights, x),
                };
            }
        }
        products
    }
}

/// See [`Block::sum`].
#[inline(always)]
unsafe fn sum<F: Format>(block: *const F::X, sub: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        match F::LAYOUT.sub {
            16 => (*block).sum::<16>(sub),
            _ => (*block).sum::<32>(sub),
        }
    }
}

/// See [`Block::start`].
#[inline(always)]
unsafe fn start<F: Format>(block: *const F::X, sub: usize, zero: i32) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        match F::LAYOUT.sub {
            16 => (*block).start::<16>(sub, zero),
            _ => (*block).start::<32>(sub, zero),
        }
    }
}

/// A type of float weights: a panel has sixteen of them for each input.
pub(super) trait FloatFormat {
    /// Of sixteen weights.
    const BYTES: usize;
    /// # Safety
    /// The CPU has the features of `T`, `weights` points at sixteen.
    unsafe fn load<T: Lanes>(weights: *const u8) -> T::F;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

impl FloatFormat for F32 {
    const BYTES: usize = 4 * LANES;

    #[inline(always)]
    unsafe fn load<T: Lanes>(weights: *const u8) -> T::F {
        // SAFETY: the caller's.
        unsafe { T::load(weights.cast()) }
    }
}

impl FloatFormat for F16 {
    const BYTES: usize = 2 * LANES;

    #[inline(always)]
    unsafe fn load<T: Lanes>(weights: *const u8) -> T::F {
        // SAFETY: the caller's.
        unsafe { T::load_f16(weights.cast()) }
    }
}

impl FloatFormat for Bf16 {
    const BYTES: usize = 2 * LANES;

    #[inline(always)]
    unsafe fn load<T: Lanes>(weights: *const u8) -> T::F {
        // SAFETY: the caller's.
        unsafe { T::load_bf16(weights.cast()) }
    }
}

/// As [`quantised`], for float weights and rows of `inputs` floats. Even and odd inputs are summed apart, which halves the
/// chain of additions that wait for each other.
///
/// # Safety
/// As [`quantised`], with `inputs` in the place of groups.
#[inline(always)]
pub(super) unsafe fn float<T: Lanes, F: FloatFormat, const ROWS: usize>(
    panel: *const u8,
    inputs: usize,
    x: *const u8,
    stride: usize,
    out: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut rows = [x.cast::<f32>(); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = x.add(r * stride).cast();
        }
        let mut even = [T::splat(0.0); ROWS];
        let mut odd = [T::splat(0.0); ROWS];
        for i in 0..inputs / 2 {
            let (w0, w1) = (F::load::<T>(panel.add(2 * i * F::BYTES)), F::load::<T>(panel.add((2 * i + 1) * F::BYTES)));
            fetch_ahead::<T>(ROWS > 1, panel.wrapping_add(2 * i * F::BYTES), 2 * F::BYTES);
            for r in 0..ROWS {
                even[r] = T::fma(T::splat(*rows[r].add(2 * i)), w0, even[r]);
                odd[r] = T::fma(T::splat(*rows[r].add(2 * i + 1)), w1, odd[r]);
            }
        }
        if inputs % 2 == 1 {
            let w = F::load::<T>(panel.add((inputs - 1) * F::BYTES));
            for r in 0..ROWS {
                even[r] = T::fma(T::splat(*rows[r].add(inputs - 1)), w, even[r]);
            }
        }
        for r in 0..ROWS {
            T::store(out.add(r * LANES), T::add(even[r], odd[r]));
        }
    }
}
