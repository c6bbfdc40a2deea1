//! Unsafe because vector instructions work on raw pointers.
//!
//! Small kernels that would cost several passes as tensor operations.

#![expect(unsafe_code, reason = "vector instructions")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use rayon::prelude::*;

use crate::simd::{Lanes, WIDTH, on_widest_lanes};

/// `silu(gate) * up` of `[tokens, 2 * width]` rows, a gate and an up half each: `[tokens, width]`.
pub(crate) fn swiglu(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![0.0; gate_up.len() / 2];
    out.par_chunks_mut(width).zip(gate_up.par_chunks(2 * width)).for_each(|(out, row)| {
        let (gate, up) = row.split_at(width);
        swiglu_row(gate, up, out);
    });
    out
}

on_widest_lanes! {
    /// One row.
    fn swiglu_row(gate: &[f32], up: &[f32], out: &mut [f32]) = swiglu_row_on
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn swiglu_row_on<L: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let whole = out.len() / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: all three have 16 floats from `at` on.
        unsafe {
            let (gate, up) = (L::load(gate[at..].as_ptr()), L::load(up[at..].as_ptr()));
            let one = L::splat(1.0);
            let denominator = gate.mul(L::splat(-1.0)).exp().mul_add(one, one);
            gate.div(denominator).mul(up).store(out[at..].as_mut_ptr());
        }
    }
    for at in whole..out.len() {
        out[at] = gate[at] / (1.0 + (-gate[at]).exp()) * up[at];
    }
}
