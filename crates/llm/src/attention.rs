//! Unsafe because threads write disjoint parts of one output matrix, and keys and values are handed
//! to the kernel as raw pointers.
//!
//! Causal attention of a ragged batch over the paged KV cache, on the CPU. A task is one sequence,
//! one head of keys and values with the query heads that share it, and a few query tokens; it
//! streams the sequence's blocks once, a tile of positions at a time, with an online softmax (Milakov
//! and Gimelshein, arXiv 1805.02867; as in `FlashAttention`). The positions of a tile do not depend
//! on how the prompt was split into chunks, and a row's sums not on the rows beside it, so the
//! bits of a token's output are the same whatever else is in the batch.

#![expect(unsafe_code, reason = "disjoint writes from several threads; raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

mod kernel;

use rayon::prelude::*;

use crate::kv_cache::KvLayer;
use crate::plan::{ForwardPlan, SequenceSlice};
use crate::simd::{Lanes, WIDTH, on_widest_lanes};
use kernel::{Rows, TILE, Tile, VECTORS, add_values, score_rows, softmax_row};

/// Rows of a task: so many that keys and values, once loaded, are used often, and so few that all
/// rows of a task stay in the first cache.
const ROWS: usize = 48;

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
        let most_tokens = (ROWS * self.layer.shape.kv_heads / self.heads).max(1);
        (0..sequence.tokens).step_by(most_tokens).flat_map(move |first| {
            (0..self.layer.shape.kv_heads).map(move |kv_head| Task {
                queries: self.queries,
                layer: self.layer,
                blocks,
                heads: self.heads,
                kv_head,
                first_token: sequence.first_token + first,
                tokens: most_tokens.min(sequence.tokens - first),
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
            total: vec![0.0; count * WIDTH],
        }
    }
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
        // SAFETY: a row's total is 16 floats.
        let total = unsafe { L::load(rows.total[row * WIDTH..][..WIDTH].as_ptr()).sum() };
        for (i, sum) in rows.sums[row * dim..][..dim].iter().enumerate() {
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

#[cfg(test)]
mod tests;
