//! Unsafe because vector instructions work on raw pointers.
//!
//! Small kernels that would cost several passes as tensor operations.

#![expect(unsafe_code, reason = "vector instructions")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::simd::{Lanes, WIDTH, on_widest_lanes};

/// `silu(gate) * up` of `[tokens, 2 * width]` rows, a gate and an up half each: `[tokens, width]`.
pub(crate) fn swiglu(gate_up: &[f32], width: usize) -> Vec<f32> {
    assert!(gate_up.len().is_multiple_of(2 * width), "rows are whole");
    let rows = gate_up.par_chunks(2 * width);
    let write = |out: Chunks<'_>| {
        out.zip(rows).for_each(|(out, row)| {
            let (gate, up) = row.split_at(width);
            swiglu_row(gate, up, out);
        });
    };
    // SAFETY: there are as many rows of gates as of output, and each row is written whole.
    unsafe { fill(gate_up.len() / 2, width, write) }
}

/// Memory to be written, in chunks.
pub(crate) type Chunks<'a> = rayon::slice::ChunksMut<'a, MaybeUninit<f32>>;

/// A vector as [`refill`] makes it.
///
/// # Safety
/// As of [`refill`].
unsafe fn fill(len: usize, width: usize, write: impl FnOnce(Chunks<'_>)) -> Vec<f32> {
    let mut out = Vec::new();
    // SAFETY: the caller's promise.
    unsafe { refill(&mut out, len, width, write) };
    out
}

/// Makes every element of `out` anew by `write`, which gets them in chunks of `width`, the last one
/// perhaps shorter. They are not zeroed before: one thread would do that alone, for as long as all
/// threads take to compute them.
///
/// # Safety
/// `write` writes every element of every chunk.
pub(crate) unsafe fn refill(
    out: &mut Vec<f32>,
    len: usize,
    width: usize,
    write: impl FnOnce(Chunks<'_>),
) {
    out.clear();
    out.reserve_exact(len);
    write(out.spare_capacity_mut()[..len].par_chunks_mut(width));
    // SAFETY: every element has been written, as the caller promises.
    unsafe { out.set_len(len) };
}

on_widest_lanes! {
    /// One row.
    fn swiglu_row(gate: &[f32], up: &[f32], out: &mut [MaybeUninit<f32>]) = swiglu_row_on
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn swiglu_row_on<L: Lanes>(gate: &[f32], up: &[f32], out: &mut [MaybeUninit<f32>]) {
    let whole = out.len() / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: all three have 16 floats from `at` on.
        unsafe {
            let (gate, up) = (L::load(gate[at..].as_ptr()), L::load(up[at..].as_ptr()));
            let one = L::splat(1.0);
            let denominator = gate.mul(L::splat(-1.0)).exp().mul_add(one, one);
            gate.div(denominator).mul(up).store(out[at..].as_mut_ptr().cast());
        }
    }
    for at in whole..out.len() {
        out[at].write(gate[at] / (1.0 + (-gate[at]).exp()) * up[at]);
    }
}

/// Adds `y` to `x`, in place.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    x.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(x, y)| {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    });
}

/// Elements that are worth a task.
pub(crate) const CHUNK: usize = 1 << 14;

/// `x / sqrt(mean(x^2) + eps) * weight` of each row.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    assert!(x.len().is_multiple_of(width), "rows are whole");
    let rows = (CHUNK / width).max(1) * width;
    let write = |out: Chunks<'_>| {
        out.zip(x.par_chunks(rows)).for_each(|(out, x)| {
            for (out, row) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                rms_norm_row(row, weight, eps, out);
            }
        });
    };
    // SAFETY: input and output are cut alike, into whole rows, and each row is written whole.
    unsafe { fill(x.len(), rows, write) }
}

on_widest_lanes! {
    /// One row.
    fn rms_norm_row(row: &[f32], weight: &[f32], eps: f32, out: &mut [MaybeUninit<f32>])
        = rms_norm_row_on
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn rms_norm_row_on<L: Lanes>(
    row: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [MaybeUninit<f32>],
) {
    let whole = row.len() / WIDTH * WIDTH;
    // SAFETY: every chunk is 16 floats, and all three have as many.
    unsafe {
        let mut squares = L::splat(0.0);
        for chunk in row[..whole].chunks_exact(WIDTH) {
            let x = L::load(chunk.as_ptr());
            squares = x.mul_add(x, squares);
        }
        let rest: f32 = row[whole..].iter().map(|x| x * x).sum();
        let mean = (squares.sum() + rest) / row.len() as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        for at in (0..whole).step_by(WIDTH) {
            let x = L::load(row[at..].as_ptr()).mul(L::splat(scale));
            x.mul(L::load(weight[at..].as_ptr())).store(out[at..].as_mut_ptr().cast());
        }
        for at in whole..row.len() {
            out[at].write(row[at] * scale * weight[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, salt: usize) -> Vec<f32> {
        (0..len).map(|i| ((i + salt) * 7919 % 1013) as f32 / 250.0 - 2.0).collect()
    }

    fn assert_near(got: &[f32], want: impl Iterator<Item = f64>) {
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{got} for {want}");
        }
    }

    #[test]
    fn a_norm_is_the_plain_formula() {
        for width in [8, 16, 41, 576] {
            let (x, weight) = (values(3 * width, 1), values(width, 2));
            let got = rms_norm(&x, &weight, 1e-5);
            for (got, row) in got.chunks_exact(width).zip(x.chunks_exact(width)) {
                let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
                let root = (squares / width as f64 + 1e-5).sqrt();
                let want = row.iter().zip(&weight);
                assert_near(got, want.map(|(x, w)| f64::from(*x) / root * f64::from(*w)));
            }
        }
    }

    #[test]
    fn an_activation_is_the_plain_formula() {
        for width in [8, 16, 41] {
            let gate_up = values(2 * 2 * width, 3);
            let got = swiglu(&gate_up, width);
            for (got, row) in got.chunks_exact(width).zip(gate_up.chunks_exact(2 * width)) {
                let (gate, up) = row.split_at(width);
                let silu = |gate: f64| gate / (1.0 + (-gate).exp());
                let want = gate.iter().zip(up);
                assert_near(got, want.map(|(g, u)| silu(f64::from(*g)) * f64::from(*u)));
            }
        }
    }

    #[test]
    #[should_panic(expected = "rows are whole")]
    fn a_norm_of_half_a_row_is_refused_before_memory_is_left_unwritten() {
        rms_norm(&[1.0; 20], &[1.0; 8], 1e-5);
    }

    #[test]
    #[should_panic(expected = "rows are whole")]
    fn an_activation_of_half_a_row_is_refused_before_memory_is_left_unwritten() {
        swiglu(&[1.0; 20], 8);
    }

    #[test]
    fn a_sum_is_made_in_place() {
        let (mut x, y) = (values(3 * CHUNK + 5, 4), values(3 * CHUNK + 5, 5));
        let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        add(&mut x, &y);
        assert_eq!(x, want);
    }
}
