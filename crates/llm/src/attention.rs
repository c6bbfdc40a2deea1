//! Unsafe because threads write disjoint parts of one output matrix, and the innermost loops work
//! on raw pointers.
//!
//! Causal attention of a ragged batch over the paged KV cache, on the CPU. A task is one sequence,
//! one head of keys and values with the query heads that share it, and a few query tokens; it
//! streams the sequence's blocks once, a tile of positions at a time, with an online softmax (Milakov
//! and Gimelshein, arXiv 1805.02867; as in `FlashAttention`). The positions of a tile do not depend
//! on how the prompt was split into chunks, and a row's sums not on the rows beside it, so the
//! bits of a token's output are the same whatever else is in the batch.

#![expect(unsafe_code, reason = "disjoint writes from several threads; raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

use rayon::prelude::*;

use crate::kv_cache::KvLayer;
use crate::plan::{ForwardPlan, SequenceSlice};
use crate::simd::{Lanes, WIDTH, on_widest_lanes};

/// Query tokens of a task.
const QUERY_TOKENS: usize = 8;

/// Attention of a batch over one layer's cache.
pub(crate) struct Attention<'a> {
    plan: &'a ForwardPlan,
    /// `[tokens, heads, head_dim]`
    queries: &'a [f32],
    layer: &'a KvLayer,
    heads: usize,
    /// As the queries.
    output: Vec<f32>,
}

/// What a sequence does in a step, by the number of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SequenceKind {
    /// Runs one token.
    Decode,
    /// Runs several.
    Prefill,
}

impl SequenceKind {
    pub(crate) fn of(sequence: &SequenceSlice) -> Self {
        if sequence.tokens == 1 { Self::Decode } else { Self::Prefill }
    }
}

impl<'a> Attention<'a> {
    /// `queries` is `[tokens, heads, head_dim]`.
    pub(crate) fn new(
        plan: &'a ForwardPlan,
        queries: &'a [f32],
        layer: &'a KvLayer,
        heads: usize,
    ) -> Self {
        Self { plan, queries, layer, heads, output: vec![0.0; queries.len()] }
    }

    /// Runs the tokens of all sequences of these kinds.
    pub(crate) fn run(&mut self, kinds: &[SequenceKind]) {
        let out = Output(self.output.as_mut_ptr());
        let tasks: Vec<Task<'_>> = self
            .plan
            .sequences
            .iter()
            .filter(|sequence| kinds.contains(&SequenceKind::of(sequence)))
            .flat_map(|sequence| self.tasks_of(sequence, &out))
            .collect();
        tasks.into_par_iter().for_each(|task| run_task(&task));
    }

    /// `[tokens, heads, head_dim]`; zero for tokens that have not been run.
    pub(crate) fn into_output(self) -> Vec<f32> {
        self.output
    }

    fn tasks_of<'b>(
        &'b self,
        sequence: &'b SequenceSlice,
        out: &'b Output,
    ) -> impl Iterator<Item = Task<'b>> {
        let blocks = &self.plan.block_ids[sequence.blocks.clone()];
        (0..sequence.tokens).step_by(QUERY_TOKENS).flat_map(move |first| {
            (0..self.layer.shape.kv_heads).map(move |kv_head| Task {
                queries: self.queries,
                layer: self.layer,
                blocks,
                heads: self.heads,
                kv_head,
                first_token: sequence.first_token + first,
                tokens: QUERY_TOKENS.min(sequence.tokens - first),
                first_position: sequence.context + first,
                out,
            })
        })
    }
}

/// Where tasks write, each its own heads of its own tokens.
struct Output(*mut f32);

// SAFETY: each task writes other elements.
unsafe impl Sync for Output {}

