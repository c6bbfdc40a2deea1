//! Unsafe because a kernel reads packed weights through raw pointers.
//!
//! The number formats in which weights are held on the CPU. Files in f16 and bf16 lose nothing in
//! theirs, nor do those in `Q8_0` as llama.cpp makes them. Sums are always f32, and so are the activations, except beside weights in
//! bf16 (`matmul/bf16.rs`).

#![expect(unsafe_code, reason = "raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use std::fmt::Debug;

use half::{bf16, f16};

use crate::simd::{Lanes, WIDTH};

/// Output columns of a panel of packed weights.
pub(crate) const PANEL: usize = WIDTH;

/// How the weights of a panel are held.
pub(crate) trait Format: 'static {
    /// The weights of [`PANEL`] columns for `DEPTH` successive inputs.
    type Block: Copy + Default + Debug + Send + Sync;

    /// Inputs of a block.
    const DEPTH: usize;

    /// Packs columns (at most `PANEL`, of at most `DEPTH` weights each); the rest is zero.
    fn pack(columns: &[&[f32]]) -> Self::Block;

    /// One weight.
    fn weight(block: &Self::Block, input: usize, column: usize) -> f32;
}

/// A format whose weights are widened to f32 as they are read.
pub(crate) trait Widen: Format {
    /// The weights of all columns for one input.
    ///
    /// # Safety
    /// The machine has the lanes' instructions, a block can be read there, and `input` is below
    /// `DEPTH`.
    unsafe fn load<L: Lanes>(block: *const Self::Block, input: usize) -> L;
}

/// 32-bit floats.
#[derive(Debug)]
pub(crate) enum F32 {}

impl Format for F32 {
    type Block = [f32; PANEL];
    const DEPTH: usize = 1;

    fn pack(columns: &[&[f32]]) -> Self::Block {
        std::array::from_fn(|column| weight_of(columns, column, 0))
    }

    fn weight(block: &Self::Block, _input: usize, column: usize) -> f32 {
        block[column]
    }
}

impl Widen for F32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(block: *const Self::Block, _input: usize) -> L {
        // SAFETY: as the caller's.
        unsafe { L::load(block.cast()) }
    }
}

/// 16-bit floats.
#[derive(Debug)]
pub(crate) enum F16 {}

impl Format for F16 {
    type Block = [f16; PANEL];
    const DEPTH: usize = 1;

    fn pack(columns: &[&[f32]]) -> Self::Block {
        std::array::from_fn(|column| f16::from_f32(weight_of(columns, column, 0)))
    }

    fn weight(block: &Self::Block, _input: usize, column: usize) -> f32 {
        block[column].to_f32()
    }
}

impl Widen for F16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(block: *const Self::Block, _input: usize) -> L {
        // SAFETY: as the caller's.
        unsafe { L::load_f16(block.cast()) }
    }
}

/// Brain floats.
#[derive(Debug)]
pub(crate) enum Bf16 {}

impl Format for Bf16 {
    type Block = [bf16; PANEL];
    const DEPTH: usize = 1;

    fn pack(columns: &[&[f32]]) -> Self::Block {
        std::array::from_fn(|column| bf16::from_f32(weight_of(columns, column, 0)))
    }

    fn weight(block: &Self::Block, _input: usize, column: usize) -> f32 {
        block[column].to_f32()
    }
}

impl Widen for Bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(block: *const Self::Block, _input: usize) -> L {
        // SAFETY: as the caller's.
        unsafe { L::load_bf16(block.cast()) }
    }
}

/// Brain floats, two inputs of a column side by side, as a processor takes them that multiplies
/// pairs itself.
#[derive(Debug)]
pub(crate) enum Bf16Pairs {}

impl Format for Bf16Pairs {
    type Block = [[bf16; 2]; PANEL];
    const DEPTH: usize = 2;

    fn pack(columns: &[&[f32]]) -> Self::Block {
        std::array::from_fn(|column| {
            std::array::from_fn(|input| bf16::from_f32(weight_of(columns, column, input)))
        })
    }

    fn weight(block: &Self::Block, input: usize, column: usize) -> f32 {
        block[column][input].to_f32()
    }
}

