//! Unsafe because rows are rounded by vector instructions, into memory that is not written yet.
//!
//! Products of brain floats: the activations are rounded to them too, once for the whole product,
//! and the sums are f32. Where the processor multiplies pairs of them itself (AVX512-BF16), it
//! does so twice as fast as it does floats; elsewhere the same rounded numbers are multiplied as
//! floats, which differs in the order of a sum's roundings alone.

#![expect(unsafe_code, reason = "vector instructions; memory is written before it is read")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use half::bf16;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::terms::Pairs;
#[cfg(target_arch = "x86_64")]
use super::{Job, multiply_panels_by};
use super::{Matrix, Multiply, Packed, multiply_panels};
use crate::formats::Bf16;
#[cfg(target_arch = "x86_64")]
use crate::formats::Bf16Pairs;
use crate::kernels::{CHUNK, Chunks, refill};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx512, has_bf16_products};
use crate::simd::{Lanes, WIDTH, on_widest_lanes};

/// The memory of rounded activations, which is kept from product to product.
static ROUNDED: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// [`Packed::stack`] in the layout that this machine multiplies fastest.
pub(crate) fn stack(k: usize, matrices: &[&[f32]]) -> Arc<dyn Matrix> {
    #[cfg(target_arch = "x86_64")]
    if has_bf16_products() {
        return Arc::new(Packed::<Bf16Pairs>::stack(k, matrices));
    }
    Arc::new(Packed::<Bf16>::stack(k, matrices))
}

impl Multiply for Bf16 {
    fn product(weights: &Packed<Self>, x: &[f32]) -> Vec<f32> {
        with_rounded(x, weights.k, weights.k, round_to_floats, |rounded| {
            weights.multiply(rounded, weights.k, multiply_panels::<Self>)
        })
    }
}

#[cfg(target_arch = "x86_64")]
impl Multiply for Bf16Pairs {
    fn product(weights: &Packed<Self>, x: &[f32]) -> Vec<f32> {
        assert!(has_bf16_products(), "nothing else makes this layout");
        let per_row = weights.depth();
        // SAFETY (of both): the machine was asked.
        let round = |row: &[f32], out: &mut [_]| unsafe { round_to_pairs(row, out) };
        with_rounded(x, weights.k, per_row, round, |rounded| {
            weights.multiply(rounded, per_row, |job| unsafe { multiply_pairs(job) })
        })
    }
}

/// Lends rows of `k` activations to a product, rounded to rows of `per_row` values.
fn with_rounded(
    x: &[f32],
    k: usize,
    per_row: usize,
    round: impl Fn(&[f32], &mut [MaybeUninit<f32>]) + Sync,
    product: impl FnOnce(&[f32]) -> Vec<f32>,
) -> Vec<f32> {
    let mut rounded = std::mem::take(&mut *lock());
    round_rows(x, k, per_row, &mut rounded, round);
    let y = product(&rounded);
    *lock() = rounded;
    y
}

fn lock() -> MutexGuard<'static, Vec<f32>> {
    ROUNDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rounds rows of `k` activations to rows of `per_row` values.
fn round_rows(
    x: &[f32],
    k: usize,
    per_row: usize,
    rounded: &mut Vec<f32>,
    round: impl Fn(&[f32], &mut [MaybeUninit<f32>]) + Sync,
) {
    let rows = (CHUNK / k).max(1);
    let write = |out: Chunks<'_>| {
        out.zip(x.par_chunks(rows * k)).for_each(|(out, x)| {
            for (out, row) in out.chunks_exact_mut(per_row).zip(x.chunks_exact(k)) {
                round(row, out);
            }
        });
    };
    // SAFETY: there are as many rows of values as of activations, and `round` writes each whole.
    unsafe { refill(rounded, x.len() / k * per_row, rows * per_row, write) };
}

on_widest_lanes! {
    /// A row as floats.
    fn round_to_floats(row: &[f32], out: &mut [MaybeUninit<f32>]) = round_to_floats_on
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn round_to_floats_on<L: Lanes>(row: &[f32], out: &mut [MaybeUninit<f32>]) {
    let whole = row.len() / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: both have 16 floats from `at` on.
        unsafe { L::load(row[at..].as_ptr()).to_bf16().store(out[at..].as_mut_ptr().cast()) };
    }
    for at in whole..out.len() {
        out[at].write(bf16::from_f32(row[at]).to_f32());
    }
}

/// A row as pairs, the last one with a zero where their number is odd.
///
/// # Safety
/// The machine has AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round_to_pairs(row: &[f32], out: &mut [MaybeUninit<f32>]) {
    let whole = row.len() / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: there are 16 floats from `at` on, and room for half as many pairs.
        unsafe {
            Avx512::load(row[at..].as_ptr()).store_bf16(out[at / 2..].as_mut_ptr().cast());
        }
    }
    for (out, pair) in out[whole / 2..].iter_mut().zip(row[whole..].chunks(2)) {
        let half = |at: usize| bf16::from_f32(pair.get(at).copied().unwrap_or_default()).to_bits();
        out.write(f32::from_bits(u32::from(half(1)) << 16 | u32::from(half(0))));
    }
}

/// # Safety
/// The machine has AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply_pairs(job: &Job<'_, Bf16Pairs>) {
    // SAFETY: as the caller's.
    unsafe { multiply_panels_by::<Pairs>(job) }
}

#[cfg(test)]
mod tests;
