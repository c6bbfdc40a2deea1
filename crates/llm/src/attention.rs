//! Unsafe because threads write disjoint parts of one output matrix, and keys and values are handed
//! to the kernel as raw pointers.
//!
//! Causal attention of a ragged batch over the paged KV cache, on the CPU. A task is one sequence,
//! one head of keys and values with the query heads that share it, and a few query tokens. Its
//! positions are split into spans, which several threads may take (as in Flash-Decoding); a span
//! streams the sequence's blocks once, a tile of positions at a time, with an online softmax (Milakov
//! and Gimelshein, arXiv 1805.02867; as in `FlashAttention`), and the spans are merged in order. The
//! positions of a span and of a tile do not depend on how the prompt was split into chunks or on the
//! number of threads, and a row's sums not on the rows beside it, so the bits of a token's output are
//! the same whatever else is in the batch.

#![expect(unsafe_code, reason = "disjoint writes from several threads; raw loads in the hot loop")]
#![expect(clippy::inline_always, reason = "a kernel must be compiled with its caller's features")]

mod kernel;

use std::ops::Range;

use rayon::prelude::*;

use crate::kv_cache::KvLayer;
use crate::plan::{ForwardPlan, SequenceSlice};
use crate::simd::{Lanes, WIDTH, on_widest_lanes};
use kernel::{Rows, TILE, Tile, VECTORS, add_values, score_rows, softmax_row};

/// Rows of a task: so many that keys and values, once loaded, are used often, and so few that all
/// rows of a task stay in the first cache.
const ROWS: usize = 48;

/// Positions of a span: so few that the threads share one long sequence evenly, and so many that
/// merging costs little beside reading them.
const SPAN: usize = 8 * TILE;

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
        tasks.into_par_iter().for_each(|task| task.run(attend));
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
    /// Lets the rows of a task attend to a span of its positions.
    fn attend(task: &Task<'_>, span: Range<usize>, rows: &mut Rows<'_>) = attend_on
}

impl Task<'_> {
    /// `attend` is [`attend`](attend()), or that on lanes of one kind.
    fn run(&self, attend: impl Fn(&Self, Range<usize>, &mut Rows<'_>) + Sync) {
        let spans: Vec<usize> = (0..self.positions()).step_by(SPAN).collect();
        let queries = self.scaled_queries();
        let mut parts: Vec<Rows<'_>> = spans
            .into_par_iter()
            .map(|first| {
                let mut rows = Rows::new(&queries, self.layer.shape.head_dim);
                attend(self, first..self.positions().min(first + SPAN), &mut rows);
                rows
            })
            .collect();
        let (whole, later) = parts.split_first_mut().expect("a token sees itself");
        for (part, first) in later.iter().zip((SPAN..).step_by(SPAN)) {
            whole.merge(part, self.first_row(first), self.layer.shape.head_dim);
        }
        self.write(whole);
    }

    /// Positions that the last token sees.
    fn positions(&self) -> usize {
        self.first_position + self.tokens
    }

    /// The first row that sees a position.
    fn first_row(&self, position: usize) -> usize {
        position.saturating_sub(self.first_position) * self.group()
    }

    fn write(&self, rows: &Rows<'_>) {
        let dim = self.layer.shape.head_dim;
        for (row, sums) in rows.sums.chunks_exact(dim).enumerate() {
            let total = rows.total(row);
            for (i, sum) in sums.iter().enumerate() {
                // SAFETY: no other task writes this head of this token.
                unsafe { *self.out.0.add(self.row_at(row) + i) = sum / total };
            }
        }
    }

    fn group(&self) -> usize {
        self.heads / self.layer.shape.kv_heads
    }

    /// Where a row's head stands in queries and output.
    fn row_at(&self, row: usize) -> usize {
        let (token, head) = (row / self.group(), row % self.group());
        let head = self.kv_head * self.group() + head;
        ((self.first_token + token) * self.heads + head) * self.layer.shape.head_dim
    }

    /// `[rows, head_dim]`, scaled by `1 / sqrt(head_dim)`.
    fn scaled_queries(&self) -> Vec<f32> {
        let dim = self.layer.shape.head_dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let rows = (0..self.tokens * self.group()).map(|row| &self.queries[self.row_at(row)..]);
        rows.flat_map(|row| &row[..dim]).map(|query| query * scale).collect()
    }
}

