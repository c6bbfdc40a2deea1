//! Unsafe because the innermost loops work on raw pointers.
//!
//! The arithmetic of attention: rows of a task against a tile of positions, with all sums in
//! registers, for each kind of [`Lanes`].

#![expect(unsafe_code, reason = "raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use crate::simd::{Lanes, WIDTH, prefetch};

/// The rows of a task, query token by query token, the heads that share its keys and values; with
/// what they have seen so far.
pub(super) struct Rows<'a> {
    /// `[rows, head_dim]`, scaled by `1 / sqrt(head_dim)`.
    queries: &'a [f32],
    /// `[rows, head_dim]`: the values, weighted so far.
    pub(super) sums: Vec<f32>,
    /// `[rows, TILE]`: scores of the tile, then its weights.
    scores: Vec<f32>,
    /// The greatest score so far.
    pub(super) greatest: Vec<f32>,
    /// `[rows, WIDTH]`: the sum of weights so far, lane by lane.
    pub(super) totals: Vec<f32>,
}

impl<'a> Rows<'a> {
    /// Rows that have seen nothing.
    pub(super) fn new(queries: &'a [f32], dim: usize) -> Self {
        let count = queries.len() / dim;
        Self {
            queries,
            sums: vec![0.0; count * dim],
            scores: vec![0.0; count * TILE],
            greatest: vec![f32::NEG_INFINITY; count],
            totals: vec![0.0; count * WIDTH],
        }
    }

    /// Takes in what the rows from `first_row` on saw of later positions.
    pub(super) fn merge(&mut self, later: &Self, first_row: usize, dim: usize) {
        for row in first_row..self.greatest.len() {
            let (ours, theirs) = (self.greatest[row], later.greatest[row]);
            let greatest = ours.max(theirs);
            let (shrink, shrink_later) = ((ours - greatest).exp(), (theirs - greatest).exp());
            self.greatest[row] = greatest;
            for (to, from, len) in
                [(&mut self.sums, &later.sums, dim), (&mut self.totals, &later.totals, WIDTH)]
            {
                let to = to[row * len..][..len].iter_mut();
                for (to, from) in to.zip(&from[row * len..][..len]) {
                    *to = *to * shrink + from * shrink_later;
                }
            }
        }
    }

    /// A row's sum of weights.
    pub(super) fn total(&self, row: usize) -> f32 {
        self.totals[row * WIDTH..][..WIDTH].iter().sum()
    }
}

/// Vectors of positions in a tile.
pub(super) const VECTORS: usize = 4;

/// Positions of a tile: so many that a row's sums stay in registers for a while.
pub(super) const TILE: usize = VECTORS * WIDTH;

/// Positions of a sequence that are taken together.
pub(super) struct Tile {
    /// For each vector of positions: `head_dim` vectors of 16 keys, `key_stride` floats apart.
    pub(super) keys: [*const f32; VECTORS],
    pub(super) key_stride: usize,
    /// As `keys`, of the tile after this one, to be asked for ahead; null where there is none.
    pub(super) next_keys: [*const f32; VECTORS],
    /// The `head_dim` values of each position that is there.
    pub(super) values: [*const f32; TILE],
    /// Positions that are there.
    pub(super) len: usize,
}

/// Scores of every row from `first_row` on, as many rows at a time as there are registers for.
///
/// # Safety
/// The machine has the lanes' instructions; rows, and the tile's pointers, are there.
#[inline(always)]
pub(super) unsafe fn score_rows<L: Lanes>(
    rows: &mut Rows<'_>,
    first_row: usize,
    tile: &Tile,
    dim: usize,
) {
    let num_rows = rows.greatest.len();
    let mut row = first_row;
    // SAFETY: as the caller's; rows stay within the task's.
    unsafe {
        while row + 6 <= num_rows && L::ACCUMULATORS >= 24 {
            score_vectors::<L, 6>(rows, row, tile, row == first_row, dim);
            row += 6;
        }
        while row + 3 <= num_rows {
            score_vectors::<L, 3>(rows, row, tile, row == first_row, dim);
            row += 3;
        }
        while row < num_rows {
            score_vectors::<L, 1>(rows, row, tile, row == first_row, dim);
            row += 1;
        }
    }
}