/// 8-bit whole numbers with one scale for 32 inputs of a column, as llama.cpp's `Q8_0` (whose
/// scale is an f16, and so is exact here).
///
/// The scale is found again from the numbers: it is the file's own where the greatest number of a
/// block is 127 of its steps, as in every block that llama.cpp quantises (`quantize_row_q8_0_ref`).
/// Any other block is quantised anew, and is off by half a step at most.
#[derive(Debug)]
pub(crate) enum Q8 {}

/// 32 inputs of a panel.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Q8Block {
    scales: [f32; PANEL],
    quants: [[i8; PANEL]; Q8::DEPTH],
}

impl Format for Q8 {
    type Block = Q8Block;
    const DEPTH: usize = 32;

    fn pack(columns: &[&[f32]]) -> Self::Block {
        let mut block = Q8Block::default();
        for (column, weights) in columns.iter().enumerate() {
            let greatest = weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
            let scale = greatest / 127.0;
            block.scales[column] = scale;
            let per_step = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            for (quants, weight) in block.quants.iter_mut().zip(*weights) {
                quants[column] = (weight * per_step).round() as i8;
            }
        }
        block
    }

    fn weight(block: &Self::Block, input: usize, column: usize) -> f32 {
        f32::from(block.quants[input][column]) * block.scales[column]
    }
}

impl Widen for Q8 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(block: *const Self::Block, input: usize) -> L {
        // SAFETY: as the caller's; both arrays hold `PANEL` numbers.
        unsafe {
            let scales = L::load((&raw const (*block).scales).cast());
            let quants = (&raw const (*block).quants).cast::<i8>().add(input * PANEL);
            L::load_i8(quants).mul(scales)
        }
    }
}

fn weight_of(columns: &[&[f32]], column: usize, input: usize) -> f32 {
    columns.get(column).and_then(|weights| weights.get(input)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_q8_0_file_are_held_exactly() {
        // From the least number in which a step can be told to the greatest.
        for scale in [f16::MIN_POSITIVE_SUBNORMAL, f16::from_f32(0.0123), f16::MAX] {
            let of_file = |quant: f32| quant * scale.to_f32();
            for first in -127..=120 {
                let mut weights = [of_file(127.0); 32];
                for (quant, weight) in (first..).zip(&mut weights[1..8]) {
                    *weight = of_file(quant as f32);
                }
                let block = Q8::pack(&[&[0.0; 32], &weights]);
                for (input, weight) in weights.iter().enumerate() {
                    assert_eq!(Q8::weight(&block, input, 1).to_bits(), weight.to_bits());
                    assert_eq!(Q8::weight(&block, input, 0).to_bits(), 0);
                    assert_eq!(Q8::weight(&block, input, 15).to_bits(), 0);
                }
            }
        }
    }

    #[test]
    fn a_block_whose_greatest_number_is_not_127_steps_is_off_by_half_a_step_at_most() {
        let weights: Vec<f32> = (0..32).map(|i| i as f32 * 3.0 * 0.25).collect();
        let block = Q8::pack(&[&weights]);
        let half_a_step = 93.0 * 0.25 / 127.0 / 2.0;
        let errors: Vec<f32> = weights
            .iter()
            .enumerate()
            .map(|(input, weight)| (Q8::weight(&block, input, 0) - weight).abs())
            .collect();
        assert!(errors.iter().all(|error| *error <= half_a_step * 1.0001), "{errors:?}");
        assert!(errors.iter().any(|error| *error > half_a_step / 2.0), "{errors:?}");
    }

    #[test]
    fn half_floats_are_held_exactly() {
        let weight = bf16::from_f32(-0.137).to_f32();
        assert_eq!(Bf16::weight(&Bf16::pack(&[&[weight]]), 0, 0).to_bits(), weight.to_bits());
        let pairs = Bf16Pairs::pack(&[&[1.0], &[0.0, weight]]);
        assert_eq!(Bf16Pairs::weight(&pairs, 1, 1).to_bits(), weight.to_bits());
        assert_eq!(Bf16Pairs::weight(&pairs, 1, 0).to_bits(), 0);
        let weight = f16::from_f32(-0.137).to_f32();
        assert_eq!(F16::weight(&F16::pack(&[&[weight]]), 0, 0).to_bits(), weight.to_bits());
    }
}