/// # Safety
/// The machine has the lanes' instructions.
#[inline(always)]
unsafe fn attend_on<L: Lanes>(task: &Task<'_>, span: Range<usize>, rows: &mut Rows<'_>) {
    let num_rows = rows.greatest.len();
    let dim = task.layer.shape.head_dim;
    let mut gathered = Vec::new();
    for first in span.clone().step_by(TILE) {
        let tile = task.tile(first, span.end, &mut gathered);
        // Tokens before the tile do not see it.
        let first_row = task.first_row(first);
        // SAFETY: the machine has the instructions; the tile's pointers are good for its length.
        unsafe {
            score_rows::<L>(rows, first_row, &tile, dim);
            for row in first_row..num_rows {
                let position = task.first_position + row / task.group();
                softmax_row::<L>(rows, row, (position + 1 - first).min(TILE), dim);
            }
            add_values::<L>(rows, first_row, &tile, dim);
        }
    }
}

impl Task<'_> {
    /// The tile from position `first` on, up to `end` at most. Where a block holds whole vectors its
    /// keys are used as they lie; else they are gathered.
    #[inline(always)]
    fn tile(&self, first: usize, end: usize, gathered: &mut Vec<f32>) -> Tile {
        let shape = self.layer.shape;
        let len = TILE.min(end - first);
        let mut values = [std::ptr::null(); TILE];
        for (values, (head, offset)) in values[..len].iter_mut().zip(self.places(first)) {
            *values = self.layer.values[head + offset * shape.head_dim..].as_ptr();
        }
        if shape.block_size.is_multiple_of(WIDTH) {
            let keys = self.keys(first, end);
            let next_keys = self.keys(first + TILE, self.positions());
            return Tile { keys, key_stride: shape.block_size, next_keys, values, len };
        }
        let vector_len = shape.head_dim * WIDTH;
        gathered.resize(VECTORS * vector_len, 0.0);
        for (i, (head, offset)) in (0..len).zip(self.places(first)) {
            let to = &mut gathered[i / WIDTH * vector_len..][..vector_len];
            for dim in 0..shape.head_dim {
                to[dim * WIDTH + i % WIDTH] =
                    self.layer.keys[head + dim * shape.block_size + offset];
            }
        }
        let keys = std::array::from_fn(|vector| gathered[vector * vector_len..].as_ptr());
        let next_keys = [std::ptr::null(); VECTORS];
        Tile { keys, key_stride: WIDTH, next_keys, values, len }
    }

    /// Where the positions from `first` on stand in keys and values: the head of their block, and
    /// their offset in it. Walked, as a division for each position would be felt.
    #[inline(always)]
    fn places(&self, first: usize) -> impl Iterator<Item = (usize, usize)> {
        let shape = self.layer.shape;
        let blocks = self.blocks[first / shape.block_size..].iter();
        let places = blocks.flat_map(move |block| {
            let head = shape.head_at(*block as usize, self.kv_head);
            (0..shape.block_size).map(move |offset| (head, offset))
        });
        places.skip(first % shape.block_size)
    }

    /// The first key of each vector of positions of a tile, null from `end` on.
    #[inline(always)]
    fn keys(&self, first: usize, end: usize) -> [*const f32; VECTORS] {
        let shape = self.layer.shape;
        std::array::from_fn(|vector| {
            let position = first + vector * WIDTH;
            if position >= end {
                return std::ptr::null();
            }
            let block = self.blocks[position / shape.block_size] as usize;
            let head = shape.head_at(block, self.kv_head);
            self.layer.keys[head + position % shape.block_size..].as_ptr()
        })
    }
}

#[cfg(test)]
mod tests;
