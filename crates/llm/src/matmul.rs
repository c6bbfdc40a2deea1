//! Unsafe because threads write disjoint column panels of one output matrix, and the innermost
//! loop works on raw pointers.
//!
//! `y = x W^T` for weights that are laid out once, at load, for the kernel that uses them: panels
//! of [`PANEL`] output columns, each a contiguous `[k, PANEL]` block. Each panel is streamed once
//! for a tile of rows, whose sums stay in registers: at one row the kernel runs at the speed of
//! memory, at many at that of the multiply-add units. Every output element is one sum over k in
//! ascending order, so its bits do not depend on the number of rows, the thread count, or the
//! split into tiles.

#![expect(unsafe_code, reason = "disjoint writes from several threads; raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use rayon::prelude::*;

use crate::simd::{Lanes, WIDTH, on_widest_lanes};

/// Output columns of a panel.
pub(crate) const PANEL: usize = WIDTH;

/// A weight matrix `[n, k]`, packed.
#[derive(Debug)]
pub(crate) struct Packed {
    /// `[n / PANEL rounded up, k, PANEL]`; columns beyond n are zero.
    panels: Vec<[f32; PANEL]>,
    k: usize,
    n: usize,
}

impl Packed {
    /// Packs row-major matrices of the same k, one above the other: a fused projection.
    ///
    /// Each is its number of rows and its `[rows, k]` values.
    pub(crate) fn stack(k: usize, matrices: &[&[f32]]) -> Self {
        let n = matrices.iter().map(|matrix| matrix.len() / k).sum::<usize>();
        let mut panels = vec![[0.0; PANEL]; n.div_ceil(PANEL) * k];
        let rows: Vec<&[f32]> = matrices.iter().flat_map(|matrix| matrix.chunks_exact(k)).collect();
        panels.par_chunks_mut(k).zip(rows.par_chunks(PANEL)).for_each(|(panel, rows)| {
            for (column, row) in rows.iter().enumerate() {
                for (packed, &weight) in panel.iter_mut().zip(*row) {
                    packed[column] = weight;
                }
            }
        });
        Self { panels, k, n }
    }

    /// Output columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Input columns.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Copies row `row` of the matrix, `k` values: the embedding of a token whose table is also
    /// the output projection.
    pub(crate) fn copy_row(&self, row: usize, to: &mut [f32]) {
        let panel = &self.panels[row / PANEL * self.k..][..self.k];
        for (value, packed) in to.iter_mut().zip(panel) {
            *value = packed[row % PANEL];
        }
    }

