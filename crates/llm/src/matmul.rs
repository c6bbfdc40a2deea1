//! Unsafe because threads write disjoint column panels of one output matrix, and the innermost
//! loop works on raw pointers.
//!
//! `y = x W^T` for weights that are laid out once, at load, for the kernel that uses them: panels
//! of [`PANEL`] output columns, each a contiguous run of blocks of its [`Format`]. Each panel is
//! streamed once for a tile of rows, whose sums stay in registers: at one row the kernel runs at
//! the speed of memory, at many at that of the multiply-add units. Every output element is one sum
//! over k in ascending order, so its bits do not depend on the number of rows, the thread count,
//! or the split into tiles.

#![expect(unsafe_code, reason = "disjoint writes from several threads; raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

pub(crate) mod bf16;
mod terms;

use std::fmt;

use rayon::prelude::*;

use crate::formats::{F16, F32, Format, PANEL, Q8, Widen};
use crate::simd::{Lanes, on_widest_lanes};
use terms::{Terms, Widened};

/// Rows, and panels, of a tile where the batch has few rows.
const FEW: usize = 4;

/// A weight matrix `[n, k]`, packed for [`product`](Self::product), whatever its format.
pub(crate) trait Matrix: fmt::Debug + Send + Sync {
    /// Input columns.
    fn k(&self) -> usize;

    /// Output columns.
    fn n(&self) -> usize;

    /// Copies row `row` of the matrix, `k` values: the embedding of a token.
    fn copy_row(&self, row: usize, to: &mut [f32]);

    /// `x W^T`: `x` is `[m, k]`, the result `[m, n]`, both row-major.
    fn product(&self, x: &[f32]) -> Vec<f32>;
}

/// A weight matrix `[n, k]` in panels.
pub(crate) struct Packed<F: Format> {
    /// `[n / PANEL, k / DEPTH]`, both rounded up; what is beyond n and k is zero.
    blocks: Vec<F::Block>,
    k: usize,
    n: usize,
}

impl<F: Format> fmt::Debug for Packed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("k", &self.k).field("n", &self.n).finish_non_exhaustive()
    }
}

impl<F: Format> Packed<F> {
    /// Packs row-major `[rows, k]` matrices of the same k, one above the other: a fused projection.
    pub(crate) fn stack(k: usize, matrices: &[&[f32]]) -> Self {
        let rows: Vec<&[f32]> = matrices.iter().flat_map(|matrix| matrix.chunks_exact(k)).collect();
        let depth = k.div_ceil(F::DEPTH);
        let mut blocks = vec![F::Block::default(); rows.len().div_ceil(PANEL) * depth];
        blocks.par_chunks_mut(depth).zip(rows.par_chunks(PANEL)).for_each(|(panel, rows)| {
            for (block, first) in panel.iter_mut().zip((0..k).step_by(F::DEPTH)) {
                let mut columns: [&[f32]; PANEL] = [&[]; PANEL];
                for (column, row) in columns.iter_mut().zip(rows) {
                    *column = &row[first..k.min(first + F::DEPTH)];
                }
                *block = F::pack(&columns[..rows.len()]);
            }
        });
        Self { blocks, k, n: rows.len() }
    }

    /// Blocks of a panel.
    fn depth(&self) -> usize {
        self.k.div_ceil(F::DEPTH)
    }