/// Some tokens of one sequence, one head of keys and values.
struct Task<'a> {
    queries: &'a [f32],
    layer: &'a KvLayer,
    /// The sequence's block table.
    blocks: &'a [u32],
    /// Query heads.
    heads: usize,
    kv_head: usize,
    /// The first token's row in the batch.
    first_token: usize,
    tokens: usize,
    /// The first token's position in its sequence.
    first_position: usize,
    out: &'a Output,
}

on_widest_lanes! {
    /// Runs a task.
    fn run_task(task: &Task<'_>) = run_task_on
}

/// The rows of a task: query token by query token, the heads that share its keys and values.
struct Rows {
    /// `[rows, head_dim]`, scaled by `1 / sqrt(head_dim)`.
    queries: Vec<f32>,
    /// `[rows, head_dim]`: the values, weighted so far.
    sums: Vec<f32>,
    /// `[rows, TILE]`: scores of the tile, then its weights.
    scores: Vec<f32>,
    /// The greatest score so far.
    greatest: Vec<f32>,
    /// The sum of weights so far.
    total: Vec<f32>,
}

impl Task<'_> {
    fn group(&self) -> usize {
        self.heads / self.layer.shape.kv_heads
    }

    /// Where a row's head stands in queries and output.
    fn row_at(&self, row: usize) -> usize {
        let (token, head) = (row / self.group(), row % self.group());
        let head = self.kv_head * self.group() + head;
        ((self.first_token + token) * self.heads + head) * self.layer.shape.head_dim
    }

    fn rows(&self) -> Rows {
        let dim = self.layer.shape.head_dim;
        let count = self.tokens * self.group();
        let scale = 1.0 / (dim as f32).sqrt();
        let queries = (0..count)
            .flat_map(|row| &self.queries[self.row_at(row)..][..dim])
            .map(|query| query * scale)
            .collect();
        Rows {
            queries,
            sums: vec![0.0; count * dim],
            scores: vec![0.0; count * TILE],
            greatest: vec![f32::NEG_INFINITY; count],
            total: vec![0.0; count],
        }
    }
}

/// Vectors of positions in a tile.
const VECTORS: usize = 4;

/// Positions of a tile: so many that a row's sums stay in registers for a while.
const TILE: usize = VECTORS * WIDTH;

/// Positions of a sequence that are taken together.
struct Tile {
    /// For each vector of positions: `head_dim` vectors of 16 keys, `key_stride` floats apart.
    keys: [*const f32; VECTORS],
    key_stride: usize,
    /// The `head_dim` values of each position that is there.
    values: [*const f32; TILE],
    /// Positions that are there.
    len: usize,
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn run_task_on<L: Lanes>(task: &Task<'_>) {
    let mut rows = task.rows();
    let num_rows = rows.greatest.len();
    let dim = task.layer.shape.head_dim;
    let positions = task.first_position + task.tokens;
    let mut gathered = Vec::new();
    for first in (0..positions).step_by(TILE) {
        let tile = task.tile(first, positions, &mut gathered);
        // Tokens before the tile do not see it.
        let first_row = first.saturating_sub(task.first_position) * task.group();
        // SAFETY: the machine has the instructions; the tile's pointers are good for its length.
        unsafe {
            score_rows::<L>(&mut rows, first_row, &tile, dim);
            for row in first_row..num_rows {
                let position = task.first_position + row / task.group();
                softmax_row::<L>(&mut rows, row, (position + 1 - first).min(TILE), dim);
            }
            add_values::<L>(&mut rows, first_row, &tile, dim);
        }
    }
    for row in 0..num_rows {
        let (sums, total) = (&rows.sums[row * dim..][..dim], rows.total[row]);
        for (i, sum) in sums.iter().enumerate() {
            // SAFETY: no other task writes this head of this token.
            unsafe { *task.out.0.add(task.row_at(row) + i) = sum / total };
        }
    }
}

impl Task<'_> {
    /// The tile that begins at position `first`. Where a block holds whole vectors its keys are
    /// used as they lie; else they are gathered.
    #[inline(always)]
    fn tile(&self, first: usize, positions: usize, gathered: &mut Vec<f32>) -> Tile {
        let shape = self.layer.shape;
        let len = TILE.min(positions - first);
        let place = |position: usize| {
            let block = self.blocks[position / shape.block_size] as usize;
            (shape.head_at(block, self.kv_head), position % shape.block_size)
        };
        let mut values = [std::ptr::null(); TILE];
        for (i, values) in values[..len].iter_mut().enumerate() {
            let (head, offset) = place(first + i);
            *values = self.layer.values[head + offset * shape.head_dim..].as_ptr();
        }
        let mut keys = [std::ptr::null(); VECTORS];
        let vectors = keys[..len.div_ceil(WIDTH)].iter_mut().enumerate();
        if shape.block_size.is_multiple_of(WIDTH) {
            for (vector, keys) in vectors {
                let (head, offset) = place(first + vector * WIDTH);
                *keys = self.layer.keys[head + offset..].as_ptr();
            }
            return Tile { keys, key_stride: shape.block_size, values, len };
        }
        let vector_len = shape.head_dim * WIDTH;
        gathered.resize(VECTORS * vector_len, 0.0);
        for i in 0..len {
            let (head, offset) = place(first + i);
            let to = &mut gathered[i / WIDTH * vector_len..][..vector_len];
            for dim in 0..shape.head_dim {
                to[dim * WIDTH + i % WIDTH] =
                    self.layer.keys[head + dim * shape.block_size + offset];
            }
        }
        for (vector, keys) in vectors {
            *keys = gathered[vector * vector_len..].as_ptr();
        }
        Tile { keys, key_stride: WIDTH, values, len }
    }
}