    /// `x W^T`: `x` is `[m, k]`, the result `[m, n]`, both row-major.
    pub(crate) fn product(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.k;
        let mut y = Vec::with_capacity(rows * self.n);
        let out = Output { start: y.as_mut_ptr(), columns: self.n };
        let num_panels = self.n.div_ceil(PANEL);
        // Enough tasks that threads finish together, each long enough to be worth its start.
        let per_task = (num_panels / (rayon::current_num_threads() * 4)).clamp(2, 12) / 2 * 2;
        (0..num_panels.div_ceil(per_task)).into_par_iter().for_each(|task| {
            let panels = task * per_task..num_panels.min((task + 1) * per_task);
            let weights = &self.panels[panels.start * self.k..panels.end * self.k];
            let job = Job { x, k: self.k, weights, column: panels.start * PANEL, out: &out };
            multiply_panels(&job);
        });
        // SAFETY: the tasks have written every column of every row.
        unsafe { y.set_len(rows * self.n) };
        y
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
struct Job<'a> {
    x: &'a [f32],
    k: usize,
    weights: &'a [[f32; PANEL]],
    /// The output column of the first panel.
    column: usize,
    out: &'a Output,
}

on_widest_lanes! {
    /// Runs a job.
    fn multiply_panels(job: &Job<'_>) = multiply_panels_on
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn multiply_panels_on<L: Lanes>(job: &Job<'_>) {
    let num_panels = job.weights.len() / job.k;
    let mut panel = 0;
    // SAFETY: as the caller's.
    unsafe {
        while panel + 2 <= num_panels && L::ACCUMULATORS >= 24 {
            job.all_rows::<L, 12, 2>(panel);
            panel += 2;
        }
        while panel < num_panels {
            match L::ACCUMULATORS {
                24 => job.all_rows::<L, 12, 1>(panel),
                6 => job.all_rows::<L, 6, 1>(panel),
                _ => job.all_rows::<L, 2, 1>(panel),
            }
            panel += 1;
        }
    }
}

impl Job<'_> {
    /// # Safety
    /// The machine has the lanes' instructions.
    #[inline(always)]
    unsafe fn all_rows<L: Lanes, const ROWS: usize, const WIDE: usize>(&self, panel: usize) {
        let rows = self.x.len() / self.k;
        let mut row = 0;
        // SAFETY: as the caller's; tiles stay within the rows.
        unsafe {
            while row + ROWS <= rows {
                self.tile::<L, ROWS, WIDE>(row, panel);
                row += ROWS;
            }
            match rows - row {
                0 => {}
                1 => self.tile::<L, 1, WIDE>(row, panel),
                2 => self.tile::<L, 2, WIDE>(row, panel),
                3 => self.tile::<L, 3, WIDE>(row, panel),
                4 => self.tile::<L, 4, WIDE>(row, panel),
                5 => self.tile::<L, 5, WIDE>(row, panel),
                6 => self.tile::<L, 6, WIDE>(row, panel),
                7 => self.tile::<L, 7, WIDE>(row, panel),
                8 => self.tile::<L, 8, WIDE>(row, panel),
                9 => self.tile::<L, 9, WIDE>(row, panel),
                10 => self.tile::<L, 10, WIDE>(row, panel),
                _ => self.tile::<L, 11, WIDE>(row, panel),
            }
        }
    }

    /// `ROWS` rows times `WIDE` panels, with all sums in registers.
    ///
    /// # Safety
    /// The machine has the lanes' instructions; rows and panels are there.
    #[inline(always)]
    unsafe fn tile<L: Lanes, const ROWS: usize, const WIDE: usize>(
        &self,
        row: usize,
        panel: usize,
    ) {
        let xs: [*const f32; ROWS] =
            std::array::from_fn(|r| self.x[(row + r) * self.k..][..self.k].as_ptr());
        let ws: [*const [f32; PANEL]; WIDE] =
            std::array::from_fn(|w| self.weights[(panel + w) * self.k..][..self.k].as_ptr());
        // SAFETY: k values can be read at each pointer; each task writes its own columns.
        unsafe {
            let mut sums = [[L::splat(0.0); WIDE]; ROWS];
            for i in 0..self.k {
                let weights: [L; WIDE] = std::array::from_fn(|w| L::load(ws[w].add(i).cast()));
                for r in 0..ROWS {
                    let x = L::splat(*xs[r].add(i));
                    for w in 0..WIDE {
                        sums[r][w] = x.mul_add(weights[w], sums[r][w]);
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(len: usize, salt: usize) -> Vec<f32> {
        (0..len).map(|i| (((i + salt) * 7919 % 1013) as f32 / 1013.0) - 0.5).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_product_is_the_plain_sum(m in 1_usize..40, n in 1_usize..70, k in 1_usize..200) {
            let (x, w) = (values(m * k, 1), values(n * k, 2));
            let y = Packed::stack(k, &[&w]).product(&x);
            prop_assert_eq!(y.len(), m * n);
            for (at, got) in y.iter().enumerate() {
                let (row, column) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
                let want: f64 =
                    row.iter().zip(column).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                prop_assert!((f64::from(*got) - want).abs() < 1e-4, "{got} for {want}");
            }
        }

        /// The bits of a row are the same, alone and among others.
        #[test]
        fn a_row_does_not_depend_on_the_others(m in 2_usize..40, n in 1_usize..40) {
            let k = 64;
            let (x, w) = (values(m * k, 3), values(n * k, 4));
            let packed = Packed::stack(k, &[&w]);
            let together = packed.product(&x);
            for (row, together) in x.chunks_exact(k).zip(together.chunks_exact(n)) {
                prop_assert_eq!(packed.product(row), together);
            }
        }
    }

    #[test]
    fn a_stack_holds_its_matrices_one_above_the_other() {
        let (a, b) = (values(3 * 8, 5), values(20 * 8, 6));
        let stacked = Packed::stack(8, &[&a, &b]);
        let mut row = vec![0.0; 8];
        stacked.copy_row(2, &mut row);
        assert_eq!(row, a[2 * 8..]);
        stacked.copy_row(3 + 19, &mut row);
        assert_eq!(row, b[19 * 8..]);
        assert_eq!(stacked.n(), 23);
    }
}
