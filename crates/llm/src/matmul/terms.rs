//! Unsafe because terms are loaded through raw pointers, by vector instructions.
//!
//! What the tile of a product adds up, step by step along its rows.

#![expect(unsafe_code, reason = "raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use crate::formats::Bf16Pairs;
use crate::formats::{Format, Widen};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx512;
use crate::simd::Lanes;

/// How one step adds the next values of a row, times their weights, to the sums of 16 columns.
pub(super) trait Terms {
    /// Of the weights.
    type Format: Format;

    /// Of the sums.
    type Lanes: Lanes;

    /// Steps of a block; each takes one value of a row.
    const STEPS: usize;

    /// The weights of a step.
    ///
    /// # Safety
    /// The machine has the instructions, a block can be read there, and `step` is below `STEPS`.
    unsafe fn weights(block: *const <Self::Format as Format>::Block, step: usize) -> Self::Lanes;

    /// `sum` and the terms of `x`, which is one value of a row in every lane.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn add(x: Self::Lanes, weights: Self::Lanes, sum: Self::Lanes) -> Self::Lanes;
}

/// One activation a step, times weights that are widened to f32.
pub(super) struct Widened<F, L>(PhantomData<(F, L)>);

impl<F: Widen, L: Lanes> Terms for Widened<F, L> {
    type Format = F;
    type Lanes = L;
    const STEPS: usize = F::DEPTH;

    #[inline(always)]
    unsafe fn weights(block: *const F::Block, step: usize) -> L {
        // SAFETY: as the caller's.
        unsafe { F::load(block, step) }
    }

    #[inline(always)]
    unsafe fn add(x: L, weights: L, sum: L) -> L {
        // SAFETY: as the caller's.
        unsafe { x.mul_add(weights, sum) }
    }
}

/// Two activations a step, times two weights, all brain floats: a value of a row is the bits of a
/// pair.
#[cfg(target_arch = "x86_64")]
pub(super) enum Pairs {}

#[cfg(target_arch = "x86_64")]
impl Terms for Pairs {
    type Format = Bf16Pairs;
    type Lanes = Avx512;
    const STEPS: usize = 1;

    #[inline(always)]
    unsafe fn weights(block: *const <Bf16Pairs as Format>::Block, _step: usize) -> Avx512 {
        // SAFETY: as the caller's; a block is 16 pairs.
        unsafe { Avx512::load(block.cast()) }
    }

    #[inline(always)]
    unsafe fn add(x: Avx512, weights: Avx512, sum: Avx512) -> Avx512 {
        // SAFETY: as the caller's.
        unsafe { x.multiply_pairs(weights, sum) }
    }
}