/// Scores of every row from `first_row` on, as many rows at a time as there are registers for.
///
/// # Safety
/// As `run_task_on`'s.
#[inline(always)]
unsafe fn score_rows<L: Lanes>(rows: &mut Rows, first_row: usize, tile: &Tile, dim: usize) {
    let num_rows = rows.greatest.len();
    let mut row = first_row;
    // SAFETY: as the caller's; rows stay within the task's.
    unsafe {
        while row + 6 <= num_rows && L::ACCUMULATORS >= 24 {
            score_vectors::<L, 6>(rows, row, tile, dim);
            row += 6;
        }
        while row + 3 <= num_rows {
            score_vectors::<L, 3>(rows, row, tile, dim);
            row += 3;
        }
        while row < num_rows {
            score_vectors::<L, 1>(rows, row, tile, dim);
            row += 1;
        }
    }
}

/// # Safety
/// As `run_task_on`'s.
#[inline(always)]
unsafe fn score_vectors<L: Lanes, const N: usize>(
    rows: &mut Rows,
    row: usize,
    tile: &Tile,
    dim: usize,
) {
    let vectors = tile.len.div_ceil(WIDTH);
    let mut vector = 0;
    // SAFETY: as the caller's; these vectors are there.
    unsafe {
        while vector + VECTORS <= vectors && L::ACCUMULATORS >= 24 {
            score::<L, N, VECTORS>(rows, row, tile, vector, dim);
            vector += VECTORS;
        }
        while vector + 2 <= vectors {
            score::<L, N, 2>(rows, row, tile, vector, dim);
            vector += 2;
        }
        if vector < vectors {
            score::<L, N, 1>(rows, row, tile, vector, dim);
        }
    }
}