    /// The product of rows of `per_row` values each, by a kernel that takes such rows.
    fn multiply(&self, x: &[f32], per_row: usize, kernel: fn(&Job<'_, F>)) -> Vec<f32> {
        let rows = x.len() / per_row;
        let mut y = Vec::with_capacity(rows * self.n);
        let out = Output { start: y.as_mut_ptr(), columns: self.n };
        let num_panels = self.n.div_ceil(PANEL);
        // Enough tasks that threads finish together, each long enough to be worth its start.
        let per_task = (num_panels / (rayon::current_num_threads() * 4)).clamp(FEW, 12) / FEW * FEW;
        (0..num_panels.div_ceil(per_task)).into_par_iter().for_each(|task| {
            let panels = task * per_task..num_panels.min((task + 1) * per_task);
            let depth = self.depth();
            let blocks = &self.blocks[panels.start * depth..panels.end * depth];
            let column = panels.start * PANEL;
            kernel(&Job { x, per_row, blocks, depth, column, out: &out });
        });
        // SAFETY: the tasks have written every column of every row.
        unsafe { y.set_len(rows * self.n) };
        y
    }
}

/// How a product with weights of a format is computed.
pub(crate) trait Multiply: Format + Sized {
    /// `x W^T`.
    fn product(weights: &Packed<Self>, x: &[f32]) -> Vec<f32>;
}

/// Formats beside which activations are f32.
macro_rules! multiply_floats {
    ($($format:ty),*) => {$(
        impl Multiply for $format {
            fn product(weights: &Packed<Self>, x: &[f32]) -> Vec<f32> {
                weights.multiply(x, weights.k, multiply_panels::<Self>)
            }
        }
    )*};
}
multiply_floats!(F32, F16, Q8);

impl<F: Multiply> Matrix for Packed<F> {
    fn k(&self) -> usize {
        self.k
    }

    fn n(&self) -> usize {
        self.n
    }

    fn copy_row(&self, row: usize, to: &mut [f32]) {
        let panel = &self.blocks[row / PANEL * self.depth()..][..self.depth()];
        for (values, block) in to.chunks_mut(F::DEPTH).zip(panel) {
            for (input, value) in values.iter_mut().enumerate() {
                *value = F::weight(block, input, row % PANEL);
            }
        }
    }

    fn product(&self, x: &[f32]) -> Vec<f32> {
        F::product(self, x)
    }
}

/// Where tasks write, each its own columns.
struct Output {
    start: *mut f32,
    columns: usize,
}

// SAFETY: each task writes other columns.
unsafe impl Sync for Output {}

impl Output {
    /// Writes up to `PANEL` columns of a row, as many as the matrix has.
    ///
    /// # Safety
    /// The row is one of the matrix, and no other task writes these columns.
    #[inline(always)]
    unsafe fn write<L: Lanes>(&self, row: usize, column: usize, values: L) {
        // SAFETY: the caller's, and no column beyond the last is touched.
        unsafe {
            let at = self.start.add(row * self.columns + column);
            let width = self.columns - column;
            if width >= PANEL {
                values.store(at);
            } else {
                std::ptr::copy_nonoverlapping(values.to_array().as_ptr(), at, width);
            }
        }
    }
}

/// All rows times a few panels.
struct Job<'a, F: Format> {
    x: &'a [f32],
    /// Values of a row, as the kernel takes them.
    per_row: usize,
    blocks: &'a [F::Block],
    /// Blocks of a panel.
    depth: usize,
    /// The output column of the first panel.
    column: usize,
    out: &'a Output,
}