/// # Safety
/// The machine has the lanes' instructions; rows, and the tile's pointers, are there.
#[inline(always)]
unsafe fn score_vectors<L: Lanes, const N: usize>(
    rows: &mut Rows<'_>,
    row: usize,
    tile: &Tile,
    ahead: bool,
    dim: usize,
) {
    let vectors = tile.len.div_ceil(WIDTH);
    let mut vector = 0;
    // SAFETY: as the caller's; these vectors are there.
    unsafe {
        while vector + VECTORS <= vectors && L::ACCUMULATORS >= 24 {
            score::<L, N, VECTORS>(rows, row, tile, vector, ahead, dim);
            vector += VECTORS;
        }
        while vector + 2 <= vectors {
            score::<L, N, 2>(rows, row, tile, vector, ahead, dim);
            vector += 2;
        }
        if vector < vectors {
            score::<L, N, 1>(rows, row, tile, vector, ahead, dim);
        }
    }
}

/// Scores of `N` rows over `V` vectors of positions, with all sums in registers. Those of the task's
/// first rows, `ahead` of the others, ask for the values of the positions meanwhile: 16 positions in
/// succession, which lie one after the other.
///
/// # Safety
/// The machine has the lanes' instructions; rows, and the tile's pointers, are there.
#[inline(always)]
unsafe fn score<L: Lanes, const N: usize, const V: usize>(
    rows: &mut Rows<'_>,
    row: usize,
    tile: &Tile,
    vector: usize,
    ahead: bool,
    dim: usize,
) {
    // SAFETY: `dim` queries a row and `dim` vectors of keys are there.
    unsafe {
        let queries = rows.queries[row * dim..][..N * dim].as_ptr();
        let mut scores = [[L::splat(0.0); V]; N];
        for i in 0..dim {
            if ahead {
                for v in vector..vector + V {
                    prefetch(tile.values[v * WIDTH].wrapping_add(i * WIDTH));
                }
            }
            let keys: [L; V] =
                std::array::from_fn(|v| L::load(tile.keys[vector + v].add(i * tile.key_stride)));
            for (n, scores) in scores.iter_mut().enumerate() {
                let query = L::splat(*queries.add(n * dim + i));
                for (score, keys) in scores.iter_mut().zip(keys) {
                    *score = query.mul_add(keys, *score);
                }
            }
        }
        let to = rows.scores[row * TILE..][..N * TILE].as_mut_ptr();
        for (n, scores) in scores.into_iter().enumerate() {
            for (v, score) in scores.into_iter().enumerate() {
                score.store(to.add(n * TILE + (vector + v) * WIDTH));
            }
        }
    }
}

/// Turns a row's scores of the tile into weights; `visible` positions of it count. A score that is
/// NaN or infinite makes the row's total NaN, and so its output: the maximum and the exponential
/// would hide it.
///
/// # Safety
/// The machine has the lanes' instructions; rows, and the tile's pointers, are there.
#[inline(always)]
pub(super) unsafe fn softmax_row<L: Lanes>(
    rows: &mut Rows<'_>,
    row: usize,
    visible: usize,
    dim: usize,
) {
    let scores = &mut rows.scores[row * TILE..][..TILE];
    let seen = visible.next_multiple_of(WIDTH);
    scores[visible..seen].fill(f32::MIN);
    // SAFETY: each chunk, and a row's total, is 16 floats.
    unsafe {
        let before = rows.greatest[row];
        let (mut tallest, mut broken) = (L::splat(before), L::splat(0.0));
        for chunk in scores[..seen].chunks_exact(WIDTH) {
            let scores = L::load(chunk.as_ptr());
            tallest = tallest.max(scores);
            // Zero times any number is zero.
            broken = scores.mul_add(L::splat(0.0), broken);
        }
        let greatest = tallest.greatest();
        let total_at = rows.totals[row * WIDTH..][..WIDTH].as_mut_ptr();
        let mut total = L::load(total_at).add(broken);
        if greatest > before {
            let shrink = (before - greatest).exp();
            rows.greatest[row] = greatest;
            total = total.mul(L::splat(shrink));
            rows.sums[row * dim..][..dim].iter_mut().for_each(|sum| *sum *= shrink);
        }
        for chunk in scores[..seen].chunks_exact_mut(WIDTH) {
            let less = L::load(chunk.as_ptr()).add(L::splat(-greatest));
            less.exp().store(chunk.as_mut_ptr());
        }
        // The exponential of the least number is tiny, but what is not seen counts nothing.
        scores[visible..].fill(0.0);
        for chunk in scores[..seen].chunks_exact(WIDTH) {
            total = total.add(L::load(chunk.as_ptr()));
        }
        total.store(total_at);
    }
}