/// Scores of `N` rows over `V` vectors of positions, with all sums in registers.
///
/// # Safety
/// As `run_task_on`'s.
#[inline(always)]
unsafe fn score<L: Lanes, const N: usize, const V: usize>(
    rows: &mut Rows,
    row: usize,
    tile: &Tile,
    vector: usize,
    dim: usize,
) {
    // SAFETY: `dim` queries a row and `dim` vectors of keys are there.
    unsafe {
        let queries = rows.queries[row * dim..][..N * dim].as_ptr();
        let mut scores = [[L::splat(0.0); V]; N];
        for i in 0..dim {
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

/// Turns a row's scores of the tile into weights; `visible` positions of it count.
///
/// # Safety
/// As `run_task_on`'s.
#[inline(always)]
unsafe fn softmax_row<L: Lanes>(rows: &mut Rows, row: usize, visible: usize, dim: usize) {
    let scores = &mut rows.scores[row * TILE..][..TILE];
    scores[visible..].fill(f32::NEG_INFINITY);
    let seen = visible.div_ceil(WIDTH) * WIDTH;
    // SAFETY: each chunk is 16 scores.
    unsafe {
        let before = rows.greatest[row];
        let tallest = scores[..seen]
            .chunks_exact(WIDTH)
            .map(|chunk| L::load(chunk.as_ptr()))
            .fold(L::splat(before), |tallest, scores| tallest.max(scores));
        let greatest = tallest.greatest();
        let mut total = L::splat(0.0);
        for chunk in scores[..seen].chunks_exact_mut(WIDTH) {
            let less = L::load(chunk.as_ptr()).mul_add(L::splat(1.0), L::splat(-greatest));
            less.exp().store(chunk.as_mut_ptr());
        }
        // The exponential of minus infinity is tiny, but what is not seen counts nothing.
        scores[visible..].fill(0.0);
        for chunk in scores[..seen].chunks_exact(WIDTH) {
            total = L::load(chunk.as_ptr()).mul_add(L::splat(1.0), total);
        }
        if greatest > before {
            let shrink = (before - greatest).exp();
            rows.greatest[row] = greatest;
            rows.total[row] *= shrink;
            rows.sums[row * dim..][..dim].iter_mut().for_each(|sum| *sum *= shrink);
        }
        rows.total[row] += total.sum();
    }
}

/// Adds the tile's weighted values to the sums of every row from `first_row` on.
///
/// # Safety
/// As `run_task_on`'s.
#[inline(always)]
unsafe fn add_values<L: Lanes>(rows: &mut Rows, first_row: usize, tile: &Tile, dim: usize) {
    let num_rows = rows.greatest.len();
    let mut row = first_row;
    // SAFETY: as the caller's; rows stay within the task's.
    unsafe {
        while row + 6 <= num_rows && L::ACCUMULATORS >= 24 {
            add_to_rows::<L, 6>(rows, row, tile, dim);
            row += 6;
        }
        while row + 3 <= num_rows {
            add_to_rows::<L, 3>(rows, row, tile, dim);
            row += 3;
        }
        while row < num_rows {
            add_to_rows::<L, 1>(rows, row, tile, dim);
            row += 1;
        }
    }
}

/// # Safety
/// As `run_task_on`'s.
#[inline(always)]
unsafe fn add_to_rows<L: Lanes, const N: usize>(
    rows: &mut Rows,
    row: usize,
    tile: &Tile,
    dim: usize,
) {
    let mut at = 0;
    // SAFETY: as the caller's; columns stay within the head.
    unsafe {
        while at + 4 * WIDTH <= dim && L::ACCUMULATORS >= 24 {
            add_columns::<L, N, 4>(rows, row, tile, dim, at);
            at += 4 * WIDTH;
        }
        while at + 2 * WIDTH <= dim {
            add_columns::<L, N, 2>(rows, row, tile, dim, at);
            at += 2 * WIDTH;
        }
        while at + WIDTH <= dim {
            add_columns::<L, N, 1>(rows, row, tile, dim, at);
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

/// `N` rows times `W * 16` columns from `column` on, with all sums in registers.
///
/// # Safety
/// As `run_task_on`'s.
#[inline(always)]
unsafe fn add_columns<L: Lanes, const N: usize, const W: usize>(
    rows: &mut Rows,
    row: usize,
    tile: &Tile,
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

#[cfg(test)]
mod tests;