on_widest_lanes! {
    /// Runs a job.
    fn multiply_panels<F: Widen>(job: &Job<'_, F>) = multiply_panels_on
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn multiply_panels_on<L: Lanes, F: Widen>(job: &Job<'_, F>) {
    // SAFETY: as the caller's.
    unsafe { multiply_panels_by::<Widened<F, L>>(job) }
}

/// # Safety
/// The machine has the terms' instructions.
#[inline(always)]
unsafe fn multiply_panels_by<T: Terms>(job: &Job<'_, T::Format>) {
    let accumulators = T::Lanes::ACCUMULATORS;
    let num_panels = job.blocks.len() / job.depth;
    let mut panel = 0;
    // SAFETY: as the caller's.
    unsafe {
        while panel + FEW <= num_panels && accumulators >= 24 && job.rows() <= FEW {
            job.few_rows::<T>(panel);
            panel += FEW;
        }
        while panel + 2 <= num_panels && accumulators >= 24 {
            job.all_rows::<T, 12, 2>(panel);
            panel += 2;
        }
        while panel < num_panels {
            match accumulators {
                24 => job.all_rows::<T, 12, 1>(panel),
                6 => job.all_rows::<T, 6, 1>(panel),
                _ => job.all_rows::<T, 2, 1>(panel),
            }
            panel += 1;
        }
    }
}

impl<F: Format> Job<'_, F> {
    fn rows(&self) -> usize {
        self.x.len() / self.per_row
    }

    /// Up to four rows times four panels: so many sums that none waits for its own last addition.
    ///
    /// # Safety
    /// The machine has the terms' instructions.
    #[inline(always)]
    unsafe fn few_rows<T: Terms<Format = F>>(&self, panel: usize) {
        // SAFETY: as the caller's; tiles stay within the rows.
        unsafe {
            match self.rows() {
                0 => {}
                1 => self.tile::<T, 1, FEW>(0, panel),
                2 => self.tile::<T, 2, FEW>(0, panel),
                3 => self.tile::<T, 3, FEW>(0, panel),
                _ => self.tile::<T, 4, FEW>(0, panel),
            }
        }
    }

    /// # Safety
    /// The machine has the terms' instructions.
    #[inline(always)]
    unsafe fn all_rows<T: Terms<Format = F>, const ROWS: usize, const WIDE: usize>(
        &self,
        panel: usize,
    ) {
        let rows = self.rows();
        let mut row = 0;
        // SAFETY: as the caller's; tiles stay within the rows.
        unsafe {
            while row + ROWS <= rows {
                self.tile::<T, ROWS, WIDE>(row, panel);
                row += ROWS;
            }
            match rows - row {
                0 => {}
                1 => self.tile::<T, 1, WIDE>(row, panel),
                2 => self.tile::<T, 2, WIDE>(row, panel),
                3 => self.tile::<T, 3, WIDE>(row, panel),
                4 => self.tile::<T, 4, WIDE>(row, panel),
                5 => self.tile::<T, 5, WIDE>(row, panel),
                6 => self.tile::<T, 6, WIDE>(row, panel),
                7 => self.tile::<T, 7, WIDE>(row, panel),
                8 => self.tile::<T, 8, WIDE>(row, panel),
                9 => self.tile::<T, 9, WIDE>(row, panel),
                10 => self.tile::<T, 10, WIDE>(row, panel),
                _ => self.tile::<T, 11, WIDE>(row, panel),
            }
        }
    }

    /// `ROWS` rows times `WIDE` panels, with all sums in registers.
    ///
    /// # Safety
    /// The machine has the terms' instructions; rows and panels are there.
    #[inline(always)]
    unsafe fn tile<T: Terms<Format = F>, const ROWS: usize, const WIDE: usize>(
        &self,
        row: usize,
        panel: usize,
    ) {
        let xs: [*const f32; ROWS] =
            std::array::from_fn(|r| self.x[(row + r) * self.per_row..][..self.per_row].as_ptr());
        let panels: [*const F::Block; WIDE] =
            std::array::from_fn(|w| self.blocks[(panel + w) * self.depth..][..self.depth].as_ptr());
        // SAFETY: `per_row` values can be read at each row and `depth` blocks at each panel; each
        // task writes its own columns.
        unsafe {
            let mut sums = [[T::Lanes::splat(0.0); WIDE]; ROWS];
            for block in 0..self.depth {
                let first = block * T::STEPS;
                // A block of one step has it: nothing is compared in the innermost loop.
                let steps = if T::STEPS == 1 { 1 } else { T::STEPS.min(self.per_row - first) };
                for step in 0..steps {
                    // In a loop, because a closure may become a function without the features.
                    let mut weights = [T::Lanes::splat(0.0); WIDE];
                    for w in 0..WIDE {
                        weights[w] = T::weights(panels[w].add(block), step);
                    }
                    for r in 0..ROWS {
                        let x = T::Lanes::splat(*xs[r].add(first + step));
                        for w in 0..WIDE {
                            sums[r][w] = T::add(x, weights[w], sums[r][w]);
                        }
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (w, sum) in sums.into_iter().enumerate() {
                    self.out.write(row + r, self.column + (panel + w) * PANEL, sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