/// Adds the tile's weighted values to the sums of every row from `first_row` on.
///
/// # Safety
/// The machine has the lanes' instructions; rows, and the tile's pointers, are there.
#[inline(always)]
pub(super) unsafe fn add_values<L: Lanes>(
    rows: &mut Rows<'_>,
    first_row: usize,
    tile: &Tile,
    dim: usize,
) {
    let num_rows = rows.greatest.len();
    let mut row = first_row;
    // SAFETY: as the caller's; rows stay within the task's.
    unsafe {
        while row + 6 <= num_rows && L::ACCUMULATORS >= 24 {
            add_to_rows::<L, 6>(rows, row, tile, row == first_row, dim);
            row += 6;
        }
        while row + 3 <= num_rows {
            add_to_rows::<L, 3>(rows, row, tile, row == first_row, dim);
            row += 3;
        }
        while row < num_rows {
            add_to_rows::<L, 1>(rows, row, tile, row == first_row, dim);
            row += 1;
        }
    }
}

/// # Safety
/// The machine has the lanes' instructions; rows, and the tile's pointers, are there.
#[inline(always)]
unsafe fn add_to_rows<L: Lanes, const N: usize>(
    rows: &mut Rows<'_>,
    row: usize,
    tile: &Tile,
    ahead: bool,
    dim: usize,
) {
    let mut at = 0;
    // SAFETY: as the caller's; columns stay within the head.
    unsafe {
        while at + 4 * WIDTH <= dim && L::ACCUMULATORS >= 24 {
            add_columns::<L, N, 4>(rows, row, tile, ahead, dim, at);
            at += 4 * WIDTH;
        }
        while at + 2 * WIDTH <= dim {
            add_columns::<L, N, 2>(rows, row, tile, ahead, dim, at);
            at += 2 * WIDTH;
        }
        while at + WIDTH <= dim {
            add_columns::<L, N, 1>(rows, row, tile, ahead, dim, at);
            at += WIDTH;
        }
    }
    for row in row..row + N {
        for column in at..dim {
            let sum = &mut rows.sums[row * dim + column];
            for (position, values) in tile.values[..tile.len].iter().enumerate() {
                // SAFETY: `dim` values are there at each position of the tile.
                *sum += rows.scores[row * TILE + position] * unsafe { *values.add(column) };
            }
        }
    }
}

/// `N` rows times `W * 16` columns from `column` on, with all sums in registers. Those of the task's
/// first rows, `ahead` of the others, ask for the next tile's keys meanwhile, as many at each position
/// that all have been asked for at the end.
///
/// # Safety
/// The machine has the lanes' instructions; rows, and the tile's pointers, are there.
#[inline(always)]
unsafe fn add_columns<L: Lanes, const N: usize, const W: usize>(
    rows: &mut Rows<'_>,
    row: usize,
    tile: &Tile,
    ahead: bool,
    dim: usize,
    column: usize,
) {
    // SAFETY: `dim` sums a row, a tile's weights a row and `dim` values a position are there.
    unsafe {
        let sums_at = rows.sums[row * dim..][..N * dim].as_mut_ptr().add(column);
        let weights = rows.scores[row * TILE..][..N * TILE].as_ptr();
        let mut sums = [[L::splat(0.0); W]; N];
        for (n, sums) in sums.iter_mut().enumerate() {
            for (w, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(sums_at.add(n * dim + w * WIDTH));
            }
        }
        for (position, values) in tile.values[..tile.len].iter().enumerate() {
            if ahead {
                let next = tile.next_keys[position / WIDTH];
                let dims = (position % WIDTH * dim + column) / WIDTH;
                for w in 0..W {
                    prefetch(next.wrapping_add((dims + w) * tile.key_stride));
                }
            }
            let values: [L; W] = std::array::from_fn(|w| L::load(values.add(column + w * WIDTH)));
            for (n, sums) in sums.iter_mut().enumerate() {
                let weight = L::splat(*weights.add(n * TILE + position));
                for (sum, values) in sums.iter_mut().zip(values) {
                    *sum = weight.mul_add(values, *sum);
                }
            }
        }
        for (n, sums) in sums.into_iter().enumerate() {
            for (w, sum) in sums.into_iter().enumerate() {
                sum.store(sums_at.add(n * dim + w * WIDTH));
            }
        }
    }
}
